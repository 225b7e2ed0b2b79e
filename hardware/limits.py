"""Limits of a servo stream: what the driver enforces, and the motion law it shares with the emulated firmware."""

from dataclasses import dataclass, field, replace

import numpy as np

from horseshoe.hardware import xarm6
from horseshoe.hardware.xarm6 import Array

# The firmware averages speed over a window nobody documents (docs/emulator.md), in which one late packet makes a stream
# look faster than it is: at 250 Hz by a sixth, at lower rates by more.
DEFAULT_SHARE = 0.8
SPEED_WINDOW = 0.02  # [s]


@dataclass(frozen=True)
class ServoLimits:
    """Limits that every target sent to one arm obeys.

    Attributes:
        lower: joint positions [rad], shape (6,).
        upper: joint positions [rad], shape (6,).
        speed: of any joint [rad/s].
        acceleration: of any joint [rad/s^2].
        tool_speed: of the tool centre point [m/s].
        jump: largest accepted distance between a new target and the last one [rad]; larger ones are refused.
    """

    lower: Array = field(default_factory=lambda: xarm6.JOINT_LOWER + np.radians(0.5))
    upper: Array = field(default_factory=lambda: xarm6.JOINT_UPPER - np.radians(0.5))
    speed: float = DEFAULT_SHARE * xarm6.MAX_JOINT_SPEED
    acceleration: float = DEFAULT_SHARE * xarm6.MAX_JOINT_ACCELERATION
    tool_speed: float = DEFAULT_SHARE * xarm6.MAX_TOOL_SPEED
    jump: float = 0.25

    def __post_init__(self) -> None:
        """Refuse limits that the firmware would answer with an error."""
        for name, highest in (
            ("speed", xarm6.MAX_JOINT_SPEED),
            ("acceleration", xarm6.MAX_JOINT_ACCELERATION),
            ("tool_speed", xarm6.MAX_TOOL_SPEED),
        ):
            if not 0 < getattr(self, name) <= highest:
                raise ValueError(f"ServoLimits.{name}: {getattr(self, name)} is not within (0, {highest:.4g}]")
        if np.any(self.lower < xarm6.JOINT_LOWER) or np.any(self.upper > xarm6.JOINT_UPPER):
            raise ValueError("ServoLimits: lower and upper must lie within xarm6.JOINT_LOWER and JOINT_UPPER")

    def slowed(self, share: float) -> "ServoLimits":
        """The same limits with both speeds multiplied by `share` of (0, 1]; stopping stays as quick."""
        return replace(self, speed=self.speed * share, tool_speed=self.tool_speed * share)

    def at_rate(self, rate: float) -> "ServoLimits":
        """These limits, with speeds low enough that one late packet in a stream of `rate` [Hz] raises no error."""
        packets = SPEED_WINDOW * rate
        share = packets / (packets + 1.2)  # one more packet than usual in the window, and a little for rounding
        speed = min(self.speed, share * xarm6.MAX_JOINT_SPEED)
        return replace(self, speed=speed, tool_speed=min(self.tool_speed, share * xarm6.MAX_TOOL_SPEED))


def clip(values: Array, lower: Array | float, upper: Array | float) -> Array:
    """`np.clip` for the small arrays of a servo tick, at a third of its cost."""
    return np.minimum(np.maximum(values, lower), upper)


def braking_speed(distance: Array, acceleration: float, dt: float) -> Array:
    """Highest speed from which a stop within `distance` [rad] is possible in steps of `dt` [s], in rad/s."""
    half = 0.5 * acceleration * dt
    return np.sqrt(half * half + 2.0 * acceleration * distance) - half


def follow(
    q: Array, v: Array, target: Array, target_velocity: Array, speed: float, acceleration: float, dt: float
) -> Array:
    """Velocity of the next step towards a moving target, within speed and acceleration.

    A target that moves within the limits is met exactly; after a jump the joint brakes in time.

    Args:
        q: position before the step [rad], shape (6,).
        v: velocity of the last step [rad/s], shape (6,).
        target: where to be after the step [rad], shape (6,).
        target_velocity: [rad/s], shape (6,).
        speed: limit of each joint [rad/s].
        acceleration: limit of each joint [rad/s^2].
        dt: length of the step [s].

    Returns:
        [rad/s], shape (6,).
    """
    behind = target - q - target_velocity * dt
    closing = braking_speed(np.abs(behind), acceleration, dt)
    wanted = clip(target_velocity + clip(behind / dt, -closing, closing), -speed, speed)
    return clip(wanted, v - acceleration * dt, v + acceleration * dt)


class Limiter:
    """Turns any finite stream of targets into one that obeys `ServoLimits` at every tick.

    A stream that already obeys them passes unchanged, except close to a joint limit, where it is slowed.
    """

    def __init__(self, limits: ServoLimits, dt: float) -> None:
        self.limits, self.dt = limits, dt
        self.reset(np.zeros(6))

    def reset(self, q: Array) -> None:
        """Start at rest from joint positions `q` [rad], shape (6,)."""
        self.q, self.v, self._last = np.array(q, dtype=np.float64), np.zeros(6), np.array(q, dtype=np.float64)

    def step(self, target: Array) -> Array:
        """Advance one tick towards `target` and return what may be sent, both [rad], shape (6,)."""
        limits, dt = self.limits, self.dt
        target = clip(target, limits.lower, limits.upper)
        target_velocity = clip((target - self._last) / dt, -limits.speed, limits.speed)
        self._last = target
        wanted = follow(self.q, self.v, target, target_velocity, limits.speed, limits.acceleration, dt)
        # Slow down near a joint limit at no more than the acceleration, and early enough that a stop of all joints in
        # proportion (see below) also ends in front of it.
        horizon = dt + limits.speed / limits.acceleration
        wanted = clip(wanted, (limits.lower - self.q) / horizon, (limits.upper - self.q) / horizon)
        change = limits.acceleration * dt
        self.v = self._within_tool_speed(clip(wanted, self.v - change, self.v + change))
        self.q = clip(self.q + self.v * dt, limits.lower, limits.upper)  # never binds; the last word nevertheless
        return self.q.copy()

    def brake(self) -> Array:
        """Advance one tick of a stop of all joints in proportion and return what may be sent [rad], shape (6,)."""
        self.v = self._braked()
        self.q = clip(self.q + self.v * self.dt, self.limits.lower, self.limits.upper)
        self._last = self.q
        return self.q.copy()

    def _braked(self) -> Array:
        fastest = float(np.abs(self.v).max())
        return self.v * max(0.0, 1.0 - self.limits.acceleration * self.dt / fastest) if fastest > 0 else self.v

    def _within_tool_speed(self, wanted: Array) -> Array:
        """Blend the wanted velocity with a stop of all joints in proportion until the tool is slow enough."""
        limit = self.limits.tool_speed
        jacobian = xarm6.jacobian(self.q)[:3]
        lever = np.sqrt((jacobian * jacobian).sum(axis=0))
        if lever.dot(np.abs(wanted)) <= limit:
            return wanted
        stop, share = self._braked(), 1.0
        u, d = jacobian @ stop, jacobian @ (wanted - stop)
        if (u + d) @ (u + d) > limit**2:
            a, b, c = float(d @ d), float(u @ d), float(u @ u) - limit**2
            share = 0.0 if c >= 0 else (np.sqrt(b * b - a * c) - b) / a
        for less in (1.0, 0.5, 0.25):
            blend = stop + less * share * (wanted - stop)
            if self._fast_while_stopping(blend) <= limit:
                return blend
        return stop

    def _fast_while_stopping(self, v: Array) -> float:
        """Highest tool speed [m/s] on the way to a stop from `v`; a folding arm can whip its tool while it brakes."""
        duration = float(np.abs(v).max()) / self.limits.acceleration
        speeds = []
        for time in (0.25, 0.5):
            q = self.q + v * (duration * (time - 0.5 * time * time))
            ahead = xarm6.jacobian(q)[:3] @ v
            speeds.append((1.0 - time) * float(np.sqrt(ahead @ ahead)))
        return max(speeds)
