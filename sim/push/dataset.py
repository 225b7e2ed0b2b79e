"""Expert rollouts for learning: planned in parallel, written as shards with a manifest, resumable after a kill.

`horseshoe.demonstrations` describes the files and reads them.
"""

import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe.configuration import write_atomically
from horseshoe.demonstrations import KEYS, MANIFEST, read_manifest, sound
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.planner import Exploded, PlannerConfig, follow, plan, receding, replan
from horseshoe.sim.push.warm_start import must_bend, paired_goal

SHARD = 16  # plans tried per shard
SHOWN = 32  # particles kept per object
MAX_DECISIONS = 115  # of an episode that is planned anew on the way


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made of; a folder holds one recipe.

    Attributes:
        goals: goal set.
        robots: numbers of robots, taken in turn.
        first_seed: seed of the first scene; the others follow.
        planner: its settings.
        horizon: plan anew after this many decisions, with the settings of `planner.receding` and as many gradient
            steps as `planner` has; 0 for whole plans.
        feedback: let the law of feedback (`steer.py`) act where the object keeps its shape, and begin plans from it
            elsewhere.
    """

    goals: str = "wide"
    robots: tuple[int, ...] = (6,)
    first_seed: int = 0
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    horizon: int = 0
    feedback: bool = False


def make_shard(job: tuple[Recipe, int, int]) -> tuple[int, bytes, dict[str, Any]]:
    """Plan the scenes of one shard: (recipe, shard, number of scenes) -> (shard, file contents, manifest entry)."""
    recipe, shard, count = job
    config, goal_set = PushConfig(), scenes.load_goal_set(recipe.goals)
    robots = recipe.robots[shard % len(recipe.robots)]
    shown = np.linspace(0, scenes.PARTICLES - 1, SHOWN).astype(int)
    rows: dict[str, list[Any]] = {key: [] for key in KEYS[1:]}
    lengths, failed, seconds = [], 0, 0.0
    for seed in range(recipe.first_seed + shard * SHARD, recipe.first_seed + shard * SHARD + count):
        scene = scenes.sample(goal_set, recipe.goals, seed, robots, config)
        goal = paired_goal(scene)
        led = recipe.feedback and not must_bend(scene.start, goal)
        try:
            if led:
                found = follow(scene, config, MAX_DECISIONS)
            elif recipe.horizon:
                settings = receding(robots, recipe.planner.iterations)
                rounds = MAX_DECISIONS // recipe.horizon
                found = replan(scene, config, settings, seed, recipe.horizon, rounds, feedback=recipe.feedback)
            else:
                found = plan(scene, config, recipe.planner, seed)
        except Exploded:
            failed += 1
            continue
        seconds += found.seconds
        if not found.success:
            failed += 1
            continue
        travelled = np.diff(found.robots, axis=0) / (config.robot_speed * config.control_period)
        lengths.append(len(found.actions))
        rows["robots"].append(found.robots[:-1])
        rows["velocities"].append(np.concatenate([np.zeros_like(travelled[:1]), travelled[:-1]]))
        # Of a plan what was done, not what was asked for: limits may have changed it. The law asks anew each time.
        rows["actions"].append(found.actions if led else travelled)
        rows["particles"].append(found.particles[:-1, shown])
        rows["goals"].append(goal[None, shown])
        rows["scores"].append([found.score])
        rows["seeds"].append([seed])
    data: dict[str, Any] = {
        key: np.concatenate(value).astype(np.float32) if value else np.zeros(0) for key, value in rows.items()
    }
    data["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    data["seeds"] = data["seeds"].astype(np.int64)
    file = io.BytesIO()
    np.savez_compressed(file, **data)
    content = file.getvalue()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "kept": len(lengths), "failed": failed, "robots": robots}
    return shard, content, entry | {"steps": int(sum(lengths)), "seconds": round(seconds, 3)}


def make(
    folder: Path,
    count: int,
    recipe: Recipe,
    jobs: int = 1,
    executor: str = "processes",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Make or complete a dataset.

    Args:
        folder: where; shards that are there and sound are kept.
        count: number of scenes to plan.
        recipe: what it is made of.
        jobs: number of processes.
        executor: "processes" of this machine, or "ray" for those of the cluster this machine belongs to.
        progress: called with the number of scenes done whenever some are.

    Returns:
        The manifest, with totals: plans kept and failed, and shards found corrupt and made again.

    Raises:
        HorseshoeError: the folder holds a dataset of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(asdict(recipe)))
    manifest: dict[str, Any] = {"recipe": wanted, "shards": {}}
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest["recipe"] != wanted:
            raise HorseshoeError(f"{folder}: holds a dataset of another recipe; choose another folder")
    todo, corrupt = [], 0
    for shard in range((count + SHARD - 1) // SHARD):
        size = min(SHARD, count - shard * SHARD)
        entry = manifest["shards"].get(_name(shard))
        if entry is not None and entry["kept"] + entry["failed"] >= size:
            if sound(folder / _name(shard), entry):
                if progress is not None:
                    progress(size)
                continue
            corrupt += 1
        todo.append((recipe, shard, size))
    if todo:
        with _pool(executor, min(jobs, len(todo))) as pool:
            for shard, content, entry in pool.imap_unordered(make_shard, todo):
                _write(folder / _name(shard), content)
                manifest["shards"][_name(shard)] = entry
                write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
                if progress is not None:
                    progress(entry["kept"] + entry["failed"])
    shards = manifest["shards"].values()
    totals = {key: sum(entry[key] for entry in shards) for key in ("kept", "failed", "steps", "seconds")}
    return manifest | {"totals": totals | {"corrupt": corrupt}}


def _pool(executor: str, jobs: int) -> Any:
    if executor == "ray":  # the same interface; the workers may be on other machines and need no shared folder
        try:
            from ray.util.multiprocessing import Pool
        except ModuleNotFoundError as error:
            raise HorseshoeError("--executor ray needs ray: pip install ray") from error
        return Pool()
    return multiprocessing.get_context("spawn").Pool(jobs)  # fork does not go with warp's threads


def _name(shard: int) -> str:
    return f"shard-{shard:05d}.npz"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(content)
    temporary.replace(path)
