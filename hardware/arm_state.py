"""What a driver tells about its arm."""

from dataclasses import dataclass
from enum import Enum

from horseshoe.hardware.xarm6 import Array


class Phase(Enum):
    """What a driver is doing."""

    DISCONNECTED = "disconnected"
    IDLE = "idle"  # connected, motors perhaps on, nothing is sent
    STREAMING = "streaming"
    STOPPING = "stopping"  # braking, then state 4
    STOPPED = "stopped"  # an operator must act


@dataclass(frozen=True)
class ArmSnapshot:
    """State of an arm at one moment.

    Attributes:
        time: of the measurement [s], monotonic clock.
        joints: measured [rad], shape (6,).
        velocities: measured [rad/s], shape (6,).
        sent_time: of the last target sent [s], monotonic clock.
        sent: last target sent [rad], shape (6,).
        sent_velocities: of the targets sent [rad/s], shape (6,).
        opening: measured gripper opening [m], None if unknown.
        phase: of the driver.
        holding: whether the watchdog holds the arm because commands are overdue.
        fault: why the arm was stopped, empty if it was not.
    """

    time: float
    joints: Array
    velocities: Array
    sent_time: float
    sent: Array
    sent_velocities: Array
    opening: float | None
    phase: Phase
    holding: bool
    fault: str


@dataclass(frozen=True)
class Sent:
    """The newest servo target that really left.

    Attributes:
        time: [s], monotonic clock.
        joints: after all limits [rad], shape (6,).
        tick: its number since the driver was made.
    """

    time: float
    joints: Array
    tick: int
