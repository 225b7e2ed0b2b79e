"""Expert rollouts for learning: planned in parallel, written as shards with a manifest, resumable after a kill.

A shard is an .npz without pickles. Plans lie one after another; `offsets` (k + 1,) says where plan i begins and ends:
`robots`, `velocities`, `actions` (steps, r, 2), `particles` (steps, p, 2); one row per plan: `goals` (k, p, 2),
`scores`, `seeds`. Rows are the state before a decision and the decision taken; lengths in m, velocities over the top
speed, in arena axes.
"""

import hashlib
import io
import json
import multiprocessing
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.configuration import write_atomically
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.planner import PlannerConfig, plan
from horseshoe.sim.push.warm_start import pair

MANIFEST = "manifest.json"
SHARD = 16  # plans tried per shard
SHOWN = 32  # particles kept per object
KEYS = ("offsets", "robots", "velocities", "actions", "particles", "goals", "scores", "seeds")


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made of; a folder holds one recipe.

    Attributes:
        goals: goal set.
        robots: numbers of robots, taken in turn.
        first_seed: seed of the first scene; the others follow.
        planner: its settings.
    """

    goals: str = "wide"
    robots: tuple[int, ...] = (6,)
    first_seed: int = 0
    planner: PlannerConfig = field(default_factory=PlannerConfig)


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
        found = plan(scene, config, recipe.planner, seed)
        seconds += found.seconds
        if not found.success:
            failed += 1
            continue
        goal = scene.goal if scene.paired else pair(scene.start, scene.goal)
        travelled = np.diff(found.robots, axis=0) / (config.robot_speed * config.control_period)
        lengths.append(len(found.actions))
        rows["robots"].append(found.robots[:-1])
        rows["velocities"].append(np.concatenate([np.zeros_like(travelled[:1]), travelled[:-1]]))
        rows["actions"].append(travelled)  # what was done, not what was asked for: limits may have changed it
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
            if _sound(folder / _name(shard), entry):
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


def _sound(path: Path, entry: dict[str, Any]) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a dataset's manifest.

    Raises:
        HorseshoeError: it is missing or broken.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest["shards"], dict) or not isinstance(manifest["recipe"], dict):
            raise TypeError("shards and recipe must be objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HorseshoeError(f"{folder / MANIFEST}: not a dataset's manifest ({error})") from error
    return dict(manifest)


def read(folder: Path) -> Iterator[dict[str, NDArray[Any]]]:
    """Read a dataset shard by shard; every file is checked against the manifest first.

    Raises:
        HorseshoeError: a shard is missing or corrupt; names it.
    """
    manifest = read_manifest(folder)
    for name, entry in sorted(manifest["shards"].items()):
        if not _sound(folder / name, entry):
            raise HorseshoeError(f"{folder / name}: missing or corrupt; the command that made the dataset repairs it")
    for name, entry in sorted(manifest["shards"].items()):
        if not entry["kept"]:
            continue
        try:
            with np.load(folder / name, allow_pickle=False) as file:
                yield {key: file[key] for key in KEYS}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise HorseshoeError(f"{folder / name}: not a shard ({error})") from error
