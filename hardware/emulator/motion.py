"""The set point of an emulated controller: what the servos are told every 4 ms."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from horseshoe.hardware import limits, xarm6
from horseshoe.hardware.limits import follow
from horseshoe.hardware.xarm6 import Array

DT = 1.0 / xarm6.SERVO_RATE
BRAKE_DECELERATION = 3 * xarm6.MAX_JOINT_ACCELERATION  # [rad/s^2], mechanical brakes at an e-stop; a guess
SPEED_WINDOW = round(limits.SPEED_WINDOW / DT)  # servo cycles over which C24 and C60 average; a guess


@dataclass
class Move:
    """A joint move of mode 0: all joints start and stop together, on a trapezoid of speed.

    Attributes:
        goal: [rad], shape (6,).
        speed: of the joint that turns furthest [rad/s].
        acceleration: of the same joint [rad/s^2].
        begun: whether a start has been given.
    """

    goal: Array
    speed: float
    acceleration: float
    begun: bool = False

    def begin(self, start: Array) -> None:
        """Plan the trapezoid from `start` [rad], shape (6,), at rest."""
        self.begun, self.start, self.time = True, start, 0.0
        self.distance = float(np.abs(self.goal - start).max())
        self.top = min(self.speed, float(np.sqrt(self.distance * self.acceleration)))
        self.ramp = self.top / self.acceleration
        self.duration = self.distance / self.top + self.ramp if self.distance > 0 else 0.0

    def advance(self) -> Array:
        """The set point one cycle later [rad], shape (6,)."""
        self.time = min(self.time + DT, self.duration)
        rest = self.duration - self.time
        if rest <= 0:
            return self.goal
        if self.time < self.ramp:
            done = 0.5 * self.acceleration * self.time**2
        elif rest < self.ramp:
            done = self.distance - 0.5 * self.acceleration * rest**2
        else:
            done = self.top * (self.time - 0.5 * self.ramp)
        return self.start + done / self.distance * (self.goal - self.start)

    @property
    def finished(self) -> bool:
        """Whether the goal is reached."""
        return self.begun and self.time >= self.duration


class SetPoint:
    """Position and velocity that the firmware commands, and the ways they may change.

    Attributes:
        q: [rad], shape (6,).
        v: [rad/s], shape (6,).
    """

    def __init__(self, q: Array) -> None:
        self.jump_to(q)

    def jump_to(self, q: Array) -> None:
        """Take over the measured position [rad], shape (6,), as when the motors are switched on."""
        self.q, self.v = np.array(q, dtype=np.float64), np.zeros(6)

    @property
    def moving(self) -> bool:
        """Whether the set point changes."""
        return bool(self.v.any())

    def track(self, target: Array, target_velocity: Array, speed: float, acceleration: float) -> None:
        """Follow a target for one cycle (modes 1 and 6)."""
        v = follow(self.q, self.v, target, target_velocity, speed, acceleration, DT)
        self.v = np.where(np.abs(v) < 1e-9, 0.0, v)
        self.q = self.q + self.v * DT

    def run(self, move: Move) -> None:
        """Follow a planned move for one cycle (mode 0)."""
        q = move.advance()
        self.v = np.zeros(6) if move.finished else (q - self.q) / DT
        self.q = q

    def stop(self, deceleration: float) -> None:
        """Brake every joint for one cycle."""
        self.v = np.sign(self.v) * np.maximum(np.abs(self.v) - deceleration * DT, 0.0)
        self.q = self.q + self.v * DT


class SpeedWatch:
    """Average speed of a servo stream over the last cycles, which C24 and C60 judge, and the highest ones seen."""

    def __init__(self) -> None:
        self._history: deque[tuple[Array, Array]] = deque(maxlen=SPEED_WINDOW + 1)
        self.peak_joint_speed, self.peak_tool_speed = 0.0, 0.0

    def restart(self) -> None:
        """Forget the stream, as when servo mode starts."""
        self._history.clear()

    def add(self, target: Array, offset: tuple[float, float, float]) -> tuple[Array, float]:
        """Take the target of this cycle.

        Args:
            target: [rad], shape (6,).
            offset: tool centre point in the flange frame [m].

        Returns:
            Joint speeds [rad/s], shape (6,), and tool speed [m/s], averaged over the window.
        """
        if self._history and target is self._history[-1][0]:
            tool = self._history[-1][1]
        else:
            tool = xarm6.tool_position(target, offset)
        self._history.append((target, tool))
        first_target, first_tool = self._history[0]
        joints = np.abs(target - first_target) / (SPEED_WINDOW * DT)
        moved = tool - first_tool
        speed = float(np.sqrt(moved @ moved)) / (SPEED_WINDOW * DT)
        self.peak_joint_speed = max(self.peak_joint_speed, float(joints.max()))
        self.peak_tool_speed = max(self.peak_tool_speed, speed)
        return joints, speed
