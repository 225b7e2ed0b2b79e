"""`horseshoe up` with real processes: the unmodified SDK, emulated controllers, signals, kills and exit codes."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("xarm")

from horseshoe.hardware.emulator import cannot_bind
from horseshoe.ros_ws.bag import read
from tests.conftest import NoteFault

# Deadlines are judged elsewhere; this machine may be busy.
PATIENCE = ("patience:=100", "allow_out_of_contract:=true")
UNDER_WAY = 2.0  # [s] after which the policy moves the arms; what is measured of a standing arm says nothing
Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.skipif(bool(cannot_bind("127.1.0.1")), reason="no controller can be emulated here")


def descendants(pid: int) -> dict[str, int]:
    """Processes that a process started, by the module they run."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text().split("\0")
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid and "-m" in command:
            name = command[command.index("-m") + 1].rpartition(".")[2]
            side = next((c.partition(":=/")[2] for c in command if c.startswith("__ns:=")), "")
            found[f"{side}/{name}" if side else name] = int(entry.name)
    return found


def wait_for(path: Path, text: str, process: "subprocess.Popen[str]", timeout: float = 600.0) -> None:
    """Wait until a log file says something."""
    end = time.monotonic() + timeout
    while not (path.exists() and text in path.read_text(errors="replace")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} never said {text!r}"
        time.sleep(0.05)


def finish(process: "subprocess.Popen[str]", nodes: dict[str, int]) -> tuple[int, str]:
    """Wait for the end; nothing may be left of it."""
    out, err = process.communicate(timeout=600)
    assert not [name for name, pid in nodes.items() if Path(f"/proc/{pid}").exists()]
    return process.returncode, out + err


def logs(folder: Path) -> str:
    return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')}" for f in sorted(folder.glob("*.log")))


def test_episodes_run_through_ros_sdk_and_emulator_and_leave_a_record(
    start_up: Start, policy: Path, tmp_path: Path
) -> None:
    from horseshoe.ros_ws.report import write_report

    process = start_up(f"policy:={policy}", *PATIENCE, f"record:={tmp_path / 'bag'}")
    wait_for(tmp_path / "log" / "operator.log", "ready", process)
    nodes = descendants(process.pid)
    assert set(nodes) == {
        "world_node", "guard_node", "recorder_node", "left/arm_node", "right/arm_node", "policy_node", "operator_node",
    }  # fmt: skip
    code, said = finish(process, nodes)
    assert code == 0, said + logs(tmp_path / "log")
    assert "episode 1/1: no_grasp" in said
    assert "terminate called" not in logs(tmp_path / "log")
    run = read(tmp_path / "bag")
    assert [o["name"] for o in run.outcomes] == ["no_grasp"]
    assert set(run.delays) == {"left", "right"}
    for arm in ("left", "right"):
        assert 0.05 < abs(run.measured[arm].values[-1, 0]) < 0.7  # towards where this policy sends joint 1
        assert len(run.commands[arm]) > 3
    assert "blueprint: u_shape" in run.contract
    page = write_report(tmp_path / "bag", tmp_path / "report.html", video=True).read_text()
    assert (tmp_path / "report.mp4").stat().st_size > 10_000
    assert page.count("data:image/png;base64,") == 5
    assert "no_grasp" in page


def held_after(timing: Path, when: float) -> float:
    """Time from a moment until the arms were told nothing new any more, by what was sent and executed [s]."""
    import numpy as np

    last = when
    for file in timing.glob("*.npz"):
        log = np.load(file)
        moved = log["time"][1:][np.any(np.diff(log["sent"], axis=0) != 0, axis=1)]
        last = max([last, *moved[-1:]])
    return float(last - when)


VICTIMS = ("policy_node", "left/arm_node", "right/arm_node", "guard_node", "world_node", "recorder_node")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_node_ends_everything_and_is_named(
    start_up: Start, make_policy: Any, note_fault: NoteFault, tmp_path: Path, victim: str
) -> None:
    direct = "sim" if victim in ("policy_node", "guard_node", "recorder_node") else "emulated"
    policy = make_policy(restless=True, horizon=120.0)
    files = [f"record:={tmp_path / 'bag'}", f"timing:={tmp_path / 'timing'}"]
    process = start_up(f"policy:={policy}", *PATIENCE, f"robot:={direct}", *files)
    wait_for(tmp_path / "log" / "operator.log", "episode 1 running", process)
    time.sleep(UNDER_WAY)
    nodes = descendants(process.pid)
    os.kill(nodes[victim], signal.SIGKILL)
    when = time.monotonic()
    code, said = finish(process, nodes)
    assert code == 1, said
    message = f"{victim.replace('_node', '')} ended unexpectedly (signal 9)"
    assert message in said
    everything = logs(tmp_path / "log")
    assert "terminate called" not in everything
    if victim != "recorder_node":  # the log is whole, whoever else dies
        assert min(len(read(tmp_path / "bag").commands[arm]) for arm in ("left", "right")) > 2
    note_fault("a node is killed", victim.replace("_node", ""), message, held_after(tmp_path / "timing", when))


def test_a_record_that_cannot_be_written_stops_the_arms(
    start_up: Start, make_policy: Any, note_fault: NoteFault, tmp_path: Path
) -> None:
    policy = make_policy(restless=True, horizon=120.0)
    files = [f"record:={tmp_path / 'bag'}", f"timing:={tmp_path / 'timing'}"]
    process = start_up(f"policy:={policy}", *PATIENCE, "robot:=sim", *files)
    wait_for(tmp_path / "log" / "operator.log", "episode 1 running", process)
    nodes = descendants(process.pid)
    # The bag, written in pieces of a megabyte, does not fit into this; the node's log, which is a file too, does.
    resource.prlimit(nodes["recorder_node"], resource.RLIMIT_FSIZE, (2**18, 2**18))
    code, said = finish(process, nodes)
    assert code == 1, said
    written = (tmp_path / "log" / "recorder.log").read_text()
    failure = next((line for line in written.splitlines() if "cannot write to" in line), "")
    assert "the arms are stopped" in failure, said + logs(tmp_path / "log")
    assert "recorder: cannot write to" in said  # whether the arms' operator or the recorder ends first
    full = (tmp_path / "bag" / "bag.mcap").stat().st_mtime  # when it took the last byte
    when = full - time.time() + time.monotonic()
    note_fault("a write fails", "recorder", "cannot write to the bag", held_after(tmp_path / "timing", when))


@pytest.mark.parametrize("moment", ["at once", "while connecting", "while moving"])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(
    start_up: Start, make_policy: Any, note_fault: NoteFault, tmp_path: Path, moment: str
) -> None:
    policy = make_policy(restless=True, horizon=120.0)
    files = [f"record:={tmp_path / 'bag'}", f"timing:={tmp_path / 'timing'}"]
    process = start_up(f"policy:={policy}", *PATIENCE, *files)
    log = tmp_path / "log"
    if moment == "at once":
        wait_for(log / "world.log", "", process)
    elif moment == "while connecting":
        wait_for(log / "world.log", "world ready", process)
    else:
        wait_for(log / "operator.log", "episode 1 running", process)
        time.sleep(UNDER_WAY)
    nodes = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    when = time.monotonic()
    code, said = finish(process, nodes)
    assert code == 130, said
    note_fault(f"Ctrl-C {moment}", "horseshoe up", "interrupted", held_after(tmp_path / "timing", when))
    assert "terminate called" not in logs(log)
    if moment == "while moving":
        assert "the operator node ended" in (log / "left_arm.log").read_text()  # stopped before it was disconnected
        assert min(len(read(tmp_path / "bag").commands[arm]) for arm in ("left", "right")) > 2


def test_a_killed_starter_takes_its_nodes_with_it(start_up: Start, policy: Path, tmp_path: Path) -> None:
    process = start_up(f"policy:={policy}", *PATIENCE, "robot:=sim")
    wait_for(tmp_path / "log" / "world.log", "world ready", process)
    nodes = descendants(process.pid)
    process.kill()
    process.communicate()
    end = time.monotonic() + 600
    while any(Path(f"/proc/{pid}").exists() for pid in nodes.values()):
        assert time.monotonic() < end, nodes
        time.sleep(0.05)


def test_what_does_not_fit_is_refused_before_anything_starts(start_up: Start, policy: Path) -> None:
    process = start_up(f"policy:={policy}", "robot:=real", "left_ip:=", "right_ip:=")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "robot:=real needs left_ip:=... and right_ip:=..." in err
