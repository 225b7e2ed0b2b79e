"""`horseshoe/CoopPush-v0`: several robots push a soft object to a goal, one or many scenes at a time."""

from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from horseshoe import configuration
from horseshoe import tokens as seeing
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes, shapes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.warm_start import SETTLE, must_bend, paired_goal

Array = NDArray[np.float64]
Observation = dict[str, NDArray[np.float32]]

# Reward terms x scales; `info["metrics"]` carries the same names.
SCALES = {"match": 1.0, "overlap": 5.0, "solved": 1.0, "contact": 0.05}
SOLVED_WIDTH = 0.05  # of the step in "solved", of incremental IoU


@dataclass(frozen=True)
class Disturbance:
    """What differs from the world the planner knows.

    Attributes:
        density: factor on the object's density.
        stiffness: factor on the object's stiffness, at most 5 times that on its density.
        current: steady acceleration of the object [m/s^2] in a direction drawn at reset; 3 just moves it.
        gust: acceleration of a random push [m/s^2].
        gust_chance: chance of such a push in a decision.
        dead_robots: robots that stop for good on the way, after a tenth to two fifths of the episode's decisions: by
            then half of the goals are reached.
        goal_speed: speed at which the goal drifts during the first half [m/s].
    """

    density: float = field(default=1.0, metadata={"range": (0.1, 10.0)})
    stiffness: float = field(default=1.0, metadata={"range": (0.1, 3.0)})
    current: float = field(default=0.0, metadata={"range": (0.0, 20.0)})
    gust: float = field(default=0.0, metadata={"range": (0.0, 50.0)})
    gust_chance: float = field(default=0.1, metadata={"range": (0.0, 1.0)})
    dead_robots: int = field(default=0, metadata={"range": (0, 11)})
    goal_speed: float = field(default=0.0, metadata={"range": (0.0, 0.4)})

    def __post_init__(self) -> None:
        if self.stiffness > 5.0 * self.density:  # even half a physics step is too long for its waves
            raise ValueError(f"stiffness ({self.stiffness:g}) is above 5 times the density ({self.density:g})")


class CoopPushVectorEnv(gymnasium.vector.VectorEnv):
    """Batched scenes. Observation: see `tokens.tokens`. Action: velocity of each robot in its own frame over the top
    speed, shape (num_envs, robots, 2). The reward is the team's; `info["robot_reward"]` adds each robot's contact term.

    Scene k of a run with seed s is the k-th of that seed's sequence, so equal seeds meet equal scenes.
    A scene that ends is replaced in the same step; `info["final_info"]` has what it ended with.
    """

    def __init__(
        self,
        num_envs: int = 1,
        robots: int = 6,
        goals: str = "wide",
        held_out: bool = False,
        max_steps: int = 115,
        neighbours: int = 3,
        particles: int = 32,
        delay: tuple[int, int] = (0, seeing.MAX_DELAY),
        disturbance: dict[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Allocate the world.

        Args:
            num_envs: number of scenes.
            robots: robots per scene, 1 to 12.
            goals: goal set.
            held_out: draw from the seeds kept for evaluation; the k-th scene of seed 0 is then scene HELD_OUT + k.
            max_steps: decisions per episode.
            neighbours: how many of the nearest robots each one sees.
            particles: object and goal tokens.
            delay: least and largest lateness of a neighbour's message [decisions].
            disturbance: fields of `Disturbance`.
            render_mode: None or "rgb_array".

        Raises:
            HorseshoeError: a value out of range.
        """
        from horseshoe.sim.push.world import PushWorld

        if not 0 <= delay[0] <= delay[1] <= seeing.MAX_DELAY:
            raise HorseshoeError(f"delay: {tuple(delay)} is not within [0, {seeing.MAX_DELAY}], least first")
        if not 1 <= particles <= scenes.PARTICLES:
            raise HorseshoeError(f"particles: {particles} is outside [1, {scenes.PARTICLES}]")
        self.disturbance = configuration.load(Disturbance, disturbance or {})
        self.config = PushConfig()
        if self.disturbance.stiffness > self.disturbance.density:  # waves run faster there
            self.config = replace(self.config, dt=self.config.dt / 2)
        self.num_envs, self.robots, self.max_steps, self.neighbours = num_envs, robots, max_steps, neighbours
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": round(1.0 / self.config.control_period),
        }
        self._world = PushWorld(self.config, num_envs, scenes.PARTICLES, robots)
        self._name, self._set, self._held_out, self._delay = goals, scenes.load_goal_set(goals), held_out, delay
        self._shown = np.linspace(0, scenes.PARTICLES - 1, particles).astype(int)
        self._radio = seeing.Radio(num_envs, robots)
        self._first, self._drawn = 0, 0
        n, cells = num_envs, self.config.cells
        self.scenes: list[Any] = [None] * n
        self._step_count = np.zeros(n, dtype=int)
        self._goal = np.zeros((n, scenes.PARTICLES, 2))
        self._areas = np.zeros(n)
        self._before, self._wanted = np.zeros((n, cells, cells)), np.zeros((n, cells, cells))
        self._potential = {name: np.zeros(n) for name in ("match", "overlap", "solved")}
        self._death, self._dead = np.zeros(n, dtype=int), np.zeros((n, robots), dtype=bool)
        self._current, self._drift = np.zeros((n, 2)), np.zeros((n, 2))

        sizes = {
            "self": (robots, seeing.SELF),
            "robots": (robots, neighbours, seeing.ROBOT),
            "object": (robots, particles, seeing.OBJECT),
            "goal": (robots, particles, seeing.GOAL),
        }
        box = gymnasium.spaces.Box
        self.single_observation_space = gymnasium.spaces.Dict(
            {name: box(-np.inf, np.inf, size, np.float32) for name, size in sizes.items()}
        )
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, n)
        self.single_action_space = box(-1.0, 1.0, (robots, 2), np.float32)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, n)

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def particles(self) -> Array:
        """Positions of the objects [m], shape (num_envs, n, 2)."""
        return np.asarray(self._world.particles.numpy()[0], dtype=np.float64)

    @property
    def robot_positions(self) -> Array:
        """Positions of the robots [m], shape (num_envs, robots, 2)."""
        return np.asarray(self._world.robots.numpy()[0], dtype=np.float64)

    @property
    def goals(self) -> Array:
        """Where every particle of the objects shall be [m], shape (num_envs, n, 2)."""
        return self._goal.copy()

    def plan(self, scene: int, settings: dict[str, Any] | None = None) -> Array:
        """What the planner would do from here on; it knows nothing of disturbances.

        Args:
            scene: which.
            settings: fields of `planner.PlannerConfig`; those of `planner.receding` without it.

        Returns:
            Velocities over the top speed in the arena's axes, shape (decisions, robots, 2); a few decisions of rest
            where the goal is reached well enough.
        """
        from horseshoe.sim.push import planner

        given = None if settings is None else configuration.load(planner.PlannerConfig, settings)
        chosen = given or planner.receding(self.robots)
        task = self._task(scene)
        now = shapes.occupancy(task.start, task.area, self.config)
        if shapes.incremental_iou(now, self._before[scene], self._wanted[scene]) >= chosen.good_enough:
            return np.zeros((SETTLE, self.robots, 2))
        if given is None:
            return planner.first_plan(task, self.config, chosen)
        return planner.plan(task, self.config, chosen).actions

    def bends(self, scene: int) -> bool:
        """Whether the object of a scene must change its shape: there `improve` is a better teacher than `steer`."""
        start, goal = self.scenes[scene].start, self._goal[scene]
        return must_bend(start, goal)

    def steer(self, scene: int) -> Array:
        """What the law of feedback (`sim/push/steer.py`) does now.

        Args:
            scene: which.

        Returns:
            Velocities over the top speed in the arena's axes, shape (robots, 2).
        """
        from horseshoe.sim.push.steer import steer

        return steer(self.particles[scene], self._goal[scene], self.robot_positions[scene], self.config)

    def improve(self, scene: int, iterations: int) -> Array:
        """What the law of feedback would do from here on, made better by gradients; it knows nothing of disturbances.

        Args:
            scene: which.
            iterations: gradient steps.

        Returns:
            Velocities over the top speed in the arena's axes, shape (decisions, robots, 2); no decisions where the law
            would make the object explode.
        """
        from horseshoe.sim.push import planner

        try:
            return planner.improve(self._task(scene), self.config, iterations).actions
        except planner.Exploded:
            return np.zeros((0, self.robots, 2))

    def _task(self, scene: int) -> scenes.Scene:
        """What is left to do in a scene."""
        body, goal, robots = self.particles[scene], self._goal[scene], self.robot_positions[scene]
        return replace(self.scenes[scene], start=body, goal=goal, robots=robots, paired=True)

    def to_own_frames(self, velocities: Array) -> Array:
        """Turn arena velocities (such as a plan's) into actions; both (num_envs, robots, 2)."""
        return seeing.to_own(velocities, seeing.headings(self.robot_positions, self.particles.mean(1)))

    def incremental_iou(self, index: Any = slice(None)) -> Array:
        """Score of every scene now, or of those in `index`, shape (scenes,)."""
        bodies = zip(self.particles[index], self._areas[index], strict=True)
        now = np.stack([shapes.occupancy(body, area, self.config) for body, area in bodies])
        return shapes.incremental_iou(now, self._before[index], self._wanted[index])

    # --- episodes ----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes in all scenes.

        Args:
            seed: of the sequence of scenes.
            options: {"scenes": [...]} to meet given `scenes.Scene`s instead; {"spread": True} to end the first episodes
                early, one here and one there, so that what is seen together are not all beginnings or all ends.
        """
        if seed is not None or self._np_random is None:
            super().reset(seed=seed)
            self._first, self._drawn = 0 if seed is None else seed, 0
        given = (options or {}).get("scenes")
        self._begin(np.arange(self.num_envs), given)
        if (options or {}).get("spread"):
            self._step_count = self.np_random.integers(0, self.max_steps, self.num_envs)
        return self._observe(), {"metrics": {}, "incremental_iou": np.zeros(self.num_envs)}

    def _draw(self) -> scenes.Scene:
        # Seeds of different sequences must not meet: a sequence has 10,000 scenes to itself.
        seed = (scenes.HELD_OUT if self._held_out else 0) + 10_000 * self._first + self._drawn
        self._drawn += 1
        if not self._held_out:
            seed %= scenes.HELD_OUT
        return scenes.sample(self._set, self._name, seed, self.robots, self.config)

    def _begin(self, index: NDArray[np.int_], given: list[scenes.Scene] | None = None) -> None:
        rng, disturbance = self.np_random, self.disturbance
        chosen = list(given) if given is not None else [self._draw() for _ in index]
        if len(chosen) != len(index):
            raise HorseshoeError(f"scenes: expected {len(index)}, got {len(chosen)}")
        for k, scene in zip(index, chosen, strict=True):
            self.scenes[k] = scene
            self._goal[k] = paired_goal(scene)
            self._areas[k] = scene.area
            self._before[k] = shapes.occupancy(scene.start, scene.area, self.config)
            self._wanted[k] = shapes.occupancy(scene.goal, scene.area, self.config)
            course = rng.uniform(-np.pi, np.pi, 2)
            self._current[k] = disturbance.current * np.array([np.cos(course[0]), np.sin(course[0])])
            self._drift[k] = disturbance.goal_speed * np.array([np.cos(course[1]), np.sin(course[1])])
        robots = np.stack([scene.robots for scene in chosen])
        materials = [scenes.heavier(s, disturbance.density, disturbance.stiffness).material for s in chosen]
        self._world.reset(np.stack([s.start for s in chosen]), robots, self._areas[index], materials, index)
        self._radio.reset(index, np.concatenate([robots, np.zeros_like(robots)], -1), self._delay, rng)
        self._step_count[index] = 0
        self._death[index] = rng.integers(self.max_steps // 10, max(2, 2 * self.max_steps // 5), len(index))
        self._dead[index] = False
        for name, value in self._potentials(index).items():
            self._potential[name][index] = value

    def step(
        self, actions: Any
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One decision: actions in the robots' own frames, shape (num_envs, robots, 2)."""
        actions = np.nan_to_num(np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0))
        heading = seeing.headings(self.robot_positions, self.particles.mean(1))
        velocities = seeing.to_arena(actions, heading)
        self._disturb()
        velocities[self._dead] = 0.0
        self._world.rollout(self._world.vectors(velocities[None]))
        self._world.carry()
        self._step_count += 1
        self._radio.send(np.concatenate([self.robot_positions, self._sent()], axis=-1))

        new = self._potentials()
        metrics = {name: new[name] - self._potential[name] for name in new}
        gaps = np.linalg.norm(self.robot_positions[:, :, None] - self.particles[:, None, ::4], axis=-1).min(-1)
        contact = -np.maximum(gaps - self.config.robot_radius - self.config.dx, 0.0) / seeing.SCALE
        metrics["contact"] = contact.mean(-1)
        self._potential = new
        reward = np.sum([SCALES[name] * value for name, value in metrics.items()], axis=0)
        robot_reward = (reward - SCALES["contact"] * metrics["contact"])[:, None] + SCALES["contact"] * contact
        exploded = self._world.exploded
        truncated = (self._step_count >= self.max_steps) & ~exploded
        score = np.where(exploded, 0.0, new["overlap"])
        info: dict[str, Any] = {
            "metrics": metrics,
            "robot_reward": robot_reward,
            "incremental_iou": score,
            "success": score > shapes.SUCCESS,
            "exploded": exploded,
        }
        done = np.flatnonzero(exploded | truncated)
        if len(done):
            info["final_info"] = {name: info[name].copy() for name in ("incremental_iou", "success", "exploded")}
            info["final_info"]["seeds"] = [scene.name for scene in self.scenes]
            info["_final_info"] = exploded | truncated
            info["final_obs"] = self._observe()
            self._begin(done)
        return self._observe(), reward, exploded, truncated, info

    def _disturb(self) -> None:
        d, rng, n = self.disturbance, self.np_random, self.num_envs
        if d.current or d.gust:
            course = rng.uniform(-np.pi, np.pi, n)
            gust = d.gust * (rng.random(n) < d.gust_chance)
            self._world.set_current(self._current + gust[:, None] * np.stack([np.cos(course), np.sin(course)], axis=-1))
        if d.dead_robots:
            dies = np.flatnonzero(self._step_count == self._death)
            for k in dies:
                self._dead[k, rng.permutation(self.robots)[: min(d.dead_robots, self.robots - 1)]] = True
        if d.goal_speed:
            way = self._drift * self.config.control_period * (self._step_count < self.max_steps // 2)[:, None]
            moved = self._goal + way[:, None]
            margin = 2.5 * self.config.robot_radius
            inside = ((moved > self.config.low + margin) & (moved < self.config.high - margin)).reshape(len(moved), -1)
            inside = np.asarray(inside.all(1))
            self._goal = np.where(inside[:, None, None], moved, self._goal)
            for k in np.flatnonzero(inside):
                self._wanted[k] = shapes.occupancy(self._goal[k], self._areas[k], self.config)

    def _sent(self) -> Array:
        return np.asarray(self._world.sent.numpy()[0], dtype=np.float64) / self.config.robot_speed

    def _potentials(self, index: Any = slice(None)) -> dict[str, Array]:
        """What the reward terms are differences of, in all scenes or those in `index`."""
        match = -np.linalg.norm(self.particles[index] - self._goal[index], axis=-1).mean(-1) / seeing.SCALE
        overlap = self.incremental_iou(index)
        solved = 1.0 / (1.0 + np.exp(-(overlap - shapes.SUCCESS) / SOLVED_WIDTH))
        return {"match": match, "overlap": overlap, "solved": solved}

    def _observe(self) -> Observation:
        moving = np.where((self._step_count > 0)[:, None, None], self._sent(), 0.0)
        middle = np.full(2, self.config.side / 2)
        return seeing.tokens(
            self.robot_positions, moving, self._radio.heard(), self._radio.ages,
            self.particles[:, self._shown], self._goal[:, self._shown], middle, self.neighbours,
        )  # fmt: skip

    def picture(self, scene: int) -> NDArray[np.uint8]:
        """Picture of one scene, shape (h, w, 3)."""
        from horseshoe.sim.push.picture import draw

        return draw(self.particles[scene], self._goal[scene], self.robot_positions[scene], self.config)

    def render(self) -> Any:
        """Pictures of the scenes, each (h, w, 3) of uint8."""
        return None if self.render_mode is None else tuple(self.picture(k) for k in range(self.num_envs))


class CoopPushEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One scene; options as for `CoopPushVectorEnv`."""

    def __init__(self, **options: Any) -> None:
        """Wrap a batch of one."""
        self._batch = CoopPushVectorEnv(1, **options)
        self.metadata = {k: v for k, v in self._batch.metadata.items() if k != "autoreset_mode"}
        self.render_mode = self._batch.render_mode
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; options {"scenes": [scene]} for a given one."""
        super().reset(seed=seed)
        observation, _ = self._batch.reset(seed=seed, options=options)
        return {name: value[0] for name, value in observation.items()}, {"scene": self._batch.scenes[0].name}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One decision; action (robots, 2)."""
        observation, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        done = bool(terminated[0] or truncated[0])
        observation = info.get("final_obs", observation) if done else observation
        single = {name: info[name][0] for name in ("robot_reward", "incremental_iou", "success", "exploded")}
        single["metrics"] = {name: float(value[0]) for name, value in info["metrics"].items()}
        return (
            {name: value[0] for name, value in observation.items()},
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            single,
        )

    def render(self) -> Any:
        """A picture (h, w, 3) of uint8."""
        pictures = self._batch.render()
        return None if pictures is None else pictures[0]
