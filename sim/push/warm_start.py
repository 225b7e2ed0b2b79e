"""A first plan by geometry: the robots close a cage around the object and carry it along a path of deformations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.scenes import Scene
from horseshoe.sim.push.shapes import place

Array = NDArray[np.float64]

CRUISE = 0.8  # share of the top speed used to carry, so that the optimiser has room on both sides
SETTLE = 4  # decisions at rest in the end
BENT = 0.01  # mean change of shape [m] above which an object counts as bent
VARIETY = 0.4  # chance in the choice of a cage


def rotation(a: Array, b: Array) -> float:
    """Angle [rad] of the turn that best takes the centred points a to the centred points b, both (n, 2)."""
    return float(np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum()))


def pair(start: Array, goal: Array) -> Array:
    """Reorder goal particles so that each corresponds to the start particle of the same index.

    Tries turns of the start in steps of 15 degrees and prefers, among equal fits, the small turn.
    """
    rng = np.random.default_rng(0)
    some = rng.choice(len(start), min(120, len(start)), replace=False)
    body, target = start - start.mean(0), goal - goal.mean(0)
    scale = (body**2).sum(1).mean()
    best, best_cost = 0.0, np.inf
    for angle in np.radians(np.arange(-180, 180, 15)):
        cost = cdist(place(body[some], (0.0, 0.0), angle), target[some], "sqeuclidean")
        fit = cost[linear_sum_assignment(cost)].mean() / scale + 0.02 * abs(angle)
        if fit < best_cost:
            best, best_cost = angle, fit
    order = linear_sum_assignment(cdist(place(body, (0.0, 0.0), best), target, "sqeuclidean"))[1]
    return goal[order]


def paired_goal(scene: Scene) -> Array:
    """Where every particle of a scene's object belongs [m], shape (n, 2)."""
    return scene.goal if scene.paired else pair(scene.start, scene.goal)


def change_of_shape(start: Array, goal: Array) -> float:
    """How far particles at start, at best moved and turned, are from the (paired) goal on average [m]; both (n, 2)."""
    c0, c1 = start.mean(0), goal.mean(0)
    back = place(goal - c1, (0.0, 0.0), -rotation(start - c0, goal - c1))
    return float(np.linalg.norm(back - (start - c0), axis=1).mean())


def must_bend(start: Array, goal: Array) -> bool:
    """Whether an object at start must change its shape to become the (paired) goal, both (n, 2) [m]."""
    return change_of_shape(start, goal) > BENT


def path(start: Array, goal: Array, share: Array) -> Array:
    """Positions on the way from start to (paired) goal: a rigid turn and move, and a steady change of shape.

    Args:
        start: shape (n, 2) [m].
        goal: shape (n, 2) [m].
        share: how far along, in [0, 1], shape (k,).

    Returns:
        Positions [m], shape (k, n, 2).
    """
    c0, c1 = start.mean(0), goal.mean(0)
    turn = rotation(start - c0, goal - c1)
    change = place(goal - c1, (0.0, 0.0), -turn) - (start - c0)
    return np.stack([place(start - c0 + s * change, c0 + s * (c1 - c0), s * turn) for s in share])


def choose_slots(
    body: Array,
    motion: Array,
    robots: Array,
    clearance: float,
    cage: float,
    rng: np.random.Generator,
    variety: float = VARIETY,
    nearby: float = 0.0,
) -> Array:
    """Places on the rim of the object: spread out, and rather behind what has to move than before it.

    Args:
        body: particles [m], shape (n, 2).
        motion: displacement wanted of each particle [m], shape (n, 2).
        robots: where the robots are [m], shape (r, 2); as many slots are chosen.
        clearance: distance of a slot from the nearest particle [m].
        cage: worth of a slot that only encloses the object, against one right behind what moves farthest, in [0, 1].
        rng: for the first choice; another draw is another cage.
        variety: how much chance there is in the first choice, in [0, 1].
        nearby: how much less a slot is worth the farther it is from all robots [1/m].
    """
    low, high = body.min(0) - 2 * clearance, body.max(0) + 2 * clearance
    points = rng.uniform(low, high, (20000, 2))
    tree = cKDTree(body)
    distance, nearest = tree.query(points)
    ring = np.abs(distance - clearance) < 0.0015
    points, nearest = points[ring], nearest[ring]
    inward = (body[nearest] - points) / clearance
    local = motion[tree.query(points, k=20)[1]].mean(1)
    use = (local * inward).sum(1) / max(float(np.abs(motion).max()), 1e-6)
    weight = cage + (1.0 - cage) * np.clip(use, 0.0, 1.0)
    if nearby:
        weight *= np.exp(-nearby * cKDTree(robots).query(points)[0])
    chosen = [int(np.argmax(weight * rng.uniform(1.0 - variety, 1.0, len(points))))]
    gap = np.full(len(points), np.inf)
    while len(chosen) < len(robots):
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(gap * weight)))
    return np.asarray(points[chosen])


def carry(slots: Array, bodies: Array) -> Array:
    """Positions of slots that follow the nearest part of the object: slots (r, 2), bodies (k, n, 2) -> (k, r, 2)."""
    near = cKDTree(bodies[0]).query(slots, k=25)[1]
    out = np.empty((len(bodies), *slots.shape))
    for r, (slot, index) in enumerate(zip(slots, near, strict=True)):
        part = bodies[:, index]
        centre = part.mean(1)
        for k in range(len(bodies)):
            turn = rotation(part[0] - centre[0], part[k] - centre[k])
            out[k, r] = place((slot - centre[0])[None], centre[k], turn)[0]
    return out


class Terrain:
    """Shortest ways for a robot's centre around the object, on a grid of nodes."""

    def __init__(self, body: Array, clearance: float, config: PushConfig) -> None:
        """Build the graph of free nodes [m]."""
        self._tree, self._clear = cKDTree(body), clearance - 0.004
        low, high = config.low + config.robot_radius, config.high - config.robot_radius
        axis = np.arange(low, high, 0.02)
        self.nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        self.nodes = self.nodes[self._tree.query(self.nodes)[0] > self._clear]
        self._free = cKDTree(self.nodes)
        edges = self._free.query_pairs(0.0285, output_type="ndarray")
        length = np.linalg.norm(self.nodes[edges[:, 0]] - self.nodes[edges[:, 1]], axis=1)
        self._graph = coo_array((length, edges.T), shape=(len(self.nodes),) * 2).tocsr()

    def ways(self, goals: Array) -> tuple[Array, NDArray[np.int_], NDArray[np.int_]]:
        """Distances from every node to each goal, next nodes on the way (both (r, n)), and the goals' own nodes."""
        ends = self._free.query(goals)[1]
        distance, following = dijkstra(self._graph, directed=False, indices=ends, return_predecessors=True)
        return distance, following, ends

    def nearest(self, points: Array) -> NDArray[np.int_]:
        """Free nodes nearest to points."""
        return np.asarray(self._free.query(points)[1])

    def visible(self, a: Array, b: Array) -> bool:
        """Whether the straight way is free of the object."""
        line = a + np.linspace(0.0, 1.0, 25)[:, None] * (b - a)
        return bool(self._tree.query(line)[0].min() > self._clear)


def approach(robots: Array, slots: Array, body: Array, clearance: float, step: float, config: PushConfig) -> Array:
    """Share out the slots and walk the robots there around the object.

    Returns:
        Positions [m], shape (k + 1, r, 2), `step` [m] per decision; the last one is the slots in their new order.
    """
    terrain = Terrain(body, clearance, config)
    distance, following, ends = terrain.ways(slots)
    first = terrain.nearest(robots)
    cost = np.minimum(distance[:, first].T, 10.0)
    order = linear_sum_assignment(cost**2)[1]  # squared: a few equal ways rather than one long one
    tracks = []
    for robot, node, k in zip(robots, first, order, strict=True):
        line = [robot]
        while node != ends[k] and following[k, node] >= 0:
            line.append(terrain.nodes[node])
            node = following[k, node]
        line.append(slots[k])
        corners = [line[0]]
        while corners[-1] is not line[-1]:  # cut corners where the straight way is free
            here = next(i for i, point in enumerate(line) if point is corners[-1])
            ahead = [i for i in range(here + 1, len(line)) if terrain.visible(line[here], line[i])]
            corners.append(line[max(ahead, default=here + 1)])
        tracks.append(_resample(np.array(corners), step))
    count = max(len(track) for track in tracks)
    return np.stack([np.concatenate([t, np.repeat(t[-1:], count - len(t), axis=0)]) for t in tracks], axis=1)


def _resample(corners: Array, step: float) -> Array:
    """Points along a polyline, `step` apart."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.append(np.arange(0.0, along[-1], step), along[-1])
    return np.stack([np.interp(at, along, corners[:, k]) for k in range(2)], axis=1)


def warm_start(
    scene: Scene,
    goal: Array,
    config: PushConfig,
    cage: float,
    rng: np.random.Generator,
    variety: float = VARIETY,
    nearby: float = 0.0,
) -> Array:
    """A first plan.

    Args:
        scene: the task.
        goal: goal particles paired with the scene's start [m], shape (n, 2).
        config: the world.
        cage: see `choose_slots`.
        rng: another draw gives another cage.
        variety: see `choose_slots`.
        nearby: see `choose_slots`.

    Returns:
        Wanted velocities over the top speed, shape (steps, n_robots, 2); `steps` is what this plan needs.
    """
    step = config.robot_speed * config.control_period
    spacing = np.sqrt(scene.area / len(scene.start))
    clearance = config.robot_radius + 0.5 * spacing + 0.001
    slots = choose_slots(scene.start, goal - scene.start, scene.robots, clearance, cage, rng, variety, nearby)
    track = approach(scene.robots, slots, scene.start, clearance, 0.95 * step, config)
    fine = path(scene.start, goal, np.linspace(0.0, 1.0, 41))
    carried = carry(track[-1], fine)
    lengths = np.linalg.norm(np.diff(carried, axis=0), axis=-1).sum(0)
    count = max(4, int(np.ceil(lengths.max() / (CRUISE * step))))
    ramp = np.clip(np.arange(1, count + 1) / (count + 1), 0.0, 1.0)
    share = np.concatenate([ramp, np.ones(SETTLE + 1)])
    follow = np.stack([_interpolate(carried, s) for s in share])
    clear = config.low + config.robot_radius, config.high - config.robot_radius
    positions = np.clip(np.concatenate([track, follow]), *clear)
    return np.diff(positions, axis=0) / step


def _interpolate(track: Array, share: Any) -> Array:
    at = share * (len(track) - 1)
    k = min(int(at), len(track) - 2)
    return np.asarray(track[k] + (at - k) * (track[k + 1] - track[k]))
