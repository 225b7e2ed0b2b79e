"""Differential-drive robots: what their wheels make of a Twist, and the Twist that makes them follow a velocity."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from horseshoe.errors import HorseshoeError

Array = NDArray[np.float64]

TICK = 0.01  # [s] at which the wheels are integrated


@dataclass(frozen=True)
class DriveConfig:
    """A round robot with two wheels on an axle through its centre.

    Attributes:
        separation: between the wheels [m].
        speed: top speed of a wheel's rim [m/s].
        acceleration: of a wheel's rim [m/s^2].
        latency: from a command to the wheels [s].
        timeout: age of the newest command at which the wheels brake [s].
        ahead: from the axle to the point that follows the wanted velocity [m].
    """

    separation: float = field(default=0.053, metadata={"range": (0.01, 1.0)})
    speed: float = field(default=0.5, metadata={"range": (0.01, 5.0)})
    acceleration: float = field(default=4.0, metadata={"range": (0.1, 50.0)})
    latency: float = field(default=0.04, metadata={"range": (0.0, 0.5)})
    timeout: float = field(default=0.5, metadata={"range": (0.05, 60.0)})
    ahead: float = field(default=0.02, metadata={"range": (0.005, 0.5)})


def wheels(linear: ArrayLike, angular: ArrayLike, config: DriveConfig) -> Array:
    """Speeds of the left and right wheel [m/s], shape (..., 2), of a linear [m/s] and an angular [rad/s] velocity.

    What is beyond the wheels' top speed is scaled down along the same arc.
    """
    ahead, turn = np.asarray(linear, dtype=np.float64), 0.5 * config.separation * np.asarray(angular, dtype=np.float64)
    both = np.stack([ahead - turn, ahead + turn], axis=-1)
    over = np.abs(both).max(-1, keepdims=True) / config.speed
    return np.asarray(both / np.maximum(over, 1.0))


def velocities(wheel: Array, config: DriveConfig) -> tuple[Array, Array]:
    """Linear [m/s] and angular [rad/s] velocity of wheel speeds [m/s], shape (..., 2)."""
    return wheel.mean(-1), (wheel[..., 1] - wheel[..., 0]) / config.separation


def to_twist(velocity: ArrayLike, heading: ArrayLike, period: float, config: DriveConfig) -> tuple[Array, Array]:
    """The Twist with which a point `ahead` of the axle follows a wanted velocity (feedback linearisation).

    The heading then turns towards the velocity as phi' = -(speed / ahead) sin(phi). This is solved over the period for
    which the Twist holds, so the robot does not swing over however long that is. A robot looks the same from behind,
    so it drives backwards where that is the shorter turn.

    Args:
        velocity: wanted [m/s], shape (..., 2), in the frame of the heading.
        heading: of the robot when the Twist takes effect [rad], shape (...).
        period: for which the Twist holds [s].
        config: of the drive.

    Returns:
        Linear [m/s] and angular [rad/s] velocity within the wheels' limits, shape (...).
    """
    velocity, heading = np.asarray(velocity, dtype=np.float64), np.asarray(heading, dtype=np.float64)
    speed = np.linalg.norm(velocity, axis=-1)
    phi = np.arctan2(velocity[..., 1], velocity[..., 0]) - heading
    phi = np.arctan2(np.sin(phi), np.cos(phi))
    sign = np.where(np.cos(phi) < 0.0, -1.0, 1.0)
    phi = np.where(sign < 0.0, phi - np.copysign(np.pi, phi), phi)
    left = 2.0 * np.arctan(np.tan(0.5 * phi) * np.exp(-speed * period / config.ahead))
    linear = sign * speed * np.cos(0.5 * (phi + left))
    return velocities(wheels(linear, (phi - left) / period, config), config)


class Drives:
    """Robots whose wheels follow commands late and with limited acceleration, and brake when commands stay away.

    The world decides where a robot ends up that meets others or the object; here are only its wheels and its heading.

    Attributes:
        heading: [rad], shape (robots,).
        wheel: speeds of the left and right wheels [m/s], shape (robots, 2).
        time: since the beginning [s].
    """

    def __init__(self, config: DriveConfig, robots: int) -> None:
        self.config, self.robots = config, robots
        self.reset(np.zeros(robots))

    def reset(self, heading: ArrayLike) -> None:
        """Stand still with given headings [rad], shape (robots,); commands under way are lost."""
        self.heading = np.array(heading, dtype=np.float64)
        self.wheel = np.zeros((self.robots, 2))
        self.time = 0.0
        self._target = np.zeros((self.robots, 2))
        self._obeyed = np.zeros(self.robots)  # when the newest command came to effect
        self._under_way: list[tuple[float, int, Array]] = []

    def command(self, robot: int, linear: float, angular: float) -> None:
        """Take a Twist for one robot (from 0): linear [m/s] and angular [rad/s] velocity.

        Raises:
            HorseshoeError: NaN or infinity; the command before it stays.
        """
        if not np.isfinite([linear, angular]).all():
            raise HorseshoeError(f"cmd_vel of robot {robot + 1}: {linear} m/s, {angular} rad/s is not finite")
        target = wheels(linear, angular, self.config)
        self._under_way.append((self.time + self.config.latency, robot, target))

    def advance(self, period: float) -> Array:
        """Let time pass [s].

        Returns:
            Way of every robot if nothing is in it [m], shape (robots, 2).
        """
        config, way = self.config, np.zeros((self.robots, 2))
        ticks = max(round(period / TICK), 1)
        dt = period / ticks
        for _ in range(ticks):
            while self._under_way and self._under_way[0][0] <= self.time + 1e-9:
                _, robot, target = self._under_way.pop(0)
                self._target[robot], self._obeyed[robot] = target, self.time
            target = np.where((self.time - self._obeyed > config.timeout)[:, None], 0.0, self._target)
            most = config.acceleration * dt
            self.wheel += np.clip(target - self.wheel, -most, most)
            linear, angular = velocities(self.wheel, config)
            middle = self.heading + 0.5 * dt * angular
            way += (dt * linear)[:, None] * np.stack([np.cos(middle), np.sin(middle)], axis=-1)
            self.heading = np.arctan2(np.sin(middle + 0.5 * dt * angular), np.cos(middle + 0.5 * dt * angular))
            self.time += dt
        return way
