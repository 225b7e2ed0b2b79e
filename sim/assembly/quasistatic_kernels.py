"""Laws of the quasi-static world: one launch advances every cell by a chunk of servo ticks (`quasistatic.py`)."""

import warp as wp

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly.quasistatic_cells import (
    PAD_LENGTH,
    STROKE,
    Cells,
    finger,
    fixed,
    gap,
    holder,
    in_structure,
    moved,
    pair_of,
    push,
    rect_of,
    rise,
    scaled,
    spin_between,
    tip_height,
)
from horseshoe.sim.assembly.rectangles import overlap

wp.set_module_options({"enable_backward": False})

GRIPPER_SPEED = wp.constant(xarm6.GRIPPER_MAX_SPEED)  # [m/s]
TOOL = wp.constant(xarm6.TOOL_OFFSET)
SQUEEZE = wp.constant(0.002)  # a command this much tighter than a block holds it [m]
GRIP_DEPTH = wp.constant(0.022)  # of the pads over a block that they can hold [m]
LEAN = wp.constant(0.25)  # of a hand (sine of its tilt) that can still grip
JAM = wp.constant(0.25)  # misalignment at which friction keeps the pads from closing on a block [rad]
GIVE, GIVE_ANGLE = wp.constant(0.006), wp.constant(0.14)  # of two arms pulling at one structure before a latch opens
STIFFNESS = wp.constant(15000.0)  # of an arm that is in the way [N/m]
PRESS = wp.constant(25.0)  # of a finger that lands on a block [N]
BREAK = wp.constant(1000.0)  # [N]


@wp.func
def follow_command(w: Cells, env: int, r: int):
    """An arm and its gripper follow their commands, and what the hand holds follows the hand."""
    soft = 1.0 - wp.exp(-w.tick / wp.max(w.lag[env], 0.001))
    stiff = 1.0 - wp.exp(-w.tick / w.servo)
    pose = w.bases[r]
    for j in range(6):
        f, x = float(w.filtered[env, r, j]), float(w.q[env, r, j])
        for t in range(w.target.shape[1]):
            f += soft * (w.target[env, t, r, j] - f)
            x += stiff * (f - x)
        w.filtered[env, r, j] = f
        w.q[env, r, j] = x
        turn = wp.transform(wp.vec3(0.0, 0.0, 0.0), wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), x))
        pose = pose * w.origins[j] * turn
    w.tool[env, r] = pose * wp.transform(wp.vec3(0.0, 0.0, TOOL), wp.quat_identity())
    command = w.target[env, w.target.shape[1] - 1, r, 6]
    step = float(w.target.shape[1]) * w.tick * GRIPPER_SPEED
    wide = w.opening[env, r] + wp.clamp(command - w.opening[env, r], -step, step)
    b = w.held[env, r]
    if b >= 0:
        # Its own width between the pads: it was gripped across x or y.
        inside = wp.quat_rotate(wp.transform_get_rotation(w.grip[env, r]), wp.vec3(1.0, 0.0, 0.0))
        width = 2.0 * w.half[env, b][1]
        if wp.abs(inside[1]) > 0.7:
            width = 2.0 * w.half[env, b][0]
        if command > width - 0.25 * SQUEEZE:
            w.held[env, r] = -1
        else:
            wide = width
    w.opening[env, r] = wide
    if w.held[env, r] >= 0:
        w.block[env, b] = w.tool[env, r] * w.grip[env, r]


@wp.func
def follow_hands(w: Cells, env: int):
    """A structure follows the arms that hold it, or gives way between two that disagree."""
    hands = int(0)
    place = wp.vec3(0.0, 0.0, 0.0)
    turned = wp.quat(0.0, 0.0, 0.0, 0.0)
    for r in range(w.held.shape[1]):
        b = w.held[env, r]
        if b >= 0:
            p = pair_of(w, env, b)
            if b == 0 or p >= 0:
                pose = w.block[env, b]
                if b != 0:
                    pose = pose * wp.transform_inverse(scaled(w.joined[p], w.size[env]))
                rotation = wp.transform_get_rotation(pose)
                if wp.dot(rotation, turned) < 0.0:
                    rotation = rotation * -1.0
                place += wp.transform_get_translation(pose)
                turned = turned + rotation
                hands += 1
    if hands > 0:
        w.block[env, 0] = wp.transform(place / float(hands), wp.normalize(turned))
    for b in range(1, w.block.shape[1]):
        p = pair_of(w, env, b)
        if p >= 0:
            pose = w.block[env, 0] * scaled(w.joined[p], w.size[env])
            if holder(w, env, b) >= 0:
                off = wp.length(wp.transform_get_translation(pose) - wp.transform_get_translation(w.block[env, b]))
                angle = spin_between(wp.transform_get_rotation(pose), wp.transform_get_rotation(w.block[env, b]))
                if off > GIVE or angle > GIVE_ANGLE:
                    w.load[env, p] = BREAK
            w.block[env, b] = pose


@wp.func
def meet_block(w: Cells, env: int, r: int, b: int, lean: float):
    """A hand meets a block: its fingers push it, or close on it and hold it. Whether it holds it now."""
    pose = w.tool[env, r]
    y = wp.quat_rotate(wp.transform_get_rotation(pose), wp.vec3(0.0, 1.0, 0.0))
    size_b = w.half[env, b]
    top = wp.transform_get_translation(w.block[env, b])[2] + rise(w.block[env, b], size_b)
    tip = tip_height(pose, w.opening[env, r])
    if tip > top:
        return False
    # Between the pads? Then they cannot close on it while it lies askew.
    local = wp.transform_point(wp.transform_inverse(pose), wp.transform_get_translation(w.block[env, b]))
    bx = wp.quat_rotate(wp.transform_get_rotation(w.block[env, b]), wp.vec3(1.0, 0.0, 0.0))
    by = wp.quat_rotate(wp.transform_get_rotation(w.block[env, b]), wp.vec3(0.0, 1.0, 0.0))
    axis, width, length = bx, size_b[0], size_b[1]
    if wp.abs(wp.dot(by, y)) > wp.abs(wp.dot(bx, y)):
        axis, width, length = by, size_b[1], size_b[0]
    cosine = wp.dot(axis, y)
    error = wp.asin(wp.clamp((axis[0] * y[1] - axis[1] * y[0]) * wp.sign(cosine), -1.0, 1.0))
    extent = width * wp.abs(cosine) + length * wp.abs(wp.sin(error))
    between = wp.abs(local[0]) < length + PAD_LENGTH and wp.abs(local[1]) < w.opening[env, r] * 0.5
    if between and wp.abs(error) > JAM:
        w.opening[env, r] = wp.min(wp.max(w.opening[env, r], 2.0 * extent), STROKE)
    stuck = fixed(w, env, b)
    for _ in range(2):
        for side in range(2):
            hit = overlap(finger(pose, w.opening[env, r], 1.0 - 2.0 * float(side)), rect_of(w.block[env, b], size_b))
            if hit.depth > 0.0:
                if hit.depth > top - tip + 0.003:
                    w.contact[env, 1 + r] = wp.max(w.contact[env, 1 + r], PRESS)
                    for j in range(6):  # it stands on the block and goes no further
                        w.q[env, r, j] = w.before[env, r, j]
                elif stuck:
                    w.contact[env, 0] = wp.max(w.contact[env, 0], hit.depth * STIFFNESS)
                else:
                    push(w, env, b, hit.depth, hit.normal, hit.point)
    if wp.abs(local[0]) > length - PAD_LENGTH or top - tip < GRIP_DEPTH or lean > LEAN:
        return False
    if not between or wp.abs(local[2]) > 0.045 or wp.abs(error) > JAM:
        return False
    if w.opening[env, r] < 2.0 * extent + 0.001:
        if not stuck:  # the pads turn and centre it
            align = wp.clamp(error, -0.05, 0.05)
            centre = wp.transform_get_translation(w.block[env, b])
            sideways = wp.vec2(y[0], y[1]) * (-local[1])
            if b != 0 and pair_of(w, env, b) < 0:
                w.block[env, b] = moved(w.block[env, b], wp.vec2(centre[0], centre[1]), sideways, align)
                error = error - align
                extent = width * wp.abs(wp.cos(error)) + length * wp.abs(wp.sin(error))
        w.opening[env, r] = wp.max(w.opening[env, r], 2.0 * extent)
        squeezed = w.target[env, w.target.shape[1] - 1, r, 6] < 2.0 * width - SQUEEZE
        if squeezed and holder(w, env, b) < 0:
            w.held[env, r] = b
            w.opening[env, r] = 2.0 * width
            w.grip[env, r] = wp.transform_inverse(pose) * w.block[env, b]
            return True
    return False


@wp.func
def touch(w: Cells, env: int, r: int):
    """A hand meets the table and the blocks."""
    pose = w.tool[env, r]
    rotation = wp.transform_get_rotation(pose)
    down = wp.quat_rotate(rotation, wp.vec3(0.0, 0.0, 1.0))
    lean = wp.sqrt(down[0] * down[0] + down[1] * down[1])
    below = w.table - (tip_height(pose, w.opening[env, r]) - 0.02 * lean)
    if below > 0.0:
        w.contact[env, 1 + r] = wp.max(w.contact[env, 1 + r], below * STIFFNESS)
    if w.held[env, r] >= 0 or lean > 0.8:
        return
    for b in range(w.block.shape[1]):
        if meet_block(w, env, r, b, lean):
            return


@wp.func
def slip(w: Cells, env: int, a: int):
    """A held block that is pressed on the table slips upwards in the grip."""
    hand = holder(w, env, a)
    if hand >= 0 and pair_of(w, env, a) < 0:
        at = wp.transform_get_translation(w.block[env, a])
        low = w.table - (at[2] - rise(w.block[env, a], w.half[env, a]))
        if low > 0.0:  # it slips upwards in the grip
            lifted = wp.vec3(at[0], at[1], at[2] + low)
            w.block[env, a] = wp.transform(lifted, wp.transform_get_rotation(w.block[env, a]))
            w.grip[env, hand] = wp.transform_inverse(w.tool[env, hand]) * w.block[env, a]


@wp.func
def shove(w: Cells, env: int, a: int, b: int):
    """A block that an arm holds meets another one."""
    if a == b or not fixed(w, env, a):
        return
    both = fixed(w, env, b)
    same_a = in_structure(w, env, a)
    same_b = in_structure(w, env, b)
    if (same_a and same_b) or (both and b < a):
        return
    pa, pb = wp.transform_get_translation(w.block[env, a]), wp.transform_get_translation(w.block[env, b])
    high = rise(w.block[env, a], w.half[env, a]) + rise(w.block[env, b], w.half[env, b]) - wp.abs(pa[2] - pb[2])
    if high < 0.0:
        return
    hit = overlap(rect_of(w.block[env, a], w.half[env, a]), rect_of(w.block[env, b], w.half[env, b]))
    if hit.depth <= 0.0:
        return
    if both:
        w.contact[env, 0] = wp.max(w.contact[env, 0], wp.min(hit.depth, high) * STIFFNESS * 0.3)
    elif high < hit.depth and pa[2] > pb[2]:
        hand = holder(w, env, a)
        if hand >= 0:  # it lands on top and slips upwards in the grip
            lifted = wp.vec3(pa[0], pa[1], pa[2] + high)
            w.block[env, a] = wp.transform(lifted, wp.transform_get_rotation(w.block[env, a]))
            w.grip[env, hand] = wp.transform_inverse(w.tool[env, hand]) * w.block[env, a]
    else:
        push(w, env, b, hit.depth, hit.normal, hit.point)


@wp.func
def part(w: Cells, env: int, a: int, b: int):
    """Free blocks push each other apart, half each."""
    same_a = in_structure(w, env, a)
    same_b = in_structure(w, env, b)
    if (same_a and same_b) or fixed(w, env, a) or fixed(w, env, b):
        return
    hit = overlap(rect_of(w.block[env, a], w.half[env, a]), rect_of(w.block[env, b], w.half[env, b]))
    if hit.depth > 0.0:
        push(w, env, b, 0.5 * hit.depth, hit.normal, hit.point)
        push(w, env, a, 0.5 * hit.depth, -hit.normal, hit.point)


@wp.func
def fall(w: Cells, env: int):
    """What nothing holds falls flat on the table."""
    for b in range(w.block.shape[1]):
        if not fixed(w, env, b):
            at, rotation = wp.transform_get_translation(w.block[env, b]), wp.transform_get_rotation(w.block[env, b])
            up = wp.quat_rotate(rotation, wp.vec3(0.0, 0.0, 1.0))
            ahead = wp.quat_rotate(rotation, wp.vec3(1.0, 0.0, 0.0))
            if b == 0 or pair_of(w, env, b) < 0:
                height = w.table + w.half[env, b][2]
                if up[2] < 0.7:
                    height = 10.0  # it tumbles away
                yaw = wp.atan2(ahead[1], ahead[0])
                flat = wp.transform(wp.vec3(at[0], at[1], height), wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), yaw))
                w.block[env, b] = flat
    for b in range(1, w.block.shape[1]):
        p = pair_of(w, env, b)
        if p >= 0:
            w.block[env, b] = w.block[env, 0] * scaled(w.joined[p], w.size[env])


@wp.func
def press(w: Cells, env: int, r: int, s: int):
    """Two arms meet: two capsules each, hand and fingers."""
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
            wp.transform_point(w.tool[env, r], wp.vec3(0.0, 0.0, za)),
            wp.transform_point(w.tool[env, r], wp.vec3(0.0, 0.0, ea)),
            wp.transform_point(w.tool[env, s], wp.vec3(0.0, 0.0, zb)),
            wp.transform_point(w.tool[env, s], wp.vec3(0.0, 0.0, eb)),
        )
        if d < wide:
            w.contact[env, 0] = wp.max(w.contact[env, 0], (wide - d) * STIFFNESS)


@wp.kernel
def advance_chunk(w: Cells):
    env = wp.tid()
    arms, blocks = w.q.shape[1], w.block.shape[1]
    for b in range(blocks):
        w.half[env, b] = w.nominal[b] * w.size[env]
    for p in range(w.latched.shape[1]):
        w.load[env, p] = 0.0
    for r in range(arms):
        follow_command(w, env, r)
    follow_hands(w, env)
    for r in range(arms):
        touch(w, env, r)
    for a in range(blocks):
        slip(w, env, a)
    for _ in range(2):
        for a in range(blocks):
            for b in range(blocks):
                shove(w, env, a, b)
    for a in range(blocks):
        for b in range(a + 1, blocks):
            part(w, env, a, b)
    fall(w, env)
    for r in range(arms):
        for s in range(r):
            press(w, env, r, s)
