"""Robots on two wheels push held-out scenes: through the graph, and in one process without ROS."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.push_decision import Odometry, PushDecider
from horseshoe.ros_ws.push_summary import summarise
from horseshoe.sim.push.arena import PushArena

Outcome = dict[str, Any]


def run_episode(arena: PushArena, deciders: list[PushDecider]) -> Outcome:
    """Let every robot decide for itself, with its own late view of the others, until the episode is over.

    Args:
        arena: with the next scene not yet laid out.
        deciders: one per robot.
    """
    arena.next_episode()
    for decider in deciders:
        decider.forget()
    while not arena.over:
        when, m, body = arena.decisions * arena.config.control_period, arena.motion, arena.particles
        said = [
            Odometry(when, m.position[k], float(m.heading[k]), m.velocity[k], float(m.angular[k]))
            for k in range(len(deciders))
        ]
        for k, decider in enumerate(deciders):
            for j, message in enumerate(said):
                if j != k:
                    decider.hear(j, message)
            arena.command(k, *decider.decide(said[k], body, arena.scene.goal))
        arena.step()
    name = "success" if arena.success else "failure"
    return {"name": name, "scene": arena.scene.name, "incremental_iou": round(arena.score, 3)}


def run_graph(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run `horseshoe up cooperative_push`, whose lines appear as they come.

    Args:
        folder: for states, summary and film, and logs beside it; what an earlier run left there goes.
        arguments: of the launch, by name.

    Returns:
        The summary.

    Raises:
        HorseshoeError: the graph did not end well.
    """
    log = folder.with_name(f"{folder.name}_log")
    for old in (folder, log):
        shutil.rmtree(old, ignore_errors=True)
    texts = [f"{name}:={value}" for name, value in (arguments | {"record": folder}).items()]
    command = [sys.executable, "-m", "horseshoe", "up", "cooperative_push", *texts, "--log", str(log)]
    if code := subprocess.run(command).returncode:
        raise HorseshoeError(f"the graph ended with {code}; logs: {log}")
    return dict(json.loads((folder / "summary.json").read_text()))


def table(outcomes: list[Outcome]) -> str:
    """Outcomes for people."""
    scores = np.array([o["incremental_iou"] for o in outcomes])
    s = summarise(outcomes)
    low, high = s["ci95"]
    lines = [f"{'scene':20}{'outcome':>10}{'incremental IoU':>18}"]
    lines += [f"{o['scene']:20}{o['name']:>10}{o['incremental_iou']:>18.2f}" for o in outcomes]
    lines.append(f"{s['success_rate']:.0%} of {len(outcomes)} [{low:.0%}, {high:.0%}], {scores.mean():.2f} on average")
    return "\n".join(lines)
