"""Disc robots as kernels: speed limit, keeping apart, walls. Few launches per decision; warp differentiates them."""

import warp as wp

from horseshoe.sim.push.mpm import RAMP_SPEED

Velocities = wp.array(dtype=wp.vec2, ndim=4)  # [step, stage, scene, robot]
Positions = wp.array(dtype=wp.vec2, ndim=3)  # [step, scene, robot]

SWEEPS = 8  # Jacobi sweeps over pairs; each halves what is left of a pair's approach, more or less in a jam


@wp.func
def ramp(z: float, width: float):
    """As in `mpm.py`, whose module keeps no adjoints."""
    r = wp.clamp(z, 0.0, width)
    return r * (0.5 * r / width - 1.0) + wp.max(z, 0.0)


@wp.func
def shorten(a: wp.vec2):
    """The vector, or its direction if it is longer than 1; the corner at 1 is rounded over 0.1."""
    length = wp.sqrt(wp.dot(a, a) + 1.0e-12)
    return a * (1.0 - ramp(length - 0.95, 0.1) / length)


@wp.kernel
def limit(t: int, actions: Positions, top_speed: float, v: Velocities):
    """Commanded velocity: the action in [-1, 1]^2 times the top speed, shortened to the top speed."""
    s, r = wp.tid()
    v[t, 0, s, r] = top_speed * shorten(actions[t, s, r])


@wp.kernel
def keep_apart(
    t: int, stage: int, x: Positions, robots: int, radius: float, low: float, high: float, period: float, v: Velocities
):
    """A pair closes its gap, and a robot the gap to a wall, by no more than there is in one control period."""
    s, r = wp.tid()
    own_x = x[t, s, r]
    own = v[t, stage, s, r]
    change = wp.vec2()
    for k in range(robots):
        if k != r:
            d = own_x - x[t, s, k]
            dist = wp.length(d) + 1.0e-6
            n = d / dist
            gap = dist - 2.0 * radius
            allowed = (gap + wp.min(gap, 0.0)) / period  # an overlap is undone twice as fast as it came
            excess = -wp.dot(own - v[t, stage, s, k], n) - allowed
            change += 0.5 * ramp(excess, RAMP_SPEED) * n
    out = own + change
    vx = wp.clamp(out[0], (low - own_x[0]) / period, (high - own_x[0]) / period)
    vy = wp.clamp(out[1], (low - own_x[1]) / period, (high - own_x[1]) / period)
    v[t, stage + 1, s, r] = wp.vec2(vx, vy)


@wp.kernel
def move(t: int, last: int, period: float, top_speed: float, v: Velocities, x: Positions, sent: Positions):
    """Carry out what is left of the wanted velocities."""
    s, r = wp.tid()
    u = top_speed * shorten(v[t, last, s, r] / top_speed)
    sent[t, s, r] = u
    x[t + 1, s, r] = x[t, s, r] + period * u
