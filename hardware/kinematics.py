"""Kinematics of one arm at servo rate.

`xarm6` broadcasts over batches and costs about 0.2 ms for a single arm; driver, emulator and guard need the same
numbers 250 times a second per arm and get them here in about a fifth of the time.
"""

import numpy as np

from horseshoe.hardware.xarm6 import _ORIGINS, TOOL_OFFSET, Array

_ROTATIONS = np.ascontiguousarray(_ORIGINS[:, :3, :3])
_OFFSETS = np.ascontiguousarray(_ORIGINS[:, :3, 3])


def link_poses(q: Array) -> tuple[Array, Array]:
    """Pose of every link in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).

    Returns:
        Rotations, shape (6, 3, 3), and positions [m], shape (6, 3); the last link carries the flange.
    """
    cos, sin = np.cos(q)[:, None], np.sin(q)[:, None]
    local = _ROTATIONS.copy()
    local[:, :, 0] = _ROTATIONS[:, :, 0] * cos + _ROTATIONS[:, :, 1] * sin
    local[:, :, 1] = _ROTATIONS[:, :, 1] * cos - _ROTATIONS[:, :, 0] * sin
    rotations, positions = np.empty((6, 3, 3)), np.empty((6, 3))
    rotations[0], positions[0] = local[0], _OFFSETS[0]
    for i in range(1, 6):
        positions[i] = positions[i - 1] + rotations[i - 1].dot(_OFFSETS[i])
        np.dot(rotations[i - 1], local[i], out=rotations[i])
    return rotations, positions


def tool_position(q: Array, offset: float | Array = TOOL_OFFSET) -> Array:
    """Position of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).
        offset: of the tool centre point in the flange frame [m], along z or shape (3,).

    Returns:
        [m], shape (3,).
    """
    rotations, positions = link_poses(q)
    along = offset * rotations[5][:, 2] if np.ndim(offset) == 0 else rotations[5].dot(offset)
    return positions[5] + along


def tool_jacobian(q: Array) -> Array:
    """Linear part of the Jacobian of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (6,).

    Returns:
        [m/rad], shape (3, 6).
    """
    rotations, positions = link_poses(q)
    x, y, z = (positions[5] + TOOL_OFFSET * rotations[5][:, 2] - positions).T
    ax, ay, az = rotations[:, :, 2].T
    return np.stack([ay * z - az * y, az * x - ax * z, ax * y - ay * x])
