"""Proof of the planner: 50 goals kept for evaluation, six robots, one core. Resumes where it stopped.

    python benchmarks/push.py --out results/push_planner.json
    python benchmarks/push.py --goals unseen --robots 4 --count 20 --out results/push_unseen.json

Rates (substeps per second, beside taichi) are `horseshoe bench push`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from horseshoe.configuration import write_atomically
from horseshoe.sim.push import scenes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.planner import PlannerConfig, plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/push_planner.json"))
    parser.add_argument("--goals", default="wide")
    parser.add_argument("--robots", type=int, default=6)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    recipe = {"goals": options.goals, "robots": options.robots}
    result = {"recipe": recipe, "plans": {}}
    if options.out.exists():
        result = json.loads(options.out.read_text())
        if result["recipe"] != recipe:
            parser.error(f"{options.out} holds another recipe: {result['recipe']}")
    config, goal_set = PushConfig(), scenes.load_goal_set(options.goals)
    for k in tqdm(range(options.count)):
        scene = scenes.sample(goal_set, options.goals, scenes.HELD_OUT + k, options.robots, config)
        if scene.name in result["plans"]:
            continue
        cpu = time.process_time()
        found = plan(scene, config, PlannerConfig(), seed=k)
        result["plans"][scene.name] = {
            "incremental_iou": round(found.score, 4),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "decisions": len(found.actions),
            "gradient_steps": len(found.history),
            "rope": scene.material.yield_strain < 0.1,
        }
        rows = list(result["plans"].values())
        scores = np.array([row["incremental_iou"] for row in rows])
        cpu_seconds = np.array([row["cpu_seconds"] for row in rows])
        result["summary"] = {
            "plans": len(rows),
            "success": float((scores > 0.75).mean()),
            "mean_incremental_iou": float(scores.mean()),
            "mean_cpu_seconds": float(cpu_seconds.mean()),
            "longest_cpu_seconds": float(cpu_seconds.max()),
        }
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
