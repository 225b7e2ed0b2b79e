"""What a robot sees: tokens in its own frame. Plain numpy, so that the same code serves simulation and robots.

A robot's frame has its origin in the robot and its x axis towards the centre of the object; so a policy meets the same
numbers however the scene is turned in the arena. Lengths are in units of `SCALE`, velocities over the top
speed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError

Array = NDArray[np.float64]

SCALE = 0.25  # [m]
SELF, ROBOT, OBJECT, GOAL = 5, 6, 4, 2  # features per token
MAX_DELAY = 10  # decisions by which a neighbour's message may be late


def in_decisions(delay: tuple[float, float], period: float) -> tuple[int, int]:
    """Least and largest lateness of messages [s], rounded to decisions of this period [s].

    Raises:
        HorseshoeError: they are out of range, or not least first.
    """
    least, largest = delay
    if not 0.0 <= least <= largest <= MAX_DELAY * period + 1e-9:
        raise HorseshoeError(f"delay: {least:g}:{largest:g} s is not within [0, {MAX_DELAY * period:g}] s, least first")
    return round(least / period), round(largest / period)


def headings(robots: Array, centre: Array) -> Array:
    """Cosine and sine of each robot's x axis: robots (..., r, 2), centre (..., 2) -> (..., r, 2)."""
    way = centre[..., None, :] - robots
    length = np.linalg.norm(way, axis=-1, keepdims=True)
    return np.asarray(np.where(length > 1e-6, way / np.maximum(length, 1e-6), np.array([1.0, 0.0])))


def to_own(vectors: Array, heading: Array) -> Array:
    """Turn arena vectors into the robot's frame; both (..., 2)."""
    c, s = heading[..., 0], heading[..., 1]
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], axis=-1)


def to_arena(vectors: Array, heading: Array) -> Array:
    """Turn vectors of the robot's frame into the arena's; both (..., 2)."""
    return to_own(vectors, heading * np.array([1.0, -1.0]))


def tokens(
    robots: Array,
    velocities: Array,
    messages: Array,
    ages: NDArray[np.int_],
    body: Array,
    goal: Array,
    middle: Array,
    neighbours: int,
    own: NDArray[np.int_] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Build the observation of every robot, or of some of them.

    Args:
        robots: positions [m], shape (n, r, 2).
        velocities: shares of the top speed, shape (n, r, 2).
        messages: what robot i last heard from robot j, (position [m], velocity), shape (n, r, s, 4).
        ages: how old that is [decisions], shape (n, r, s).
        body: particles of the object [m], shape (n, p, 2).
        goal: where each of these particles shall be [m], shape (n, p, 2).
        middle: centre of the arena [m], shape (2,).
        neighbours: how many of the nearest robots are shown.
        own: which of the s robots each of the r is, shape (r,); they are the same (r = s) without it.

    Returns:
        "self" (n, r, 5): own velocity, way to the middle of the arena, distance to the nearest particle.
        "robots" (n, r, neighbours, 6): relative position, velocity, age over MAX_DELAY, 1 (all 0 where there is none).
        "object" (n, r, p, 4): relative position of a particle and its way to the goal.
        "goal" (n, r, p, 2): relative position of a goal particle.
    """
    n, count = robots.shape[:2]
    heading = headings(robots, body.mean(1))
    way = to_own(body[:, None] - robots[:, :, None], heading[:, :, None]) / SCALE
    left = to_own(np.repeat((goal - body)[:, None], count, axis=1), heading[:, :, None]) / SCALE
    target = to_own(goal[:, None] - robots[:, :, None], heading[:, :, None]) / SCALE
    state = np.concatenate(
        [
            to_own(velocities, heading),
            to_own(middle - robots, heading) / SCALE,
            np.linalg.norm(way, axis=-1).min(-1)[..., None],
        ],
        axis=-1,
    )
    seen = np.zeros((n, count, neighbours, ROBOT))
    shown = min(neighbours, messages.shape[2] - 1)
    if shown:
        relative = messages[..., :2] - robots[:, :, None]
        itself = np.arange(messages.shape[2]) == (np.arange(count) if own is None else own)[:, None]
        distance = np.linalg.norm(relative, axis=-1) + np.where(itself, np.inf, 0.0)
        order = np.argsort(distance, axis=-1, kind="stable")[..., :shown]
        pick = order[..., None]
        position = np.take_along_axis(relative, pick, axis=2)
        velocity = np.take_along_axis(messages[..., 2:], pick, axis=2)
        seen[:, :, :shown, :2] = to_own(position, heading[:, :, None]) / SCALE
        seen[:, :, :shown, 2:4] = to_own(velocity, heading[:, :, None])
        seen[:, :, :shown, 4] = np.take_along_axis(ages, order, axis=2) / MAX_DELAY
        seen[:, :, :shown, 5] = 1.0
    out: dict[str, Any] = {
        "self": state,
        "robots": seen,
        "object": np.concatenate([way, left], axis=-1),
        "goal": target,
    }
    return {name: value.astype(np.float32) for name, value in out.items()}


def mirror_signs(neighbours: int, particles: int) -> NDArray[np.float32]:
    """Signs of all these numbers in a row, shape (numbers,), after a reflection of the scene in the robot's x axis."""
    robots, body, goal = [1, -1, 1, -1, 1, 1] * neighbours, [1, -1, 1, -1] * particles, [1, -1] * particles
    return np.array([1, -1, 1, -1, 1, *robots, *body, *goal], dtype=np.float32)


class Radio:
    """Messages between robots, each link late by its own fixed number of decisions; the first ones back-fill."""

    def __init__(self, scenes: int, robots: int) -> None:
        """Nothing is heard before `reset`."""
        self._history = np.zeros((MAX_DELAY + 1, scenes, robots, 4))  # newest first
        self.ages = np.zeros((scenes, robots, robots), dtype=int)

    def reset(self, index: NDArray[np.int_], state: Array, delay: tuple[int, int], rng: np.random.Generator) -> None:
        """Start scenes anew with delays drawn from `delay` (inclusive); state (k, r, 4)."""
        self._history[:, index] = state
        count = self.ages.shape[1]
        self.ages[index] = rng.integers(delay[0], delay[1] + 1, (len(index), count, count))

    def send(self, state: Array) -> None:
        """One decision later: state (n, r, 4)."""
        self._history = np.roll(self._history, 1, axis=0)
        self._history[0] = state

    def heard(self) -> Array:
        """What robot i has last heard from robot j, shape (n, r, r, 4)."""
        n, count = self.ages.shape[:2]
        scene, sender = np.arange(n)[:, None, None], np.arange(count)[None, None]
        return np.asarray(self._history[self.ages, scene, sender])
