"""Checkpoints of a training: weights, optimiser and what else it goes on from, in one safetensors file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from horseshoe.errors import HorseshoeError

CHECKPOINT = "checkpoint.safetensors"


def save(
    folder: Path,
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    more: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a checkpoint; the previous one is replaced in one step.

    Args:
        folder: of the run.
        policy: whose weights are kept.
        optimizer: of these weights.
        state: counters and curves, as JSON types.
        more: other arrays, by names of their own.
    """
    arrays: dict[str, Any] = {f"policy.{k}": v.numpy() for k, v in policy.state_dict().items()}
    for i, values in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer.{i}.{k}": v.numpy() for k, v in values.items()}
    arrays |= more or {}
    temporary = folder / "checkpoint.tmp"
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary, metadata={"state": json.dumps(state)})
    os.replace(temporary, folder / CHECKPOINT)


def read_state(file: Path) -> dict[str, Any]:
    """What a checkpoint knows beside its arrays: counters and the learning curve.

    Raises:
        HorseshoeError: it is no checkpoint, or cannot be read.
    """
    try:
        with safe_open(file, "np") as f:
            return json.loads(f.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise HorseshoeError(f"{file}: is no checkpoint of a training, or a broken one ({error})") from error


def thin(curve: list[dict[str, float]], points: int = 200) -> list[dict[str, float]]:
    """About so many points of a learning curve, its last one among them."""
    step = max(len(curve) // points, 1)
    return curve[::step] + ([curve[-1]] if curve and (len(curve) - 1) % step else [])


def read_arrays(file: Path, prefix: str) -> dict[str, NDArray[Any]]:
    """Arrays of a checkpoint whose names begin with `prefix`, without it; no others are read."""
    with safe_open(file, "np") as f:
        return {k.removeprefix(prefix): f.get_tensor(k) for k in f.keys() if k.startswith(prefix)}  # noqa: SIM118


def restore(file: Path, policy: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Give a policy, and its optimiser, back what `save` kept of them.

    Raises:
        HorseshoeError: the weights are those of another network.
    """
    try:
        policy.load_state_dict({k: torch.from_numpy(v) for k, v in read_arrays(file, "policy.").items()})
    except RuntimeError as error:
        raise HorseshoeError(f"{file}: holds the weights of another architecture, or of another task") from error
    if optimizer is None:
        return
    slots = optimizer.state_dict()
    for key, value in read_arrays(file, "optimizer.").items():
        index, name = key.split(".")
        slots["state"].setdefault(int(index), {})[name] = torch.from_numpy(value.copy())
    optimizer.load_state_dict(slots)
