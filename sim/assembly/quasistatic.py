"""The quasi-static world: the same cell without dynamics, several times faster; where a policy starts to learn.

Arms follow their targets through the lag of their servos; a gripper that closes on a block carries it; blocks lie where
they are until a finger or a held block pushes them, and then move as far as they must. Magnets do not pull but
capture from as far as they would. It is no judge of a policy: it knows no force, no slip and no bounce.
"""

from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import magnets
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell
from horseshoe.sim.assembly.quasistatic_cells import Cells
from horseshoe.sim.assembly.quasistatic_kernels import advance_chunk
from horseshoe.sim.assembly.trace import CHUNK, Trace
from horseshoe.sim.assembly.world import TICK, PhysicsRange, WorldState, size_lag_strength

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SERVO = 0.025  # time constant of a joint behind its lag filter [s]
PULL = 2 / 3  # magnets within 9 mm and 22 degrees overcome the table's friction: they join as if within 6 mm and 15


class QuasiStaticWorld:
    """n_envs cells; arguments and attributes as of `BatchWorld`, whose place it takes."""

    def __init__(
        self,
        cell: Cell,
        blueprint: Blueprint,
        n_envs: int,
        physics: PhysicsRange | None = None,
        pool: int = 256,
        seed: int = 0,
    ) -> None:
        self.cell, self.blueprint, self.n_envs = cell, blueprint, n_envs
        self.n_arms, self.n_blocks = len(cell.arms), len(blueprint.blocks)
        rng = np.random.default_rng([seed, 0x706F6F6C])
        self.physics = [(physics or PhysicsRange()).sample(rng) for _ in range(pool)]
        self.models: list[Any] = list(self.physics)
        self._sizes, self._lags, self._strengths = size_lag_strength(self.physics)
        self.magnets = magnets.Magnets(blueprint, n_envs)
        self.model_index = np.zeros(n_envs, dtype=np.intp)
        self.diverged: Mask = np.zeros(n_envs, dtype=bool)
        n, r, b = n_envs, self.n_arms, self.n_blocks
        self._q, self._filtered = np.zeros((n, r, 6), np.float32), np.zeros((n, r, 6), np.float32)
        self._opening, self._contact = np.zeros((n, r), np.float32), np.zeros((n, 1 + r), np.float32)
        self._block = np.zeros((n, b, 7), np.float32)
        self._block[..., 6] = 1.0
        self._held, self._grip = np.full((n, r), -1, np.int32), np.zeros((n, r, 7), np.float32)
        self._latched = np.zeros((n, len(blueprint.pairs)), np.int32)
        self._load = np.zeros((n, len(blueprint.pairs)), np.float32)
        self._speed = np.zeros((n, r * 6 + b * 6), np.float32)
        self._lag, self._size = np.zeros(n, np.float32), np.ones(n, np.float32)
        socket, accepted = blueprint.pairs[:, 1], blueprint.pairs[:, 2]
        if (blueprint.magnet_block[socket] != 0).any():
            raise ValueError("blueprint: every socket must be on the first block for the quasi-static world")
        goal = np.concatenate([blueprint.goal_position, _quaternions(blueprint.goal_rotation)], axis=1)
        self._cells = Cells()
        frames = [[*o[:3, 3], *_quaternions(o[:3, :3])] for o in xarm6.ORIGINS]
        self._cells.origins = _array(frames, wp.transform)
        frames = [[*o[:3, 3], *_quaternions(o[:3, :3])] for o in cell.base_poses]
        self._cells.bases = _array(frames, wp.transform)
        self._cells.nominal = _array(np.array([x.size for x in blueprint.blocks]) / 2, wp.vec3)
        block = blueprint.magnet_block[accepted].astype(np.int32)
        self._cells.accepted, self._cells.joined = wp.array(block, dtype=int, device="cpu"), _array(goal, wp.transform)
        self._cells.servo, self._cells.tick, self._cells.table = SERVO, TICK, cell.table.height
        self._cells.half = wp.zeros((n, b), dtype=wp.vec3, device="cpu")
        self._cells.tool = wp.zeros((n, r), dtype=wp.transform, device="cpu")
        self.memory, self.trace = 0, Trace(self._pack())

    def reset(
        self, mask: Mask, model_index: NDArray[np.intp], q: Array, opening: Array, position: Array, quaternion: Array
    ) -> None:
        """As `BatchWorld.reset`."""
        self.model_index[mask] = model_index
        self._assign()
        self._q[mask] = self._filtered[mask] = q
        self._opening[mask], self._held[mask] = opening, -1
        self._block[mask] = np.concatenate([position, quaternion[..., 1:], quaternion[..., :1]], axis=-1)
        self._speed[mask] = self._contact[mask] = 0.0
        self.magnets.reset(mask)
        self.trace.states[:, mask] = self._pack()[mask]

    def advance(self, targets: Array) -> None:
        """As `BatchWorld.advance`."""
        targets = np.ascontiguousarray(targets, dtype=np.float32)
        self._contact[:] = 0.0
        self.trace.begin(targets.shape[1], self.memory)
        for start in range(0, targets.shape[1], CHUNK):
            part = np.ascontiguousarray(targets[:, start : start + CHUNK])
            duration = part.shape[1] * TICK
            position, rotation = self._block[..., :3].astype(np.float64), self._rotations()
            distance, angle = self.magnets.gaps(position, rotation)
            load = self._load.astype(np.float64)
            self.magnets.update(PULL * distance, PULL * angle, load, 0.0 * load, dt=duration)
            self._latched[:] = self.magnets.latched
            blocks, joints = self._block.copy(), self._q.copy()
            w = self._cells
            w.target, w.lag, w.size = _shared(part), _shared(self._lag), _shared(self._size)
            w.latched, w.before, w.q, w.filtered = (
                _shared(self._latched, int), _shared(joints), _shared(self._q), _shared(self._filtered)
            )  # fmt: skip
            w.opening, w.block = _shared(self._opening), _shared(self._block, wp.transform)
            w.held, w.grip = _shared(self._held, int), _shared(self._grip, wp.transform)
            w.contact, w.load = _shared(self._contact), _shared(self._load)
            wp.launch(advance_chunk, dim=self.n_envs, inputs=[w], device="cpu")
            speed = [(self._q - joints) / duration, _velocity(blocks, self._block, duration)]
            self._speed = np.concatenate([s.reshape(self.n_envs, -1) for s in speed], axis=1)
            self.trace.keep(start + part.shape[1], self._pack())

    def state(self, lag: NDArray[np.intp] | None = None, rows: Mask | slice = slice(None)) -> WorldState:
        """As `BatchWorld.state`."""
        return self.read(self.trace.states[-1][rows].copy() if lag is None else self.trace.ago(lag, rows), rows)

    def read(self, s: Array, rows: Mask | slice = slice(None)) -> WorldState:
        """As `BatchWorld.read`."""
        n, r, b = len(s), self.n_arms, self.n_blocks
        q, opening, block, qd, velocity = np.split(s, np.cumsum([6 * r, r, 7 * b, 6 * r]), axis=1)
        block = block.reshape(n, b, 7)
        return WorldState(
            q=q.reshape(n, r, 6),
            qd=qd.reshape(n, r, 6),
            opening=opening,
            position=block[..., :3].copy(),
            quaternion=block[..., [6, 3, 4, 5]],
            velocity=velocity.reshape(n, b, 6),
            arm_contact=self._contact[rows, 0].astype(np.float64),
            table_contact=self._contact[rows, 1:].astype(np.float64),
        )

    @property
    def lag(self) -> Array:
        """Time constant of the servos of every environment [s], shape (n_envs,)."""
        return self._lags[self.model_index]

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here."""
        own = {name: getattr(self, f"_{name}").astype(np.float64) for name in _STATE}
        model_index = self.model_index.astype(np.float64)
        return {**own, **self.magnets.snapshot(), "model_index": model_index, "trace": self.trace.snapshot()}

    def restore(self, snapshot: dict[str, Array], rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """As `BatchWorld.restore`."""
        for name in _STATE:
            getattr(self, f"_{name}")[rows] = snapshot[name]
        self.model_index[rows] = snapshot["model_index"]
        self._assign()
        self.magnets.restore(snapshot, rows)
        self.trace.restore(snapshot["trace"], rows)

    def _assign(self) -> None:
        self.magnets.size, self.magnets.strength = self._sizes[self.model_index], self._strengths[self.model_index]
        self._size, self._lag = self.magnets.size.astype(np.float32), self.lag.astype(np.float32)

    def _rotations(self) -> Array:
        return magnets.matrices(self._block[..., [6, 3, 4, 5]].astype(np.float64))

    def _pack(self) -> Array:
        n = self.n_envs
        parts = [self._q.reshape(n, -1), self._opening, self._block.reshape(n, -1), self._speed]
        return np.concatenate(parts, axis=1).astype(np.float64)


_STATE = ("q", "filtered", "opening", "contact", "block", "held", "grip", "load", "speed")


def _shared(array: NDArray[Any], dtype: Any = float) -> Any:
    return wp.array(array, dtype=dtype, device="cpu", copy=False)


def _array(values: Any, dtype: Any) -> Any:
    return wp.array(np.asarray(values, dtype=np.float32), dtype=dtype, device="cpu")


def _quaternions(rotation: Array) -> Array:
    """Quaternions (x, y, z, w) of matrices (..., 3, 3)."""
    return Rotation.from_matrix(rotation).as_quat()


def _velocity(before: NDArray[Any], after: NDArray[Any], duration: float) -> NDArray[Any]:
    """Linear and angular speed of blocks from two poses, (n, B, 6)."""
    a, b = before[..., 3:], after[..., 3:]
    # The vector part of conj(a) b is half the angle turned, for turns as small as those of one chunk.
    sign = np.sign((a * b).sum(-1, keepdims=True))
    vector = a[..., 3:] * b[..., :3] - b[..., 3:] * a[..., :3] - np.cross(a[..., :3], b[..., :3])
    return np.concatenate([after[..., :3] - before[..., :3], 2 * sign * vector], axis=-1) / duration
