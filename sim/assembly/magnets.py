"""Block magnets: attraction, capture and break-away. One code for every physics engine.

A magnet is a point dipole sunk below the face of its block. Forces and torques between dipoles follow Yung, Landecker
and Villani, "An analytic solution for the force between two magnetic dipoles", Magnetic and Electrical Separation 9
(1998); the sink depth, half the height of the magnet, keeps the force at contact finite. Defaults: a moment of
0.59 A m^2, that of an N42 rod (1.3 T) of 8 mm by 12 mm; 10 N at contact, 0.6 N at 12 mm, 0.03 N at 40 mm.

At contact a pair latches (each engine holds it with a rigid constraint) until the load on it exceeds `BREAK_FORCE` or
`BREAK_TORQUE`.
"""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from horseshoe.compiled import compiled
from horseshoe.sim.assembly.blueprint import Blueprint

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

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
    rotation = np.empty((*quaternions.shape[:-1], 3, 3))
    _matrices(quaternions.reshape(-1, 4), rotation.reshape(-1, 3, 3))
    return rotation


@compiled
def _matrices(quaternions: Array, rotation: Array) -> None:
    """As scipy's Rotation, whose 0.1 ms a call are too long for every look at the magnets."""
    for i in range(len(quaternions)):
        w, x, y, z = quaternions[i, 0], quaternions[i, 1], quaternions[i, 2], quaternions[i, 3]
        s = 2.0 / (w * w + x * x + y * y + z * z)
        frame = rotation[i]
        frame[0, 0], frame[0, 1], frame[0, 2] = 1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)
        frame[1, 0], frame[1, 1], frame[1, 2] = s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)
        frame[2, 0], frame[2, 1], frame[2, 2] = s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)


def products(a: Array, b: Array) -> Array:
    """Products a b of rotation matrices, both (..., 3, 3); NumPy takes eight times as long for so small ones."""
    a, b = np.broadcast_arrays(a, b)
    out = np.empty(a.shape)
    _products(
        np.ascontiguousarray(a).reshape(-1, 3, 3), np.ascontiguousarray(b).reshape(-1, 3, 3), out.reshape(-1, 3, 3)
    )
    return out


@compiled
def _products(a: Array, b: Array, out: Array) -> None:
    for i in range(len(out)):
        for j in range(3):
            for k in range(3):
                out[i, j, k] = a[i, j, 0] * b[i, 0, k] + a[i, j, 1] * b[i, 1, k] + a[i, j, 2] * b[i, 2, k]


def rotated(rotation: Array, vector: Array) -> Array:
    """Vectors (..., R, 3) turned by rotation matrices (..., R, 3, 3), or by the same (R, 3, 3) for all."""
    out = np.empty(vector.shape)
    matrices = np.ascontiguousarray(rotation).reshape(-1, 3, 3)
    _rotated(matrices, np.ascontiguousarray(vector).reshape(-1, 3), out.reshape(-1, 3))
    return out


@compiled
def _rotated(rotation: Array, vector: Array, out: Array) -> None:
    for i in range(len(out)):
        a = rotation[i % len(rotation)]
        for j in range(3):
            out[i, j] = a[j, 0] * vector[i, 0] + a[j, 1] * vector[i, 1] + a[j, 2] * vector[i, 2]


def rotation_angle(rotation: Array) -> Array:
    """Angle of rotation matrices [rad], shape (..., 3, 3) -> (...)."""
    return np.arccos(np.clip((np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2, -1, 1))


@compiled
def dipole_wrench(r: Array, m1: Array, m2: Array, force: Array, torque1: Array, torque2: Array) -> None:
    """Fill in the force on dipole 2, the torque on dipole 1 and the torque on dipole 2.

    Args:
        r: from dipole 1 to dipole 2 [m], shape (3,).
        m1: moment of dipole 1 [A m^2], shape (3,).
        m2: moment of dipole 2 [A m^2], shape (3,).
        force: [N], shape (3,); the force on dipole 1 is the opposite.
        torque1: [N m], shape (3,).
        torque2: [N m], shape (3,).
    """
    distance = max(np.sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]), 2 * DEPTH)
    m1u = m2u = m1m2 = 0.0
    for k in range(3):
        m1u, m2u, m1m2 = m1u + m1[k] * r[k] / distance, m2u + m2[k] * r[k] / distance, m1m2 + m1[k] * m2[k]
    field = MU_0 / (4 * np.pi * distance**3)
    for k in range(3):
        u = r[k] / distance
        force[k] = 3 * field / distance * (m2[k] * m1u + m1[k] * m2u + u * m1m2 - 5 * u * m1u * m2u)
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        torque1[k] = field * (m1[i] * (3 * r[j] / distance * m2u - m2[j]) - m1[j] * (3 * r[i] / distance * m2u - m2[i]))
        torque2[k] = field * (m2[i] * (3 * r[j] / distance * m1u - m1[j]) - m2[j] * (3 * r[i] / distance * m1u - m1[i]))


@compiled
def _wrenches(
    position: Array, rotation: Array, block: Index, lever: Array, moment: Array, pairs: Index, latch: Index,
    latched: Mask, size: Array, strength: Array, total: Array,
) -> None:  # fmt: skip
    """Fill in what `Magnets.wrenches` returns.

    Args:
        position: of the blocks [m], (n, B, 3).
        rotation: of the blocks, (n, B, 3, 3).
        block: of each magnet, (M,).
        lever: magnets at size 1 and how far they are sunk, in their blocks [m], (M, 2, 3).
        moment: of the magnets in their blocks [A m^2], (M, 3).
        pairs: of magnets of different blocks, (m, 2).
        latch: which latchable pair each of them is, -1 for none, (m,).
        latched: (n, P).
        size: of the blocks, (n,).
        strength: of the magnets, (n,).
        total: to fill in, zero at first, (n, B, 6).
    """
    count = len(block)
    arm, place, turned = np.empty((count, 3)), np.empty((count, 3)), np.empty((count, 3))
    r, force, torque = np.empty(3), np.empty(3), np.empty((2, 3))
    for i in range(len(position)):
        for m in range(count):
            frame = rotation[i, block[m]]
            for k in range(3):
                arm[m, k] = turned[m, k] = 0.0
                for j in range(3):
                    arm[m, k] += frame[k, j] * (lever[m, 0, j] * size[i] - lever[m, 1, j])
                    turned[m, k] += frame[k, j] * moment[m, j] * strength[i]
                place[m, k] = position[i, block[m], k] + arm[m, k]
        for p in range(len(pairs)):
            a, b = pairs[p, 0], pairs[p, 1]
            for k in range(3):
                r[k] = place[b, k] - place[a, k]
            if r[0] * r[0] + r[1] * r[1] + r[2] * r[2] >= FAR**2 or (latch[p] >= 0 and latched[i, latch[p]]):
                continue
            dipole_wrench(r, turned[a], turned[b], force, torque[0], torque[1])
            for side in range(2):
                magnet, sign = (b, 1.0) if side else (a, -1.0)
                body = total[i, block[magnet]]
                for k in range(3):
                    u, v = (k + 1) % 3, (k + 2) % 3
                    body[k] += sign * force[k]
                    body[3 + k] += torque[side, k] + sign * (arm[magnet, u] * force[v] - arm[magnet, v] * force[u])


@compiled
def _gaps(
    position: Array, rotation: Array, block: Index, lever: Array, pairs: Index, joined: Array, size: Array,
    distance: Array, angle: Array,
) -> None:  # fmt: skip
    """Fill in what `Magnets.gaps` returns.

    Args:
        position: of the blocks [m], (n, B, 3).
        rotation: of the blocks, (n, B, 3, 3).
        block: of each magnet, (M,).
        lever: magnets at size 1 in their blocks [m], (M, 3).
        pairs: connection, socket and accepted magnet, (P, 3).
        joined: rotation of the second block in the first one's frame when joined, (P, 3, 3).
        size: of the blocks, (n,).
        distance: to fill in [m], (n, P).
        angle: to fill in [rad], (n, P).
    """
    for i in range(len(position)):
        for p in range(len(pairs)):
            a, b = pairs[p, 1], pairs[p, 2]
            first, second = rotation[i, block[a]], rotation[i, block[b]]
            square = trace = 0.0
            for k in range(3):
                apart = position[i, block[b], k] - position[i, block[a], k]
                for j in range(3):
                    apart += (second[k, j] * lever[b, j] - first[k, j] * lever[a, j]) * size[i]
                    for m in range(3):
                        trace += first[k, j] * joined[p, j, m] * second[k, m]
                square += apart * apart
            distance[i, p] = np.sqrt(square)
            angle[i, p] = np.arccos(min(max((trace - 1) / 2, -1.0), 1.0))


@compiled
def _update(
    distance: Array, angle: Array, force: Array, torque: Array, dt: float, strength: Array, pairs: Index,
    latched: Mask, since: Array, parted: Mask,
) -> None:  # fmt: skip
    """What `Magnets.update` does; latched, since and parted, each (n, P), change in place."""
    for i in range(len(distance)):
        limit, nearest = strength[i] ** 2, -1
        for p in range(len(pairs)):
            since[i, p] += dt
            pulled = force[i, p] > BREAK_FORCE * limit or torque[i, p] > BREAK_TORQUE * limit
            if latched[i, p] and pulled and since[i, p] > GRACE:
                latched[i, p] = parted[i, p] = False
                since[i, p] = 0.0
            parted[i, p] |= distance[i, p] > CAPTURE_DISTANCE
        # A magnet holds one other; of several candidates the nearest is captured, one a call.
        for p in range(len(pairs)):
            ready = parted[i, p] or (since[i, p] > GRACE and distance[i, p] < TOUCH)
            if not (ready and distance[i, p] < CAPTURE_DISTANCE and angle[i, p] < CAPTURE_ANGLE):
                continue
            taken = False
            for other in range(len(pairs)):
                for one in range(1, 3):
                    for two in range(1, 3):
                        taken |= latched[i, other] and pairs[other, one] == pairs[p, two]
            if not taken and (nearest < 0 or distance[i, p] < distance[i, nearest]):
                nearest = p
        if nearest >= 0:
            latched[i, nearest] = True
            since[i, nearest] = 0.0


@compiled
def _look(
    poses: Array, give: Array, dt: float, block: Index, place: Array, lever: Array, moment: Array, pairs: Index,
    joined: Array, all_pairs: Index, latch: Index, latched: Mask, since: Array, parted: Mask, size: Array,
    strength: Array, total: Array,
) -> None:  # fmt: skip
    """What `Magnets.look` does, in one call instead of four: arguments as those of the functions it calls."""
    n, blocks, p = len(poses), poses.shape[1], len(pairs)
    position, rotation = np.empty((n, blocks, 3)), np.empty((n, blocks, 3, 3))
    distance, angle, force, torque = np.empty((n, p)), np.empty((n, p)), np.empty((n, p)), np.empty((n, p))
    for i in range(n):
        position[i] = poses[i, :, :3]
        _matrices(poses[i, :, 3:], rotation[i])
    _gaps(position, rotation, block, place, pairs, joined, size, distance, angle)
    for i in range(n):
        for k in range(p):
            force[i, k], torque[i, k] = distance[i, k] / give[i, k, 0], angle[i, k] / give[i, k, 1]
    _update(distance, angle, force, torque, dt, strength, pairs, latched, since, parted)
    _wrenches(position, rotation, block, lever, moment, all_pairs, latch, latched, size, strength, total)


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
        self._pairs = np.stack([first, second], axis=1)[apart]
        # Which latchable pair each of them is, so that the force inside a latch is left to the constraint.
        latch = {tuple(sorted(pair)): i for i, pair in enumerate(blueprint.pairs[:, 1:].tolist())}
        self._latch = np.array([latch.get((a, b), -1) for a, b in self._pairs.tolist()])
        self._lever = np.stack([blueprint.magnet_position, DEPTH * blueprint.magnet_axis], axis=1)
        self._moment = MOMENT * blueprint.magnet_sign[:, None] * blueprint.magnet_axis

    def reset(self, mask: Mask) -> None:
        """Open every latch of the environments in mask, shape (n_envs,)."""
        self.latched[mask], self.parted[mask] = False, True

    def take(self, rows: Index) -> "Magnets":
        """The magnets of some environments as they are now, to be changed and `put` back."""
        taken = copy(self)
        taken.size, taken.strength = self.size[rows], self.strength[rows]
        taken.latched, taken.since, taken.parted = self.latched[rows], self.since[rows], self.parted[rows]
        return taken

    def put(self, rows: Index, taken: "Magnets") -> None:
        """Take over what has become of the magnets of some environments."""
        self.latched[rows], self.since[rows], self.parted[rows] = taken.latched, taken.since, taken.parted

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here."""
        latches = {"latched": self.latched, "since": self.since, "parted": self.parted}
        return {name: value.astype(np.float64) for name, value in latches.items()}

    def restore(self, snapshot: dict[str, Array], rows: Index | slice = slice(None)) -> None:
        """Go back to a snapshot of the environments in rows."""
        self.latched[rows], self.since[rows] = snapshot["latched"], snapshot["since"]
        self.parted[rows] = snapshot["parted"]

    def wrenches(self, position: Array, rotation: Array) -> Array:
        """Magnetic wrench on every block about its centre, world frame.

        Args:
            position: block centres [m], shape (n, B, 3).
            rotation: block orientations, shape (n, B, 3, 3).

        Returns:
            [N, N m], shape (n, B, 6).
        """
        total = np.zeros((len(position), len(self.blueprint.blocks), 6))
        magnets = self.blueprint.magnet_block, self._lever, self._moment, self._pairs, self._latch
        _wrenches(position, rotation, *magnets, self.latched, self.size, self.strength, total)
        return total

    def gaps(self, position: Array, rotation: Array) -> tuple[Array, Array]:
        """How far every latchable pair is from being joined; arguments as those of `wrenches`.

        Returns:
            Distance between the magnets' faces [m] and rotation from the joined orientation [rad], each (n, P).
        """
        bp = self.blueprint
        distance, angle = np.empty((2, len(position), len(bp.pairs)))
        magnets = bp.magnet_block, bp.magnet_position, bp.pairs, bp.goal_rotation
        _gaps(position, rotation, *magnets, self.size, distance, angle)
        return distance, angle

    def look(self, poses: Array, give: Array, dt: float) -> Array:
        """`update`, then `wrenches`, where what latches is held by springs that give way.

        Args:
            poses: position [m] and quaternion (w, x, y, z) of the blocks, shape (n, B, 7).
            give: of a latch's spring per load [m/N, rad/(N m)], shape (n, P, 2).
            dt: time since the last look [s].

        Returns:
            As `wrenches`.
        """
        bp, total = self.blueprint, np.zeros((len(poses), len(self.blueprint.blocks), 6))
        magnets = bp.magnet_block, bp.magnet_position, self._lever, self._moment, bp.pairs, bp.goal_rotation
        state = self.latched, self.since, self.parted, self.size, self.strength
        _look(poses, give, dt, *magnets, self._pairs, self._latch, *state, total)
        return total

    def update(self, distance: Array, angle: Array, force: Array, torque: Array, dt: float) -> None:
        """Capture what came close enough and release what is pulled too hard.

        Args:
            distance: of the faces of every pair [m], shape (n, P); see `gaps`.
            angle: from the joined orientation [rad], shape (n, P).
            force: load on every latchable pair as the engine measures it [N], shape (n, P); ignored when open.
            torque: the same [N m], shape (n, P).
            dt: time since the last call [s].
        """
        state = self.latched, self.since, self.parted
        _update(distance, angle, force, torque, dt, self.strength, self.blueprint.pairs, *state)
