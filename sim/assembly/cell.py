"""The cell: where the arms and the table stand."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import configuration


@dataclass(frozen=True)
class Arm:
    """An arm's base in the world. position [m]; yaw about z [rad]."""

    name: str
    position: tuple[float, float, float]
    yaw: float = field(metadata={"range": (-6.3, 6.3)})


@dataclass(frozen=True)
class Table:
    """size: x and y extent [m]; height of its top [m]."""

    size: tuple[float, float] = field(metadata={"range": (0.001, None)})
    height: float = 0.0


@dataclass(frozen=True)
class Cell:
    """Everything about the work place that an installation may change."""

    arms: tuple[Arm, ...]
    table: Table

    def __post_init__(self) -> None:
        # Policies and nodes know the arms by their places: the first one is the left one.
        if (names := [arm.name for arm in self.arms]) != ["left", "right"]:
            raise ValueError(f"arms: must be left and right, in this order; got {names}")

    @cached_property
    def base_poses(self) -> NDArray[np.float64]:
        """World pose of every arm's base, shape (n_arms, 4, 4)."""
        poses = np.tile(np.eye(4), (len(self.arms), 1, 1))
        for pose, arm in zip(poses, self.arms, strict=True):
            pose[:3, :3] = Rotation.from_euler("z", arm.yaw).as_matrix()
            pose[:3, 3] = arm.position
        return poses


def load(path: str | Path | None = None) -> Cell:
    """Load a cell; without a path, the one that comes with Horseshoe.

    Raises:
        ConfigurationError: a field of the file is wrong.
    """
    return configuration.load(Cell, path or configuration.resource("config/cell.yaml"))
