"""The servo path: two arms through driver, SDK and emulated controllers in processes of their own, beside the bare SDK.

Run it with `horseshoe bench control`. Both cases alternate arm processes on the same machine in the same run; what they
share is named in the output, because a loaded machine makes both slower.
"""

import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.emulator import cannot_bind

HOSTS = {"left": "127.0.0.11", "right": "127.0.0.12"}  # not those of `horseshoe emulator`
HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
SWING = 0.2 * np.array([1.0, 0.3, 0.3, 1.0, 1.0, 1.0])
CHUNK = 0.1  # [s] of targets per command, as a policy at 10 Hz sends them
CASES = ("driver", "bare SDK")


def target(when: np.ndarray) -> np.ndarray:
    """The motion both cases stream, [rad], shape (n, 6)."""
    return HOME + np.sin(1.5 * when)[:, None] * SWING


def emulate(host: str, pipe: Connection) -> None:
    """A controller in a process of its own; answers "read" with the targets it executed since the last time."""
    from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm

    controller = Controller(KinematicArm(HOME))
    executed: list[tuple[float, np.ndarray]] = []
    controller.on_execute = lambda q: executed.append((time.monotonic(), q))
    with ControllerServer(controller, host):
        pipe.send("ready")
        cpu = time.process_time()
        while pipe.recv() == "read":
            rows, executed[:] = list(executed), []
            now = time.process_time()
            pipe.send({"executed": rows, "lost": controller.lost, "error": controller.error, "cpu": now - cpu})
            cpu, controller.lost = now, 0


def drive(host: str, rate: float, seconds: float, pipe: Connection) -> None:
    """Stream through our driver."""
    from horseshoe.hardware.arm_driver import ArmDriver
    from horseshoe.hardware.arm_settings import ArmSettings

    driver = ArmDriver(
        ArmSettings("bench", host, rate=rate, ramp=0.1, hold_after=5.0, stop_after=10.0, link_timeout=5.0)
    )
    driver.connect()
    driver.prepare()
    driver.move_to(HOME, speed=2.0)
    driver.start()
    pipe.send("ready")
    pipe.recv()
    first, late, cpu, begin = driver.log.ticks, driver.log.late, time.process_time(), time.monotonic()
    step = 0
    while time.monotonic() - begin < seconds:
        driver.send(target(step * CHUNK + np.arange(round(CHUNK * rate)) / rate))
        step += 1
        time.sleep(max(0.0, begin + step * CHUNK - time.monotonic()))
    cpu = time.process_time() - cpu
    log = driver.log.read()
    count = min(driver.log.ticks - first, len(log.time))
    pipe.send({"time": log.time[-count:], "sent": log.sent[-count:], "late": driver.log.late - late, "cpu": cpu})
    driver.close()


def stream_bare(host: str, rate: float, seconds: float, pipe: Connection) -> None:
    """Stream with nothing but the SDK: what any script would do."""
    from xarm.wrapper import XArmAPI

    api = XArmAPI(host, is_radian=True, forbid_uds=True)
    api.clean_error()
    api.motion_enable(True)
    for mode in (0, 1):
        api.set_mode(mode)
        api.set_state(0)
        if mode == 0:
            api.set_servo_angle(angle=HOME.tolist(), speed=2.0, mvacc=5.0, wait=True)
    pipe.send("ready")
    pipe.recv()
    times, sent, late, cpu, begin = [], [], 0, time.process_time(), time.monotonic()
    tick = 0
    while (now := time.monotonic()) - begin < seconds:
        q = target(np.array([tick / rate]))[0]
        api.set_servo_angle_j(q.tolist())
        times.append(now)
        sent.append(q)
        due = int((time.monotonic() - begin) * rate) + 1
        late, tick = late + due - tick - 1, due
        time.sleep(max(0.0, begin + tick / rate - time.monotonic()))
    cpu = time.process_time() - cpu
    pipe.send({"time": np.array(times), "sent": np.array(sent), "late": late, "cpu": cpu})
    api.disconnect()


def command_age(client: dict[str, Any], server: dict[str, Any]) -> np.ndarray:
    """Time from sending a target to its execution by the controller [s], for every target that was executed."""
    sent = {np.float32(row).tobytes(): when for when, row in zip(client["time"], client["sent"], strict=True)}
    ages = [when - sent.get(np.float32(q).tobytes(), np.nan) for when, q in server["executed"]]
    return np.array([age for age in ages if np.isfinite(age)])


def summary(client: dict[str, Any], server: dict[str, Any], seconds: float) -> dict[str, float]:
    """The numbers of one arm in one case."""
    interval = np.diff(client["time"]) * 1000
    age = command_age(client, server) * 1000
    numbers: dict[str, float] = {"rate_hz": len(client["time"]) / seconds, "late_ticks": client["late"]}
    for quantile, name in ((50, "p50"), (99, "p99"), (100, "max")):
        numbers[f"interval_{name}_ms"] = float(np.percentile(interval, quantile))
    for quantile, name in ((50, "p50"), (99, "p99")):
        numbers[f"age_{name}_ms"] = float(np.percentile(age, quantile)) if len(age) else float("nan")
    numbers |= {"lost": server["lost"], "error": server["error"]}
    numbers |= {
        "client_cpu_percent": 100 * client["cpu"] / seconds,
        "emulator_cpu_percent": 100 * server["cpu"] / seconds,
    }
    return numbers


def run(seconds: float, rate: float, output: Path | None) -> dict[str, Any]:
    """Measure both cases and print a table; see `horseshoe bench control --help`."""
    for host in HOSTS.values():
        if reason := cannot_bind(host):
            raise HorseshoeError(reason)
    context = multiprocessing.get_context("spawn")
    children: list[BaseProcess] = []

    def child(work: Any, *arguments: Any) -> Connection:
        ours, theirs = context.Pipe()
        children.append(context.Process(target=work, args=(*arguments, theirs), daemon=True))
        children[-1].start()
        theirs.close()
        assert ours.recv() == "ready"
        return ours

    result: dict[str, Any] = {"seconds": seconds, "target_rate_hz": rate, "cpus": os.cpu_count(), "cases": {}}
    try:
        emulators = {arm: child(emulate, host) for arm, host in HOSTS.items()}
        for case, work in zip(CASES, (drive, stream_bare), strict=True):
            clients = {arm: child(work, host, rate, seconds) for arm, host in HOSTS.items()}
            for pipe in emulators.values():  # drop what moving to the start left behind
                pipe.send("read")
                pipe.recv()
            for pipe in clients.values():
                pipe.send("go")
            measured = {arm: pipe.recv() for arm, pipe in clients.items()}
            rows = {}
            for arm, pipe in emulators.items():
                pipe.send("read")
                rows[arm] = summary(measured[arm], pipe.recv(), seconds)
            result["cases"][case] = rows
        for pipe in emulators.values():
            pipe.send("end")
    except EOFError as error:
        raise HorseshoeError("a process of the benchmark ended early; its message is above") from error
    finally:
        for process in children:
            process.join(3.0)
            if process.is_alive():
                process.terminate()
    result["load_average"] = os.getloadavg()
    _print(result)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _print(result: dict[str, Any]) -> None:
    columns = [(case, arm) for case, rows in result["cases"].items() for arm in rows]
    print(f"{result['seconds']:.0f} s at {result['target_rate_hz']:.0f} Hz, {result['cpus']} CPUs, ", end="")
    print(f"load average {result['load_average'][0]:.1f}")
    print(f"{'':22s}" + "".join(f"{f'{case} {arm}':>17s}" for case, arm in columns))
    for name in next(iter(result["cases"]["driver"].values())):
        print(f"{name:22s}" + "".join(f"{result['cases'][case][arm][name]:17.2f}" for case, arm in columns))
