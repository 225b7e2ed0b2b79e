"""Robots on two wheels push held-out scenes in one process, with the deciders of the policy nodes but without ROS."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe.configuration import write_atomically
from horseshoe.ros_ws.push_decision import Odometry, PushDecider
from horseshoe.ros_ws.push_summary import summarise
from horseshoe.sim.push.arena import PushArena, save_track
from horseshoe.sim.push.drive import DriveConfig
from horseshoe.sim.push.film import save_film, save_strip

Outcome = dict[str, Any]

SHOVE = 0.7  # velocity that the push half-way gives to the object [m/s], as in config/ros/cooperative_push.yaml
RADIO = (0.0, 0.5)  # least and largest lateness of what robots hear of each other [s]


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


def run(
    policy: str,
    out: Path,
    episodes: int,
    robots: int,
    goals: str,
    seed: int,
    shove: bool,
    tell: Callable[[Outcome], None],
) -> dict[str, Any]:
    """Push several scenes; write demo.json, demo.png and demo.mp4.

    Args:
        policy: a shipped policy's name, or a folder.
        out: folder to write to.
        episodes: how many.
        robots: how many.
        goals: goal set; its scenes are those kept for evaluation.
        seed: of scenes, headings, shoves and radio.
        shove: push the object half-way.
        tell: called with every outcome.

    Returns:
        The summary.
    """
    drive = DriveConfig()
    deciders = [PushDecider(policy, k, robots, RADIO, seed, drive) for k in range(robots)]
    arena = PushArena(robots, goals, seed, shove=SHOVE if shove else 0.0, drive=drive)
    tracks = out / "episodes"
    shutil.rmtree(tracks, ignore_errors=True)  # of the last demo
    tracks.mkdir(parents=True)
    outcomes, files = [], []
    for number in range(1, episodes + 1):
        outcomes.append(run_episode(arena, deciders))
        files.append(tracks / f"episode_{number:04d}.npz")
        save_track(files[-1], arena.track())
        tell(outcomes[-1])
    summary = summarise(outcomes) | {"goals": goals, "robots": robots, "shove": shove, "outcomes": outcomes}
    write_atomically(out / "demo.json", json.dumps(summary, indent=1) + "\n")
    save_strip(out / "demo.png", files)
    save_film(out / "demo.mp4", files)
    return summary


def table(outcomes: list[Outcome]) -> str:
    """Outcomes for people."""
    scores = np.array([o["incremental_iou"] for o in outcomes])
    s = summarise(outcomes)
    low, high = s["ci95"]
    lines = [f"{'scene':20}{'outcome':>10}{'incremental IoU':>18}"]
    lines += [f"{o['scene']:20}{o['name']:>10}{o['incremental_iou']:>18.2f}" for o in outcomes]
    lines.append(f"{s['success_rate']:.0%} of {len(outcomes)} [{low:.0%}, {high:.0%}], {scores.mean():.2f} on average")
    return "\n".join(lines)
