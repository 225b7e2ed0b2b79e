"""The arm and its gripper as ten capsules: coarse on purpose, cheap enough for every servo tick.

Measured off the vendor's meshes; from the wrist on these stick out by less than a centimetre, which the clearance of
the guard has to cover.
"""

import numpy as np

from horseshoe.hardware import xarm6
from horseshoe.hardware.kinematics import link_poses
from horseshoe.hardware.xarm6 import Array

# Name, link that carries it (0 is the base), both ends in the link frame [m], radius [m].
_SHAPES = (
    ("base column", 0, (0, 0, 0.06), (0, 0, 0.267), 0.065),
    ("upper arm", 2, (0, 0, 0), (0.0535, -0.2845, 0), 0.07),
    ("elbow", 3, (0, 0, 0), (0.0775, 0.10, 0), 0.065),
    ("forearm", 3, (0.0775, 0.10, 0), (0.0775, 0.3425, 0), 0.055),
    ("wrist", 5, (0, 0, 0), (0.076, 0.01, 0), 0.055),
    ("flange", 5, (0.076, 0.01, 0), (0.076, 0.097, 0), 0.042),
    ("gripper", 6, (0, 0, 0.025), (0, 0, 0.075), 0.055),
    ("left finger", 6, (0, 0.055, 0.10), (0, 0.008, xarm6.TOOL_OFFSET - 0.012), 0.012),
    ("right finger", 6, (0, -0.055, 0.10), (0, -0.008, xarm6.TOOL_OFFSET - 0.012), 0.012),
    ("wrist motor", 4, (0, 0.03, -0.10), (0, 0.042, 0), 0.047),
)
NEAREST = 4  # pairs of parts of two arms that are kept apart at a time: wedged arms meet in several places
NAMES = tuple(shape[0] for shape in _SHAPES)
RADII = np.array([shape[4] for shape in _SHAPES])
_LINK = np.array([shape[1] for shape in _SHAPES])
_ENDS = np.array([[shape[2], shape[3]] for shape in _SHAPES], dtype=np.float64)
_FINGERS = (7, 8)
_OPEN_ENDS = _ENDS.copy()
_OPEN_ENDS[_FINGERS, 1, 1] += np.array([0.5, -0.5]) * xarm6.GRIPPER_STROKE
# Pairs that can meet within one arm: everything from the forearm on with the column, the hand with the upper arm.
_SELF = np.array(
    [(0, 3), (0, 4), (0, 5), (0, 6), (0, 7), (0, 8), (1, 5), (1, 6), (1, 7), (1, 8), (2, 6), (2, 7), (2, 8)]
)
_SELF_RADII = RADII[_SELF].sum(axis=1)
# How near two of the twenty parts of two arms must come to count [m], -1 for those that cannot meet: everything from
# the elbow on may meet the other arm, some parts others of their own.
_NOTICED: Array = np.full((2, len(NAMES), 2, len(NAMES)), -1.0)
_NOTICED[0, 2:, 1, 2:] = 0.15
for _arm in (0, 1):
    _NOTICED[_arm, _SELF[:, 0], _arm, _SELF[:, 1]] = 0.06
_NOTICED = _NOTICED.reshape(2 * len(NAMES), -1)
_PAIRS = np.argwhere(_NOTICED > 0)
_BALL = np.tile(np.linalg.norm(_OPEN_ENDS[:, 1] - _OPEN_ENDS[:, 0], axis=-1) / 2 + RADII, 2)  # radius around a part
_NEAR = (_NOTICED[tuple(_PAIRS.T)] + _BALL[_PAIRS].sum(1)) ** 2  # squared distance of the balls' centres


def arm_capsules(q: Array, opening: float, base: Array | None = None) -> Array:
    """Ends of all capsules of one arm.

    Args:
        q: joint positions [rad], shape (6,).
        opening: distance between the finger pads [m].
        base: world pose of the arm's base [m], shape (4, 4); the base frame itself if omitted.

    Returns:
        [m], shape (10, 2, 3); radii are in `RADII`, names in `NAMES`.
    """
    link_rotations, link_positions = link_poses(q)
    rotations, positions = np.empty((7, 3, 3)), np.empty((7, 3))
    if base is None:
        rotations[0], positions[0] = np.eye(3), 0.0
        rotations[1:], positions[1:] = link_rotations, link_positions
    else:
        rotations[0], positions[0] = base[:3, :3], base[:3, 3]
        rotations[1:] = base[:3, :3] @ link_rotations
        positions[1:] = link_positions @ base[:3, :3].T + base[:3, 3]
    ends = _ENDS.copy()
    for finger, side in zip(_FINGERS, (0.5, -0.5), strict=True):
        ends[finger, 1, 1] += side * opening
    return ends @ rotations[_LINK].transpose(0, 2, 1) + positions[_LINK][:, None]


def segment_distances(first: Array, second: Array) -> Array:
    """Distance between line segments, pair by pair [m].

    Args:
        first: ends [m], shape (..., 2, 3), no segment of length zero.
        second: likewise; the leading axes broadcast.

    Returns:
        [m], of the broadcast leading shape.
    """
    start1, start2 = first[..., 0, :], second[..., 0, :]
    d1, d2 = first[..., 1, :] - start1, second[..., 1, :] - start2
    r = start1 - start2
    s, t = _nearest(r, d1, d2)
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt((gap * gap).sum(-1))


def _nearest(r: Array, d1: Array, d2: Array) -> tuple[Array, Array]:
    """Where on two segments with directions d1 and d2, whose starts differ by r, they are nearest, in [0, 1]."""
    a, e = (d1 * d1).sum(-1), (d2 * d2).sum(-1)
    b, c, f = (d1 * d2).sum(-1), (d1 * r).sum(-1), (d2 * r).sum(-1)
    denominator = np.maximum(a * e - b * b, 1e-12)
    s = np.minimum(np.maximum((b * f - c * e) / denominator, 0.0), 1.0)
    t = np.minimum(np.maximum((b * s + f) / e, 0.0), 1.0)
    return np.minimum(np.maximum((b * t - c) / a, 0.0), 1.0), t


def gaps_and_gradients(q: Array, bases: Array) -> tuple[Array, Array]:
    """Distances between the parts of two arms with open hands that are nearest, and how they grow with the joints.

    Parts of one arm that could meet count too.

    Args:
        q: joint positions [rad], shape (n, 2, 6).
        bases: world poses of the arms' bases [m], shape (2, 4, 4).

    Returns:
        [m], nearest pair of parts first, negative where they overlap, shape (n, NEAREST); their gradients [m/rad],
        shape (n, NEAREST, 2, 6). Infinite with a gradient of zero where there are no (more) pairs within 15 cm, or
        6 cm within one arm.
    """
    gap, gradient = np.full((len(q), NEAREST), np.inf), np.zeros((len(q), NEAREST, *q.shape[1:]))
    carriers = np.empty((len(q), 2, 1 + xarm6.N_JOINTS, 4, 4))
    carriers[:, :, 0], carriers[:, :, 1:] = bases, bases[:, None] @ xarm6.link_frames(q)
    carrier = carriers[:, :, _LINK]  # (n, 2, parts, 4, 4)
    ends = (carrier[..., :3, :3] @ _OPEN_ENDS.swapaxes(1, 2) + carrier[..., :3, 3:]).swapaxes(-1, -2)
    ends = ends.reshape(len(q), -1, 2, 3)
    middle = 0.5 * (ends[:, :, 0] + ends[:, :, 1])
    square = np.einsum("nij,nij->ni", middle, middle)
    between = square[:, :, None] + square[:, None] - 2 * middle @ middle.transpose(0, 2, 1)
    row, which = np.nonzero(between[:, _PAIRS[:, 0], _PAIRS[:, 1]] < _NEAR)
    pair = _PAIRS[which]
    both = ends[row[:, None], pair]  # (m, 2, 2, 3)
    start, way = both[:, :, 0], both[:, :, 1] - both[:, :, 0]
    along = np.stack(_nearest(start[:, 0] - start[:, 1], way[:, 0], way[:, 1]), axis=1)
    points = start + along[..., None] * way
    apart = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
    arm, part = np.divmod(pair, len(NAMES))
    free = apart - RADII[part].sum(1)
    near = np.flatnonzero(free < _NOTICED[tuple(pair.T)])
    if not near.size:
        return gap, gradient
    near = near[np.lexsort((free[near], row[near]))]  # row by row, nearest first
    rank = np.arange(len(near)) - np.searchsorted(row[near], row[near])
    near, rank = near[rank < NEAREST], rank[rank < NEAREST]
    row, arm, part, points = row[near], arm[near], part[near], points[near]
    gap[row, rank] = free[near]
    away = (points[:, 0] - points[:, 1]) / np.maximum(apart[near], 1e-6)[:, None]
    # Joint j turns about the z axis of link j, and moves what link j or a later one carries.
    joint = carriers[row[:, None], arm, 1:]  # (k, 2, joints, 4, 4)
    moves = np.cross(joint[..., :3, 2], points[:, :, None] - joint[..., :3, 3])
    carried = _LINK[part][..., None] > np.arange(xarm6.N_JOINTS)
    slopes = (moves @ away[:, None, :, None])[..., 0] * carried
    for side, sign in ((0, 1.0), (1, -1.0)):
        gradient[row, rank, arm[:, side]] += sign * slopes[:, side]
    return gap, gradient


def self_clearance(q: Array, opening: float) -> float:
    """Smallest distance between parts of one arm that could meet [m]; negative when they overlap."""
    ends = arm_capsules(q, opening)
    return float((segment_distances(ends[_SELF[:, 0]], ends[_SELF[:, 1]]) - _SELF_RADII).min())
