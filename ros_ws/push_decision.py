"""From what one robot knows to its Twist: what the policy node of a pushing robot does, without ROS."""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from horseshoe import contract as contracts
from horseshoe import tokens as seeing
from horseshoe.errors import HorseshoeError
from horseshoe.policies.runtime import TokenPolicy
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.drive import DriveConfig, to_twist

Array = NDArray[np.float64]

MEMORY = 64  # messages kept of every other robot


@dataclass(frozen=True)
class Odometry:
    """What a robot's odometry says, in the arena's frame.

    when: time of measurement [s]; position: [m], (2,); heading: [rad]; velocity: [m/s], (2,); angular: [rad/s].
    """

    when: float
    position: Array
    heading: float
    velocity: Array
    angular: float


class PushDecider:
    """A policy, and one robot's view of the others through a radio.

    Every link is late by a number of decisions drawn anew at every `forget`, as in the training; with a real radio the
    range is (0, 0) and messages are as old as they are. Who was never heard is not shown to the policy.

    Attributes:
        period: between two decisions [s].
        ages: of what the last decision knew of the others [s], by robot; who was not heard is missing.
    """

    def __init__(
        self,
        policy: str,
        robot: int,
        robots: int,
        delay: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        drive: DriveConfig | None = None,
    ) -> None:
        """Load the policy.

        Args:
            policy: name or folder.
            robot: which one this is, from 0.
            robots: how many there are.
            delay: least and largest delay of a link that is simulated [s].
            seed: of these delays.
            drive: of this robot.

        Raises:
            HorseshoeError: no such policy, one for other tokens or another rate, or a value out of range.
        """
        self.config, self.drive = PushConfig(), drive or DriveConfig()
        self.period = self.config.control_period
        if not 0 <= robot < robots:
            raise HorseshoeError(f"robot: {robot + 1} is outside [1, {robots}]")
        self._range = seeing.in_decisions(delay, self.period)
        self.policy = TokenPolicy(policy)
        file, contract = self.policy.folder / contracts.FILE, self.policy.contract
        contracts.check_tokens(contract, self.policy.neighbours, self.policy.particles, file)
        contracts.check_rate(contract, self.period, file)
        self.robot, self.robots = robot, robots
        self._rng = np.random.default_rng([seed, robot])
        self._heard: list[deque[Odometry]] = [deque(maxlen=MEMORY) for _ in range(robots)]
        self.ages: dict[int, float] = {}
        self.forget()

    def forget(self, before: float = np.inf) -> None:
        """A new episode: what was said before it (a stamp [s]) is of no use, and the delays are others."""
        self._heard = [deque((m for m in each if m.when >= before), MEMORY) for each in self._heard]
        self._delay = self.period * self._rng.integers(self._range[0], self._range[1] + 1, self.robots)

    def hear(self, robot: int, message: Odometry) -> None:
        """Take what another robot (from 0) says of itself; what is no number is not taken."""
        if np.isfinite([*message.position, *message.velocity]).all():
            self._heard[robot].append(message)

    def decide(self, own: Odometry, body: Array, goal: Array) -> tuple[float, float]:
        """Take one decision, for where this robot will be when its wheels obey.

        Args:
            own: this robot's odometry.
            body: particles of the object [m], shape (n, 2).
            goal: where each of them shall be [m], shape (n, 2).

        Returns:
            Linear [m/s] and angular [rad/s] velocity.

        Raises:
            HorseshoeError: NaN or infinity in what is seen or in what the policy answers, or clouds that do not match.
        """
        if body.shape != goal.shape or len(body) < self.policy.particles:
            raise HorseshoeError(
                f"object and goal: {len(body)} and {len(goal)} points; both must have the same, and at least "
                f"{self.policy.particles}"
            )
        for name, value in (("odometry", np.array([*own.position, own.heading, *own.velocity, own.angular])),
                            ("object", body), ("goal", goal)):  # fmt: skip
            if not np.isfinite(value).all():
                raise HorseshoeError(f"{name}: contains NaN or infinity")
        late = self.drive.latency  # which the training does not know
        own = replace(own, position=own.position + late * own.velocity, heading=own.heading + late * own.angular)
        action = self.policy.act(self._tokens(own, body, goal))[0].astype(np.float64)
        share = action / max(1.0, float(np.linalg.norm(action)))
        course = seeing.headings(own.position[None], body.mean(0))[0]
        velocity = self.config.robot_speed * seeing.to_arena(share, course)
        linear, angular = to_twist(velocity, own.heading, self.period, self.drive)
        return float(linear), float(angular)

    def _tokens(self, own: Odometry, body: Array, goal: Array) -> dict[str, NDArray[np.float32]]:
        shown = np.linspace(0, len(body) - 1, self.policy.particles).astype(int)
        top, others = self.config.robot_speed, self._listen(own.when)
        messages = [np.append(m.position, m.velocity / top) for m, _ in others] + [np.zeros(4)]
        ages = [min(round(age / self.period), seeing.MAX_DELAY) for _, age in others] + [0]
        found = seeing.tokens(
            own.position[None, None], own.velocity[None, None] / top,
            np.array(messages)[None, None], np.array(ages)[None, None],
            body[None, shown], goal[None, shown], np.full(2, self.config.side / 2), self.policy.neighbours,
            own=np.array([len(others)]),
        )  # fmt: skip
        return {name: value[0] for name, value in found.items()}

    def _listen(self, now: float) -> list[tuple[Odometry, float]]:
        """The newest message of every other robot that has come through the radio, and its age [s]."""
        self.ages, others = {}, []
        for robot, (heard, delay) in enumerate(zip(self._heard, self._delay, strict=True)):
            if robot == self.robot or not heard:
                continue
            # Before the first message has come through, the robot stood where that says.
            through = [m for m in heard if m.when <= now - delay + 1e-6] or [heard[0]]
            self.ages[robot] = max(now - through[-1].when, float(delay))
            others.append((through[-1], self.ages[robot]))
        return others
