"""From commands to the target of each servo tick: schedule, watchdog and limits, without any connection."""

import numpy as np

from horseshoe.hardware.arm_settings import ArmSettings
from horseshoe.hardware.limits import Limiter
from horseshoe.hardware.xarm6 import Array

FIRST_SHARE = 0.1  # of the speed limits, when streaming starts


class ServoStream:
    """What one arm is told, tick by tick.

    Attributes:
        limiter: position and velocity of the stream.
        holding: whether commands are overdue and the arm is held.
    """

    def __init__(self, settings: ArmSettings) -> None:
        self._settings = settings
        self._limits = settings.limits.at_rate(settings.rate)
        self.limiter = Limiter(self._limits, 1.0 / settings.rate)
        self.begin(np.zeros(6), 0.0)

    def begin(self, q: Array, now: float) -> None:
        """Start at rest at the measured joints [rad], shape (6,); the watchdog waits for a first command."""
        self.limiter.reset(q)
        self._targets, self._next = self.limiter.q[None], 0
        self._began, self._commanded, self.holding = now, False, False
        self._command_time = now

    def take(self, targets: Array, now: float) -> None:
        """Schedule checked targets [rad], shape (n, 6), from the next tick on."""
        self._targets, self._next, self._commanded, self._command_time = targets, 0, True, now

    def overdue(self, now: float) -> bool:
        """Whether commands have been missing for so long that the arm must be stopped."""
        return self._commanded and now - self._command_time > self._settings.stop_after

    @property
    def at_rest(self) -> bool:
        """Whether the stream stands still."""
        return not self.limiter.v.any()

    def repeat(self) -> Array:
        """The last target again [rad], shape (6,), while nobody answers: the arm stands, and what was sent may still
        arrive all at once.
        """
        self.limiter.reset(self.limiter.q)
        return self.limiter.q.copy()

    def next_target(self, now: float, late: int, stopping: bool) -> Array:
        """The target of this tick.

        Args:
            now: monotonic clock [s].
            late: ticks skipped since the last call; their targets are skipped too.
            stopping: whether to brake, whatever was commanded.

        Returns:
            [rad], shape (6,).
        """
        settings = self._settings
        share = min(1.0, FIRST_SHARE + (1.0 - FIRST_SHARE) * (now - self._began) / settings.ramp)
        self.limiter.limits = self._limits if share == 1.0 else self._limits.slowed(share)
        self.holding = self._commanded and now - self._command_time > settings.hold_after
        if stopping or self.holding:
            return self.limiter.brake()
        index = min(self._next + late, len(self._targets) - 1)
        self._next = index + 1
        return self.limiter.step(self._targets[index])
