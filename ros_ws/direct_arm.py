"""A driver without SDK and controller: the same stream, limits and watchdog, straight into the simulated world."""

import logging
import threading
import time

import numpy as np

from horseshoe.hardware.arm_driver import ArmSnapshot, Phase, Sent
from horseshoe.hardware.arm_settings import ArmError, ArmSettings, check_targets
from horseshoe.hardware.servo_stream import ServoStream
from horseshoe.hardware.timing_log import TimingLog
from horseshoe.hardware.xarm6 import GRIPPER_MAX_SPEED, Array
from horseshoe.ros_ws.simulated_cell import WorldArm

logger = logging.getLogger(__name__)


class DirectArm:
    """Drives one arm of a simulated world; the interface of `ArmDriver`.

    Args:
        settings: rate, limits and watchdog; the address is not used.
        arm: of the world.
    """

    def __init__(self, settings: ArmSettings, arm: WorldArm) -> None:
        self.settings, self.log, self._arm = settings, TimingLog(), arm
        self._stream, self._phase, self._fault = ServoStream(settings), Phase.DISCONNECTED, ""
        self._sent_time = 0.0
        self._lock = threading.Lock()
        self._wanted = arm.state.opening
        self._opening = self._wanted  # commanded, at the gripper's own speed
        self._alive, self._thread = False, threading.Thread()

    @property
    def connected(self) -> bool:
        """As `ArmDriver.connected`."""
        return self._phase is not Phase.DISCONNECTED

    @property
    def released(self) -> bool:
        """As `ArmDriver.released`."""
        return self._phase in (Phase.STOPPING, Phase.STOPPED) and not self._fault

    def connect(self) -> None:
        """Begin to serve; nothing moves."""
        self.close()
        self._phase, self._alive = Phase.IDLE, True
        self._thread = threading.Thread(target=self._run, name=f"{self.settings.name} arm", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Nothing to prepare but to be ready."""
        self.clear()

    def clear(self) -> None:
        """Make ready again after a stop."""
        if self._phase is Phase.DISCONNECTED:
            raise ArmError(f"{self.settings.name} arm: not connected. To do: connect")
        self._phase, self._fault = Phase.IDLE, ""

    def resume(self) -> None:
        """As `ArmDriver.resume`."""
        if not self.released:
            raise ArmError(self._fault or f"{self.settings.name} arm: is {self._phase.value}, not released")
        self.clear()

    def move_to(self, joints: Array, speed: float = 0.35, timeout: float = 30.0) -> None:
        """Move to joints [rad], shape (6,), at a joint speed [rad/s], and wait."""
        if self._phase is not Phase.IDLE:
            raise ArmError(f"{self.settings.name} arm: cannot move to a position while {self._phase.value}")
        start, goal = self._arm.target[:6].copy(), np.asarray(joints, dtype=np.float64)
        steps = max(2, int(np.abs(goal - start).max() / speed * self.settings.rate))
        for share in np.linspace(0.0, 1.0, steps):
            if self._phase is not Phase.IDLE:
                raise ArmError(self._fault)
            self._arm.command(start + share * (goal - start), self._opening)
            time.sleep(1 / self.settings.rate)
        end = time.monotonic() + timeout
        while np.abs(self._arm.measured().joints - goal).max() > 0.02:
            if time.monotonic() > end:
                raise ArmError(f"{self.settings.name} arm: not at the goal after {timeout:.0f} s")
            time.sleep(0.02)

    def start(self) -> None:
        """Begin to stream, holding the measured position."""
        if self._phase is not Phase.IDLE:
            raise ArmError(f"{self.settings.name} arm: cannot stream while {self._phase.value}. {self._fault}".strip())
        with self._lock:
            self._stream.begin(self._arm.target[:6].copy(), time.monotonic())
            self._phase = Phase.STREAMING

    def stop(self, reason: str) -> None:
        """Brake and stay stopped until cleared."""
        if self._phase in (Phase.STREAMING, Phase.IDLE) or self.released:
            self._fault = f"{self.settings.name} arm: {reason}"
            logger.error(self._fault)
            if self._phase in (Phase.STREAMING, Phase.IDLE):
                self._phase = Phase.STOPPING if self._phase is Phase.STREAMING else Phase.STOPPED

    def release(self) -> None:
        """As `ArmDriver.release`."""
        if self._phase is Phase.STREAMING:
            self._phase = Phase.STOPPING

    def close(self) -> None:
        """Stop and end the thread."""
        self._alive = False
        if self._thread.is_alive():
            self._thread.join()
        self._phase = Phase.DISCONNECTED

    def send(self, targets: Array, opening: float | None = None) -> Sent:
        """As `ArmDriver.send`."""
        if self._phase is not Phase.STREAMING:
            raise ArmError(f"{self.settings.name} arm: {self._phase.value}. {self._fault}".strip())
        with self._lock:
            self._stream.take(check_targets(targets, self._stream.limiter.q, self.settings), time.monotonic())
            self._wanted = self._wanted if opening is None else opening
            return Sent(time.monotonic(), self._stream.limiter.q, self.log.ticks)

    def snapshot(self) -> ArmSnapshot:
        """As `ArmDriver.snapshot`."""
        state, now = self._arm.measured(), time.monotonic()
        sent, speeds, stream = self._arm.target[:6], self._stream.limiter.v, self._stream
        return ArmSnapshot(
            now, state.joints, state.velocities, self._sent_time, sent, speeds, state.opening, self._phase,
            stream.holding, self._fault,
        )  # fmt: skip

    def _run(self) -> None:
        dt = 1 / self.settings.rate
        start, tick = time.monotonic(), 0
        while self._alive:
            now = time.monotonic()
            due = int((now - start) / dt) + 1
            late, tick = due - tick - 1, due
            self._tick(now, late, dt)
            time.sleep(max(0.0, start + tick * dt - time.monotonic()))

    def _tick(self, now: float, late: int, dt: float) -> None:
        with self._lock:
            if self._phase is Phase.STREAMING and self._stream.overdue(now):
                self._phase, self._fault = Phase.STOPPING, f"{self.settings.name} arm: no commands arrive"
            if self._phase in (Phase.STREAMING, Phase.STOPPING):
                reach = GRIPPER_MAX_SPEED * dt
                self._opening += min(max(self._wanted - self._opening, -reach), reach)
                target = self._stream.next_target(now, late, stopping=self._phase is Phase.STOPPING)
                self._arm.command(target, self._opening)
                self._sent_time = now
                self.log.add_sent(now, target, late)
            if self._phase is Phase.STOPPING and self._stream.at_rest:
                self._phase = Phase.STOPPED
        self.log.add_measured(now, self._arm.measured().joints)
