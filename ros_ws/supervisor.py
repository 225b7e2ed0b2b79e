"""Starting the node table as processes, watching them, ending them in order. No ROS in this process."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from horseshoe.ros_ws.node_table import NodeSpec, parameter_file

PATIENCE = (6.0, 3.0)  # [s] after SIGINT, after SIGTERM
POLL = 0.02  # [s] between two looks at the processes: the arms must stop soon after one of them died
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
INTERRUPTED = 130


def _die_with_parent() -> None:
    """Ask the kernel for a SIGINT when the parent is gone, so that no node outlives a killed `horseshoe up`."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGINT)


def last_words(log: Path) -> str:
    """What a node said last, without time and name; empty if it said nothing."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rpartition("]: ")[2] if lines else ""


class Supervisor:
    """Processes of a node table; a context manager.

    Any process that ends makes all end, in reverse order of their start: without its guard, log or world no arm moves.

    Args:
        table: what to start.
        log: folder for one log file per node.
        patience: scale of the time that processes get to end.
        parameters: file with those that do not depend on launch arguments.
    """

    def __init__(self, table: list[NodeSpec], log: Path, patience: float = 1.0, parameters: Path | None = None) -> None:
        self.table, self.log, self._patience = table, log, patience
        self._parameters = parameters or parameter_file()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[Path] = []
        self.interrupted = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "Supervisor":
        self.log.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._interrupt)
        try:
            for spec in self.table:
                self._start(spec)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        for file in self._files:
            file.unlink(missing_ok=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def _start(self, spec: NodeSpec) -> None:
        self._files.append(spec.save_parameters())
        command = [sys.executable, "-m", spec.module, "--ros-args", "--params-file", str(self._parameters)]
        command += ["--params-file", str(self._files[-1])]
        command += ["-r", f"__ns:={spec.namespace}"] if spec.namespace else []
        for source, target in spec.remappings:
            command += ["-r", f"{source}:={target}"]
        environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "OMP_NUM_THREADS": "1", **os.environ}
        with open(self.log / f"{spec.full_name.strip('/').replace('/', '_')}.log", "ab") as log:
            # A session of its own: Ctrl-C reaches this process only, which then ends the others in order.
            self.processes[spec.full_name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait(self, each: Callable[[], None] = lambda: None) -> tuple[str, int]:
        """Wait for the first process that ends, or for Ctrl-C.

        Args:
            each: called again and again meanwhile.

        Returns:
            Name of the node and its exit code; "" and 130 after Ctrl-C.
        """
        while not self.interrupted:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    each()
                    return name, process.returncode
            each()
            time.sleep(POLL)
        return "", INTERRUPTED

    def stop(self, at_once: bool = False) -> dict[str, int]:
        """End every process: the operator and the policy first, then arms, then the rest; wait for all.

        Args:
            at_once: a node died: tell all that move something to end, before anybody is waited for.

        Returns:
            Exit code of every node; negative is the signal that ended it.
        """
        told = set()
        for spec in self.table if at_once else ():
            process = self.processes.get(spec.full_name)
            if spec.lifecycle and process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)
                told.add(process)
        for number, patience in zip((signal.SIGINT, signal.SIGTERM), PATIENCE, strict=True):
            for process in reversed(self.processes.values()):
                if process.poll() is None:
                    if process not in told:
                        process.send_signal(number)
                    # The next one may be what this one needs to stop its arm: let it go first.
                    self._wait_for(process, patience * self._patience)
            told = set()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        return {name: process.returncode for name, process in self.processes.items()}

    @staticmethod
    def _wait_for(process: "subprocess.Popen[bytes]", patience: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
