"""Cells of the quasi-static world as its kernels see them: what there is, where it is, who holds what, how it is moved.

Contacts are rectangles seen from above. A block that is pushed turns and shifts as its friction with the table would
have it, about (Mason, "Mechanics and planning of manipulator pushing operations", 1986).
"""

import math

import warp as wp

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import mjcf
from horseshoe.sim.assembly.rectangles import Rect

wp.set_module_options({"enable_backward": False})

STROKE = wp.constant(xarm6.GRIPPER_STROKE)
ADVANCE = wp.constant(math.tan(mjcf.FINGER_TILT))  # of a closing finger along the tool, per way it closes
PAD_LENGTH, PAD_THICKNESS = wp.constant(0.013), wp.constant(0.006)  # half, along tool x and y [m]


@wp.struct
class Cells:
    """All cells (n) of R arms, B blocks and P latchable pairs, for one chunk of servo ticks."""

    origins: wp.array(dtype=wp.transform)  # of the joints, (6,)
    bases: wp.array(dtype=wp.transform)  # of the arms, (R,)
    nominal: wp.array(dtype=wp.vec3)  # half sizes of the blocks, (B,)
    accepted: wp.array(dtype=int)  # block of every pair that is joined to the first one, (P,)
    joined: wp.array(dtype=wp.transform)  # its pose there, (P,)
    servo: float  # time constant of the joints [s]
    tick: float  # [s]
    table: float  # height [m]
    target: wp.array4d(dtype=float)  # joints [rad] and opening [m], (n, ticks, R, 7)
    lag: wp.array(dtype=float)  # of the servos' filters [s], (n,)
    size: wp.array(dtype=float)  # scale of the blocks, (n,)
    latched: wp.array2d(dtype=int)  # (n, P)
    before: wp.array3d(dtype=float)  # joints at the start [rad], (n, R, 6)
    q: wp.array3d(dtype=float)  # [rad], (n, R, 6)
    filtered: wp.array3d(dtype=float)  # (n, R, 6)
    opening: wp.array2d(dtype=float)  # [m], (n, R)
    block: wp.array2d(dtype=wp.transform)  # (n, B)
    held: wp.array2d(dtype=int)  # block that each arm holds, or -1, (n, R)
    grip: wp.array2d(dtype=wp.transform)  # its pose in the tool, (n, R)
    half: wp.array2d(dtype=wp.vec3)  # scratch, (n, B)
    tool: wp.array2d(dtype=wp.transform)  # scratch, (n, R)
    contact: wp.array2d(dtype=float)  # arm on arm, then each arm on the table [N], (n, 1 + R)
    load: wp.array2d(dtype=float)  # on every pair [N], (n, P)


@wp.func
def rect_of(pose: wp.transform, half: wp.vec3):
    r = Rect()
    p = wp.transform_get_translation(pose)
    x = wp.quat_rotate(wp.transform_get_rotation(pose), wp.vec3(1.0, 0.0, 0.0))
    r.centre = wp.vec2(p[0], p[1])
    r.axis = wp.normalize(wp.vec2(x[0], x[1]))
    r.half = wp.vec2(half[0], half[1])
    return r


@wp.func
def finger(tool: wp.transform, opening: float, side: float):
    r = Rect()
    p, q = wp.transform_get_translation(tool), wp.transform_get_rotation(tool)
    x, y = wp.quat_rotate(q, wp.vec3(1.0, 0.0, 0.0)), wp.quat_rotate(q, wp.vec3(0.0, 1.0, 0.0))
    r.axis = wp.normalize(wp.vec2(x[0], x[1]))
    r.centre = wp.vec2(p[0], p[1]) + wp.vec2(y[0], y[1]) * (side * (opening * 0.5 + PAD_THICKNESS))
    r.half = wp.vec2(PAD_LENGTH, PAD_THICKNESS)
    return r


@wp.func
def tip_height(tool: wp.transform, opening: float):
    """Height of the fingertips [m]."""
    along = (STROKE - opening) * 0.5 * ADVANCE - 0.01
    z = wp.quat_rotate(wp.transform_get_rotation(tool), wp.vec3(0.0, 0.0, 1.0))
    return wp.transform_get_translation(tool)[2] + z[2] * along


@wp.func
def rise(pose: wp.transform, half: wp.vec3):
    """Half the height of a block as it lies [m]."""
    q = wp.transform_get_rotation(pose)
    return (
        half[0] * wp.abs(wp.quat_rotate(q, wp.vec3(1.0, 0.0, 0.0))[2])
        + half[1] * wp.abs(wp.quat_rotate(q, wp.vec3(0.0, 1.0, 0.0))[2])
        + half[2] * wp.abs(wp.quat_rotate(q, wp.vec3(0.0, 0.0, 1.0))[2])
    )


@wp.func
def moved(pose: wp.transform, about: wp.vec2, shift: wp.vec2, turn: float):
    """A pose turned in the plane about a point, then shifted."""
    p = wp.transform_get_translation(pose)
    c, s = wp.cos(turn), wp.sin(turn)
    d = wp.vec2(p[0] - about[0], p[1] - about[1])
    place = wp.vec3(about[0] + c * d[0] - s * d[1] + shift[0], about[1] + s * d[0] + c * d[1] + shift[1], p[2])
    spin = wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), turn)
    return wp.transform(place, spin * wp.transform_get_rotation(pose))


@wp.func
def holder(w: Cells, env: int, b: int):
    """The arm that holds block b, or -1."""
    for r in range(w.held.shape[1]):
        if w.held[env, r] == b:
            return r
    return -1


@wp.func
def pair_of(w: Cells, env: int, b: int):
    """The latched pair that joins block b to the first one, or -1."""
    for p in range(w.latched.shape[1]):
        if w.latched[env, p] == 1 and w.accepted[p] == b:
            return p
    return -1


@wp.func
def in_structure(w: Cells, env: int, b: int):
    """Whether block b is the first one or joined to it."""
    return b == 0 or pair_of(w, env, b) >= 0


@wp.func
def scaled(goal: wp.transform, scale: float):
    """Pose of a joined block in the first one, of blocks that are larger by a factor."""
    return wp.transform(wp.transform_get_translation(goal) * scale, wp.transform_get_rotation(goal))


@wp.func
def fixed(w: Cells, env: int, b: int):
    """Whether an arm holds block b or a structure that it is part of."""
    if holder(w, env, b) >= 0:
        return True
    if not in_structure(w, env, b):
        return False
    if holder(w, env, 0) >= 0:
        return True
    for p in range(w.latched.shape[1]):
        if w.latched[env, p] == 1 and holder(w, env, w.accepted[p]) >= 0:
            return True
    return False


@wp.func
def push(w: Cells, env: int, b: int, depth: float, normal: wp.vec2, point: wp.vec2):
    """Move block b, and what is latched to it, so that the point moves by depth along the normal."""
    joined = in_structure(w, env, b)
    root = b
    if joined:
        root = 0
    p = wp.transform_get_translation(w.block[env, root])
    about = wp.vec2(p[0], p[1])
    arm = point - about
    lever = arm[0] * normal[1] - arm[1] * normal[0]
    k = 0.3 * (w.half[env, root][0] + w.half[env, root][1]) + 0.01  # radius of the friction's moment
    part = 1.0 / (1.0 + lever * lever / (k * k))
    shift = normal * (depth * part)
    turn = depth * part * lever / (k * k)
    if joined:
        for other in range(w.block.shape[1]):
            if in_structure(w, env, other):
                w.block[env, other] = moved(w.block[env, other], about, shift, turn)
    else:
        w.block[env, b] = moved(w.block[env, b], about, shift, turn)


@wp.func
def spin_between(a: wp.quat, b: wp.quat):
    """Angle between two orientations [rad]."""
    return 2.0 * wp.acos(wp.min(wp.abs(wp.dot(a, b)), 1.0))


@wp.func
def gap(a0: wp.vec3, a1: wp.vec3, b0: wp.vec3, b1: wp.vec3):
    return wp.closest_point_edge_edge(a0, a1, b0, b1, 1.0e-6)[2]
