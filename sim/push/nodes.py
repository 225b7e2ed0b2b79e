"""Grid nodes of the soft-body world: ground friction, robots and walls in one substep, and their adjoints by hand."""

import warp as wp

from horseshoe.sim.push import mpm
from horseshoe.sim.push.mpm import Body, Grid

wp.set_module_options({"enable_backward": False})

MARGIN = wp.constant(3)  # [cells] between the grid's edge and the walls


@wp.func
def slow(v: wp.vec2, drop: float):
    """Factor left of a velocity after friction takes `drop` [m/s] from it; viscous below 0.02 m/s, never reverses."""
    n = wp.sqrt(wp.dot(v, v) + 4.0e-4)
    return n / (n + drop)


@wp.func
def contact(v: wp.vec2, node: wp.vec2, robot: wp.vec2, robot_v: wp.vec2, g: Grid):
    """How a node meets a robot.

    Returns:
        Distance of their centres; share of the contact's width the node is inside of, in [0, 1], and the weight that
        gives; normal; relative velocity, its normal and its tangential part; speed that is asked for along the normal.
    """
    delta = node - robot
    dist = wp.sqrt(wp.dot(delta, delta) + 1.0e-10)
    gap = dist - g.robot_radius
    share = wp.clamp(0.5 - gap / g.contact_width, 0.0, 1.0)
    w = share * share * (3.0 - 2.0 * share)
    n = delta / dist
    rel = v - robot_v
    rel_n = wp.dot(rel, n)
    t = rel - rel_n * n
    return dist, share, w, n, rel, rel_n, t, g.contact_recovery * mpm.ramp(-gap, mpm.RAMP_GAP) - rel_n


@wp.func
def push(v: wp.vec2, node: wp.vec2, robot: wp.vec2, robot_v: wp.vec2, g: Grid):
    """Velocity change that one robot gives to a node: one-sided along the normal, Coulomb friction across."""
    _dist, _share, w, n, _rel, _rel_n, t, z = contact(v, node, robot, robot_v, g)
    c = mpm.ramp(z, mpm.RAMP_SPEED)
    tl = wp.sqrt(wp.dot(t, t) + 4.0e-4)
    f = g.contact_friction * c / (g.contact_friction * c + tl)
    return w * (c * n - f * t)


@wp.func
def push_adjoint(v: wp.vec2, node: wp.vec2, robot: wp.vec2, robot_v: wp.vec2, g: Grid, b: wp.vec2):
    """Adjoints of v (and minus that of robot_v) and of the robot's position, given that of the velocity change."""
    mu = g.contact_friction
    dist, share, w, n, rel, rel_n, t, z = contact(v, node, robot, robot_v, g)
    c = mpm.ramp(z, mpm.RAMP_SPEED)
    tl = wp.sqrt(wp.dot(t, t) + 4.0e-4)
    S = mu * c + tl
    f = mu * c / S
    f_bar = -w * wp.dot(b, t)
    c_bar = w * wp.dot(b, n) + f_bar * mu * tl / (S * S)
    t_bar = (-w * f) * b - (f_bar * mu * c / (S * S * tl)) * t
    z_bar = c_bar * mpm.d_ramp(z, mpm.RAMP_SPEED)
    rel_n_bar = -z_bar - wp.dot(t_bar, n)
    n_bar = (w * c) * b - rel_n * t_bar + rel_n_bar * rel
    rel_bar = t_bar + rel_n_bar * n
    gap_bar = -z_bar * g.contact_recovery * mpm.d_ramp(g.robot_radius - dist, mpm.RAMP_GAP)
    gap_bar -= wp.dot(b, c * n - f * t) * 6.0 * share * (1.0 - share) / g.contact_width
    delta_bar = (n_bar - wp.dot(n_bar, n) * n) / dist + gap_bar * n
    return rel_bar, -delta_bar


@wp.func
def near(node: wp.vec2, robot: wp.vec2, g: Grid):
    """Whether a robot reaches a node."""
    d = node - robot
    reach = g.robot_radius + 0.5 * g.contact_width
    return wp.dot(d, d) < reach * reach


@wp.func
def wall(v: wp.vec2, i: int, j: int, n: int):
    """Nodes at and beyond the walls only move inwards."""
    x, y = v[0], v[1]
    if i <= MARGIN:
        x = mpm.ramp(x, mpm.RAMP_SPEED)
    if i >= n - 1 - MARGIN:
        x = -mpm.ramp(-x, mpm.RAMP_SPEED)
    if j <= MARGIN:
        y = mpm.ramp(y, mpm.RAMP_SPEED)
    if j >= n - 1 - MARGIN:
        y = -mpm.ramp(-y, mpm.RAMP_SPEED)
    return wp.vec2(x, y)


@wp.func
def wall_adjoint(v: wp.vec2, i: int, j: int, n: int, b: wp.vec2):
    """Adjoint of the velocity before `wall`."""
    x, y = b[0], b[1]
    if i <= MARGIN:
        x *= mpm.d_ramp(v[0], mpm.RAMP_SPEED)
    if i >= n - 1 - MARGIN:
        x *= mpm.d_ramp(-v[0], mpm.RAMP_SPEED)
    if j <= MARGIN:
        y *= mpm.d_ramp(v[1], mpm.RAMP_SPEED)
    if j >= n - 1 - MARGIN:
        y *= mpm.d_ramp(-v[1], mpm.RAMP_SPEED)
    return wp.vec2(x, y)


@wp.func
def node_velocity(
    q: wp.vec3, i: int, j: int, tau: float, body: Body, g: Grid,
    robot_x: wp.array(dtype=wp.vec2), robot_v: wp.array(dtype=wp.vec2), first_robot: int, robots: int,
):  # fmt: skip
    """Velocity of a node after friction, robots (moved on by tau [s]) and walls."""
    v = wp.vec2()
    if q[2] > 0.0:
        v = wp.vec2(q[0], q[1]) / q[2] + g.dt * body.current
        v = slow(v, g.dt * body.ground) * v
        node = wp.vec2(float(i) * g.dx, float(j) * g.dx)
        change = wp.vec2()
        for r in range(first_robot, first_robot + robots):
            at = robot_x[r] + tau * robot_v[r]
            if near(node, at, g):
                change += push(v, node, at, robot_v[r], g)
        v = wall(v + change, i, j, g.n)
    return v


@wp.func
def node_adjoint(
    q: wp.vec3, i: int, j: int, tau: float, body: Body, g: Grid, b: wp.vec2,
    robot_x: wp.array(dtype=wp.vec2), robot_v: wp.array(dtype=wp.vec2), first_robot: int, robots: int,
    robot_x_bar: wp.array(dtype=wp.vec2), robot_v_bar: wp.array(dtype=wp.vec2),
):  # fmt: skip
    """Adjoint of the node's (momentum, mass); adds to the adjoints of the robots."""
    out = wp.vec3()
    if q[2] > 0.0:
        carried = wp.vec2(q[0], q[1]) / q[2]
        v0 = carried + g.dt * body.current
        drop = g.dt * body.ground
        n = wp.sqrt(wp.dot(v0, v0) + 4.0e-4)
        v1 = (n / (n + drop)) * v0
        node = wp.vec2(float(i) * g.dx, float(j) * g.dx)
        change = wp.vec2()
        touched = int(0)
        for r in range(first_robot, first_robot + robots):
            at = robot_x[r] + tau * robot_v[r]
            if near(node, at, g):
                change += push(v1, node, at, robot_v[r], g)
                touched = 1
        v_bar = wall_adjoint(v1 + change, i, j, g.n, b)
        v1_bar = v_bar
        if touched == 1:
            for r in range(first_robot, first_robot + robots):
                at = robot_x[r] + tau * robot_v[r]
                if near(node, at, g):
                    rel_bar, at_bar = push_adjoint(v1, node, at, robot_v[r], g, v_bar)
                    v1_bar += rel_bar
                    wp.atomic_add(robot_x_bar, r, at_bar)
                    wp.atomic_add(robot_v_bar, r, tau * at_bar - rel_bar)
        v0_bar = (n / (n + drop)) * v1_bar + (wp.dot(v1_bar, v0) * drop / ((n + drop) * (n + drop) * n)) * v0
        out = wp.vec3(v0_bar[0] / q[2], v0_bar[1] / q[2], -wp.dot(v0_bar, carried) / q[2])
    return out
