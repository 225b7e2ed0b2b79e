"""What the robots shall do now, from the present state alone: the planner's cage as a law of feedback.

The plans of `warm_start` depend on when they were made: made anew at every decision they never get beyond the
approach, so that a policy which sees no clock cannot follow them. Here equal states get equal answers and near states
near ones. Every robot keeps to a rim around the object, shares it out with its two neighbours there, rather behind what
has to move than before it, and moves with what it stands beside.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.shapes import place
from horseshoe.sim.push.warm_start import rotation

Array = NDArray[np.float64]

CAGE = 0.15  # worth of a place on the rim that only encloses the object, against one right behind what moves farthest
CRUISE = 0.7  # share of the top speed used to carry
SETTLE = 0.4  # time in which the rest of the way is done at the end [s]
PRESS = 0.003  # how far a robot leans on the object [m]
FRONT = 0.01  # room left before what moves towards a robot [m]
DETOUR = 0.02  # distance from the rim of a robot that walks along it [m]
WALK, KEEP = 6.0, 8.0  # gains along the rim and towards it [1/s]
READY, PATIENCE = 0.05, 0.08  # way to a robot's place at which the others begin to wait, and until they all do [m]
IMPATIENCE = 0.2  # share of the speed at which they go on all the same
ARRIVED = 0.004  # mean way left of the particles at which the robots rest [m]
ROOM = 2.15  # radii of rim that a robot takes


def steer(body: Array, goal: Array, robots: Array, config: PushConfig) -> Array:
    """Velocities of all robots.

    Args:
        body: particles [m], shape (n, 2).
        goal: where each of them shall be [m], shape (n, 2).
        robots: positions [m], shape (r, 2).
        config: the world.

    Returns:
        Velocities over the top speed in the arena's axes, shape (r, 2).
    """
    tree = cKDTree(body)
    spacing = 0.5 * float(np.median(tree.query(body, k=2)[0][:, 1]))
    clearance = config.robot_radius + spacing + 0.001
    top = config.robot_speed
    left = float(np.linalg.norm(goal - body, axis=1).mean())

    ring, tangent = rim(body, clearance)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    field = _flow(ring, body, goal, tree)
    use = -(field * outward).sum(1) / max(float(np.linalg.norm(field, axis=1).max()), 1e-6)
    at = cKDTree(ring).query(robots)[1]
    error = _share_out(at, CAGE + (1.0 - CAGE) * np.clip(use, 0.0, 1.0), ring, config)
    off = np.linalg.norm(robots - ring[at], axis=1)
    ready = 1.0 - (np.abs(error) + np.maximum(off - 0.02, 0.0) - READY) / PATIENCE
    gate = float(np.clip(ready, IMPATIENCE, 1.0).min())

    gap, nearest = tree.query(robots)
    away = (robots - body[nearest]) / np.maximum(gap, 1e-6)[:, None]
    room = np.maximum(
        DETOUR * np.clip((np.abs(error) - 0.02) / 0.05, 0.0, 1.0), FRONT * np.clip(-3.0 * use[at], 0.0, 1.0)
    )
    lack = clearance - PRESS + room - gap
    # Who pushes is not kept from it: what yields late is pushed all the same.
    gain = np.where(lack > 0.0, KEEP * np.clip(1.0 - 3.0 * use[at], 0.0, 1.0), KEEP)
    flow = _flow(robots, body, goal, tree)
    rate = min(1.0 / SETTLE, CRUISE * top / max(float(np.linalg.norm(flow, axis=1).max()), 1e-6))
    velocity = (
        np.clip(WALK * error, -top, top)[:, None] * tangent[at]
        + np.clip(gain * lack, -top, top)[:, None] * away
        + gate * rate * flow
    )
    velocity *= np.clip((left - ARRIVED) / 0.004, 0.0, 1.0) / top
    return np.asarray(velocity / np.maximum(np.linalg.norm(velocity, axis=1, keepdims=True), 1.0))


def rim(body: Array, clearance: float) -> tuple[Array, Array]:
    """Closed curve at a distance from an object, counterclockwise, about 5 mm a step.

    Args:
        body: particles [m], shape (n, 2).
        clearance: the distance [m].

    Returns:
        Points [m] and unit tangents, both (k, 2).
    """
    import contourpy

    pad = clearance + 0.03
    xs, ys = (np.arange(a, b, 0.012) for a, b in zip(body.min(0) - pad, body.max(0) + pad, strict=True))
    nodes = np.stack(np.meshgrid(xs, ys), axis=-1)
    distance = cKDTree(body).query(nodes.reshape(-1, 2))[0].reshape(nodes.shape[:2])
    lines: list[Any] = list(contourpy.contour_generator(xs, ys, distance).lines(clearance))
    line: Array = max(lines, key=len)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    count = max(40, round(along[-1] / 0.005))
    points = np.stack([np.interp(np.arange(count) * along[-1] / count, along, line[:, k]) for k in range(2)], axis=1)
    x, y = points.T
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0.0:
        points = points[::-1]
    tangent = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    return points, tangent / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)


def _flow(points: Array, body: Array, goal: Array, tree: cKDTree) -> Array:
    """Displacement with which the way of `warm_start.path` begins at points beside the object, both (k, 2) [m]."""
    c0, c1 = body.mean(0), goal.mean(0)
    turn = rotation(body - c0, goal - c1)
    change = place(goal - c1, (0.0, 0.0), -turn) - (body - c0)
    arm = points - c0
    local = change[tree.query(points, k=20)[1]].mean(1)
    return np.asarray(c1 - c0 + turn * np.stack([-arm[:, 1], arm[:, 0]], axis=1) + local)


def _share_out(at: NDArray[np.int_], weight: Array, ring: Array, config: PushConfig) -> Array:
    """Way of each robot along the rim [m] to where as much of the weight lies before it as behind it.

    Args:
        at: points of the rim at which the robots are, shape (r,).
        weight: of the points, shape (k,).
        ring: the rim [m], shape (k, 2).
        config: the world.
    """
    r, k = len(at), len(ring)
    if r == 1:
        best = (int(np.argmax(weight)) - at + k // 2) % k - k // 2
        return np.asarray(best * float(np.linalg.norm(ring[1] - ring[0])), dtype=np.float64)
    length = float(np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1).sum())
    step = length / k
    most = 1.0 / (r * ROOM * config.robot_radius)  # no denser than robots fit
    density = weight / (weight.sum() * step)
    for _ in range(8):
        density = np.minimum(density, most)
        free = density < most
        if not free.any():
            break
        density[free] *= 1.0 + max(1.0 - density.sum() * step, 0.0) / (density[free].sum() * step)
    density = np.minimum(density, most)
    mass = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    grid = np.arange(k + 1) * step

    order = np.argsort(at, kind="stable")
    place_on, share = at[order] * step, mass[at[order]]
    before, after = np.roll(share, 1), np.roll(share, -1)
    before[0] -= 1.0
    after[-1] += 1.0
    wanted = 0.5 * (before + after)
    rounds = np.floor(wanted)
    error = np.empty(r)
    error[order] = rounds * length + np.interp(wanted - rounds, mass, grid) - place_on
    return error
