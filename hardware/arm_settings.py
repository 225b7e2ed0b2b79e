"""What is known about an arm before anybody connects to it."""

from dataclasses import dataclass, field

import numpy as np

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import xarm6
from horseshoe.hardware.limits import ServoLimits
from horseshoe.hardware.xarm6 import Array

GRIPPER_MASS = 0.82  # [kg], UFACTORY parallel gripper
GRIPPER_CENTRE = (0.0, 0.0, 0.048)  # [m] in the flange frame


class ArmError(HorseshoeError):
    """The arm cannot do what was asked; the message names the arm, what happened and what to do."""


class CommandRefused(ArmError):
    """A command was not valid; nothing was sent and the last valid one stays in force."""


@dataclass(frozen=True)
class ArmSettings:
    """How to drive one arm.

    Attributes:
        name: for messages, such as "left".
        ip: address of the control box.
        rate: servo targets per second [Hz], 100 to 250.
        online_planning: stream in mode 6, where the controller plans with speed and acceleration limits of its own,
            instead of servo mode 1: gentler, for first runs.
        limits: of everything that is sent.
        ramp: time over which the speed limits grow to their full value when streaming starts [s].
        hold_after: age of the newest command at which the arm brakes and holds [s].
        stop_after: age at which it is stopped and an operator must act [s].
        link_timeout: silence of the controller that counts as a broken link [s].
        sensitivity: collision sensitivity of the controller, 1 (insensitive) to 5.
        boundary: lowest and highest corner of the box in the base frame that the tool must not leave [m], or None.
        load: mass carried besides the gripper [kg].
    """

    name: str
    ip: str
    rate: float = xarm6.SERVO_RATE
    online_planning: bool = False
    limits: ServoLimits = field(default_factory=ServoLimits)
    ramp: float = 1.0
    hold_after: float = 0.5
    stop_after: float = 1.5
    link_timeout: float = 0.5
    sensitivity: int = 3
    boundary: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    load: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what the arm cannot do."""
        for name, low, high in (("rate", 100.0, 250.0), ("sensitivity", 1, 5), ("load", 0.0, 4.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"ArmSettings.{name}: {value} is not within {low} to {high}")
        if self.boundary is not None and not all(low < high for low, high in zip(*self.boundary, strict=True)):
            raise ValueError(f"ArmSettings.boundary: {self.boundary}: the lowest corner must be below the highest one")
        if not 0 < self.hold_after < self.stop_after:
            raise ValueError("ArmSettings: 0 < hold_after < stop_after must hold")


@dataclass(frozen=True)
class ArmSpec:
    """Shape and limits of what an arm takes and tells, available without a connection.

    Attributes:
        joint_names: in the order of every joint vector.
        lower, upper: joint positions [rad], shape (6,).
        speed: [rad/s].
        acceleration: [rad/s^2].
        tool_speed: [m/s].
        rate: servo targets per second [Hz].
        stroke: largest gripper opening [m].
    """

    joint_names: tuple[str, ...]
    lower: Array
    upper: Array
    speed: float
    acceleration: float
    tool_speed: float
    rate: float
    stroke: float


def spec_of(settings: ArmSettings) -> ArmSpec:
    """The spec of an arm driven with `settings`."""
    s = settings.limits.at_rate(settings.rate)
    return ArmSpec(
        xarm6.JOINT_NAMES, s.lower, s.upper, s.speed, s.acceleration, s.tool_speed, settings.rate, xarm6.GRIPPER_STROKE
    )


def check_targets(targets: Array, previous: Array, settings: ArmSettings) -> Array:
    """Check joint targets before any of them is taken.

    Args:
        targets: [rad], shape (6,) or (n, 6), one per servo tick.
        previous: the last target in force [rad], shape (6,).
        settings: of the arm.

    Returns:
        [rad], shape (n, 6).

    Raises:
        CommandRefused: on a wrong shape, a value that is not finite, or a jump.
    """
    name = settings.name
    try:
        array = np.atleast_2d(np.asarray(targets, dtype=np.float64))
    except (TypeError, ValueError):
        raise CommandRefused(f"{name} arm: joint targets are not numbers; shape (6,) or (n, 6) is expected") from None
    if array.ndim != 2 or array.shape[1] != xarm6.N_JOINTS or len(array) == 0:
        raise CommandRefused(f"{name} arm: joint targets of shape {np.shape(targets)}; (6,) or (n, 6) is expected")
    if not np.isfinite(array).all():
        raise CommandRefused(f"{name} arm: joint targets contain NaN or infinity; the last valid target stays in force")
    steps = np.abs(np.diff(array, axis=0, prepend=previous[None]))
    if steps.max() > settings.limits.jump:
        tick, joint = np.unravel_index(int(steps.argmax()), steps.shape)
        raise CommandRefused(
            f"{name} arm: target {tick} jumps {steps.max():.3f} rad on {xarm6.JOINT_NAMES[joint]}; "
            f"at most {settings.limits.jump} rad is accepted"
        )
    return array
