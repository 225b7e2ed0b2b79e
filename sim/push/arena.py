"""Pushing with differential-drive robots, episode by episode: what a ROS graph or a loop in one process drives."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes, shapes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.drive import DriveConfig, Drives

Array = NDArray[np.float64]

DECISIONS = 115  # of an episode, as in `horseshoe/CoopPush-v0`


@dataclass(frozen=True)
class Motion:
    """What the odometry of all robots says (R robots).

    position: [m], (R, 2); heading: [rad], (R,); velocity: [m/s] in the arena's frame, (R, 2); angular: [rad/s], (R,).
    """

    position: Array
    heading: Array
    velocity: Array
    angular: Array


@dataclass(frozen=True)
class Track:
    """A finished episode, for pictures (T decisions, R robots, n particles).

    scene: name; period: of a decision [s]; goal: [m], (n, 2); particles: [m], (T + 1, n, 2);
    robots: x, y [m] and heading [rad], (T + 1, R, 3); score: incremental IoU, (T + 1,);
    shove: velocity [m/s] by which the object was pushed half-way, (2,); zero if it was not.
    """

    scene: str
    period: float
    goal: Array
    particles: Array
    robots: Array
    score: Array
    shove: Array


class PushArena:
    """Held-out scenes of a goal set, one after the other, with differential-drive robots.

    Episode k (from 1) of seed s meets the same scene as the k-th one of `horseshoe/CoopPush-v0` with
    `held_out=True, seed=s`; only the robots' headings are new.

    Attributes:
        episode: number of the running episode, 0 before the first.
        scene: what it started from.
        decisions: taken in it so far.
    """

    def __init__(
        self,
        robots: int = 6,
        goals: str = "wide",
        seed: int = 0,
        decisions: int = DECISIONS,
        shove: float = 0.0,
        drive: DriveConfig | None = None,
    ) -> None:
        """Load the goal set and allocate the world.

        Args:
            robots: 1 to 12.
            goals: goal set.
            seed: of scenes, headings and shoves.
            decisions: per episode.
            shove: velocity that a push half-way gives to the object [m/s].
            drive: the robots' wheels.

        Raises:
            HorseshoeError: a value out of range.
        """
        from horseshoe.sim.push.world import PushWorld

        self.config, self.robots, self.horizon = PushConfig(), robots, decisions
        self._name, self._set, self._seed, self._shove = goals, scenes.load_goal_set(goals), seed, shove
        self._drives = Drives(drive or DriveConfig(), robots)
        self._world = PushWorld(self.config, 1, scenes.PARTICLES, robots)
        self.episode, self.decisions = 0, 0
        self.next_episode()
        self.step()  # compiles the kernels
        self.episode = 0

    def next_episode(self) -> None:
        """Lay out the next scene; the robots stand still, turned anywhere."""
        seed = scenes.HELD_OUT + 10_000 * self._seed + self.episode
        self.scene = scenes.sample(self._set, self._name, seed, self.robots, self.config)
        scene, rng = self.scene, np.random.default_rng([seed, 1])
        self._world.reset(scene.start[None], scene.robots[None], [scene.area], [scene.material])
        self._drives.reset(rng.uniform(-np.pi, np.pi, self.robots))
        course = rng.uniform(-np.pi, np.pi)
        self._push = self._shove * np.array([np.cos(course), np.sin(course)])
        self._before = shapes.occupancy(scene.start, scene.area, self.config)
        self._wanted = shapes.occupancy(scene.goal, scene.area, self.config)
        self._sent = np.zeros((self.robots, 2))
        self._frames: list[tuple[Array, Array, float]] = []
        self.decisions = 0
        self.episode += 1
        self._keep()

    def command(self, robot: int, linear: float, angular: float) -> None:
        """Take the Twist of one robot (from 0): [m/s], [rad/s].

        Raises:
            HorseshoeError: NaN or infinity.
        """
        self._drives.command(robot, linear, angular)

    def step(self) -> None:
        """One decision later."""
        period, top = self.config.control_period, self.config.robot_speed
        if self._shove and self.decisions in (self.shoved_at, self.shoved_at + 1):
            way = self._push * (self.decisions == self.shoved_at)
            friction = self.scene.material.ground * way / self._shove
            self._world.set_current((way / period + friction)[None])
        wanted = self._drives.advance(period) / (period * top)
        self._world.rollout(self._world.vectors(wanted[None, None]))
        self._sent = np.asarray(self._world.sent.numpy()[0, 0], dtype=np.float64)
        self._world.carry()
        self.decisions += 1
        self._keep()

    @property
    def shoved_at(self) -> int:
        """The decision in which the object is pushed, if it is."""
        return self.horizon // 2

    @property
    def particles(self) -> Array:
        """The object [m], shape (n, 2)."""
        return np.asarray(self._world.particles.numpy()[0, 0], dtype=np.float64)

    @property
    def motion(self) -> Motion:
        """What the odometry says."""
        position = np.asarray(self._world.robots.numpy()[0, 0], dtype=np.float64)
        angular = (self._drives.wheel[:, 1] - self._drives.wheel[:, 0]) / self._drives.config.separation
        return Motion(position, self._drives.heading.copy(), self._sent, angular)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.decisions >= self.horizon or self.exploded

    @property
    def exploded(self) -> bool:
        """Whether the simulation of the object failed."""
        return bool(self._world.exploded[0])

    @property
    def score(self) -> float:
        """Incremental IoU now; 0 if the simulation failed."""
        now = shapes.occupancy(self.particles, self.scene.area, self.config)
        return 0.0 if self.exploded else float(shapes.incremental_iou(now, self._before, self._wanted))

    @property
    def success(self) -> bool:
        """Whether the object is where it shall be."""
        return self.score > shapes.SUCCESS

    def _keep(self) -> None:
        motion = self.motion
        pose = np.column_stack([motion.position, motion.heading])
        self._frames.append((self.particles, pose, self.score))

    def track(self) -> Track:
        """What happened in this episode."""
        particles, robots, score = zip(*self._frames, strict=True)
        return Track(
            self.scene.name, self.config.control_period, self.scene.goal,
            np.stack(particles), np.stack(robots), np.array(score),
            self._push * (self.decisions > self.shoved_at),
        )  # fmt: skip


def save_track(path: Any, track: Track) -> None:
    """Write an episode as .npz, whole or not at all."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(track).items()}
    arrays = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}
    temporary = Path(path).with_suffix(".tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def load_track(path: Any) -> Track:
    """Read an episode back.

    Raises:
        HorseshoeError: the file cannot be read, or lacks something.
    """
    try:
        with np.load(path) as data:
            arrays = {name: data[name] for name in Track.__dataclass_fields__}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise HorseshoeError(f"{path}: no recorded episode ({error})") from error
    scene, period = str(arrays.pop("scene")), float(arrays.pop("period"))
    return Track(scene, period, **{k: v.astype(np.float64) for k, v in arrays.items()})
