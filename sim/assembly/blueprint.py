"""Blueprints: which blocks there are, where their magnets sit, and which connections are wanted."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import configuration
from horseshoe.errors import ConfigurationError

DIRECTORY = Path(__file__).parent / "blueprints"


@dataclass(frozen=True)
class Block:
    """A box. size: full edge lengths [m]; mass [kg]; colour: RGB in [0, 1]."""

    name: str
    size: tuple[float, float, float] = field(metadata={"range": (0.001, None)})
    mass: float = field(metadata={"range": (0.001, 10.0)})
    colour: tuple[float, float, float] = (0.6, 0.6, 0.6)


@dataclass(frozen=True)
class Magnet:
    """A magnet flush with a face. position and axis (outward normal) in the block frame [m]."""

    name: str
    block: str
    position: tuple[float, float, float]
    axis: tuple[float, float, float]
    polarity: Literal["north", "south"]


@dataclass(frozen=True)
class Connection:
    """A wanted connection: the socket magnet must be joined by one of the accepted ones."""

    socket: str
    accepts: tuple[str, ...]


@dataclass(frozen=True)
class Blueprint:
    """A structure to assemble. Indices below follow the order of `blocks` and `magnets`."""

    name: str
    blocks: tuple[Block, ...]
    magnets: tuple[Magnet, ...]
    connections: tuple[Connection, ...]

    def __post_init__(self) -> None:
        for kind in ("blocks", "magnets"):
            names = [each.name for each in getattr(self, kind)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: the name {twice[0]!r} is there twice")
        if not self.connections:
            raise ValueError("connections: must be one at least, or there is nothing to assemble")
        blocks, magnets = {b.name for b in self.blocks}, {m.name for m in self.magnets}
        for m in self.magnets:
            if m.block not in blocks:
                raise ValueError(f"magnets: {m.name!r} sits on missing block {m.block!r}; blocks are {sorted(blocks)}")
        for c in self.connections:
            if not c.accepts:
                raise ValueError(f"connections: {c.socket!r} accepts no magnet; magnets are {sorted(magnets)}")
            for name in (c.socket, *c.accepts):
                if name not in magnets:
                    raise ValueError(f"connections: {name!r} is no magnet; magnets are {sorted(magnets)}")
            poles = {m.name: m.polarity for m in self.magnets}
            for name in c.accepts:
                if poles[name] == poles[c.socket]:
                    raise ValueError(f"connections: {c.socket!r} and {name!r} have the same pole and would repel")

    @cached_property
    def magnet_block(self) -> NDArray[np.intp]:
        """Block index of every magnet, shape (M,)."""
        names = [b.name for b in self.blocks]
        return np.array([names.index(m.block) for m in self.magnets])

    @cached_property
    def magnet_position(self) -> NDArray[np.float64]:
        """[m], block frame, shape (M, 3)."""
        return np.array([m.position for m in self.magnets], dtype=np.float64)

    @cached_property
    def magnet_axis(self) -> NDArray[np.float64]:
        """Outward unit normal, block frame, shape (M, 3)."""
        axes = np.array([m.axis for m in self.magnets], dtype=np.float64)
        return axes / np.linalg.norm(axes, axis=1, keepdims=True)

    @cached_property
    def magnet_sign(self) -> NDArray[np.float64]:
        """+1 where the outward pole is north, -1 where it is south, shape (M,)."""
        return np.array([1.0 if m.polarity == "north" else -1.0 for m in self.magnets])

    @cached_property
    def pairs(self) -> NDArray[np.intp]:
        """(connection, socket magnet, accepted magnet) of every pair that may latch, shape (P, 3)."""
        names = [m.name for m in self.magnets]
        return np.array(
            [(i, names.index(c.socket), names.index(a)) for i, c in enumerate(self.connections) for a in c.accepts]
        )

    @cached_property
    def goal_rotation(self) -> NDArray[np.float64]:
        """Orientation of the accepted block in the socket's block once joined, shape (P, 3, 3).

        The axes are opposed; the rotation about them keeps the blocks' z axes together as well as it can.
        """
        matrices = []
        for _, s, a in self.pairs:
            rotation, _ = Rotation.align_vectors(
                [-self.magnet_axis[s], [0, 0, 1]], [self.magnet_axis[a], [0, 0, 1]], weights=[1e6, 1]
            )
            matrices.append(rotation.as_matrix())
        return np.array(matrices)

    @cached_property
    def _rolls(self) -> NDArray[np.intp]:
        """Axis of every block (0: x, 1: y; -1: none) and the quarter turns about it that change nothing, (B, 2)."""
        return np.array([self._roll_of(b) for b in range(len(self.blocks))])

    def _roll_of(self, block: int) -> tuple[int, int]:
        own = self.magnet_block == block
        size, sign = np.array(self.blocks[block].size), self.magnet_sign[own]
        magnets = np.concatenate([self.magnet_position[own], self.magnet_axis[own]], axis=1).reshape(-1, 2, 3)
        for turns in (1, 2):
            for axis in (0, 1):
                turn = Rotation.from_rotvec(np.eye(3)[axis] * turns * np.pi / 2).as_matrix().round()
                same = np.abs((magnets @ turn.T)[:, None] - magnets).max((2, 3)) < 1e-6  # which takes whose place
                if (np.abs(turn) @ size == size).all() and (same & (sign[:, None] == sign)).any(1).all():
                    return axis, turns
        return -1, 0

    def quarter_turns(self, quaternion: NDArray[np.float64]) -> NDArray[np.intp]:
        """How to call the sides of blocks that have rolled over, where they are alike.

        Args:
            quaternion: (w, x, y, z), shape (..., B, 4).

        Returns:
            Quarter turns about the axis of `roll`, in the block frame, that bring its z axis up again; 0 for a block
            that lies less than 60 degrees from that, or on end, or on a side that is unlike, shape (..., B).
        """
        w, x, y, z = np.moveaxis(quaternion, -1, 0)
        up = 1 - 2 * (x**2 + y**2)
        axis, turns = self._rolls.T
        side = np.where(axis == 0, -2 * (y * z + w * x), 2 * (x * z - w * y))
        angle = np.arctan2(side, up)
        found = np.where((np.abs(angle) > np.pi / 3) & (np.hypot(side, up) > 0.5), np.round(angle / (np.pi / 2)), 0)
        return np.where((axis >= 0) & (found % np.maximum(turns, 1) == 0), found, 0).astype(np.intp) % 4

    def roll(self, block: NDArray[np.intp], turns: NDArray[np.intp]) -> Rotation:
        """Rotations, k of them, of blocks (k,) by quarter turns (k,) about the axis of their rolls, block frame."""
        return Rotation.from_rotvec(np.eye(3)[self._rolls[block, 0]] * (turns * np.pi / 2)[:, None])

    @cached_property
    def goal_position(self) -> NDArray[np.float64]:
        """Centre of the accepted block in the frame of the socket's block once joined [m], shape (P, 3)."""
        _, s, a = self.pairs.T
        return self.magnet_position[s] - np.einsum("pij,pj->pi", self.goal_rotation, self.magnet_position[a])


def names() -> list[str]:
    """Blueprints that come with Horseshoe."""
    return sorted(p.stem for p in DIRECTORY.glob("*.yaml"))


def load(name_or_path: str | Path) -> Blueprint:
    """Load a blueprint by the name of a shipped one or by the path of a YAML file.

    Raises:
        ConfigurationError: unknown name, or a field of the file is wrong.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in names():
            raise ConfigurationError(
                "blueprint", "name", f"{str(name_or_path)!r} is unknown; choose from {names()} or give a YAML file"
            )
        path = DIRECTORY / f"{name_or_path}.yaml"
    return configuration.load(Blueprint, path)
