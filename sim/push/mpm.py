"""Particles of the soft-body world: their part of one MLS-MPM substep in 2-D, and its adjoint by hand.

Why by hand: warp's generated tape costs several launches and one stored grid per substep, which on a CPU is most of the
time. `nodes.py` has the grid's part; `rollout.py` makes kernels of both, which `world.py` puts on a `wp.Tape`.

A particle carries position x, velocity v, affine velocity C and its elastic state e = (a, c, J): the left Cauchy-Green
tensor, made isochoric, is [[h + a, c], [c, h - a]] with h = sqrt(1 + a^2 + c^2), and J is the volume ratio (J2
plasticity after Simo, 1988; no SVD, so its adjoint is short and smooth). The grid node holds (momentum x, y, mass).
"""

import warp as wp

wp.set_module_options({"enable_backward": False})

J_MIN, J_MAX = wp.constant(0.4), wp.constant(2.0)  # bounds on the volume ratio: beyond them the scene is broken anyway
# Widths over which one-sided laws switch on, so that gradients are continuous.
RAMP_SPEED = wp.constant(0.02)  # [m/s]
RAMP_GAP = wp.constant(0.004)  # [m]
RAMP_STRAIN = wp.constant(0.01)


@wp.struct
class Grid:
    """Constants of the discretisation and of the robots."""

    n: int  # cells per side
    dx: float  # [m]
    inv_dx: float  # [1/m]
    dt: float  # [s]
    robot_radius: float  # [m]
    contact_width: float  # [m], a robot acts on nodes from half of it outside to half of it inside its rim
    contact_friction: float  # Coulomb coefficient between robot and object
    contact_recovery: float  # [1/s], rate at which a node inside a robot is pushed out


@wp.struct
class Body:
    """Constants of one scene's object."""

    mass: float  # [kg] of a particle
    volume: float  # [m^2] of a particle
    shear: float  # [N/m]
    bulk: float  # [N/m]
    yield_strain: float
    ground: float  # [m/s^2], deceleration by ground friction
    current: wp.vec2  # [m/s^2], acceleration from outside: a steady current, a gust


@wp.func
def ramp(z: float, width: float):
    """max(z, 0) with its corner rounded over `width`; exactly zero for z <= 0."""
    r = wp.clamp(z, 0.0, width)
    return r * (0.5 * r / width - 1.0) + wp.max(z, 0.0)


@wp.func
def d_ramp(z: float, width: float):
    """Slope of `ramp`."""
    return wp.clamp(z / width, 0.0, 1.0)


@wp.func
def cell(x: float, g: Grid):
    """First of the three nodes a particle touches along one axis; clamped so that no write can leave the grid."""
    return wp.clamp(int(x * g.inv_dx - 0.5), 0, g.n - 3)


@wp.func
def spline(f: float):
    """Weights of the three nodes along one axis (quadratic B-spline)."""
    return wp.vec3(0.5 * (1.5 - f) * (1.5 - f), 0.75 - (f - 1.0) * (f - 1.0), 0.5 * (f - 0.5) * (f - 0.5))


@wp.func
def d_spline(f: float):
    """Slopes of `spline`."""
    return wp.vec3(f - 1.5, 2.0 - 2.0 * f, f - 0.5)


# --- material ---------------------------------------------------------------------------------------------------------


@wp.func
def strain(C: wp.mat22, e: wp.vec3, dt: float):
    """Trial (a, c, J) after the deformation I + dt C."""
    l00, l01, l10, l11 = 1.0 + dt * C[0, 0], dt * C[0, 1], dt * C[1, 0], 1.0 + dt * C[1, 1]
    det = l00 * l11 - l01 * l10
    h = wp.sqrt(1.0 + e[0] * e[0] + e[1] * e[1])
    p, r, c = h + e[0], h - e[0], e[1]
    b00 = l00 * l00 * p + 2.0 * l00 * l01 * c + l01 * l01 * r
    b11 = l10 * l10 * p + 2.0 * l10 * l11 * c + l11 * l11 * r
    b01 = l00 * l10 * p + (l00 * l11 + l01 * l10) * c + l01 * l11 * r
    return wp.vec3(0.5 * (b00 - b11) / det, b01 / det, e[2] * det)


@wp.func
def flow(t: wp.vec3, body: Body):
    """Elastic state left after plastic flow: the deviator is cut back to the yield strain."""
    q = wp.sqrt(t[0] * t[0] + t[1] * t[1] + 1.0e-12)
    k = 1.0 - ramp(q - body.yield_strain, RAMP_STRAIN) / q
    return wp.vec3(k * t[0], k * t[1], wp.clamp(t[2], J_MIN, J_MAX))


@wp.func
def affine(C: wp.mat22, e: wp.vec3, body: Body, g: Grid):
    """Momentum per unit offset that a particle hands to its nodes: stress (neo-Hookean) and affine velocity."""
    s = -g.dt * body.volume * 4.0 * g.inv_dx * g.inv_dx
    P = 0.5 * body.bulk * (e[2] * e[2] - 1.0)
    a, c = body.shear * e[0], body.shear * e[1]
    return wp.mat22(s * (P + a), s * c, s * c, s * (P - a)) + body.mass * C


@wp.func
def material_adjoint(C: wp.mat22, e: wp.vec3, e_new: wp.vec3, body: Body, g: Grid, A_bar: wp.mat22, e_bar: wp.vec3):
    """Adjoints of (C, e), given those of the affine momentum and of the new elastic state."""
    dt = g.dt
    s = -dt * body.volume * 4.0 * g.inv_dx * g.inv_dx
    a_bar = e_bar[0] + body.shear * s * (A_bar[0, 0] - A_bar[1, 1])
    c_bar = e_bar[1] + body.shear * s * (A_bar[0, 1] + A_bar[1, 0])
    J_bar = e_bar[2] + body.bulk * e_new[2] * s * (A_bar[0, 0] + A_bar[1, 1])
    # plastic flow
    t = strain(C, e, dt)
    q = wp.sqrt(t[0] * t[0] + t[1] * t[1] + 1.0e-12)
    over = ramp(q - body.yield_strain, RAMP_STRAIN)
    k = 1.0 - over / q
    k_bar = a_bar * t[0] + c_bar * t[1]
    q_bar = k_bar * (over / q - d_ramp(q - body.yield_strain, RAMP_STRAIN)) / q
    ta = k * a_bar + q_bar * t[0] / q
    tc = k * c_bar + q_bar * t[1] / q
    tJ = wp.where(t[2] > J_MIN and t[2] < J_MAX, J_bar, 0.0)
    # trial strain
    l00, l01, l10, l11 = 1.0 + dt * C[0, 0], dt * C[0, 1], dt * C[1, 0], 1.0 + dt * C[1, 1]
    det = l00 * l11 - l01 * l10
    h = wp.sqrt(1.0 + e[0] * e[0] + e[1] * e[1])
    p, r, c = h + e[0], h - e[0], e[1]
    d_bar = tJ * e[2] - (ta * t[0] + tc * t[1]) / det
    n0, n1 = 0.5 * ta / det, tc / det  # adjoints of b00 (and minus that of b11), and of b01
    p_bar = n0 * (l00 * l00 - l10 * l10) + n1 * l00 * l10
    r_bar = n0 * (l01 * l01 - l11 * l11) + n1 * l01 * l11
    h_bar = p_bar + r_bar
    e_out = wp.vec3(
        p_bar - r_bar + h_bar * e[0] / h,
        2.0 * n0 * (l00 * l01 - l10 * l11) + n1 * (l00 * l11 + l01 * l10) + h_bar * c / h,
        tJ * det,
    )
    L = wp.mat22(
        2.0 * n0 * (l00 * p + l01 * c) + n1 * (l10 * p + l11 * c) + d_bar * l11,
        2.0 * n0 * (l00 * c + l01 * r) + n1 * (l10 * c + l11 * r) - d_bar * l10,
        -2.0 * n0 * (l10 * p + l11 * c) + n1 * (l00 * p + l01 * c) - d_bar * l01,
        -2.0 * n0 * (l10 * c + l11 * r) + n1 * (l00 * c + l01 * r) + d_bar * l00,
    )
    return dt * L + body.mass * A_bar, e_out


# --- particles to grid, grid to particles -----------------------------------------------------------------------------


@wp.func
def scatter(x: wp.vec2, v: wp.vec2, A: wp.mat22, mass: float, g: Grid, grid: wp.array(dtype=wp.vec3), first: int):
    """Adds w (mass v + A offset, mass) to nine nodes; the bracket is q + i q1 + j q2."""
    bx, by = cell(x[0], g), cell(x[1], g)
    fx, fy = x[0] * g.inv_dx - float(bx), x[1] * g.inv_dx - float(by)
    wx, wy = spline(fx), spline(fy)
    q1, q2 = g.dx * wp.vec2(A[0, 0], A[1, 0]), g.dx * wp.vec2(A[0, 1], A[1, 1])
    q = mass * v - fx * q1 - fy * q2
    for i in range(3):
        k = first + (bx + i) * g.n + by
        t0 = wx[i] * (q + float(i) * q1)
        step = wx[i] * q2
        m = wx[i] * mass
        t1 = t0 + step
        t2 = t1 + step
        wp.atomic_add(grid, k, wy[0] * wp.vec3(t0[0], t0[1], m))
        wp.atomic_add(grid, k + 1, wy[1] * wp.vec3(t1[0], t1[1], m))
        wp.atomic_add(grid, k + 2, wy[2] * wp.vec3(t2[0], t2[1], m))


@wp.func
def scatter_adjoint(
    x: wp.vec2, v: wp.vec2, A: wp.mat22, mass: float, g: Grid, grid_bar: wp.array(dtype=wp.vec3), first: int
):
    """Adjoints of x, v and A, given those of the nodes."""
    bx, by = cell(x[0], g), cell(x[1], g)
    fx, fy = x[0] * g.inv_dx - float(bx), x[1] * g.inv_dx - float(by)
    wx, wy, dwx, dwy = spline(fx), spline(fy), d_spline(fx), d_spline(fy)
    q1, q2 = g.dx * wp.vec2(A[0, 0], A[1, 0]), g.dx * wp.vec2(A[0, 1], A[1, 1])
    q = mass * v - fx * q1 - fy * q2
    sum0, sum1, sum2 = wp.vec2(), wp.vec2(), wp.vec2()
    x_bar, y_bar = float(0.0), float(0.0)
    for i in range(3):
        k = first + (bx + i) * g.n + by
        b0 = grid_bar[k]
        b1 = grid_bar[k + 1]
        b2 = grid_bar[k + 2]
        w1, w2 = wy[1] * b1, wy[2] * b2
        row = wy[0] * b0 + w1 + w2
        slope = w1 + 2.0 * w2
        d1, d2 = dwy[1] * b1, dwy[2] * b2
        d_row = dwy[0] * b0 + d1 + d2
        d_slope = d1 + 2.0 * d2
        qi = q + float(i) * q1
        row_p, slope_p = wp.vec2(row[0], row[1]), wp.vec2(slope[0], slope[1])
        d_row_p, d_slope_p = wp.vec2(d_row[0], d_row[1]), wp.vec2(d_slope[0], d_slope[1])
        x_bar += dwx[i] * (wp.dot(row_p, qi) + wp.dot(slope_p, q2) + mass * row[2])
        y_bar += wx[i] * (wp.dot(d_row_p, qi) + wp.dot(d_slope_p, q2) + mass * d_row[2])
        sum0 += wx[i] * row_p
        sum1 += (float(i) * wx[i]) * row_p
        sum2 += wx[i] * slope_p
    a0 = g.dx * (sum1 - fx * sum0)
    a1 = g.dx * (sum2 - fy * sum0)
    at = g.inv_dx * wp.vec2(x_bar - wp.dot(sum0, q1), y_bar - wp.dot(sum0, q2))
    return at, mass * sum0, wp.mat22(a0[0], a1[0], a0[1], a1[1])


@wp.func
def gather(x: wp.vec2, g: Grid, u: wp.array(dtype=wp.vec2), first: int):
    """Velocity and affine velocity of a particle."""
    bx, by = cell(x[0], g), cell(x[1], g)
    fx, fy = x[0] * g.inv_dx - float(bx), x[1] * g.inv_dx - float(by)
    wx, wy = spline(fx), spline(fy)
    v, c0, c1 = wp.vec2(), wp.vec2(), wp.vec2()
    for i in range(3):
        k = first + (bx + i) * g.n + by
        u1, u2 = wy[1] * u[k + 1], wy[2] * u[k + 2]
        row = wx[i] * (wy[0] * u[k] + u1 + u2)
        v += row
        c0 += float(i) * row
        c1 += wx[i] * (u1 + 2.0 * u2)
    s = 4.0 * g.inv_dx
    c0 = s * (c0 - fx * v)
    c1 = s * (c1 - fy * v)
    return v, wp.mat22(c0[0], c1[0], c0[1], c1[1])


@wp.func
def gather_adjoint(
    x: wp.vec2, v_bar: wp.vec2, C_bar: wp.mat22, g: Grid,
    u: wp.array(dtype=wp.vec2), first: int, u_bar: wp.array(dtype=wp.vec2), first_bar: int,
):  # fmt: skip
    """Spreads the adjoint to the nodes, w (z + i z1 + j z2); returns the adjoint of x."""
    bx, by = cell(x[0], g), cell(x[1], g)
    fx, fy = x[0] * g.inv_dx - float(bx), x[1] * g.inv_dx - float(by)
    wx, wy, dwx, dwy = spline(fx), spline(fy), d_spline(fx), d_spline(fy)
    s = 4.0 * g.inv_dx
    z1, z2 = s * wp.vec2(C_bar[0, 0], C_bar[1, 0]), s * wp.vec2(C_bar[0, 1], C_bar[1, 1])
    z = v_bar - fx * z1 - fy * z2
    v = wp.vec2()  # the particle's velocity, needed for the derivative of the offsets
    x_bar, y_bar = float(0.0), float(0.0)
    for i in range(3):
        k = first + (bx + i) * g.n + by
        k_bar = first_bar + (bx + i) * g.n + by
        t0 = z + float(i) * z1
        t1 = t0 + z2
        t2 = t1 + z2
        u0 = u[k]
        u1 = u[k + 1]
        u2 = u[k + 2]
        wp.atomic_add(u_bar, k_bar, (wx[i] * wy[0]) * t0)
        wp.atomic_add(u_bar, k_bar + 1, (wx[i] * wy[1]) * t1)
        wp.atomic_add(u_bar, k_bar + 2, (wx[i] * wy[2]) * t2)
        p0, p1, p2 = wp.dot(u0, t0), wp.dot(u1, t1), wp.dot(u2, t2)
        x_bar += dwx[i] * (wy[0] * p0 + wy[1] * p1 + wy[2] * p2)
        y_bar += wx[i] * (dwy[0] * p0 + dwy[1] * p1 + dwy[2] * p2)
        v += wx[i] * (wy[0] * u0 + wy[1] * u1 + wy[2] * u2)
    return g.inv_dx * wp.vec2(x_bar - wp.dot(v, z1), y_bar - wp.dot(v, z2))
