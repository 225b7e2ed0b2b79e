"""The physical arm behind an emulated controller: anything that follows joint targets."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from horseshoe.hardware import xarm6
from horseshoe.hardware.xarm6 import Array


@dataclass(frozen=True)
class ArmState:
    """What the sensors of an arm say.

    Attributes:
        joints: [rad], shape (6,).
        velocities: [rad/s], shape (6,).
        opening: distance between the finger pads [m].
    """

    joints: Array
    velocities: Array
    opening: float


class ArmModel(Protocol):
    """An arm driven by an emulated controller, which calls it from the controller's thread every 4 ms.

    A physics world that runs in a thread of its own implements `command` and `measured` with a lock and leaves `step`
    empty.
    """

    def command(self, joints: Array, opening: float) -> None:
        """Take the servo targets of this tick: joints [rad], shape (6,), and gripper opening [m]."""

    def measured(self) -> ArmState:
        """The present state."""

    def step(self, dt: float) -> None:
        """Advance by `dt` [s], for models without a clock of their own."""


class KinematicArm:
    """Each joint follows its target with a first-order lag, the gripper at once.

    Args:
        joints: start position [rad], shape (6,).
        lag: time constant of the servos [s]. A guess; see docs/emulator.md.
    """

    def __init__(self, joints: Array | None = None, lag: float = 0.02) -> None:
        self._joints = np.zeros(6) if joints is None else np.array(joints, dtype=np.float64)
        self._target, self._velocities = self._joints.copy(), np.zeros(6)
        self._opening, self._lag = xarm6.GRIPPER_STROKE, lag

    def command(self, joints: Array, opening: float) -> None:
        """Take the servo targets of this tick."""
        self._target, self._opening = joints, opening

    def measured(self) -> ArmState:
        """The present state."""
        return ArmState(self._joints, self._velocities, self._opening)

    def step(self, dt: float) -> None:
        """Advance by `dt` [s]."""
        change = (self._target - self._joints) * (1.0 - math.exp(-dt / self._lag))
        self._joints, self._velocities = self._joints + change, change / dt
