"""Rates of the soft-body world and times of the planner, as JSON and a plot."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from horseshoe.bench import source
from horseshoe.configuration import write_atomically
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes
from horseshoe.sim.push.config import MATERIALS, PushConfig
from horseshoe.sim.push.planner import PlannerConfig, plan

STEPS = 5  # decisions of 20 substeps: as many substeps as the scene in taichi


def rates(particles: int, robots: int, seconds: float, steps: int = STEPS, scenes_at_once: int = 1) -> dict[str, float]:
    """Substeps per second of one thread, forward and with gradients.

    The CPU time of this process counts, so that a busy machine does not; the best of several runs.
    """
    import warp as wp

    from horseshoe.sim.push.world import PushWorld

    config = PushConfig()
    world = PushWorld(config, scenes_at_once, particles, robots, steps)
    side, angle = np.sqrt(particles * 1e-4), np.arange(robots) / robots * 2 * np.pi
    out = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    middle, n = config.side / 2, scenes_at_once
    body = middle + side * (np.random.default_rng(0).random((n, particles, 2)) - 0.5)
    around = np.repeat((middle + (0.7 * side + config.robot_radius) * out)[None], n, 0)
    world.reset(body, around, [side**2] * n, [MATERIALS["box"]] * n)
    inward = np.broadcast_to(-0.75 * out, (steps, n, robots, 2))
    actions = world.vectors(inward, requires_grad=True)
    ones = world.vectors(np.ones((steps + 1, n, particles, 2)))

    def gradient() -> None:
        tape = wp.Tape()
        with tape:
            world.rollout(actions, tape)
        tape.backward(grads={world.particles: ones})
        tape.zero()

    substeps = n * steps * config.substeps
    return {
        "forward": substeps / fastest(lambda: world.rollout(actions), seconds),
        "gradient": substeps / fastest(gradient, seconds),
    }


def fastest(run: Callable[[], None], seconds: float) -> float:
    """Shortest CPU time [s] of a call, tried again and again for so many seconds of the clock."""
    run()
    best, began = np.inf, time.perf_counter()
    while time.perf_counter() - began < seconds:
        cpu = time.process_time()
        run()
        best = min(best, time.process_time() - cpu)
    return float(best)


def taichi(particles: int, threads: int, seconds: float) -> dict[str, float] | None:
    """The same scene in taichi, in a process of its own; None where taichi is not installed."""
    script = Path(__file__).with_name("bench_taichi.py")
    command = [sys.executable, str(script), str(particles), str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"taichi is left out ({reason}); pip install taichi==1.7.4 for the comparison", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def planning() -> dict[str, float]:
    """CPU seconds of one gradient step and of one full plan, on a goal of the wide set that needs gradients."""
    config = PushConfig()
    scene = scenes.sample(scenes.load_goal_set("wide"), "wide", scenes.HELD_OUT + 2, 6, config)
    first = _cpu(lambda: plan(scene, config, PlannerConfig(iterations=0, restarts=1)))
    settings = PlannerConfig(iterations=8, restarts=1, good_enough=1.0)
    several = _cpu(lambda: plan(scene, config, settings))
    step = (several - first) / settings.iterations
    return {"first_plan": first, "gradient_step": step, "plan": _cpu(lambda: plan(scene, config))}


def decisions(seconds: float) -> dict[str, Any] | None:
    """CPU time of a decision of the shipped policy by number of robots; None where there is none."""
    try:
        return dict(source("push_decision").run(seconds=seconds / 4))
    except HorseshoeError as error:
        print(f"the policy is left out ({error})", file=sys.stderr)
        return None


def _cpu(run: Callable[[], Any]) -> float:
    cpu = time.process_time()
    run()
    return time.process_time() - cpu


def run(out: Path, seconds: float) -> dict[str, Any]:
    """Measure everything; writes push.json and push.png into a folder."""
    result: dict[str, Any] = {
        "unit": "substeps per second of CPU time, one thread, 64 x 64 grid",
        "world": {},
        "taichi": {},
    }
    with tqdm(total=15, desc="bench push") as bar:
        for particles in (1000, 4000):
            result["world"][str(particles)] = rates(particles, 6, seconds)
            bar.update()
            result["taichi"][str(particles)] = taichi(particles, 1, seconds)
            bar.update()
        result["growth"] = {}
        for name, values in (("particles", (250, 500, 1000, 2000)), ("robots", (2, 6, 12)), ("steps", (5, 20, 40))):
            cost = {}
            for value in values:
                chosen = {"particles": 500, "robots": 6, "steps": STEPS} | {name: value}
                rate = rates(seconds=seconds / 4, **chosen)["gradient"]
                cost[str(value)] = chosen["steps"] * PushConfig().substeps / rate  # [s] of a rollout with gradients
                bar.update()
            result["growth"][name] = cost
        result["planner"] = planning()
        bar.update()
    result["policy"] = decisions(seconds)
    for particles, theirs in result["taichi"].items():
        if theirs is not None:
            ours = result["world"][particles]
            theirs["ours_over_taichi"] = {key: ours[key] / theirs[key] for key in ("forward", "gradient")}
    write_atomically(out / "push.json", json.dumps(result, indent=1) + "\n")
    _plot(result, out / "push.png")
    print(json.dumps(result, indent=1))
    return result


def _plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.2), layout="constrained")
    first, *others = figure.subplots(1, 4)
    for place, (who, measured) in enumerate((("horseshoe", result["world"]), ("taichi 1.7.4", result["taichi"]))):
        if None not in measured.values():  # taichi may not be there
            rate = [each["gradient"] for each in measured.values()]
            first.bar(np.arange(len(rate)) + 0.4 * place, rate, 0.4, label=who)
    first.set(xticks=np.arange(len(result["world"])) + 0.2, xticklabels=[f"{p} particles" for p in result["world"]])
    first.set(ylabel="substeps with gradients per CPU s")
    first.legend()
    for axes, (name, cost) in zip(others, result["growth"].items(), strict=True):
        axes.plot([float(value) for value in cost], list(cost.values()), "o-")
        axes.set(
            xlabel="decisions" if name == "steps" else name, ylabel="CPU s per rollout with gradients", ylim=(0, None)
        )
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
