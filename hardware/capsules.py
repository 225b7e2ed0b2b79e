"""The arm and its gripper as ten capsules: coarse on purpose, cheap enough for every servo tick.

Measured off the vendor's meshes; from the wrist on these stick out by less than a centimetre, which the clearance of
the guard has to cover.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.compiled import compiled
from horseshoe.hardware import xarm6
from horseshoe.hardware.xarm6 import Array

Index = NDArray[np.intp]

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
_WITHIN = _NOTICED[tuple(_PAIRS.T)]  # likewise, pair by pair [m]
_NEAR = (_WITHIN + _BALL[_PAIRS].sum(1)) ** 2  # squared distance of the balls' centres
_PARTS_LINK, _PARTS_RADIUS = np.tile(_LINK, 2), np.tile(RADII, 2)


def arm_capsules(q: Array, opening: float, base: Array | None = None) -> Array:
    """Ends of all capsules of one arm.

    Args:
        q: joint positions [rad], shape (6,).
        opening: distance between the finger pads [m].
        base: world pose of the arm's base [m], shape (4, 4); the base frame itself if omitted.

    Returns:
        [m], shape (10, 2, 3); radii are in `RADII`, names in `NAMES`.
    """
    base = np.eye(4) if base is None else base
    poses = np.concatenate([base[None], xarm6.link_frames(q[None], base[None])[0]])[_LINK]
    ends = _ENDS.copy()
    for finger, side in zip(_FINGERS, (0.5, -0.5), strict=True):
        ends[finger, 1, 1] += side * opening
    return ends @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]


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
    s, t = _along((d1 * d1).sum(-1), (d1 * d2).sum(-1), (d1 * r).sum(-1), (d2 * d2).sum(-1), (d2 * r).sum(-1))
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt((gap * gap).sum(-1))


def _along(a: Any, b: Any, c: Any, e: Any, f: Any) -> tuple[Any, Any]:
    """Where two segments d1 and d2, whose starts differ by r, are nearest, in [0, 1]; of numbers or of arrays.

    Args:
        a: d1 d1.
        b: d1 d2.
        c: d1 r.
        e: d2 d2.
        f: d2 r.
    """
    s = np.minimum(np.maximum((b * f - c * e) / np.maximum(a * e - b * b, 1e-12), 0.0), 1.0)
    t = np.minimum(np.maximum((b * s + f) / e, 0.0), 1.0)
    return np.minimum(np.maximum((b * t - c) / a, 0.0), 1.0), t


_along_compiled = compiled(_along)  # inside of `_measure`


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
    carriers[:, :, 0], carriers[:, :, 1:] = bases, xarm6.link_frames(q, bases)
    parts = _PARTS_LINK, _OPEN_ENDS, _PARTS_RADIUS
    _measure(carriers, *parts, _PAIRS, _WITHIN, _NEAR, gap, gradient)
    return gap, gradient


@compiled
def _measure(
    carriers: Array, links: Index, ends: Array, radii: Array, pairs: Index, within: Array, near: Array,
    gap: Array, gradient: Array,
) -> None:  # fmt: skip
    """Fill in what `gaps_and_gradients` returns.

    Args:
        carriers: poses of base and links of both arms, (n, 2, 7, 4, 4).
        links: carrier of each part of both arms, (20,).
        ends: of an arm's parts in the frames of their carriers, (10, 2, 3).
        radii: of the parts of both arms, (20,).
        pairs: parts that can meet, (m, 2).
        within: how near they must come to count, (m,).
        near: squared distance of their middles beyond which they are further away than that, (m,).
        gap: (n, NEAREST), infinite at first.
        gradient: (n, NEAREST, 2, 6), zero at first.
    """
    n_parts, keep = len(ends), gap.shape[1]
    start, way, middle = np.empty((2 * n_parts, 3)), np.empty((2 * n_parts, 3)), np.empty((2 * n_parts, 3))
    which, along = np.empty(keep, dtype=np.intp), np.empty((keep, 2))
    point, away = np.empty((2, 3)), np.empty(3)
    for i in range(len(carriers)):
        for part in range(2 * n_parts):
            pose, own = carriers[i, part // n_parts, links[part]], ends[part % n_parts]
            for k in range(3):
                a = pose[k, 0] * own[0, 0] + pose[k, 1] * own[0, 1] + pose[k, 2] * own[0, 2] + pose[k, 3]
                b = pose[k, 0] * own[1, 0] + pose[k, 1] * own[1, 1] + pose[k, 2] * own[1, 2] + pose[k, 3]
                start[part, k], way[part, k], middle[part, k] = a, b - a, 0.5 * (a + b)
        found = 0
        for p in range(len(pairs)):
            one, two = pairs[p, 0], pairs[p, 1]
            x, y, z = middle[one, 0] - middle[two, 0], middle[one, 1] - middle[two, 1], middle[one, 2] - middle[two, 2]
            if x * x + y * y + z * z >= near[p]:
                continue
            a = b = c = e = f = 0.0
            for k in range(3):
                u, v, w = way[one, k], way[two, k], start[one, k] - start[two, k]
                a, b, c, e, f = a + u * u, b + u * v, c + u * w, e + v * v, f + v * w
            s, t = _along_compiled(a, b, c, e, f)
            square = 0.0
            for k in range(3):
                square += (start[one, k] - start[two, k] + s * way[one, k] - t * way[two, k]) ** 2
            free = np.sqrt(square) - radii[one] - radii[two]
            if free >= within[p] or (found == keep and free >= gap[i, keep - 1]):
                continue
            found = min(found + 1, keep)
            place = found - 1
            while place and free < gap[i, place - 1]:  # nearest first
                gap[i, place], which[place] = gap[i, place - 1], which[place - 1]
                along[place, 0], along[place, 1] = along[place - 1, 0], along[place - 1, 1]
                place -= 1
            gap[i, place], which[place], along[place, 0], along[place, 1] = free, p, s, t
        for rank in range(found):
            pair = pairs[which[rank]]
            apart = max(gap[i, rank] + radii[pair[0]] + radii[pair[1]], 1e-6)
            for k in range(3):
                for side in range(2):
                    point[side, k] = start[pair[side], k] + along[rank, side] * way[pair[side], k]
                away[k] = (point[0, k] - point[1, k]) / apart
            for side in range(2):
                arm, link = pair[side] // n_parts, links[pair[side]]
                sign = 1.0 - 2.0 * side
                # Joint j turns about the z axis of its own link, and moves what that link or a later one carries.
                for j in range(link):
                    joint = carriers[i, arm, j + 1]
                    x, y, z = joint[0, 2], joint[1, 2], joint[2, 2]
                    u, v, w = (point[side, 0] - joint[0, 3], point[side, 1] - joint[1, 3], point[side, 2] - joint[2, 3])
                    slope = (y * w - z * v) * away[0] + (z * u - x * w) * away[1] + (x * v - y * u) * away[2]
                    gradient[i, rank, arm, j] += sign * slope


def self_clearance(q: Array, opening: float) -> float:
    """Smallest distance between parts of one arm that could meet [m]; negative when they overlap."""
    ends = arm_capsules(q, opening)
    return float((segment_distances(ends[_SELF[:, 0]], ends[_SELF[:, 1]]) - _SELF_RADII).min())
