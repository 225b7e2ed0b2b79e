"""The servo path: two arms behind the whole ROS graph, behind the driver alone, and behind the bare SDK.

Run it with `horseshoe bench control`. The cases run one after the other on the same machine, each with two emulated
controllers:

- graph: `horseshoe up bimanual_assembly` with MuJoCo, recorder and all; a policy that turns the last joints for ever,
  whose contract asks for the rate that is measured;
- driver: driver and SDK, one process per arm, one process per controller;
- bare SDK: the same without the driver: what any script would do.

All processes have real-time priority, if the system allows it; the table says so.

"age" is the time from sending a servo target to its execution by the controller. CPU is in per cent of one core.
"""

import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe import contract as contracts
from horseshoe.configuration import write_atomically
from horseshoe.errors import HorseshoeError
from horseshoe.hardware.emulator import cannot_bind
from horseshoe.hardware.priority import be_prompt
from horseshoe.policies import linear, runtime
from horseshoe.ros_ws import node_table
from horseshoe.ros_ws.supervisor import Supervisor
from horseshoe.sim.assembly.scene import FIELDS

HOSTS = {"left": "127.0.0.11", "right": "127.0.0.12"}  # not those of `horseshoe emulator`
HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
SWING = 0.2 * np.array([1.0, 0.3, 0.3, 1.0, 1.0, 1.0])
CHUNK = 0.1  # [s] of targets per command, as a policy at 10 Hz sends them
GRAPH, DRIVER, BARE = "graph", "driver", "bare SDK"
HORIZON = 120.0  # [s], the longest episode there may be
PATIENCE = 100.0  # scale of the graph's time-outs: a pause shall show in the table, not end the run


def target(when: np.ndarray) -> np.ndarray:
    """The motion both cases stream, [rad], shape (n, 6)."""
    return HOME + np.sin(1.5 * when)[:, None] * SWING


def emulate(host: str, pipe: Connection) -> None:
    """A controller in a process of its own; answers "read" with the targets it executed since the last time."""
    from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm

    priority = be_prompt()
    controller = Controller(KinematicArm(HOME))
    executed: list[tuple[float, np.ndarray]] = []
    controller.on_execute = lambda q: executed.append((time.monotonic(), q))
    with ControllerServer(controller, host):
        pipe.send(priority)
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
    from horseshoe.hardware.limits import ServoLimits

    priority = be_prompt()
    driver = ArmDriver(
        ArmSettings(
            "bench",
            host,
            rate=rate,
            ramp=0.1,
            limits=ServoLimits(jump=1.0),  # a pause shall show in the table, not end the run
            hold_after=30.0,
            stop_after=60.0,
            link_timeout=20.0,
        )
    )
    driver.connect()
    driver.prepare()
    driver.move_to(HOME, speed=2.0)
    driver.start()
    pipe.send(priority)
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

    priority = be_prompt()
    api = XArmAPI(host, is_radian=True, forbid_uds=True)
    api.clean_error()
    api.motion_enable(True)
    for mode in (0, 1):
        api.set_mode(mode)
        api.set_state(0)
        if mode == 0:
            api.set_servo_angle(angle=HOME.tolist(), speed=2.0, mvacc=5.0, wait=True)
    pipe.send(priority)
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


def percentiles(values: np.ndarray, name: str, quantiles: tuple[int, ...] = (50, 99)) -> dict[str, float]:
    """Percentiles of times [s], in milliseconds; 100 is called max."""
    return {
        f"{name}_{'max' if q == 100 else f'p{q}'}_ms": 1000 * float(np.percentile(values, q)) if len(values) else np.nan
        for q in quantiles
    }


def summary(client: dict[str, Any], server: dict[str, Any], seconds: float) -> dict[str, float]:
    """The numbers of one arm in one case; what a case cannot tell is left out."""
    numbers = {
        "rate_hz": len(client["time"]) / seconds,
        "late_ticks": client["late"],
        **percentiles(np.diff(client["time"]), "interval", (50, 99, 100)),
        **percentiles(command_age(client, server), "age"),
        "targets_lost": server.get("lost", np.nan),
        "error": server.get("error", np.nan),
        "client_cpu_percent": 100 * client["cpu"] / seconds,
        "emulator_cpu_percent": 100 * server["cpu"] / seconds,
    }
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


# --- the whole graph --------------------------------------------------------------------------------------------------


def turning_policy(folder: Path, rate: float) -> Path:
    """A policy that turns the last joint of both arms to and fro: it goes on the way it goes until it is too far."""
    shipped = contracts.load(runtime.find("u_shape"))
    weights, bias = np.zeros((FIELDS.size, 7), dtype=np.float32), np.zeros(7, dtype=np.float32)
    weights[FIELDS.slices["command_error"].start + 5, 5] = 60.0
    weights[FIELDS.slices["joint_position"].start + 5, 5] = -4.0
    bias[5] = bias[6] = 1.0  # a push to begin with; grippers open
    contract = dataclasses.replace(
        shipped,
        action=dataclasses.replace(shipped.action, tick_rate=rate),
        environment={**shipped.environment, "task": {"horizon": HORIZON}},
        revision="benchmark",
        results=[],
    )
    return linear.write(folder, weights, bias, contract)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_graph(rate: float, seconds: float) -> dict[str, Any]:
    """Run the whole graph and read what its nodes logged; numbers by arm, and of the graph."""
    from horseshoe.ros_ws.bag import read

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = {
            "policy": str(turning_policy(folder / "policy", rate)),
            "left_ip": HOSTS["left"],
            "right_ip": HOSTS["right"],
            "episodes": "0",
            "record": str(folder / "bag"),
            "timing": str(folder / "timing"),
            "patience": str(PATIENCE),
            "allow_out_of_contract": "true",
        }
        marks: list[tuple[float, dict[str, float]]] = []  # time and CPU at begin and end of the measurement
        operator = folder / "log" / "operator.log"
        with Supervisor(node_table.nodes(node_table.parse(arguments)), folder / "log", PATIENCE) as graph:

            def watch() -> None:
                if not marks and operator.exists() and "episode 1 running" in operator.read_text(errors="replace"):
                    marks.append((time.monotonic(), cpu_of(graph)))
                elif len(marks) == 1 and time.monotonic() - marks[0][0] >= seconds:
                    marks.append((time.monotonic(), cpu_of(graph)))
                    graph.interrupted = True

            node, code = graph.wait(watch)
        if len(marks) < 2:
            said = operator.read_text(errors="replace") if operator.exists() else ""
            raise HorseshoeError(f"the graph ended early: {node or 'interrupted'} ({code}). {said[-500:]}")
        (begin, before), (end, after) = marks
        bag = read(folder / "bag")
        logs = {
            (arm, what): dict(np.load(folder / "timing" / f"{arm}_{what}.npz"))
            for arm in HOSTS
            for what in ("sent", "executed")
        }
    used = {node: 100 * (after[node] - before[node]) / (end - begin) for node in after}
    rows = {}
    for arm in HOSTS:
        sent, executed = logs[arm, "sent"], logs[arm, "executed"]
        within = (sent["time"] >= begin) & (sent["time"] <= end)
        done = (executed["time"] >= begin) & (executed["time"] <= end)
        client = {
            "time": sent["time"][within],
            "sent": sent["sent"][within],
            "late": float(sent["late"][within].sum()),
            "cpu": used[f"/{arm}/arm"] * (end - begin) / 100,
        }
        server = {
            "executed": list(zip(executed["time"][done], executed["sent"][done], strict=True)),
            "cpu": used["/world"] * (end - begin) / 100,
        }
        # A decision looks at the newest joint states; the older arm's count.
        stamps = bag.commands[arm][:, 0]
        seen = dict(zip(stamps, bag.timing.values[:, :2].max(axis=1), strict=False))
        ages = [arrival - stamp + seen[stamp] for stamp, arrival in sent["commands"] if stamp in seen]
        rows[arm] = summary(client, server, end - begin) | percentiles(np.array(ages), "observation_to_command")
    return {"arms": rows, "cpu_percent": used, "decisions": len(bag.timing.time), "seconds": end - begin}


def cpu_of(graph: Supervisor) -> dict[str, float]:
    """What every node has computed so far [s]."""
    return {name: cpu_seconds(process.pid) for name, process in graph.processes.items()}


# --- all cases --------------------------------------------------------------------------------------------------------


def measure_without_ros(rate: float, seconds: float) -> tuple[dict[str, Any], str]:
    """Driver and bare SDK with the same two controllers; numbers by case and arm, and what priority they had."""
    context = multiprocessing.get_context("spawn")
    children: list[BaseProcess] = []
    priorities: set[str] = set()

    def child(work: Any, *arguments: Any) -> Connection:
        ours, theirs = context.Pipe()
        children.append(context.Process(target=work, args=(*arguments, theirs), daemon=True))
        children[-1].start()
        theirs.close()
        priorities.add(ours.recv())
        return ours

    cases: dict[str, Any] = {}
    try:
        emulators = {arm: child(emulate, host) for arm, host in HOSTS.items()}
        for case, work in ((DRIVER, drive), (BARE, stream_bare)):
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
            cases[case] = rows
        for pipe in emulators.values():
            pipe.send("end")
    except EOFError as error:
        raise HorseshoeError("a process of the benchmark ended early; its message is above") from error
    finally:
        for process in children:
            process.join(3.0)
            if process.is_alive():
                process.terminate()
    return cases, ", ".join(priorities)


def run(seconds: float, rate: float, graph: bool, json_file: Path | None) -> dict[str, Any]:
    """Measure all cases and print a table; see `horseshoe bench control --help`."""
    for host in HOSTS.values():
        if reason := cannot_bind(host):
            raise HorseshoeError(reason)
    result: dict[str, Any] = {"seconds": seconds, "target_rate_hz": rate, "cpus": os.cpu_count(), "cases": {}}
    if graph:
        result["graph"] = measure_graph(rate, seconds)
        result["cases"][GRAPH] = result["graph"].pop("arms")
    cases, result["priority"] = measure_without_ros(rate, seconds)
    result["cases"] |= cases
    result["load_average"] = os.getloadavg()
    _print(result)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json_file, json.dumps(result, indent=2) + "\n")
    return result


def _print(result: dict[str, Any]) -> None:
    columns = [(case, arm) for case, rows in result["cases"].items() for arm in rows]
    print(f"{result['seconds']:.0f} s at {result['target_rate_hz']:.0f} Hz, {result['cpus']} CPUs, ", end="")
    print(f"load average {result['load_average'][0]:.1f}, {result['priority']}")
    print(f"{'':30s}" + "".join(f"{f'{case} {arm}':>16s}" for case, arm in columns))
    for name in dict.fromkeys(n for rows in result["cases"].values() for row in rows.values() for n in row):
        cells = [result["cases"][case][arm].get(name, np.nan) for case, arm in columns]
        print(f"{name:30s}" + "".join(f"{'-' if np.isnan(c) else f'{c:.2f}':>16s}" for c in cells))
    if "graph" in result:
        used = result["graph"]["cpu_percent"]
        print(f"CPU of the graph: {sum(used.values()):.0f} % (", end="")
        print(", ".join(f"{name} {share:.0f} %" for name, share in used.items()) + ")")
