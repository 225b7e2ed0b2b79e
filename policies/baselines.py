"""What a learned pushing policy is compared with: its teachers, and a rule that any engineer would write."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tokens = dict[str, NDArray[np.float32]]
Controller = Callable[[Tokens, NDArray[np.int_]], NDArray[Any]]  # tokens (n, r, ...), decisions taken (n,) -> (n, r, 2)

BASELINES = ("open-loop", "replanning", "feedback", "geometric")
REPLAN = 25  # decisions
CLOSE = 0.19  # distance from the nearest point of the object at which a robot pushes, in lengths of `horseshoe.tokens`
ASIDE = 0.30  # at which it walks
# Plans made once; the planner knows nothing of disturbances, so a scene gets the same one under all of them.
_PLANS: dict[tuple[str, int, float], Array] = {}


def make(name: str, env: Any) -> Controller:
    """A baseline by name, for an environment `horseshoe/CoopPush-v0`."""
    if name == "geometric":
        return lambda tokens, taken: geometric(tokens)
    if name == "feedback":
        return lambda tokens, taken: np.asarray(
            env.to_own_frames(np.stack([env.steer(k) for k in range(env.num_envs)]))
        )
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
                self._plans[k] = self._once(k) if self._every is None else self._env.plan(k)
                self._begun[k], at = decision, 0
            if at < len(self._plans[k]):
                velocities[k] = self._plans[k][at]
        return np.asarray(self._env.to_own_frames(velocities))

    def _once(self, k: int) -> Array:
        key = (self._env.scenes[k].name, self._env.robots, self._env.config.dt)
        if key not in _PLANS:
            _PLANS[key] = self._env.plan(k, {})
        return _PLANS[key]


def geometric(tokens: Tokens) -> Array:
    """Push if the object must move away from you; otherwise walk around it, clear of it and of the others.

    What lies before a robot shall move as the rigid motion that fits all points best. Each decides alone; none waits.

    Args:
        tokens: as of the environment, shapes (n, r, ...).

    Returns:
        Actions, shape (n, r, 2).
    """
    here, way = tokens["object"][..., :2].astype(float), tokens["object"][..., 2:].astype(float)
    others = tokens["robots"].astype(float)
    centre, course = here.mean(-2), way.mean(-2)
    arm, wanted = here - centre[..., None, :], here + way - (centre + course)[..., None, :]
    turn = np.arctan2(
        (arm[..., 0] * wanted[..., 1] - arm[..., 1] * wanted[..., 0]).sum(-1), (arm * wanted).sum((-1, -2))
    )
    flow = course + turn[..., None] * np.stack([centre[..., 1], -centre[..., 0]], axis=-1)  # here, at the origin
    distance = np.linalg.norm(here, axis=-1)
    nearest = np.take_along_axis(here, distance.argmin(-1)[..., None, None], -2)[..., 0, :]
    gap = distance.min(-1)[..., None]
    outward = -nearest / np.maximum(gap, 1e-6)
    along = np.stack([-outward[..., 1], outward[..., 0]], axis=-1)
    size = np.maximum(np.linalg.norm(flow, axis=-1, keepdims=True), 1e-6)
    into = -(flow * outward).sum(-1, keepdims=True) / size

    apart = np.maximum(np.linalg.norm(others[..., :2], axis=-1, keepdims=True), 0.05)
    crowd = -(others[..., :2] / apart * np.exp(-apart / 0.4) * others[..., 5:]).sum(-2)
    side = -(flow * along).sum(-1, keepdims=True) / size + (crowd * along).sum(-1, keepdims=True)
    walking = 0.8 * np.sign(side) * along + np.clip(4.0 * (ASIDE - gap), -1.0, 1.0) * outward
    speed = np.minimum(0.7, 1.5 * size)
    pushing = speed * flow / size + np.clip(4.0 * (CLOSE - gap), -0.5, 0.0) * outward
    done = np.linalg.norm(way, axis=-1).mean(-1)[..., None] < 0.03
    return np.asarray(np.where(done, 0.0, np.where(into > 0.5, pushing, walking)))
