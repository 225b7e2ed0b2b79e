"""Proof of the planner: 50 goals kept for evaluation, six robots, one core. Resumes where it stopped.

    python benchmarks/push.py
    python benchmarks/push.py --goals unseen --robots 4 --count 20 --out results/push_unseen.json
    python benchmarks/push.py --seed 1000 --out results/push_other.json     # the same goals, other first plans

Rates (substeps per second, beside taichi) are `horseshoe bench push`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from horseshoe.configuration import write_atomically
from horseshoe.sim.push import scenes
from horseshoe.sim.push.config import MATERIALS, PushConfig
from horseshoe.sim.push.planner import PlannerConfig, plan
from horseshoe.sim.push.shapes import SUCCESS


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Success with its 95 % Wilson interval, and means."""
    scores, seconds = (np.array([row[key] for row in rows]) for key in ("incremental_iou", "cpu_seconds"))
    good = int((scores > SUCCESS).sum())
    low, high = binomtest(good, len(rows)).proportion_ci(0.95, method="wilson")
    return {
        "plans": len(rows),
        "success": good / len(rows),
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "mean_incremental_iou": round(float(scores.mean()), 4),
        "mean_cpu_seconds": round(float(seconds.mean()), 2),
        "longest_cpu_seconds": float(seconds.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/push_planner.json"))
    parser.add_argument("--goals", default="wide")
    parser.add_argument("--robots", type=int, default=6)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the first plans; a goal's number is added to it")
    options = parser.parse_args()
    recipe = {"goals": options.goals, "robots": options.robots, "seed": options.seed}
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
        found = plan(scene, config, PlannerConfig(), seed=options.seed + k)
        result["plans"][scene.name] = {
            "incremental_iou": round(found.score, 4),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "decisions": len(found.actions),
            "gradient_steps": len(found.history),
            "rope": scene.material == MATERIALS["rope"],
        }
        result["summary"] = summary(list(result["plans"].values()))
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")
    result["summary"] = summary(list(result["plans"].values()))
    write_atomically(options.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
