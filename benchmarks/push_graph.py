"""Success of the pushing robots in the ROS graph beside the pure simulation, on the same held-out scenes.

    python benchmarks/push_graph.py                                        # 50 scenes of the wide set, six robots
    python benchmarks/push_graph.py --goals unseen --episodes 20 --out runs/push_graph pace:=1

"simulation" is `horseshoe/CoopPush-v0` as it trains: discs that take any velocity. "two wheels" is one process without
a clock: the same robots and decisions as in the graph, but no ROS. "graph" is `horseshoe up cooperative_push`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

import horseshoe.sim  # noqa: F401  registers the environment
from horseshoe.configuration import write_atomically
from horseshoe.errors import HorseshoeError
from horseshoe.policies.runtime import TokenPolicy
from horseshoe.ros_ws import push_table
from horseshoe.ros_ws.push_decision import PushDecider
from horseshoe.ros_ws.push_demo import run_episode, run_graph
from horseshoe.ros_ws.push_summary import summarise
from horseshoe.sim.push import shapes
from horseshoe.sim.push.arena import PushArena
from horseshoe.sim.push.drive import DriveConfig

Outcomes = list[dict[str, Any]]


def simulate(policy: str, robots: int, goals: str, seed: int, episodes: int) -> Outcomes:
    """Run the environment with discs that take any velocity."""
    net = TokenPolicy(policy)
    env: Any = gymnasium.make_vec(
        "horseshoe/CoopPush-v0", num_envs=episodes, robots=robots, goals=goals, held_out=True,
        neighbours=net.neighbours, particles=net.particles,
    ).unwrapped  # fmt: skip
    observation, _ = env.reset(seed=seed)
    names = [scene.name for scene in env.scenes]
    scores = np.full(episodes, np.nan)
    for _ in tqdm(range(env.max_steps), desc="simulation"):
        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in observation.items()}
        observation, *_, info = env.step(net.act(flat).reshape(episodes, robots, 2))
        if "final_info" in info:
            ended = info["_final_info"] & np.isnan(scores)
            scores[ended] = info["final_info"]["incremental_iou"][ended]
    return [_outcome(name, float(score)) for name, score in zip(names, scores, strict=True)]


def drive(
    policy: str, robots: int, goals: str, seed: int, episodes: int, radio: tuple[float, float], config: DriveConfig
) -> Outcomes:
    """Run differential-drive robots without ROS: every robot sees and hears what its node would."""
    arena = PushArena(robots, goals, seed, drive=config)
    deciders = [PushDecider(policy, k, robots, radio, seed, config) for k in range(robots)]
    return [run_episode(arena, deciders) for _ in tqdm(range(episodes), desc="two wheels")]


def _outcome(scene: str, score: float) -> dict[str, Any]:
    name = "success" if score > shapes.SUCCESS else "failure"
    return {"name": name, "scene": scene, "incremental_iou": round(score, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="push", help="a shipped policy's name, or a folder")
    parser.add_argument("--robots", type=int, default=6)
    parser.add_argument("--goals", default="wide", help="goal set")
    parser.add_argument("--seed", type=int, default=0, help="of scenes; all are kept for evaluation")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("runs/push_graph"), help="folder, which must not exist")
    parser.add_argument("--no-graph", action="store_true", help="leave ROS out")
    parser.add_argument("arguments", nargs="*", metavar="NAME:=VALUE", help="more for the graph, such as pace:=1")
    o = parser.parse_args()
    try:
        push_table.parse(o.arguments)
    except HorseshoeError as error:
        parser.error(str(error))
    more = dict(argument.split(":=", 1) for argument in o.arguments)
    if twice := sorted(more.keys() & vars(o).keys()):
        parser.error(f"{', '.join(twice)}: use the option of that name, which holds for the simulations too")
    if o.out.exists():
        parser.error(f"{o.out} exists already; name a new folder with --out")
    task = (o.policy, o.robots, o.goals, o.seed, o.episodes)
    cases = {
        "simulation": summarise(simulate(*task)),
        "two wheels": summarise(drive(*task, (0.0, 0.5), DriveConfig())),
    }
    if not o.no_graph:
        given = {"policy": o.policy, "robots": o.robots, "goals": o.goals, "seed": o.seed, "episodes": o.episodes}
        cases["graph"] = run_graph(o.out / "graph", given | {"pace": 0} | more)
    o.out.mkdir(parents=True, exist_ok=True)
    write_atomically(o.out / "push_graph.json", json.dumps(cases, indent=2) + "\n")
    print(f"{'':14}{'success':>9}{'95 % interval':>18}{'episodes':>10}{'incremental IoU':>17}{'real time':>11}")
    for name, s in cases.items():
        low, high = s["ci95"]
        factor = f"{s['real_time_factor']:.2f}" if s.get("real_time_factor") else "-"
        print(f"{name:14}{s['success_rate']:>9.1%}{f'{low:.1%} to {high:.1%}':>18}{s['episodes']:>10}", end="")
        print(f"{s['incremental_iou']:>17.2f}{factor:>11}")


if __name__ == "__main__":
    main()
