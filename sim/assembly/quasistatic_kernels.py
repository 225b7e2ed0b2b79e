"""Kernels of the quasi-static world: one launch advances every cell by a chunk of servo ticks (`quasistatic.py`).

Contacts are rectangles seen from above. A block that is pushed turns and shifts as its friction with the table would
have it, about (Mason, "Mechanics and planning of manipulator pushing operations", 1986).
"""

import math

import warp as wp

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import mjcf
from horseshoe.sim.assembly.rectangles import Rect, overlap

wp.set_module_options({"enable_backward": False})

STROKE = wp.constant(xarm6.GRIPPER_STROKE)
GRIPPER_SPEED = wp.constant(xarm6.GRIPPER_MAX_SPEED)  # [m/s]
TOOL = wp.constant(xarm6.TOOL_OFFSET)
ADVANCE = wp.constant(math.tan(mjcf.FINGER_TILT))  # of a closing finger along the tool, per way it closes
PAD_LENGTH, PAD_THICKNESS = wp.constant(0.013), wp.constant(0.006)  # half, along tool x and y [m]
SQUEEZE = wp.constant(0.002)  # a command this much tighter than a block holds it [m]
GRIP_DEPTH = wp.constant(0.022)  # of the pads over a block that they can hold [m]
LEAN = wp.constant(0.25)  # of a hand (sine of its tilt) that can still grip
JAM = wp.constant(0.25)  # misalignment at which friction keeps the pads from closing on a block [rad]
GIVE, GIVE_ANGLE = wp.constant(0.006), wp.constant(0.14)  # of two arms pulling at one structure before a latch opens
STIFFNESS = wp.constant(15000.0)  # of an arm that is in the way [N/m]
PRESS = wp.constant(25.0)  # of a finger that lands on a block [N]
BREAK = wp.constant(1000.0)  # [N]


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
def holder(env: int, b: int, held: wp.array2d(dtype=int)):
    for r in range(held.shape[1]):
        if held[env, r] == b:
            return r
    return -1


@wp.func
def pair_of(env: int, b: int, latched: wp.array2d(dtype=int), accepted: wp.array(dtype=int)):
    """The latched pair that joins block b to the first one, or -1."""
    for p in range(latched.shape[1]):
        if latched[env, p] == 1 and accepted[p] == b:
            return p
    return -1


@wp.func
def in_structure(env: int, b: int, latched: wp.array2d(dtype=int), accepted: wp.array(dtype=int)):
    """Whether block b is the first one or joined to it."""
    return b == 0 or pair_of(env, b, latched, accepted) >= 0


@wp.func
def scaled(goal: wp.transform, scale: float):
    """Pose of a joined block in the first one, of blocks that are larger by a factor."""
    return wp.transform(wp.transform_get_translation(goal) * scale, wp.transform_get_rotation(goal))


@wp.func
def fixed(env: int, b: int, held: wp.array2d(dtype=int), latched: wp.array2d(dtype=int), accepted: wp.array(dtype=int)):
    """Whether an arm holds block b or a structure that it is part of."""
    if holder(env, b, held) >= 0:
        return True
    if not in_structure(env, b, latched, accepted):
        return False
    if holder(env, 0, held) >= 0:
        return True
    for p in range(latched.shape[1]):
        if latched[env, p] == 1 and holder(env, accepted[p], held) >= 0:
            return True
    return False


@wp.func
def push(
    env: int,
    b: int,
    depth: float,
    normal: wp.vec2,
    point: wp.vec2,
    half: wp.array(dtype=wp.vec3),
    block: wp.array2d(dtype=wp.transform),
    latched: wp.array2d(dtype=int),
    accepted: wp.array(dtype=int),
):
    """Move block b, and what is latched to it, so that the point moves by depth along the normal."""
    joined = in_structure(env, b, latched, accepted)
    root = b
    if joined:
        root = 0
    p = wp.transform_get_translation(block[env, root])
    about = wp.vec2(p[0], p[1])
    arm = point - about
    lever = arm[0] * normal[1] - arm[1] * normal[0]
    k = 0.3 * (half[root][0] + half[root][1]) + 0.01  # radius of the friction's moment
    part = 1.0 / (1.0 + lever * lever / (k * k))
    shift = normal * (depth * part)
    turn = depth * part * lever / (k * k)
    if joined:
        for other in range(block.shape[1]):
            if in_structure(env, other, latched, accepted):
                block[env, other] = moved(block[env, other], about, shift, turn)
    else:
        block[env, b] = moved(block[env, b], about, shift, turn)


@wp.func
def spin_between(a: wp.quat, b: wp.quat):
    """Angle between two orientations [rad]."""
    return 2.0 * wp.acos(wp.min(wp.abs(wp.dot(a, b)), 1.0))


@wp.func
def gap(a0: wp.vec3, a1: wp.vec3, b0: wp.vec3, b1: wp.vec3):
    return wp.closest_point_edge_edge(a0, a1, b0, b1, 1.0e-6)[2]


@wp.kernel
def advance_chunk(
    origins: wp.array(dtype=wp.transform),
    bases: wp.array(dtype=wp.transform),
    nominal: wp.array(dtype=wp.vec3),  # half sizes of the blocks
    accepted: wp.array(dtype=int),  # block of every pair that is joined to the first one
    joined: wp.array(dtype=wp.transform),  # its pose there
    target: wp.array4d(dtype=float),  # (n, ticks, R, 7)
    lag: wp.array(dtype=float),
    size: wp.array(dtype=float),
    servo: float,
    tick: float,
    table: float,
    latched: wp.array2d(dtype=int),
    before: wp.array3d(dtype=float),  # joints at the start
    q: wp.array3d(dtype=float),
    filtered: wp.array3d(dtype=float),
    opening: wp.array2d(dtype=float),
    block: wp.array2d(dtype=wp.transform),
    held: wp.array2d(dtype=int),
    grip: wp.array2d(dtype=wp.transform),
    half: wp.array2d(dtype=wp.vec3),  # scratch
    tool: wp.array2d(dtype=wp.transform),  # scratch
    contact: wp.array2d(dtype=float),  # arm on arm, then each arm on the table [N]
    load: wp.array2d(dtype=float),  # on every pair [N]
):
    env = wp.tid()
    arms, blocks, pairs, ticks = q.shape[1], block.shape[1], latched.shape[1], target.shape[1]
    scale = size[env]
    for b in range(blocks):
        half[env, b] = nominal[b] * scale
    for p in range(pairs):
        load[env, p] = 0.0
    soft = 1.0 - wp.exp(-tick / wp.max(lag[env], 0.001))
    stiff = 1.0 - wp.exp(-tick / servo)

    # Arms and grippers follow their commands.
    for r in range(arms):
        pose = bases[r]
        for j in range(6):
            f, x = float(filtered[env, r, j]), float(q[env, r, j])
            for t in range(ticks):
                f += soft * (target[env, t, r, j] - f)
                x += stiff * (f - x)
            filtered[env, r, j] = f
            q[env, r, j] = x
            turn = wp.transform(wp.vec3(0.0, 0.0, 0.0), wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), x))
            pose = pose * origins[j] * turn
        tool[env, r] = pose * wp.transform(wp.vec3(0.0, 0.0, TOOL), wp.quat_identity())
        command = target[env, ticks - 1, r, 6]
        step = float(ticks) * tick * GRIPPER_SPEED
        wide = opening[env, r] + wp.clamp(command - opening[env, r], -step, step)
        b = held[env, r]
        if b >= 0:
            # Its own width between the pads: it was gripped across x or y.
            inside = wp.quat_rotate(wp.transform_get_rotation(grip[env, r]), wp.vec3(1.0, 0.0, 0.0))
            width = 2.0 * half[env, b][1]
            if wp.abs(inside[1]) > 0.7:
                width = 2.0 * half[env, b][0]
            if command > width - 0.25 * SQUEEZE:
                held[env, r] = -1
            else:
                wide = width
        opening[env, r] = wide
        if held[env, r] >= 0:
            block[env, b] = tool[env, r] * grip[env, r]

    # A structure follows the arms that hold it, or gives way between two that disagree.
    hands = int(0)
    place = wp.vec3(0.0, 0.0, 0.0)
    turned = wp.quat(0.0, 0.0, 0.0, 0.0)
    for r in range(arms):
        b = held[env, r]
        if b >= 0:
            p = pair_of(env, b, latched, accepted)
            if b == 0 or p >= 0:
                pose = block[env, b]
                if b != 0:
                    pose = pose * wp.transform_inverse(scaled(joined[p], scale))
                rotation = wp.transform_get_rotation(pose)
                if wp.dot(rotation, turned) < 0.0:
                    rotation = rotation * -1.0
                place += wp.transform_get_translation(pose)
                turned = turned + rotation
                hands += 1
    if hands > 0:
        block[env, 0] = wp.transform(place / float(hands), wp.normalize(turned))
    for b in range(1, blocks):
        p = pair_of(env, b, latched, accepted)
        if p >= 0:
            pose = block[env, 0] * scaled(joined[p], scale)
            if holder(env, b, held) >= 0:
                off = wp.length(wp.transform_get_translation(pose) - wp.transform_get_translation(block[env, b]))
                angle = spin_between(wp.transform_get_rotation(pose), wp.transform_get_rotation(block[env, b]))
                if off > GIVE or angle > GIVE_ANGLE:
                    load[env, p] = BREAK
            block[env, b] = pose

    # Hands: table, fingers on blocks, grasps.
    for r in range(arms):
        pose = tool[env, r]
        rotation = wp.transform_get_rotation(pose)
        down = wp.quat_rotate(rotation, wp.vec3(0.0, 0.0, 1.0))
        y = wp.quat_rotate(rotation, wp.vec3(0.0, 1.0, 0.0))
        lean = wp.sqrt(down[0] * down[0] + down[1] * down[1])
        below = table - (tip_height(pose, opening[env, r]) - 0.02 * lean)
        if below > 0.0:
            contact[env, 1 + r] = wp.max(contact[env, 1 + r], below * STIFFNESS)
        if held[env, r] >= 0 or lean > 0.8:
            continue
        for b in range(blocks):
            size_b = half[env, b]
            top = wp.transform_get_translation(block[env, b])[2] + rise(block[env, b], size_b)
            tip = tip_height(pose, opening[env, r])
            if tip > top:
                continue
            # Between the pads? Then they cannot close on it while it lies askew.
            local = wp.transform_point(wp.transform_inverse(pose), wp.transform_get_translation(block[env, b]))
            bx = wp.quat_rotate(wp.transform_get_rotation(block[env, b]), wp.vec3(1.0, 0.0, 0.0))
            by = wp.quat_rotate(wp.transform_get_rotation(block[env, b]), wp.vec3(0.0, 1.0, 0.0))
            axis, width, length = bx, size_b[0], size_b[1]
            if wp.abs(wp.dot(by, y)) > wp.abs(wp.dot(bx, y)):
                axis, width, length = by, size_b[1], size_b[0]
            c = wp.dot(axis, y)
            error = wp.asin(wp.clamp((axis[0] * y[1] - axis[1] * y[0]) * wp.sign(c), -1.0, 1.0))
            extent = width * wp.abs(c) + length * wp.abs(wp.sin(error))
            between = wp.abs(local[0]) < length + PAD_LENGTH and wp.abs(local[1]) < opening[env, r] * 0.5
            if between and wp.abs(error) > JAM:
                opening[env, r] = wp.min(wp.max(opening[env, r], 2.0 * extent), STROKE)
            stuck = fixed(env, b, held, latched, accepted)
            for _ in range(2):
                for side in range(2):
                    hit = overlap(
                        finger(pose, opening[env, r], 1.0 - 2.0 * float(side)), rect_of(block[env, b], size_b)
                    )
                    if hit.depth > 0.0:
                        if hit.depth > top - tip + 0.003:
                            contact[env, 1 + r] = wp.max(contact[env, 1 + r], PRESS)
                            for j in range(6):  # it stands on the block and goes no further
                                q[env, r, j] = before[env, r, j]
                        elif stuck:
                            contact[env, 0] = wp.max(contact[env, 0], hit.depth * STIFFNESS)
                        else:
                            push(env, b, hit.depth, hit.normal, hit.point, half[env], block, latched, accepted)
            if wp.abs(local[0]) > length - PAD_LENGTH or top - tip < GRIP_DEPTH or lean > LEAN:
                continue
            if not between or wp.abs(local[2]) > 0.045 or wp.abs(error) > JAM:
                continue
            if opening[env, r] < 2.0 * extent + 0.001:
                if not stuck:  # the pads turn and centre it
                    align = wp.clamp(error, -0.05, 0.05)
                    centre = wp.transform_get_translation(block[env, b])
                    sideways = wp.vec2(y[0], y[1]) * (-local[1])
                    if b != 0 and pair_of(env, b, latched, accepted) < 0:
                        block[env, b] = moved(block[env, b], wp.vec2(centre[0], centre[1]), sideways, align)
                        error = error - align
                        extent = width * wp.abs(wp.cos(error)) + length * wp.abs(wp.sin(error))
                opening[env, r] = wp.max(opening[env, r], 2.0 * extent)
                squeezed = target[env, ticks - 1, r, 6] < 2.0 * width - SQUEEZE
                if squeezed and holder(env, b, held) < 0:
                    held[env, r] = b
                    opening[env, r] = 2.0 * width
                    grip[env, r] = wp.transform_inverse(pose) * block[env, b]
                    break

    # Blocks against blocks and the table.
    for a in range(blocks):
        hand = holder(env, a, held)
        if hand >= 0 and pair_of(env, a, latched, accepted) < 0:
            at = wp.transform_get_translation(block[env, a])
            low = table - (at[2] - rise(block[env, a], half[env, a]))
            if low > 0.0:  # it slips upwards in the grip
                lifted = wp.vec3(at[0], at[1], at[2] + low)
                block[env, a] = wp.transform(lifted, wp.transform_get_rotation(block[env, a]))
                grip[env, hand] = wp.transform_inverse(tool[env, hand]) * block[env, a]
    for _ in range(2):
        for a in range(blocks):
            for b in range(blocks):
                if a == b or not fixed(env, a, held, latched, accepted):
                    continue
                both = fixed(env, b, held, latched, accepted)
                same_a = in_structure(env, a, latched, accepted)
                same_b = in_structure(env, b, latched, accepted)
                if (same_a and same_b) or (both and b < a):
                    continue
                pa, pb = wp.transform_get_translation(block[env, a]), wp.transform_get_translation(block[env, b])
                high = rise(block[env, a], half[env, a]) + rise(block[env, b], half[env, b]) - wp.abs(pa[2] - pb[2])
                if high < 0.0:
                    continue
                hit = overlap(rect_of(block[env, a], half[env, a]), rect_of(block[env, b], half[env, b]))
                if hit.depth <= 0.0:
                    continue
                if both:
                    contact[env, 0] = wp.max(contact[env, 0], wp.min(hit.depth, high) * STIFFNESS * 0.3)
                elif high < hit.depth and pa[2] > pb[2]:
                    hand = holder(env, a, held)
                    if hand >= 0:  # it lands on top and slips upwards in the grip
                        lifted = wp.vec3(pa[0], pa[1], pa[2] + high)
                        block[env, a] = wp.transform(lifted, wp.transform_get_rotation(block[env, a]))
                        grip[env, hand] = wp.transform_inverse(tool[env, hand]) * block[env, a]
                else:
                    push(env, b, hit.depth, hit.normal, hit.point, half[env], block, latched, accepted)
    # Free blocks push each other apart, half each.
    for a in range(blocks):
        for b in range(a + 1, blocks):
            same_a = in_structure(env, a, latched, accepted)
            same_b = in_structure(env, b, latched, accepted)
            if (same_a and same_b) or fixed(env, a, held, latched, accepted) or fixed(env, b, held, latched, accepted):
                continue
            hit = overlap(rect_of(block[env, a], half[env, a]), rect_of(block[env, b], half[env, b]))
            if hit.depth > 0.0:
                push(env, b, 0.5 * hit.depth, hit.normal, hit.point, half[env], block, latched, accepted)
                push(env, a, 0.5 * hit.depth, -hit.normal, hit.point, half[env], block, latched, accepted)

    # What nothing holds falls flat on the table.
    for b in range(blocks):
        if not fixed(env, b, held, latched, accepted):
            at, rotation = wp.transform_get_translation(block[env, b]), wp.transform_get_rotation(block[env, b])
            up = wp.quat_rotate(rotation, wp.vec3(0.0, 0.0, 1.0))
            ahead = wp.quat_rotate(rotation, wp.vec3(1.0, 0.0, 0.0))
            if b == 0 or pair_of(env, b, latched, accepted) < 0:
                height = table + half[env, b][2]
                if up[2] < 0.7:
                    height = 10.0  # it tumbles away
                yaw = wp.atan2(ahead[1], ahead[0])
                flat = wp.transform(wp.vec3(at[0], at[1], height), wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), yaw))
                block[env, b] = flat
    for b in range(1, blocks):
        p = pair_of(env, b, latched, accepted)
        if p >= 0:
            block[env, b] = block[env, 0] * scaled(joined[p], scale)

    # Arms against each other: two capsules each, hand and fingers.
    for r in range(arms):
        for s in range(r):
            for k in range(4):
                za, zb = float(-0.22), float(-0.22)
                ea, eb = float(-0.07), float(-0.07)
                wide = float(0.10)
                if k % 2 == 1:
                    za, ea = -0.07, 0.0
                    wide -= 0.02
                if k // 2 == 1:
                    zb, eb = -0.07, 0.0
                    wide -= 0.02
                d = gap(
                    wp.transform_point(tool[env, r], wp.vec3(0.0, 0.0, za)),
                    wp.transform_point(tool[env, r], wp.vec3(0.0, 0.0, ea)),
                    wp.transform_point(tool[env, s], wp.vec3(0.0, 0.0, zb)),
                    wp.transform_point(tool[env, s], wp.vec3(0.0, 0.0, eb)),
                )
                if d < wide:
                    contact[env, 0] = wp.max(contact[env, 0], (wide - d) * STIFFNESS)
