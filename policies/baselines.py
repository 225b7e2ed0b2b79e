"""What a learned pushing policy is compared with: the planner itself, and a rule that any engineer would write."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tokens = dict[str, NDArray[np.float32]]
Controller = Callable[[Tokens, NDArray[np.int_]], NDArray[Any]]  # tokens (n, r, ...), decisions taken (n,) -> (n, r, 2)

BASELINES = ("open-loop", "replanning", "geometric")
REPLAN = 25  # decisions
BEHIND = 0.28  # distance from a particle at which a robot stands to push it, in lengths of `horseshoe.tokens`
CLOSE = 0.26  # of a robot's centre from the nearest particle, below which it is turned away unless it pushes


def make(name: str, env: Any) -> Controller:
    """A baseline by name, for an environment `horseshoe/CoopPush-v0`."""
    if name == "geometric":
        return lambda tokens, taken: geometric(tokens)
    return _Planned(env, None if name == "open-loop" else REPLAN)


class _Planned:
    """The planner: once with all its gradient steps and then blindly, or again and again by geometry."""

    def __init__(self, env: Any, every: int | None) -> None:
        self._env, self._every = env, every
        self._plans: list[Array] = [np.zeros((0, env.robots, 2))] * env.num_envs
        self._begun = np.zeros(env.num_envs, dtype=int)

    def __call__(self, tokens: Tokens, taken: NDArray[np.int_]) -> NDArray[Any]:
        velocities = np.zeros((self._env.num_envs, self._env.robots, 2))
        for k, decision in enumerate(taken):
            at = decision - self._begun[k]
            if decision == 0 or self._every is not None and at >= min(self._every, len(self._plans[k])):
                self._plans[k] = self._env.plan(k, {} if self._every is None else None)
                self._begun[k], at = decision, 0
            if at < len(self._plans[k]):
                velocities[k] = self._plans[k][at]
        return np.asarray(self._env.to_own_frames(velocities))


def geometric(tokens: Tokens) -> Array:
    """Go behind what has to move, clear of the object and of the others, and push: tokens (n, r, ...) -> (n, r, 2)."""
    here, way = tokens["object"][..., :2].astype(float), tokens["object"][..., 2:].astype(float)
    left = np.linalg.norm(way, axis=-1)
    course = way / np.maximum(left, 1e-6)[..., None]
    post = here - BEHIND * course  # where to stand for each particle
    others = tokens["robots"].astype(float)
    gap = np.linalg.norm(post[..., :, None, :] - others[..., None, :, :2], axis=-1)
    crowd = (np.exp(-((gap / 0.4) ** 2)) * others[..., None, :, 5]).sum(-1)
    inside = np.linalg.norm(post[..., :, None, :] - here[..., None, :, :], axis=-1).min(-1) < 0.7 * BEHIND
    cost = np.linalg.norm(post, axis=-1) - left + crowd + 10.0 * inside
    best = cost.argmin(-1)[..., None, None]
    target, toward, mine = (np.take_along_axis(x, best, -2)[..., 0, :] for x in (here, course, post))
    rest = np.take_along_axis(left, best[..., 0], -1)

    reach = np.linalg.norm(target, axis=-1, keepdims=True)
    behind = (target * toward).sum(-1, keepdims=True) > 0.85 * reach
    pushing = behind & (reach < 1.6 * BEHIND)
    distance = np.linalg.norm(here, axis=-1)
    nearest = np.take_along_axis(here, distance.argmin(-1)[..., None, None], -2)[..., 0, :]
    closest = distance.min(-1)[..., None]
    walk = mine / np.maximum(np.linalg.norm(mine, axis=-1, keepdims=True), 1e-6)
    away = -nearest / np.maximum(closest, 1e-6)
    inward = (walk * away).sum(-1, keepdims=True)
    around = walk - np.minimum(inward, 0.0) * away  # what of the way does not lead into the object
    around = around + 0.3 * away
    around /= np.maximum(np.linalg.norm(around, axis=-1, keepdims=True), 1e-6)
    walk = np.where((closest < CLOSE) & (inward < 0.0), around, walk)
    speed = np.clip(4.0 * rest, 0.0, 0.8)
    done = left.mean(-1)[..., None] < 0.06
    return np.asarray(np.where(done, 0.0, np.where(pushing, speed * toward, 0.9 * walk)))
