# mypy: ignore-errors
"""What the planner minimises, as kernels that warp differentiates: goal terms in the end, contact all along."""

from functools import partial
from typing import Any

import numpy as np
import warp as wp  # noqa: TID253 (a module of kernels)
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from horseshoe.sim.push.shapes import occupancy
from horseshoe.sim.push.world import PushWorld

Array = NDArray[np.float64]

LENGTH = 0.05  # [m], the distance at which a squared-distance term is 1

# Worth of each term in the loss.
WEIGHTS = {"match": 1.0, "density": 0.3, "signed_distance": 1.0, "contact": 0.01}


@wp.func
def spline(f: float):
    """As in `mpm.py`, whose module keeps no adjoints."""
    return wp.vec3(0.5 * (1.5 - f) * (1.5 - f), 0.75 - (f - 1.0) * (f - 1.0), 0.5 * (f - 0.5) * (f - 0.5))


@wp.kernel
def match(
    t: int, x: wp.array3d(dtype=wp.vec2), goal: wp.array2d(dtype=wp.vec2), scale: float, loss: wp.array(dtype=float)
):
    """Squared distance of each particle from its place in the goal."""
    s, p = wp.tid()
    d = x[t, s, p] - goal[s, p]
    wp.atomic_add(loss, s, scale * wp.dot(d, d))


@wp.kernel
def signed_distance(
    t: int,
    x: wp.array3d(dtype=wp.vec2),
    field: wp.array3d(dtype=float),
    dx: float,
    scale: float,
    loss: wp.array(dtype=float),
):
    """Squared distance of particles outside the goal from its rim; the field has signed distances at the nodes [m]."""
    s, p = wp.tid()
    q = x[t, s, p] / dx
    n = field.shape[1]
    i, j = wp.clamp(int(q[0]), 0, n - 2), wp.clamp(int(q[1]), 0, n - 2)
    a, b = q[0] - float(i), q[1] - float(j)
    low = (1.0 - b) * field[s, i, j] + b * field[s, i, j + 1]
    high = (1.0 - b) * field[s, i + 1, j] + b * field[s, i + 1, j + 1]
    d = wp.max((1.0 - a) * low + a * high, 0.0)
    wp.atomic_add(loss, s, scale * d * d)


@wp.kernel
def splat(t: int, x: wp.array3d(dtype=wp.vec2), dx: float, share: float, covered: wp.array3d(dtype=float)):
    """Share of every cell covered by the object."""
    s, p = wp.tid()
    q = x[t, s, p] / dx
    n = covered.shape[1]
    bx, by = wp.clamp(int(q[0] - 0.5), 0, n - 3), wp.clamp(int(q[1] - 0.5), 0, n - 3)
    wx, wy = spline(q[0] - float(bx)), spline(q[1] - float(by))
    for i in range(3):
        for j in range(3):
            wp.atomic_add(covered, s, bx + i, by + j, share * wx[i] * wy[j])


@wp.kernel
def density(
    covered: wp.array3d(dtype=float),
    goal: wp.array3d(dtype=float),
    scale: wp.array(dtype=float),
    loss: wp.array(dtype=float),
):
    """Squared difference of coverage."""
    s, i, j = wp.tid()
    d = covered[s, i, j] - goal[s, i, j]
    if d != 0.0:
        wp.atomic_add(loss, s, scale[s] * d * d)


@wp.kernel
def contact(
    every: int,
    x: wp.array3d(dtype=wp.vec2),
    robots: wp.array3d(dtype=wp.vec2),
    reach: float,
    scale: float,
    loss: wp.array(dtype=float),
):
    """Squared distance from each robot's rim to the object; the nearest particle at the time."""
    k, s, r = wp.tid()
    t = (k + 1) * every
    at = robots[t, s, r]
    nearest = int(0)  # noqa: UP018, RUF046 (declares a variable)
    best = float(1.0e9)  # noqa: UP018
    for p in range(x.shape[2]):
        d = x[t, s, p] - at
        dd = wp.dot(d, d)
        if dd < best:
            best = dd
            nearest = p
    d = x[t, s, nearest] - at
    gap = wp.max(wp.sqrt(wp.dot(d, d) + 1.0e-8) - reach, 0.0)
    wp.atomic_add(loss, s, scale * gap * gap)


class Loss:
    """The planner's loss for one batch of scenes; one value per scene."""

    def __init__(self, world: PushWorld, goals: Array, area: float) -> None:
        """Prepare the goal.

        Args:
            world: whose rollouts are judged.
            goals: goal particles paired with the object's, shape (scenes, n, 2) [m].
            area: area of the object [m^2].
        """
        self._world, self._area = world, area
        config, device = world.config, world.device
        covered = occupancy(goals, area, config)
        inside = covered > 0.5
        fields = [distance_transform_edt(~i) - distance_transform_edt(i) + 0.5 for i in inside]
        scale = WEIGHTS["density"] / (covered**2).sum((1, 2))
        self._goal = wp.array(goals.astype(np.float32), dtype=wp.vec2, device=device)
        self._field = wp.array((np.array(fields) * config.dx).astype(np.float32), dtype=float, device=device)
        self._covered_goal = wp.array(covered.astype(np.float32), dtype=float, device=device)
        self._scale = wp.array(scale.astype(np.float32), dtype=float, device=device)
        self._covered = wp.zeros(covered.shape, dtype=float, device=device, requires_grad=True)

    def __call__(self) -> Any:
        """Evaluate after a rollout, on the open tape if there is one; wp.array (scenes,)."""
        world = self._world
        config, t, x = world.config, world.steps, world.particles
        shape = self._goal.shape
        per_particle = 1.0 / (shape[1] * LENGTH**2)
        loss = wp.zeros(shape[0], dtype=float, device=world.device, requires_grad=True)
        launch = partial(wp.launch, device=world.device)
        launch(match, shape, inputs=[t, x, self._goal, WEIGHTS["match"] * per_particle, loss])
        signed = WEIGHTS["signed_distance"] * per_particle
        launch(signed_distance, shape, inputs=[t, x, self._field, config.dx, signed, loss])
        self._covered.zero_()
        launch(splat, shape, inputs=[t, x, config.dx, self._area / shape[1] / config.dx**2, self._covered])
        launch(density, self._covered.shape, inputs=[self._covered, self._covered_goal, self._scale, loss])
        every = 4
        moments = t // every
        scale = WEIGHTS["contact"] / (max(moments, 1) * world.n_robots * LENGTH**2)
        reach = config.robot_radius + config.dx
        launch(contact, (moments, shape[0], world.n_robots), inputs=[every, x, world.robots, reach, scale, loss])
        return loss
