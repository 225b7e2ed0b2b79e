"""Data sets of expert rollouts: shards beside a manifest with their checksums. Plain numpy, without pickles.

A shard is an .npz. Rollouts lie one after another; `offsets` (k + 1,) says where rollout i begins and ends: `robots`,
`velocities`, `actions` (steps, r, 2), `particles` (steps, p, 2); one row per rollout: `goals` (k, p, 2), `scores`,
`seeds`. Rows are the state before a decision and the decision taken; lengths in m, velocities over the top speed, in
arena axes.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError

MANIFEST = "manifest.json"
KEYS = ("offsets", "robots", "velocities", "actions", "particles", "goals", "scores", "seeds")


def sound(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a shard is there and what its manifest entry says."""
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
        if not sound(folder / name, entry):
            raise HorseshoeError(f"{folder / name}: missing or corrupt; the command that made the dataset repairs it")
    for name, entry in sorted(manifest["shards"].items()):
        if not entry["kept"]:
            continue
        try:
            with np.load(folder / name, allow_pickle=False) as file:
                yield {key: file[key] for key in KEYS}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise HorseshoeError(f"{folder / name}: not a shard ({error})") from error
