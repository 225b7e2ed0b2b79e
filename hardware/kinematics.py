"""Kinematics of one arm at servo rate.

`xarm6` broadcasts over batches and costs about 0.2 ms for a single arm; driver, emulator and guard need the same
numbers 250 times a second per arm and get them here in a tenth of the time: so few numbers cost less without arrays.
"""

from math import cos, sin

import numpy as np

from horseshoe.hardware.xarm6 import ORIGINS, TOOL_OFFSET, Array

Vector = tuple[float, float, float]

# Every joint frame is the one before, shifted and given some quarter turns about x (1, 0 or -1), then turned about z.
_OFFSETS = [tuple(offset) for offset in ORIGINS[:, :3, 3].tolist()]
_QUARTER_TURNS = np.round(ORIGINS[:, 2, 1]).astype(int).tolist()


def _frames(q: Array) -> list[tuple[Vector, Vector, Vector, Vector]]:
    """Axes x, y, z and origin [m] of every joint's frame in the arm's base frame; the last one carries the flange."""
    frames = []
    xx, xy, xz, yx, yy, yz, zx, zy, zz = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0
    px, py, pz = 0.0, 0.0, 0.0
    for angle, turn, (ox, oy, oz) in zip(q.tolist(), _QUARTER_TURNS, _OFFSETS, strict=True):
        px += ox * xx + oy * yx + oz * zx
        py += ox * xy + oy * yy + oz * zy
        pz += ox * xz + oy * yz + oz * zz
        if turn == 1:
            yx, yy, yz, zx, zy, zz = zx, zy, zz, -yx, -yy, -yz
        elif turn == -1:
            yx, yy, yz, zx, zy, zz = -zx, -zy, -zz, yx, yy, yz
        c, s = cos(angle), sin(angle)
        xx, xy, xz, yx, yy, yz = (
            c * xx + s * yx,
            c * xy + s * yy,
            c * xz + s * yz,
            c * yx - s * xx,
            c * yy - s * xy,
            c * yz - s * xz,
        )
        frames.append(((xx, xy, xz), (yx, yy, yz), (zx, zy, zz), (px, py, pz)))
    return frames


def link_poses(q: Array) -> tuple[Array, Array]:
    """Pose of every link in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).

    Returns:
        Rotations, shape (6, 3, 3), and positions [m], shape (6, 3); the last link carries the flange.
    """
    frames = np.array(_frames(q))
    return frames[:, :3].transpose(0, 2, 1), frames[:, 3]


def tool_position(q: Array, offset: Vector = (0.0, 0.0, TOOL_OFFSET)) -> Array:
    """Position of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).
        offset: of the tool centre point in the flange frame [m].

    Returns:
        [m], shape (3,).
    """
    u, v, w = offset
    return np.array([p + u * x + v * y + w * z for x, y, z, p in zip(*_frames(q)[5], strict=True)])


def tool_jacobian(q: Array) -> Array:
    """Linear part of the Jacobian of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).

    Returns:
        [m/rad], shape (3, 6).
    """
    frames = _frames(q)
    _, _, axis, origin = frames[5]
    tx, ty, tz = (p + TOOL_OFFSET * a for p, a in zip(origin, axis, strict=True))
    columns = []
    for _, _, (ax, ay, az), (px, py, pz) in frames:
        x, y, z = tx - px, ty - py, tz - pz
        columns.append((ay * z - az * y, az * x - ax * z, ax * y - ay * x))
    return np.array(columns).T
