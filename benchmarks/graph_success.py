"""Success through ROS, SDK and emulated controllers, beside the same policy on the same scenes in simulation only.

    python benchmarks/graph_success.py                                  # both engines, 100 episodes each
    python benchmarks/graph_success.py --engine pybullet --episodes 20 --out runs/graph_success

Episodes run in real time, since SDK and firmware have clocks of their own: at most the horizon of the task and about
four seconds to go home and lay out, and about ten to start the graph, every 25 episodes and after a fault. Every
outcome is kept as it comes: the same command goes on where it stopped. A fault (a stop by the guard, a node that died)
counts as a failed episode, and the graph is started anew. "simulation" is one process without a clock: the same scenes,
physics, camera and action path, but no ROS, SDK and controller between policy and world, and none of their delays.
"""

import argparse
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from horseshoe import contract as contracts
from horseshoe.cli import EXTRAS
from horseshoe.configuration import write_atomically
from horseshoe.errors import HorseshoeError
from horseshoe.hardware.homing import HOME
from horseshoe.policies import runtime
from horseshoe.ros_ws import episodes as graph
from horseshoe.ros_ws import node_table
from horseshoe.ros_ws.decision import Decider, Seen
from horseshoe.ros_ws.simulated_cell import SimulatedCell

ENGINES = ("mujoco", "pybullet")


def simulate(policy: str, engine: str, seed: int, episodes: int, folder: Path) -> None:
    """Run what is missing of the episodes without ROS, SDK and clock, and keep every outcome."""
    contract = contracts.load(runtime.find(policy))
    decider = Decider(policy, contract.blueprint, contract.action.tick_rate)
    environment = contract.environment | {"decision_rate": contract.action.decision_rate}
    folder.mkdir(parents=True, exist_ok=True)
    done = graph.read(folder)
    for number in tqdm([n for n in range(1, episodes + 1) if n not in done], desc=f"simulation, {engine}"):
        cell = SimulatedCell(engine, contract.blueprint, environment, np.array([HOME, HOME]), seed=seed, first=number)
        cell.next_episode()
        decider.start(look(cell))
        while cell.outcome is None:
            for targets in decider.decide(look(cell)):
                for arm, target in zip(cell.arms, targets, strict=True):
                    arm.command(target[:6], target[6])
                cell.step()
        graph.note(folder, {"episode": number, "name": cell.outcome.name, "seconds": cell.outcome.seconds})


def look(cell: SimulatedCell) -> Seen:
    """What encoders and cameras say now."""
    arms = [arm.measured() for arm in cell.arms]
    _, position, quaternion = cell.look()
    return Seen(np.array([a.joints for a in arms]), np.array([a.opening for a in arms]), position, quaternion)


def run_graph(policy: str, engine: str, seed: int, episodes: int, folder: Path, more: dict[str, str]) -> None:
    """Run what is missing of the episodes through the whole graph."""
    done = graph.read(folder)
    arguments = {"robot": "emulated", "engine": engine, "policy": policy, "seed": str(seed), **more}
    with tqdm(total=episodes, initial=len(done), desc=f"graph, {engine}") as bar:

        def tell(outcome: graph.Outcome) -> None:
            bar.update()
            bar.write(f"{engine} {outcome['episode']}: {outcome['name']} {outcome.get('reason', '')}")

        for _log in graph.run(arguments, episodes, folder, tell):
            pass


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="u_shape", help="a shipped policy's name, or a folder")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument(
        "--seed", type=int, default=50_000, help="of scenes, physics and noise; none that training used"
    )
    parser.add_argument("--engine", choices=ENGINES, action="append", help="both without it")
    parser.add_argument("--out", type=Path, default=Path("runs/graph_success"), help="what was done is kept there")
    parser.add_argument("--json", type=Path, help="summary; graph_success.json in --out without it")
    parser.add_argument("arguments", nargs="*", metavar="NAME:=VALUE", help="more for the graph, such as patience:=3")
    options = parser.parse_args(arguments)
    engines, contract = options.engine or ENGINES, contracts.load(runtime.find(options.policy))
    if options.episodes < 1:
        parser.error(f"--episodes: {options.episodes} is below 1")
    if options.seed in contracts.training_seeds(contract):
        parser.error(f"--seed: {options.seed} is a seed of the training; take another")
    for module in (*engines, "rclpy", "xarm"):
        if importlib.util.find_spec(module) is None:
            parser.error(f"this needs {module}: pip install 'horseshoe[{EXTRAS[module]}]'")
    node_table.parse([f"seed:={options.seed}", *options.arguments])
    more = dict(argument.split(":=", 1) for argument in options.arguments)
    digest = contract.weights_sha256
    recipe = {"policy": options.policy, "weights_sha256": digest, "seed": options.seed, "arguments": more}
    file = options.out / "recipe.json"
    if file.exists() and json.loads(file.read_text()) != recipe:
        parser.error(f"{options.out} holds episodes of another recipe: {file.read_text()}; choose another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(recipe, indent=2) + "\n")
    out = options.json or options.out / "graph_success.json"
    before = json.loads(out.read_text()) if out.exists() else {}
    # What another engine gave stays beside it.
    result: dict[str, Any] = {"recipe": recipe, "cases": before["cases"] if before.get("recipe") == recipe else {}}
    for engine in engines:
        for case, work in (("simulation", simulate), ("graph", partial(run_graph, more=more))):
            folder = options.out / f"{case}_{engine}"
            work(options.policy, engine, options.seed, options.episodes, folder)
            rows = list(graph.read(folder).values())[: options.episodes]
            delays = [delay for row in rows for delay in row.get("delays", {}).values()]
            summary = graph.summary(rows) | {"delay": [min(delays), max(delays)] if delays else None}
            result["cases"][f"{case} {engine}"] = summary
            write_atomically(out, json.dumps(result, indent=2) + "\n")
    print_table(result["cases"])


def print_table(cases: dict[str, dict[str, Any]]) -> None:
    """One line per case, then what failed."""
    print(f"{'':22}{'success':>9}{'95 % interval':>18}{'episodes':>10}{'median s':>10}{'slow':>6}  failures")
    for name, s in cases.items():
        low, high = s["ci95"]
        time = "-" if s["time_to_success_median"] is None else f"{s['time_to_success_median']:.1f}"
        failures = ", ".join(f"{count} {kind}" for kind, count in s["failures"].items())
        print(f"{name:22}{s['success_rate']:>9.1%}{f'{low:.1%} to {high:.1%}':>18}{s['episodes']:>10}", end="")
        print(f"{time:>10}{s['behind_the_clock']:>6}  {failures}")
    for name, s in cases.items():
        for reason, count in s["faults"].items():
            print(f"{name}: {count} x {reason}")


if __name__ == "__main__":
    try:
        main()
    except HorseshoeError as error:
        sys.exit(str(error))
