"""What the robots shall do now, from the present state alone: the planner's cage as a law of feedback.

The plans of `warm_start` depend on when they were made: made anew at every decision they never get beyond the
approach, so that a policy which sees no clock cannot follow them. Here equal states get equal answers and near states
near ones. Every robot keeps to a rim around the object, shares it out with its two neighbours there, rather behind what
has to move than before it, and moves with what it stands beside.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.shapes import place
from horseshoe.sim.push.warm_start import change_of_shape, rotation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Manner:
    """How an object is handled.

    Attributes:
        cage: worth of a place on the rim that only encloses the object, against one right behind what moves farthest.
        ends: what a place at the end of something long is worth beyond that.
        cruise: share of the top speed used to carry.
        settle: time in which the rest of the way is done at the end [s].
        press: how far a robot leans on the object [m].
        detour: distance from the rim of a robot that walks along it [m].
        ready: way to a robot's place at which the others begin to wait [m].
        impatience: share of the speed at which they go on all the same.
        care: how much a robot that walks keeps off the object before it goes on, in [0, 1].
    """

    cage: float
    ends: float
    cruise: float
    settle: float
    press: float
    detour: float
    ready: float
    impatience: float
    care: float


STIFF = Manner(0.15, 0.0, 0.7, 0.4, 0.003, 0.02, 0.05, 0.2, 0.0)
# What must be bent is soft: all push at once, from one side and from its ends, and nobody touches it before.
SOFT = Manner(0.005, 0.05, 1.0, 0.1, 0.006, 0.05, 0.1, 0.0, 1.0)
SOFTENS = 0.006, 0.012  # mean change of shape to go at which an object counts as soft, and as nothing else [m]
FRONT = 0.01  # room left before what moves towards a robot [m]
NEAR = 0.02  # how much too near a robot stops walking, at full care [m]
WALK, KEEP = 7.0, 8.0  # gains along the rim and towards it [1/s]
PATIENCE = 0.08  # way to a robot's place, beyond `ready`, at which all wait [m]
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

    how = manner(body, goal)

    ring, tangent = rim(body, clearance)
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    field = _flow(ring, body, goal, tree)
    use = -(field * outward).sum(1) / max(float(np.linalg.norm(field, axis=1).max()), 1e-6)
    at = cKDTree(ring).query(robots)[1]
    weight = how.cage + (1.0 - how.cage) * np.clip(use, 0.0, 1.0)
    if how.ends:
        weight += how.ends * _ends(ring, outward, body, tree)
    error = _share_out(at, weight, ring, config)
    walks = np.abs(error) > 0.02
    off = np.linalg.norm(robots - ring[at], axis=1)
    ready = 1.0 - (np.abs(error) + np.maximum(off - 0.02, 0.0) - how.ready) / PATIENCE
    gate = float(np.clip(ready, how.impatience, 1.0).min())

    gap, nearest = tree.query(robots)
    away = (robots - body[nearest]) / np.maximum(gap, 1e-6)[:, None]
    room = np.maximum(
        how.detour * np.clip((np.abs(error) - 0.02) / 0.05, 0.0, 1.0), FRONT * np.clip(-3.0 * use[at], 0.0, 1.0)
    )
    lack = clearance - how.press + room - gap
    # Who pushes is not kept from it: what yields late is pushed all the same.
    yielding = np.maximum(np.clip(1.0 - 3.0 * use[at], 0.0, 1.0), how.care * walks)
    gain = KEEP * np.where(lack > 0.0, yielding, 1.0)
    flow = _flow(robots, body, goal, tree)
    rate = min(1.0 / how.settle, how.cruise * top / max(float(np.linalg.norm(flow, axis=1).max()), 1e-6))
    walk = np.clip(WALK * error, -top, top) * (1.0 - how.care * np.clip(lack / NEAR, 0.0, 1.0))
    velocity = walk[:, None] * tangent[at] + np.clip(gain * lack, -top, top)[:, None] * away + gate * rate * flow
    velocity *= np.clip((left - ARRIVED) / 0.004, 0.0, 1.0) / top
    return np.asarray(velocity / np.maximum(np.linalg.norm(velocity, axis=1, keepdims=True), 1.0))


def manner(body: Array, goal: Array) -> Manner:
    """How to handle an object with particles at body that shall be at goal, both (n, 2) [m]."""
    soft = float(np.clip((change_of_shape(body, goal) - SOFTENS[0]) / (SOFTENS[1] - SOFTENS[0]), 0.0, 1.0))
    return Manner(*(a + soft * (b - a) for a, b in zip(astuple(STIFF), astuple(SOFT), strict=True)))


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


def _ends(ring: Array, outward: Array, body: Array, tree: cKDTree) -> Array:
    """How much the object beside points of the rim (k, 2) points towards them, in [0, 1], shape (k,)."""
    near = body[tree.query(ring, k=40)[1]]
    x, y = np.moveaxis(near - near.mean(1, keepdims=True), -1, 0)
    angle = 0.5 * np.arctan2(2.0 * (x * y).sum(1), (x**2 - y**2).sum(1))
    return np.asarray((outward * np.stack([np.cos(angle), np.sin(angle)], axis=1)).sum(1) ** 2)


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
