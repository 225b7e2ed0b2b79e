"""Block magnets: attraction, capture and break-away. One code for every physics engine.

A magnet is a point dipole sunk below the face of its block. Forces and torques between dipoles follow Yung, Landecker
and Villani, "An analytic solution for the force between two magnetic dipoles", Magnetic and Electrical Separation 9
(1998); the sink depth, half the height of the disc, keeps the force at contact finite. Defaults are an N42 disc of
11 mm by 12 mm stacked behind 0 mm of wall: 10 N at contact, 0.6 N at 12 mm, 0.03 N at 40 mm.

At contact a pair latches (each engine holds it with a rigid constraint) until the load on it exceeds `BREAK_FORCE` or
`BREAK_TORQUE`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.sim.assembly.blueprint import Blueprint

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEPTH = 0.006  # [m], dipole below the face
MU_0 = 4e-7 * np.pi  # [N/A^2]
BREAK_FORCE = 10.0  # [N], pull that separates two magnets in contact
BREAK_TORQUE = 0.2  # [N m], BREAK_FORCE at the edge of a 40 mm face
MOMENT = float(np.sqrt(BREAK_FORCE * 2 * np.pi * (2 * DEPTH) ** 4 / (3 * MU_0)))  # [A m^2]; coaxial, at contact
CAPTURE_DISTANCE = 0.006  # [m], between the faces' magnet centres
CAPTURE_ANGLE = np.radians(15.0)  # [rad], whole rotation from the joined orientation
TOUCH = 0.002  # [m], distance of faces that lie on each other
FAR = 0.08  # [m], beyond which magnets are left alone (5 mN)
GRACE = 0.3  # [s] after a capture in which the snap of the constraint is not taken for a pull; see also `parted`


def matrices(quaternions: Array) -> Array:
    """Rotation matrices of quaternions (w, x, y, z), shape (..., 4) -> (..., 3, 3)."""
    flat = Rotation.from_quat(quaternions.reshape(-1, 4), scalar_first=True).as_matrix()
    return flat.reshape(*quaternions.shape[:-1], 3, 3)


def rotation_angle(rotation: Array) -> Array:
    """Angle of rotation matrices [rad], shape (..., 3, 3) -> (...)."""
    return np.arccos(np.clip((np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2, -1, 1))


def dipole_wrench(r: Array, m1: Array, m2: Array) -> tuple[Array, Array, Array]:
    """Force on dipole 2, torque on dipole 1 and torque on dipole 2.

    Args:
        r: from dipole 1 to dipole 2 [m], shape (..., 3).
        m1: moment of dipole 1 [A m^2], shape (..., 3).
        m2: moment of dipole 2 [A m^2], shape (..., 3).

    Returns:
        [N], [N m], [N m], each of shape (..., 3). The force on dipole 1 is the opposite.
    """
    distance = np.maximum(np.sqrt((r * r).sum(-1, keepdims=True)), 2 * DEPTH)
    u = r / distance
    m1u, m2u, m1m2 = ((a * b).sum(-1, keepdims=True) for a, b in ((m1, u), (m2, u), (m1, m2)))
    force = 3 * MU_0 / (4 * np.pi * distance**4) * (m2 * m1u + m1 * m2u + u * m1m2 - 5 * u * m1u * m2u)
    field = MU_0 / (4 * np.pi * distance**3)
    return force, np.cross(m1, field * (3 * u * m2u - m2)), np.cross(m2, field * (3 * u * m1u - m1))


class Magnets:
    """The magnets of a batch of worlds, and which of them hold together.

    Attributes:
        latched: pairs (in the order of `blueprint.pairs`) that hold, shape (n_envs, P).
        size: scale of the blocks, shape (n_envs,).
        strength: scale of the magnet moments, shape (n_envs,).
    """

    def __init__(self, blueprint: Blueprint, n_envs: int) -> None:
        self.blueprint = blueprint
        self.latched: Mask = np.zeros((n_envs, len(blueprint.pairs)), dtype=bool)
        self.size = np.ones(n_envs)
        self.strength = np.ones(n_envs)
        self.since = np.zeros((n_envs, len(blueprint.pairs)))  # time since capture or release [s]
        # A pair that was pulled open attracts as before. It is captured again once it has parted, or if its faces still
        # touch after GRACE: what pulled was a knock.
        self.parted: Mask = np.ones((n_envs, len(blueprint.pairs)), dtype=bool)
        block = blueprint.magnet_block
        first, second = np.triu_indices(len(block), 1)
        apart = block[first] != block[second]
        self._first, self._second = first[apart], second[apart]
        # Which of those pairs each latchable pair is, so that the force inside a latch is left to the constraint.
        index = {(a, b): i for i, (a, b) in enumerate(zip(self._first, self._second, strict=True))}
        self._pair = np.array([index[min(s, a), max(s, a)] for _, s, a in blueprint.pairs])

        # Pairs of blocks that latchable magnets join, and weights of their relative rotation in the trace of a pair.
        blocks = block[blueprint.pairs[:, 1:]]
        self._between, which = np.unique(blocks, axis=0, return_inverse=True)
        traces = np.zeros((len(self._between), 9, len(blocks)))
        traces[which.ravel(), :, np.arange(len(blocks))] = blueprint.goal_rotation.reshape(-1, 9)
        self._traces = traces.reshape(-1, len(blocks))

    def reset(self, mask: Mask) -> None:
        """Open every latch of the environments in mask, shape (n_envs,)."""
        self.latched[mask], self.parted[mask] = False, True

    def wrenches(self, position: Array, rotation: Array) -> Array:
        """Magnetic wrench on every block about its centre, world frame.

        Args:
            position: block centres [m], shape (n_envs, B, 3).
            rotation: block orientations, shape (n_envs, B, 3, 3).

        Returns:
            [N, N m], shape (n_envs, B, 6).
        """
        bp = self.blueprint
        turned = rotation[:, bp.magnet_block]
        sunk = bp.magnet_position * self.size[:, None, None] - DEPTH * bp.magnet_axis
        lever = (turned @ sunk[..., None])[..., 0]
        place = position[:, bp.magnet_block] + lever
        axis = MOMENT * bp.magnet_sign[:, None] * bp.magnet_axis
        moment = (turned @ axis[..., None])[..., 0] * self.strength[:, None, None]
        a, b = self._first, self._second
        r = place[:, b] - place[:, a]
        total = np.zeros((len(position), len(bp.blocks), 6))
        close = (r * r).sum(-1) < FAR**2
        held, pair = np.nonzero(self.latched)
        close[held, self._pair[pair]] = False
        env, pair = np.nonzero(close)
        if not env.size:
            return total
        a, b = a[pair], b[pair]
        force, torque_a, torque_b = dipole_wrench(r[env, pair], moment[env, a], moment[env, b])
        for magnet, push, twist in ((a, -force, torque_a), (b, force, torque_b)):
            wrench = np.concatenate([push, twist + np.cross(lever[env, magnet], push)], axis=-1)
            np.add.at(total, (env, bp.magnet_block[magnet]), wrench)
        return total

    def gaps(self, position: Array, rotation: Array) -> tuple[Array, Array]:
        """How far every latchable pair is from being joined.

        Returns:
            Distance between the magnets' faces [m] and rotation from the joined orientation [rad], each (n_envs, P).
        """
        bp, n = self.blueprint, len(position)
        _, s, a = bp.pairs.T
        lever = rotation[:, bp.magnet_block] @ (bp.magnet_position * self.size[:, None, None])[..., None]
        place = position[:, bp.magnet_block] + lever[..., 0]
        # The trace of (joined orientation)^T (orientation) is a plain sum of products, here of all pairs at once.
        first, second = self._between.T
        between = np.swapaxes(rotation[:, first], -1, -2) @ rotation[:, second]
        cosine = (between.reshape(n, -1) @ self._traces - 1) / 2
        return np.sqrt(((place[:, a] - place[:, s]) ** 2).sum(-1)), np.arccos(np.clip(cosine, -1, 1))

    def update(self, distance: Array, angle: Array, force: Array, torque: Array, dt: float) -> Mask:
        """Capture what came close enough and release what is pulled too hard.

        Args:
            distance: of the faces of every pair [m], shape (n_envs, P); see `gaps`.
            angle: from the joined orientation [rad], shape (n_envs, P).
            force: load on every latchable pair as the engine measures it [N], shape (n_envs, P); ignored when open.
            torque: the same [N m], shape (n_envs, P).
            dt: time since the last call [s].

        Returns:
            Pairs captured by this call, shape (n_envs, P).
        """
        limit = self.strength[:, None] ** 2
        self.since += dt
        pulled = (force > BREAK_FORCE * limit) | (torque > BREAK_TORQUE * limit)
        released = self.latched & pulled & (self.since > GRACE)
        self.latched &= ~released
        self.since[released] = 0.0
        self.parted = (self.parted & ~released) | (distance > CAPTURE_DISTANCE)
        ready = self.parted | ((self.since > GRACE) & (distance < TOUCH))
        close = (distance < CAPTURE_DISTANCE) & (angle < CAPTURE_ANGLE) & ready
        if not close.any():
            return close
        # A magnet holds one other; of several candidates the nearest is captured, one a call.
        _, s, a = self.blueprint.pairs.T
        taken = np.zeros((len(close), len(self.blueprint.magnets)), dtype=bool)
        env, pair = np.nonzero(self.latched)
        taken[env, s[pair]] = taken[env, a[pair]] = True
        close &= ~(taken[:, s] | taken[:, a])
        nearest = np.where(close, distance, np.inf).argmin(1)
        captured = close & (np.arange(close.shape[1]) == nearest[:, None])
        self.latched |= captured
        self.since[captured] = 0.0
        return captured
