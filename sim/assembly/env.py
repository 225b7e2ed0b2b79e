"""The assembly environments: natively vectorised, and a single one made of it."""

import dataclasses
import json
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from horseshoe import configuration
from horseshoe.action_path import ActionPath
from horseshoe.errors import HorseshoeError
from horseshoe.hardware import capsules, xarm6
from horseshoe.sim.assembly import blueprint as blueprints
from horseshoe.sim.assembly import cell as cells
from horseshoe.sim.assembly.config import TRAINING_PHYSICS, AssemblyConfig
from horseshoe.sim.assembly.moments import Moments
from horseshoe.sim.assembly.perception import Perception, true_scene
from horseshoe.sim.assembly.render import Recorder, renderer
from horseshoe.sim.assembly.scene import FIELDS, Assignment, SceneObserver
from horseshoe.sim.assembly.starts import Starts, StartSampler
from horseshoe.sim.assembly.task import OUTCOMES, Task
from horseshoe.sim.assembly.trace import CHUNK
from horseshoe.sim.assembly.world import TICK, BatchWorld

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]


class AssemblyVectorEnv(gym.vector.VectorEnv[Array, Array, Any]):
    """n_envs cells; observations and actions carry an arm axis.

    Observation: float32 (n_envs, n_arms, FIELDS.size). Action: [-1, 1], (n_envs, n_arms, 7): six joint deltas and the
    gripper (+1 open). Reward: mean of the arms' (n_envs,); `info["arm_reward"]` (n_envs, n_arms) and the unscaled terms
    under `info["terms"]`. Finished episodes reset in the same step; `info["final_obs"]`, `info["outcome"]` (index into
    `task.OUTCOMES`) and `info["whole"]` (True for starts of the whole task, drawn anew) describe them; the
    observation is zero where an episode goes on.

    Args:
        num_envs: number of cells.
        config: what the environment is.
        n_threads: of action path and physics; what happens does not depend on them.
        pool: number of differently randomised models; 128 of them still fit into a processor's cache.
        start_batch: how many starts are drawn at a time.
        engine: "mujoco"; "quasistatic", fast, for the first part of training; or "pybullet" for the twin, whose physics
            are its own whatever `config.physics` says.
    """

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        config: AssemblyConfig | None = None,
        n_threads: int = 2,
        pool: int = 128,
        start_batch: int = 1024,
        seed: int = 0,
        render_mode: str | None = None,
        engine: str = "mujoco",
    ) -> None:
        self.config = config or AssemblyConfig(physics=TRAINING_PHYSICS)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.cell = cells.load(self.config.cell)
        self.blueprint = blueprints.load(self.config.blueprint)
        self.n_arms = len(self.cell.arms)
        pool = min(pool, max(num_envs, 16))
        self.world: Any
        if engine == "mujoco":
            physics = self.config.physics
            self.world = BatchWorld(self.cell, self.blueprint, num_envs, physics, pool, seed, n_threads)
        elif engine == "pybullet":
            from horseshoe.sim.assembly.twin import TwinWorld

            self.world = TwinWorld(self.cell, self.blueprint, num_envs, pool=pool, seed=seed)
        elif engine == "quasistatic":
            from horseshoe.sim.assembly.quasistatic import QuasiStaticWorld

            self.world = QuasiStaticWorld(self.cell, self.blueprint, num_envs, self.config.physics, pool, seed)
        else:
            raise HorseshoeError(f"engine: {engine!r} is unknown; choose from ['mujoco', 'pybullet', 'quasistatic']")
        self.observer = SceneObserver(self.cell, self.blueprint)
        gap = partial(capsules.gaps_and_gradients, bases=self.cell.base_poses)
        kinematics = xarm6.tool_pose_and_jacobian
        self.path = ActionPath(self.config.action, num_envs, self.n_arms, kinematics, gap, n_threads)
        self.task = Task(self.config.task, self.observer, self.world.magnets, self.config.action.decision_rate)
        self.sampler = StartSampler(self.cell, self.blueprint)
        self.start_config = self.config.starts
        self._start_batch = max(start_batch, num_envs)
        rate = self.config.action.decision_rate
        self._whole_horizon = round(self.config.task.horizon * rate)
        self._assisted_horizon = round(self.config.starts.assisted_horizon * rate)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (self.n_arms, FIELDS.size), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (self.n_arms, 7), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._scales = dataclasses.asdict(self.config.task.rewards)
        self.rng = np.random.default_rng(seed)
        self.perception = Perception(self.config.noise, self.world, self.rng)
        self.steps = np.zeros(num_envs, dtype=np.intp)
        self.assignment = Assignment(np.zeros((num_envs, self.n_arms), dtype=np.intp))
        self.whole: Mask = np.zeros(num_envs, dtype=bool)
        self.again: Mask = np.zeros(num_envs, dtype=bool)
        self.level = np.nan
        self._pool: Starts | None = None
        self._next = 0
        self._moments = Moments()
        self.recorder: Recorder | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start every environment anew; the same seed gives the same episodes."""
        if seed is not None:
            self.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
            self._pool, self._moments = None, Moments()
        self._begin(np.ones(self.num_envs, dtype=bool))
        return self._observe(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Mask, Mask, dict[str, Any]]:
        """Advance by one decision.

        Raises:
            HorseshoeError: actions of a wrong shape or with NaN; nothing has moved then.
        """
        actions = np.asarray(actions, dtype=np.float64)
        noise = (
            self.rng.normal(0, 1, (self.num_envs, self.n_arms, 7)) * self.config.noise.action * self.perception.scale
        )
        noise[..., 6] = 0.0
        wanted = np.clip(actions, -1, 1) if actions.shape == noise.shape else actions
        moved = self.observer.unmirror(wanted + noise, self.assignment) if wanted.shape == noise.shape else wanted
        targets = self.path.decision(moved, self.world.state().q)
        self.world.advance(targets)
        self.steps += 1
        if self.recorder:
            self.recorder.capture()
        state = self.world.state()
        late = self.steps >= np.where(self.whole, self._whole_horizon, self._assisted_horizon)
        told = self.path.target, wanted, self.path.blocked
        terms, outcome = self.task.judge(state, *told, self.assignment, self.world.diverged, late)
        arm_reward = sum(self._scales[name] * value for name, value in terms.items())
        arm_reward = np.where(np.isfinite(arm_reward), arm_reward, 0.0)
        done = outcome > 0
        failed, success = np.isin(outcome, self.task.failures), outcome == OUTCOMES.index("success")
        terminated, truncated = success | failed, done & late & ~(success | failed)
        info: dict[str, Any] = {"arm_reward": arm_reward, "terms": terms, "outcome": outcome, "success": success}
        observation = self._observe()
        if done.any():
            info["whole"], info["steps"] = self.whole & ~self.again, self.steps.copy()
            info["delay"] = self.path.delay
            info["final_obs"] = np.where(done[:, None, None], observation, np.float32(0.0))
            info["final_privileged"] = self.privileged(done)
            if self.recorder:
                for index in np.flatnonzero(done):
                    self.recorder.finish(int(index), OUTCOMES[outcome[index]])
            self._moments.keep(done & ~success & info["whole"], self.steps, self.rng)
            self._begin(done)
            observation[done] = self._observe(done)
        if self.start_config.again and self._moments.due():
            self._moments.remember(self._moment())
        return observation, arm_reward.mean(1), terminated, truncated, info

    outcomes = OUTCOMES
    frame_rate = 1 / (CHUNK * TICK)  # of recordings [Hz]

    def privileged(self, mask: Mask | None = None) -> Array:
        """What only a critic in training may see: the true scene and physics, float32 (n_envs, n_arms, PRIVILEGED).

        Of the environments in mask (n_envs,); the true scene is zero elsewhere.
        """
        n, rows = self.num_envs, slice(None) if mask is None else mask
        true = np.zeros((n, self.n_arms, FIELDS.size))
        scene = true_scene(self.world.state(rows=rows), self.path.target[rows])
        true[rows] = self.observer.observe(scene, Assignment(self.assignment.pair[rows]))
        latched = self.world.magnets.latched
        pair = np.maximum(self.assignment.pair, 0)
        own = latched[np.arange(n)[:, None], pair] & (self.assignment.pair >= 0)
        extra = np.stack(
            [
                own,
                np.asarray(latched.any(1))[:, None] & ~own,
                self.task.held,
                np.repeat(self.path.delay[:, None], self.n_arms, 1),
                np.repeat(self.world.lag[:, None], self.n_arms, 1),
            ],
            axis=-1,
        )
        return np.concatenate([true, extra], axis=-1).astype(np.float32)

    def set_level(self, level: float) -> None:
        """Difficulty of coming episodes: 0 is the easiest of the curriculum, 1 is its end.

        Noise of poses and delay grow from a third to what is configured, the share of assisted starts shrinks from that
        to a third, and the contact force that ends an episode falls from five times its limit: a beginner that loses
        every episode at the first touch of the table learns to stay away from it. Until a level is set, all is as
        configured.
        """
        if abs(level - self.level) < 0.02 and level not in (0.0, 1.0):
            return
        if level != self.level:
            self.level = level
            self.perception.scale = 1 / 3 + 2 / 3 * level
            self.task.contact_scale = 5 - 4 * level
            if self.config.starts.assisted:
                assisted = self.config.starts.assisted * (1 - 2 / 3 * level)
                self.start_config, self._pool = dataclasses.replace(self.config.starts, assisted=assisted), None

    def _parts(self) -> dict[str, Any]:
        return {"world": self.world, "path": self.path, "perception": self.perception, "task": self.task}

    def _moment(self) -> dict[str, Array]:
        """Where every cell is, all arrays with the cells first."""
        flat = {f"{name}.{key}": v for name, part in self._parts().items() for key, v in part.snapshot().items()}
        return {**flat, "pair": self.assignment.pair.copy()}

    def _go_to(self, moment: dict[str, Array], rows: Index | slice = slice(None)) -> None:
        for name, part in self._parts().items():
            part.restore({k.partition(".")[2]: v for k, v in moment.items() if k.startswith(f"{name}.")}, rows)
        self.assignment.pair[rows] = moment["pair"]

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here, as arrays."""
        flat = {**self._moment(), "steps": self.steps, "whole": self.whole, "again": self.again}
        flat |= {"level": np.array(self.level), "next": np.array(self._next)}
        flat |= {f"moments.{name}": value for name, value in self._moments.snapshot().items()}
        if self._pool is not None:
            flat |= {f"pool.{f.name}": getattr(self._pool, f.name) for f in dataclasses.fields(Starts)}
        state = json.dumps(self.rng.bit_generator.state).encode()
        return {**{k: np.asarray(v) for k, v in flat.items()}, "rng": np.frombuffer(state, np.uint8)}

    def restore(self, snapshot: dict[str, Array]) -> None:
        """Go back to a snapshot of an environment made with the same arguments."""
        self._go_to(snapshot)
        self.level = np.nan
        if not np.isnan(level := snapshot["level"].item()):
            self.set_level(level)
        self.steps = snapshot["steps"].astype(np.intp)
        self.whole, self.again = snapshot["whole"].astype(bool), snapshot["again"].astype(bool)
        self._next = int(snapshot["next"].item())
        groups: dict[str, dict[str, Any]] = {"moments": {}, "pool": {}}
        for key, value in snapshot.items():
            if (group := key.partition(".")[0]) in groups:
                groups[group][key.partition(".")[2]] = value.copy()
        self._moments.restore(groups["moments"])
        self._pool = Starts(**groups["pool"]) if groups["pool"] else None
        self.rng.bit_generator.state = json.loads(snapshot["rng"].tobytes())

    def _begin(self, mask: Mask) -> None:
        k = int(mask.sum())
        starts = self._take(k)
        model = self.rng.integers(len(self.world.models), size=k)
        self.world.reset(mask, model, starts.q, starts.opening, starts.position, starts.quaternion)
        delay = self.rng.uniform(*self.config.noise.delay, k) * self.perception.scale
        self.path.reset(starts.q, starts.command, delay, mask)
        self.perception.reset(mask)
        self.task.reset(mask)
        self.steps[mask] = 0
        self.whole[mask] = starts.whole
        self._try_again(mask)

    def _take(self, k: int) -> Starts:
        if self._pool is None or self._next + k > len(self._pool):
            self._pool = self.sampler.sample(self.rng, max(self._start_batch, k), self.start_config)
            self._next = 0
        taken = self._pool.take(np.arange(self._next, self._next + k))
        self._next += k
        return taken

    def _try_again(self, mask: Mask) -> None:
        """Let some of the episodes of the whole task that begin now go on shortly before another one failed."""
        self.again[mask] = False
        if self.start_config.again and len(self._moments):
            self.again |= mask & self.whole & (self.rng.random(self.num_envs) < self.start_config.again)
            here = np.flatnonzero(self.again & mask)
            if here.size:
                self._go_to(self._moments.draw(here.size, self.rng), here)

    def _observe(self, rows: Mask | slice = slice(None)) -> Array:
        """What the arms of the environments in rows see now. Looking changes what is known: once a decision."""
        scene = self.perception.perceive(self.path.target, rows)
        pair = self.assignment.pair[rows]
        # The roles are decided on what is seen at the start, as on the robot.
        new = (self.steps[rows] == 0) & ~self.again[rows]
        if new.any():
            pair = np.where(new[:, None], self.observer.assign(scene).pair, pair)
        self.assignment.pair[rows] = self.observer.reconsider(scene, Assignment(pair)).pair
        return self.observer.observe(scene, Assignment(self.assignment.pair[rows])).astype(np.float32)

    def record(self, count: int) -> Recorder:
        """Keep the coming episode of the first `count` environments for a video; call before `reset`."""
        self.recorder = Recorder(self.world, np.arange(min(count, self.num_envs)))
        return self.recorder

    def render(self) -> tuple[Any, ...] | None:
        """An image of every environment, (height, width, 3) uint8."""
        if self.render_mode != "rgb_array":
            return None
        draw = renderer(self.world)
        return tuple(draw(state, i) for i, state in enumerate(self.world.trace.states[-1]))


def make_vector(num_envs: int = 1, blueprint: str = "u_shape", **kwargs: Any) -> AssemblyVectorEnv:
    """Entry point of `gymnasium.make_vec`; `config` (an `AssemblyConfig` or a mapping) overrides the blueprint."""
    config = kwargs.pop("config", None)
    if config is None:
        config = AssemblyConfig(blueprint=blueprint, physics=TRAINING_PHYSICS)
    elif isinstance(config, dict):
        config = configuration.load(AssemblyConfig, {"blueprint": blueprint, **config})
    return AssemblyVectorEnv(num_envs, config, **kwargs)


class AssemblyEnv(gym.Env[Array, Array]):
    """One cell: `AssemblyVectorEnv` without the axis of environments."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, blueprint: str = "u_shape", render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode = render_mode
        self.vector = make_vector(1, blueprint, **{"n_threads": 1, "pool": 16, "start_batch": 16, **kwargs})
        self.vector.render_mode = render_mode
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the same seed gives the same one."""
        super().reset(seed=seed)
        observation, _ = self.vector.reset(seed=seed)
        return observation[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Advance by one decision."""
        observation, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        done = bool(terminated[0] or truncated[0])
        last = info["final_obs"] if done else observation
        terms = {name: float(value.mean()) for name, value in info["terms"].items()}
        return (
            last[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"outcome": OUTCOMES[info["outcome"][0]], "terms": terms},
        )

    def render(self) -> Any:
        """An image of the cell, (height, width, 3) uint8."""
        images = self.vector.render()
        return None if images is None else images[0]
