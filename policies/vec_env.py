"""Thin Stable-Baselines3 `VecEnv`s over Horseshoe vector environments: every robot is an agent."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


def ends(done: NDArray[np.bool_], truncated: NDArray[np.bool_], final: np.ndarray) -> list[dict[str, Any]]:
    """What SB3 must know of the episodes that end.

    Args:
        done: shape (n_envs,).
        truncated: likewise, where only time ran out.
        final: what every agent saw last, shape (n_envs * robots, numbers).

    Returns:
        One dictionary per agent, empty where the episode goes on.
    """
    robots = len(final) // len(done)
    infos: list[dict[str, Any]] = [{}] * len(final)
    for agent in np.flatnonzero(np.repeat(done, robots)):
        cut = bool(truncated[agent // robots])
        infos[agent] = {"terminal_observation": final[agent], "TimeLimit.truncated": cut}
    return infos


class SharedVecEnv(VecEnv):
    """What all of them have in common: agents of one environment whose attributes they share."""

    def __init__(self, env: Any, agents: int, observation: gym.spaces.Box, action: gym.spaces.Box) -> None:
        self.env: Any = env
        super().__init__(agents, observation, action)
        self._actions = np.zeros((agents, *action.shape))

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute, the same for every agent."""
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector environment."""
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Agents carry no wrappers."""
        return [False] * self.num_envs


class AgentVecEnv(SharedVecEnv):
    """n_envs x n_robots agents that share one policy.

    Observations are [what the robot sees | what the critic may know]. A success ends an episode; because staying in
    success would go on earning, the last reward is continued for ever at the discount rate.

    Args:
        env: a vector environment with a robot axis, `privileged()` and per-robot rewards in `info`.
        gamma: discount of the learner.
    """

    def __init__(self, env: Any, gamma: float) -> None:
        self.env: Any = env.unwrapped
        self._gamma = gamma
        # Values of about one, whatever the discount: the critic shares step size and gradient norm with the actor.
        self._reward_scale = 0.1 * (1 - gamma)
        robots, self.n_actor = env.single_observation_space.shape
        self.robots = robots
        env.reset(seed=0)
        self.n_critic: int = self.env.privileged().shape[-1]
        space = gym.spaces.Box(-np.inf, np.inf, (self.n_actor + self.n_critic,), np.float32)
        action = gym.spaces.Box(-1.0, 1.0, (env.single_action_space.shape[-1],), np.float32)
        super().__init__(self.env, env.num_envs * robots, space, action)
        self.finished: list[dict[str, np.ndarray]] = []  # outcomes since the last look
        self.terms: list[dict[str, float]] = []  # mean reward terms of every decision since the last look
        self._seed: int | None = 0

    def _flat(self, observation: np.ndarray, privileged: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, privileged], axis=-1).reshape(self.num_envs, -1)

    def reset(self) -> np.ndarray:
        """Start all environments; a seed given before applies once."""
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None
        return self._flat(observation, self.env.privileged())

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment."""
        actions = self._actions.reshape(-1, self.robots, self._actions.shape[-1])
        observation, _, terminated, truncated, info = self.env.step(actions)
        reward = info["arm_reward"] * self._reward_scale
        self.terms.append({name: float(value.mean()) for name, value in info["terms"].items()})
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{}] * self.num_envs
        if done.any():
            success = info["success"]
            reward = np.where(success[:, None], reward / (1 - self._gamma), reward)
            infos = ends(done, truncated, self._flat(info["final_obs"], info["final_privileged"]))
            self.finished.append({k: info[k][done] for k in ("outcome", "whole", "steps", "success")})
        flat = self._flat(observation, self.env.privileged())
        return flat, reward.reshape(-1).astype(np.float32), np.repeat(done, self.robots), infos

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the next reset."""
        self._seed = seed
        return [seed] * self.num_envs
