"""What was sent to an arm and what it did, tick by tick, and the delay between the two."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from horseshoe.hardware.xarm6 import Array


@dataclass(frozen=True)
class Timing:
    """A stretch of a timing log.

    Attributes:
        time: when each target was sent [s], monotonic clock, shape (n,).
        sent: targets [rad], shape (n, 6).
        late: ticks skipped right before each one, shape (n,).
        measured_time: when each measurement was taken [s], shape (m,).
        measured: joint positions [rad], shape (m, 6).
    """

    time: Array
    sent: Array
    late: Array
    measured_time: Array
    measured: Array

    def save(self, file: Path, **more: Array) -> None:
        """Write everything, and `more` arrays, as .npz."""
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {**vars(self), **more}
        np.savez(file, **arrays)


class TimingLog:
    """Ring buffers of the newest targets and measurements. One thread writes, any thread reads.

    Args:
        size: targets kept, as many measurements.
    """

    def __init__(self, size: int = 16384) -> None:
        self._sent, self._measured = np.zeros((size, 8)), np.zeros((size, 7))
        self.ticks = self.measurements = self.late = 0

    def add_sent(self, time: float, target: Array, late: int) -> None:
        """Note a target [rad], shape (6,), sent at `time` [s] after `late` skipped ticks."""
        row = self._sent[self.ticks % len(self._sent)]
        row[0], row[1:7], row[7] = time, target, late
        self.ticks += 1
        self.late += late

    def add_measured(self, time: float, joints: Array) -> None:
        """Note measured joints [rad], shape (6,), taken at `time` [s]."""
        row = self._measured[self.measurements % len(self._measured)]
        row[0], row[1:] = time, joints
        self.measurements += 1

    def read(self) -> Timing:
        """Copy everything kept, oldest first."""
        sent, measured = _unroll(self._sent, self.ticks), _unroll(self._measured, self.measurements)
        return Timing(sent[:, 0], sent[:, 1:7], sent[:, 7], measured[:, 0], measured[:, 1:])


def _unroll(ring: Array, count: int) -> Array:
    if count <= len(ring):
        return ring[:count].copy()
    return np.roll(ring, -(count % len(ring)), axis=0)


def measure_delay(log: Timing, longest: float = 0.5) -> float:
    """Delay between sending a target and the arm being there, including network, controller and servo lag.

    It is the shift that makes the measured joints fit the sent ones best.

    Args:
        log: a stretch in which the arm moved.
        longest: largest delay considered [s].

    Returns:
        [s].

    Raises:
        ValueError: if the arm moved too little to tell (less than 0.02 rad), or for too short a time.
    """
    if len(log.time) < 2 or np.ptp(log.sent, axis=0).max() < 0.02:
        raise ValueError("delay: the log holds less than 0.02 rad of motion; move the arm and measure again")
    usable = (log.measured_time >= log.time[0] + longest) & (log.measured_time <= log.time[-1])
    if usable.sum() < 50:
        raise ValueError(f"delay: the log must cover at least {longest} s plus 50 measurements")
    when, measured = log.measured_time[usable], log.measured[usable]

    def misfit(delay: float) -> float:
        fit = [np.interp(when - delay, log.time, log.sent[:, j]) for j in range(6)]
        return float(((np.stack(fit, 1) - measured) ** 2).mean())

    coarse = np.arange(0.0, longest, 0.004)
    best = coarse[int(np.argmin([misfit(delay) for delay in coarse]))]
    fine = np.linspace(max(0.0, best - 0.004), best + 0.004, 17)
    return float(fine[int(np.argmin([misfit(delay) for delay in fine]))])
