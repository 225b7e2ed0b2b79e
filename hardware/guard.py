"""The guard of a pair of arms: distances, freshness, tracking and skew, and one rule: a fault on one arm stops all."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from horseshoe.hardware import capsules
from horseshoe.hardware.arm_driver import ArmDriver
from horseshoe.hardware.arm_state import ArmSnapshot, Phase
from horseshoe.hardware.xarm6 import GRIPPER_STROKE, Array

_NOT_BASE = slice(1, None)  # the base column stands on the table


@dataclass(frozen=True)
class GuardLimits:
    """When to stop.

    Attributes:
        arm_clearance: smallest distance between the arms [m].
        table_clearance: smallest height of any part above the table [m]; fingertips that grasp a block come close.
        table_height: of the table's surface in the world frame [m].
        staleness: oldest accepted measurement [s].
        tracking_error: largest accepted distance between sent and measured joints [rad].
        skew: largest accepted time between the measurements of the arms [s].
        reaction: time from seeing a danger to the start of braking [s].
        braking: deceleration of the joints when stopping [rad/s^2].
    """

    arm_clearance: float = 0.01
    table_clearance: float = -0.003
    table_height: float = 0.0
    staleness: float = 0.2
    tracking_error: float = 0.25
    skew: float = 0.15
    reaction: float = 0.03
    braking: float = 16.0


class Guard:
    """Judges snapshots of all arms.

    Args:
        bases: world pose of each arm's base [m], shape (4, 4), by arm name.
        limits: when to stop.
    """

    def __init__(self, bases: Mapping[str, Array], limits: GuardLimits | None = None) -> None:
        self.bases = {name: np.asarray(base, dtype=np.float64) for name, base in bases.items()}
        self.limits = limits or GuardLimits()

    def distances(self, arms: Mapping[str, tuple[Array, float]]) -> tuple[float, str, float, str]:
        """Smallest distance between arms and to the table.

        Args:
            arms: joints [rad], shape (6,), and gripper opening [m], by arm name.

        Returns:
            Distance between arms [m] and the two parts, height above the table [m] and the part. The distance between
            arms is infinite for a single arm.
        """
        ends = {name: capsules.arm_capsules(q, opening, self.bases[name]) for name, (q, opening) in arms.items()}
        nearest, pair, lowest, part = np.inf, "", np.inf, ""
        names = list(ends)
        for i, first in enumerate(names):
            heights = ends[first][_NOT_BASE, :, 2].min(axis=1) - capsules.RADII[_NOT_BASE] - self.limits.table_height
            k = int(heights.argmin())
            if heights[k] < lowest:
                lowest, part = float(heights[k]), f"{first} {capsules.NAMES[k + 1]}"
            for second in names[i + 1 :]:
                gaps = capsules.segment_distances(ends[first][:, None], ends[second][None])
                gaps = gaps - capsules.RADII[:, None] - capsules.RADII[None]
                a, b = np.unravel_index(int(gaps.argmin()), gaps.shape)
                if gaps[a, b] < nearest:
                    nearest = float(gaps[a, b])
                    pair = f"{first} {capsules.NAMES[a]} and {second} {capsules.NAMES[b]}"
        return nearest, pair, lowest, part

    def check(self, arms: Mapping[str, ArmSnapshot], now: float) -> str:
        """Why all arms must stop, or an empty string.

        Args:
            arms: newest snapshot of every arm, by name.
            now: monotonic clock [s].
        """
        limits = self.limits
        for name, arm in arms.items():
            if arm.fault:
                return arm.fault
            if not np.isfinite(arm.joints).all() or not np.isfinite(arm.velocities).all():
                return f"{name} arm: measured joints are not numbers"
            if now - arm.time > limits.staleness:
                return f"{name} arm: the last measurement is {now - arm.time:.2f} s old (limit {limits.staleness} s)"
            if arm.phase is Phase.STREAMING:
                error = float(np.abs(arm.joints - arm.sent).max())
                if error > limits.tracking_error:
                    return f"{name} arm: is {error:.2f} rad away from its target (limit {limits.tracking_error} rad)"
        times = [arm.time for arm in arms.values()]
        if max(times) - min(times) > limits.skew:
            return f"the measurements of the arms are {max(times) - min(times):.3f} s apart (limit {limits.skew} s)"
        return self._check_distances(arms)

    def _check_distances(self, arms: Mapping[str, ArmSnapshot]) -> str:
        """Stop before parts meet: judge where the arms are and where they would come to rest.

        An arm that streams comes to rest where its targets do. Its measured speed says less of that: it jumps when a
        finger touches something. Where the measured speed counts is an arm that is too close already.
        """
        limits = self.limits
        openings = {name: GRIPPER_STROKE if arm.opening is None else arm.opening for name, arm in arms.items()}

        def at(joints: Mapping[str, Array]) -> tuple[float, str, float, str]:
            return self.distances({name: (q, openings[name]) for name, q in joints.items()})

        now = {name: arm.joints for name, arm in arms.items()}
        measured = {name: self._at_rest(arm.joints, arm.velocities) for name, arm in arms.items()}
        commanded = {
            name: self._at_rest(arm.sent, arm.sent_velocities) if arm.phase is Phase.STREAMING else measured[name]
            for name, arm in arms.items()
        }
        gap, pair, height, part = at(commanded)
        gap_now, _, height_now, _ = at(now)
        if gap >= limits.arm_clearance and height >= limits.table_clearance:
            if gap_now >= limits.arm_clearance and height_now >= limits.table_clearance:
                return ""
            gap, pair, height, part = at(measured)
        # Parts that are too close may move apart: only what gets closer is stopped.
        if gap < limits.arm_clearance and gap < gap_now + 1e-6:
            return f"{pair} come within {gap * 1000:.0f} mm of each other (limit {limits.arm_clearance * 1000:.0f} mm)"
        if height < limits.table_clearance and height < height_now + 1e-6:
            limit = f"limit {limits.table_clearance * 1000:.0f} mm"
            return f"{part} comes within {height * 1000:.0f} mm of the table ({limit})"
        return ""

    def _at_rest(self, joints: Array, velocities: Array) -> Array:
        """Where an arm would come to rest that is told to stop now."""
        return joints + velocities * (self.limits.reaction + np.abs(velocities) / (2.0 * self.limits.braking))


class GuardThread:
    """Runs a guard over drivers of one process at servo rate; a context manager.

    Args:
        guard: the judge.
        drivers: by arm name.
        rate: [Hz].

    Attributes:
        fault: why the arms were stopped, empty if they were not.
        slowest: longest check so far [s].
    """

    def __init__(self, guard: Guard, drivers: Mapping[str, ArmDriver], rate: float = 250.0) -> None:
        self.guard, self.drivers, self.fault, self.slowest = guard, dict(drivers), "", 0.0
        self._dt, self._alive = 1.0 / rate, True
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def __enter__(self) -> "GuardThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._alive = False
        self._thread.join()

    def _run(self) -> None:
        while self._alive:
            start = time.monotonic()
            arms = {name: driver.snapshot() for name, driver in self.drivers.items()}
            if any(arm.phase in (Phase.STREAMING, Phase.STOPPING) for arm in arms.values()):
                fault = self.guard.check(arms, start)
                if fault:
                    self.fault = fault
                    for driver in self.drivers.values():
                        driver.stop(f"stopped by the guard: {fault}")
            self.slowest = max(self.slowest, time.monotonic() - start)
            time.sleep(max(0.0, self._dt - (time.monotonic() - start)))
