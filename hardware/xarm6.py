"""The UFACTORY xArm6 with its parallel gripper: kinematics, inertias and limits, in one place.

Numbers are the vendor's URDF (`pybullet_data/xarm/xarm6_with_gripper.urdf`) and user manual. Everything that needs a
property of the robot (simulation models, action path, guard, driver, emulator) reads it here. SI units; frames follow
the URDF: the base frame has z up and x forward, the flange frame has z out of the flange.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from horseshoe.compiled import compiled

Array = NDArray[np.float64]

N_JOINTS = 6
JOINT_NAMES = tuple(f"joint{i}" for i in range(1, N_JOINTS + 1))

# [rad], shape (6,). J2 and J3 are those of serial numbers from 1305 on, the tighter of the two hardware revisions.
JOINT_LOWER = np.array([-2 * np.pi, np.radians(-117.0), np.radians(-219.0), -2 * np.pi, np.radians(-97.0), -2 * np.pi])
JOINT_UPPER = np.array([2 * np.pi, np.radians(116.0), np.radians(10.0), 2 * np.pi, np.pi, 2 * np.pi])
MAX_JOINT_SPEED = np.radians(180.0)  # [rad/s]
MAX_JOINT_ACCELERATION = np.radians(1145.0)  # [rad/s^2]
MAX_JOINT_EFFORT = np.array([50.0, 50.0, 32.0, 32.0, 32.0, 20.0])  # [N m], shape (6,)
MAX_TOOL_SPEED = 1.2  # [m/s], the controller raises C60 above it
SERVO_RATE = 250.0  # [Hz], the controller drops servo_j targets that come faster

GRIPPER_STROKE = 0.085  # [m], distance between the finger pads when fully open
GRIPPER_MAX_FORCE = 30.0  # [N]
GRIPPER_MAX_SPEED = 0.10  # [m/s], change of the distance between the pads
TOOL_OFFSET = 0.172  # [m], flange to tool centre point (between the pads, gripper closed) along flange z


@dataclass(frozen=True)
class Link:
    """A link and the revolute joint (about its own z) that carries it.

    Attributes:
        name: URDF name.
        xyz: joint origin in the parent link [m].
        rpy: joint orientation in the parent link, fixed-axis roll-pitch-yaw [rad].
        mass: [kg].
        com: centre of mass in the link frame [m].
        inertia: (ixx, ixy, ixz, iyy, iyz, izz) about the centre of mass [kg m^2].
    """

    name: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    mass: float
    com: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]


_H = np.pi / 2
BASE = Link(
    "link_base", (0, 0, 0), (0, 0, 0), 2.7, (0, 0, 0.09103), (0.00494875, -3.5e-06, 1.25e-05, 0.00494174, 1.67e-06, 0.002219)
)
LINKS = (
    Link("link1", (0, 0, 0.267), (0, 0, 0), 2.16, (-0.002, 0.02692, -0.01332), (0.00539427, 1.095e-05, 1.635e-06, 0.0048979, 0.000793, 0.00311573)),
    Link("link2", (0, 0, 0), (-_H, 0, 0), 1.71, (0.03531, -0.21398, 0.03386), (0.0248674, -0.00430651, -0.00067797, 0.00485548, 0.00457245, 0.02387827)),
    Link("link3", (0.0535, -0.2845, 0), (0, 0, 0), 1.384, (0.06781, 0.10749, 0.01457), (0.0053694, 0.0014185, -0.00092094, 0.0032423, -0.00169178, 0.00501731)),
    Link("link4", (0.0775, 0.3425, 0), (-_H, 0, 0), 1.115, (-0.00021, 0.02578, -0.02538), (0.00439263, 5.028e-05, 1.374e-05, 0.0040077, 0.00045338, 0.00110321)),
    Link("link5", (0, 0, 0), (_H, 0, 0), 1.275, (0.05428, 0.01781, 0.00543), (0.001202758, 0.000492428, -0.00039147, 0.0022876, -1.235e-04, 0.0026866)),
    Link("link6", (0.076, 0.097, 0), (-_H, 0, 0), 0.1096, (0, 0.00064, -0.00952), (4.5293e-05, 0, 0, 4.8111e-05, 0, 7.9715e-05)),
)  # fmt: skip


def _origin(link: Link) -> Array:
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", link.rpy).as_matrix()
    transform[:3, 3] = link.xyz
    return transform


ORIGINS = np.stack([_origin(link) for link in LINKS])


def limit_beyond(lower: ArrayLike, upper: ArrayLike) -> tuple[str, str] | None:
    """Which joint limits [rad] (6,) go beyond the arm's, "joint_lower" or "joint_upper", and what to say of it."""
    below, above = JOINT_LOWER - np.asarray(lower), np.asarray(upper) - JOINT_UPPER
    for name, over, limits in (("joint_lower", below, JOINT_LOWER), ("joint_upper", above, JOINT_UPPER)):
        if (over > 1e-6).any():
            return name, f"goes beyond the xArm6's {limits.round(3).tolist()} rad"
    return None


@compiled
def _place_links(q: Array, bases: Array, origins: Array, frames: Array) -> None:
    """Fill in the poses of links (n, 6, 4, 4) from joint positions (n, 6); bases take turns."""
    for i in range(len(q)):
        for j in range(q.shape[1]):
            parent = frames[i, j - 1] if j else bases[i % len(bases)]
            cos, sin, o = np.cos(q[i, j]), np.sin(q[i, j]), origins[j]
            frames[i, j, 3, 0] = frames[i, j, 3, 1] = frames[i, j, 3, 2] = 0.0
            frames[i, j, 3, 3] = 1.0
            for row in range(3):
                a, b, c = parent[row, 0], parent[row, 1], parent[row, 2]
                x = a * o[0, 0] + b * o[1, 0] + c * o[2, 0]
                y = a * o[0, 1] + b * o[1, 1] + c * o[2, 1]
                frames[i, j, row, 0] = x * cos + y * sin
                frames[i, j, row, 1] = y * cos - x * sin
                frames[i, j, row, 2] = a * o[0, 2] + b * o[1, 2] + c * o[2, 2]
                frames[i, j, row, 3] = a * o[0, 3] + b * o[1, 3] + c * o[2, 3] + parent[row, 3]


@compiled
def _jacobians(frames: Array, tool: Array, jacobian: Array) -> None:
    """Fill in Jacobians (n, 6, 6) of points tool (n, 3) that the last of the links (n, 6, 4, 4) carries."""
    for i in range(len(frames)):
        for j in range(frames.shape[1]):
            x, y, z = frames[i, j, 0, 2], frames[i, j, 1, 2], frames[i, j, 2, 2]
            u, v, w = tool[i, 0] - frames[i, j, 0, 3], tool[i, 1] - frames[i, j, 1, 3], tool[i, 2] - frames[i, j, 2, 3]
            column = jacobian[i, :, j]
            column[0], column[1], column[2] = y * w - z * v, z * u - x * w, x * v - y * u
            column[3], column[4], column[5] = x, y, z


def link_frames(q: Array, bases: Array | None = None) -> Array:
    """Pose of every link.

    Args:
        q: joint positions [rad], shape (..., 6), or (..., n_arms, 6) with several bases.
        bases: poses of the arms' bases [m], shape (n_arms, 4, 4); without it, poses are in the base frame.

    Returns:
        Homogeneous transforms [m], shape (..., 6, 4, 4); the last one is the flange.
    """
    q = np.ascontiguousarray(q, dtype=np.float64)  # of one layout, for which `_place_links` is compiled
    frames = np.empty((*q.shape, 4, 4))
    bases = np.eye(4)[None] if bases is None else bases
    _place_links(q.reshape(-1, N_JOINTS), bases, ORIGINS, frames.reshape(-1, N_JOINTS, 4, 4))
    return frames


def _tool_pose(frames: Array) -> Array:
    """Pose of the tool centre point (..., 4, 4) of poses of the links (..., 6, 4, 4)."""
    pose = frames[..., -1, :, :].copy()
    pose[..., :3, 3] += TOOL_OFFSET * pose[..., :3, 2]
    return pose


def forward_kinematics(q: Array) -> Array:
    """Pose of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (..., 6).

    Returns:
        Homogeneous transforms [m], shape (..., 4, 4); z points out of the gripper, y is the closing direction.
    """
    return _tool_pose(link_frames(q))


def jacobian(q: Array) -> Array:
    """Geometric Jacobian of the tool centre point in the base frame.

    Args:
        q: joint positions [rad], shape (..., 6).

    Returns:
        Linear velocity rows, then angular ones [m/rad, rad/rad], shape (..., 6, 6).
    """
    return tool_pose_and_jacobian(q)[1]


def tool_pose_and_jacobian(q: Array) -> tuple[Array, Array]:
    """`forward_kinematics` and `jacobian` for the price of the latter."""
    frames = link_frames(q)
    pose = _tool_pose(frames)
    rows = np.empty((*frames.shape[:-3], 6, N_JOINTS))
    shape = (-1, N_JOINTS, 4, 4)
    _jacobians(frames.reshape(shape), pose[..., :3, 3].reshape(-1, 3), rows.reshape(-1, 6, N_JOINTS))
    return pose, rows


def tool_position(q: Array, offset: ArrayLike = (0.0, 0.0, TOOL_OFFSET)) -> Array:
    """Position of the tool centre point in the arm's base frame.

    Args:
        q: joint positions [rad], shape (..., 6).
        offset: of the tool centre point in the flange frame [m], shape (3,).

    Returns:
        [m], shape (..., 3).
    """
    flange = link_frames(q)[..., -1, :3, :]
    return flange[..., :3] @ np.asarray(offset) + flange[..., 3]


jacobian(np.zeros(N_JOINTS))  # compiled, or read from disk, now: no servo tick has the time for it
