"""Driving one xArm6: the only place that talks to the vendor's SDK while the arm moves.

A thread streams servo targets on absolute deadlines and reads the arm's state; callers hand over targets and read
snapshots. Whatever goes wrong ends in a stop that only an operator lifts (`clear`, or `connect` after a broken link).
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from horseshoe.hardware.arm_settings import (
    GRIPPER_CENTRE,
    GRIPPER_MASS,
    ArmError,
    ArmSettings,
    ArmSpec,
    CommandRefused,
    check_targets,
    spec_of,
)
from horseshoe.hardware.arm_state import ArmSnapshot, Phase, Sent
from horseshoe.hardware.error_codes import describe_code, describe_error
from horseshoe.hardware.gripper_link import GripperLink
from horseshoe.hardware.sdk import connect_sdk, disconnect_sdk
from horseshoe.hardware.servo_stream import ServoStream
from horseshoe.hardware.timing_log import TimingLog
from horseshoe.hardware.xarm6 import GRIPPER_STROKE, TOOL_OFFSET, Array

CALL_TIMEOUT = 0.05  # [s] while streaming: a lost reply costs no more than this
PATIENT_TIMEOUT = 1.0  # [s] while an operator prepares the arm
STATE_RATE = 100.0  # [Hz] of reading measured joints
OK, CONTROLLER_ERROR, WARNING, NO_ANSWER, NOT_READY = 0, 1, 2, 3, 9
SERVO_MODE, POSITION_MODE, ONLINE_MODE = 1, 0, 6
MAX_UNANSWERED = 3  # lost replies in a row that a link may have, however long they take
logger = logging.getLogger(__name__)


class ArmDriver:
    """One arm.

    Args:
        settings: how to drive it. Nothing is connected before `connect`.

    Attributes:
        log: timing of the stream.
    """

    def __init__(self, settings: ArmSettings) -> None:
        self.settings, self.log = settings, TimingLog()
        self._dt = 1.0 / settings.rate
        self._stream = ServoStream(settings)
        self._api: Any = None
        self._gripper: GripperLink | None = None
        self._phase, self._fault = Phase.DISCONNECTED, ""
        self._prepared = False  # load, tool, sensitivity and boundary are set
        self._lock = threading.Lock()
        self._last_answer, self._unanswered = 0.0, 0
        self._state = (0.0, np.zeros(6), np.zeros(6))
        self._last_sent = Sent(0.0, np.zeros(6), 0)
        self._thread: threading.Thread | None = None
        self._alive = False

    @property
    def spec(self) -> ArmSpec:
        """Shape and limits of commands and state; needs no connection."""
        return spec_of(self.settings)

    @property
    def connected(self) -> bool:
        """Whether there is a connection; a link that broke has to be connected anew."""
        return self._api is not None and bool(self._api.connected)

    @property
    def released(self) -> bool:
        """Whether `release` is all that keeps the arm stopped: no fault and nobody else's stop came since."""
        return self._phase in (Phase.STOPPING, Phase.STOPPED) and not self._fault

    # --- operator's acts ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, or connect again after a broken link. Nothing moves.

        Raises:
            ArmError: if no controller answers.
        """
        self.close()
        # "real" reports come at 100 Hz and tell mode and state; error codes are asked for when a call fails. Nor does a
        # call wait until a pause from elsewhere is over: this thread would not stop the arm meanwhile.
        self._api = connect_sdk(self.settings.ip, PATIENT_TIMEOUT, report_type="real", check_is_pause=False)
        try:
            self._gripper = GripperLink(self.settings.ip)
        except ArmError:
            disconnect_sdk(self._api)
            raise
        self._prepared = False
        self._set_phase(Phase.IDLE)
        self._last_answer, self._alive = time.monotonic(), True
        self._read_state()
        self._thread = threading.Thread(target=self._run, name=f"{self.settings.name} arm", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Clear errors, switch the motors on and set load, tool, sensitivity and boundary. Nothing moves.

        Raises:
            ArmError: if the arm moves, or the controller refuses, naming the step and what to do; the arm is stopped.
        """
        self._connected()
        self._wait_for_rest()
        self._prepared = False
        try:
            self._make_ready()
            self._set_up()
        except ArmError as error:
            self._set_phase(Phase.STOPPED, str(error).removeprefix(f"{self.settings.name} arm: "))
            raise
        self._prepared = True
        self._set_phase(Phase.IDLE)

    def _set_up(self) -> None:
        api, s = self._api, self.settings
        mass = GRIPPER_MASS + s.load
        self._step("set the load", lambda: api.set_tcp_load(mass, [1000 * x for x in GRIPPER_CENTRE]))
        self._ready(POSITION_MODE)
        self._step("set the tool offset", lambda: api.set_tcp_offset([0, 0, 1000 * TOOL_OFFSET, 0, 0, 0]))
        self._ready(POSITION_MODE)
        self._step("set the collision sensitivity", lambda: api.set_collision_sensitivity(s.sensitivity))
        self._step("set the tool model", lambda: api.set_collision_tool_model(1))
        self._step("switch self-collision detection on", lambda: api.set_self_collision_detection(True))
        if s.boundary is not None:
            low, high = (1000 * np.array(corner) for corner in s.boundary)
            edges = [int(edge) for pair in zip(high, low, strict=True) for edge in pair]
            self._step("set the boundary", lambda: api.set_reduced_tcp_boundary(edges))
        self._step("switch the boundary", lambda: api.set_fence_mode(s.boundary is not None))
        self._ready(POSITION_MODE)
        self._refuse_error()

    def clear(self) -> None:
        """After a stop: clear the error and make ready again; what `prepare` set is kept. Nothing moves.

        Raises:
            ArmError: if the arm moves, or the cause is still there, naming it.
        """
        self._connected()
        self._wait_for_rest()
        if not self._prepared:
            self.prepare()
            return
        self._make_ready()
        self._set_phase(Phase.IDLE)

    def _wait_for_rest(self) -> None:
        """Let a stop end; what streams must be stopped first."""
        end = time.monotonic() + PATIENT_TIMEOUT
        while self._phase is Phase.STOPPING and time.monotonic() < end:
            time.sleep(0.005)
        if self._phase in (Phase.STREAMING, Phase.STOPPING):
            raise ArmError(f"{self.settings.name} arm: is {self._phase.value}; stop it first")

    def _make_ready(self) -> None:
        api = self._api
        api.set_timeout(PATIENT_TIMEOUT)
        self._step("clear the error", api.clean_error)
        self._step("clear the warning", api.clean_warn)
        self._refuse_error()
        self._step("switch the motors on", lambda: api.motion_enable(True))
        self._ready(POSITION_MODE)
        assert self._gripper is not None
        self._step("switch the gripper on", self._gripper.enable)
        self._refuse_error()

    def resume(self) -> None:
        """After `release`: make ready again. What `clear` would lift, an error or a stop since, is lifted by nobody.

        Raises:
            ArmError: the arm is stopped for another reason, or its controller has an error.
        """
        api = self._connected()
        if not self.released:
            raise ArmError(self._fault or f"{self.settings.name} arm: is {self._phase.value}, not released")
        api.set_timeout(PATIENT_TIMEOUT)
        self._refuse_error()
        self._ready(POSITION_MODE)
        with self._lock:
            if self.released:
                self._set_phase(Phase.IDLE)
                return
        self._stop_again()

    def move_to(self, joints: Array, speed: float = 0.35, timeout: float = 30.0) -> None:
        """Move to a joint position with the controller's own planner (mode 0) and wait.

        Args:
            joints: goal [rad], shape (6,).
            speed: of the joint that turns furthest [rad/s].
            timeout: [s].

        Raises:
            ArmError: if the arm is not idle, the goal is out of limits or the move does not finish.
        """
        api, limits = self._connected(), self.settings.limits
        goal = np.asarray(joints, dtype=np.float64)
        self._check_startable("move to a position")
        if goal.shape != (6,) or not np.all((goal >= limits.lower) & (goal <= limits.upper)):
            raise ArmError(f"{self.settings.name} arm: goal {goal} must be six joint positions [rad] within the limits")
        self._ready(POSITION_MODE)
        speed = min(speed, limits.speed)
        self._step("start the move", lambda: api.set_servo_angle(angle=goal.tolist(), speed=speed, mvacc=2.0))
        if self._phase is not Phase.IDLE:
            self._stop_again()
        end = time.monotonic() + timeout
        while np.abs(self._state[1] - goal).max() > 0.01:
            if self._phase is not Phase.IDLE:
                raise ArmError(self._fault)
            if time.monotonic() > end:
                self.stop("the move to a position took too long")
                raise ArmError(f"{self.settings.name} arm: not at the goal after {timeout:.0f} s, stopped")
            time.sleep(0.02)

    def start(self) -> None:
        """Begin to stream: hold the measured position, with limits that grow to their full value.

        Raises:
            ArmError: if the arm is not idle or outside its limits, or the controller refuses.
        """
        api, limits = self._connected(), self.settings.limits
        self._check_startable("stream")
        self._step(
            "enter servo mode", lambda: api.set_mode(ONLINE_MODE if self.settings.online_planning else SERVO_MODE)
        )
        self._step("make ready", lambda: api.set_state(0))
        time.sleep(0.05)
        measured = np.zeros(6)

        def read() -> int:
            code, state = api.get_joint_states(num=2)
            measured[:] = state[0][:6] if code == OK else measured
            return int(code)

        self._step("read the joints", read)
        # The limiter would pull a joint back onto its limit at once.
        outside = ~((measured >= limits.lower) & (measured <= limits.upper))
        if outside.any():
            j = int(outside.argmax())
            raise ArmError(
                f"{self.settings.name} arm: joint {j + 1} is at {measured[j]:.3f} rad, outside [{limits.lower[j]:.3f}, "
                f"{limits.upper[j]:.3f}]. To do: move it back by hand"
            )
        api.set_timeout(CALL_TIMEOUT)
        with self._lock:
            if self._phase is Phase.IDLE:
                now = time.monotonic()
                self._stream.begin(measured, now)
                self._last_sent = Sent(now, measured, self.log.ticks)
                self._set_phase(Phase.STREAMING)
                return
        self._stop_again()

    def stop(self, reason: str) -> None:
        """Brake and stay stopped until an operator clears it. Safe from any thread, at any time."""
        with self._lock:
            if self._phase is Phase.IDLE:
                self._stream.begin(self._state[1], time.monotonic())  # nothing to brake
            if self._phase in (Phase.IDLE, Phase.STREAMING):
                self._set_phase(Phase.STOPPING, reason)
            elif self.released:  # at rest already, but from now on for this reason
                self._set_phase(self._phase, reason)

    def release(self) -> None:
        """Brake and stop as `stop` does, because nothing more is to be done; `resume` goes on from there."""
        with self._lock:
            if self._phase is Phase.STREAMING:
                self._set_phase(Phase.STOPPING)

    def close(self) -> None:
        """Stop, and close all connections."""
        if self._thread is not None:
            self.stop("the driver was closed")
            end = time.monotonic() + 1.0
            while self._phase is Phase.STOPPING and time.monotonic() < end:
                time.sleep(0.005)
            self._alive = False
            self._thread.join()
            self._thread = None
        if self._gripper is not None:
            self._gripper.close()
        if self._api is not None:
            disconnect_sdk(self._api)
        self._api = self._gripper = None
        self._phase = Phase.DISCONNECTED

    # --- commands and state -------------------------------------------------------------------------------------------

    def send(self, targets: Array, opening: float | None = None) -> Sent:
        """Take new targets, to be streamed one per servo tick from now on; they replace what is left of the last ones.

        Args:
            targets: [rad], shape (6,) or (n, 6). The last one is held.
            opening: wanted distance between the finger pads [m], or None to leave the gripper alone.

        Returns:
            What was really sent last.

        Raises:
            CommandRefused: on a wrong shape, a value that is not finite, or a jump.
            ArmError: if the arm does not stream, naming why.
        """
        if self._phase is not Phase.STREAMING:
            raise ArmError(f"{self.settings.name} arm: {self._phase.value}. {self._fault}".strip())
        with self._lock:
            array = check_targets(targets, self._stream.limiter.q, self.settings)
            if opening is not None and not 0.0 <= opening <= GRIPPER_STROKE + 1e-6:
                raise CommandRefused(f"{self.settings.name} arm: opening {opening} m, not within 0 to {GRIPPER_STROKE}")
            self._stream.take(array, time.monotonic())
            if opening is not None and self._gripper is not None:
                self._gripper.move(opening)
            return self._last_sent

    def snapshot(self) -> ArmSnapshot:
        """The newest state; never blocks."""
        when, joints, velocities = self._state
        opening = self._gripper.opening if self._gripper is not None else None
        sent, speeds = self._last_sent, self._stream.limiter.v
        return ArmSnapshot(
            when, joints, velocities, sent.time, sent.joints, speeds, opening, self._phase, self._stream.holding,
            self._fault,
        )  # fmt: skip

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        start, tick, late = time.monotonic(), 0, 0
        read_every = max(1, round(self.settings.rate / STATE_RATE))
        while self._alive:
            if self._phase is Phase.STOPPING and self._stream.at_rest:
                self._finish_stop()
            elif self._phase in (Phase.STREAMING, Phase.STOPPING):
                self._stream_tick(late)
            if tick % read_every == 0:
                self._read_state()
            # Absolute deadlines: a late tick is skipped, never made up for by sending faster.
            now = time.monotonic()
            due = int((now - start) / self._dt) + 1
            late, tick = due - tick - 1, due
            time.sleep(max(0.0, start + tick * self._dt - now))

    def _stream_tick(self, late: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._phase is Phase.STREAMING and self._stream.overdue(now):
                self._set_phase(Phase.STOPPING, "no commands arrive. To do: look for what should send them, then clear")
            if self._unanswered:
                target = self._stream.repeat()
            else:
                target = self._stream.next_target(now, late, stopping=self._phase is Phase.STOPPING)
        if self.settings.online_planning:
            limits = self._stream.limiter.limits
            code = self._api.set_servo_angle(angle=target.tolist(), speed=limits.speed, mvacc=limits.acceleration)
        else:
            code = self._api.set_servo_angle_j(target.tolist())
        self.log.add_sent(now, target, late)
        self._last_sent = Sent(now, target, self.log.ticks)
        self._judge(code)
        if self._gripper is not None and self._gripper.failing_for() > self.settings.link_timeout:
            self.stop(f"the gripper does not take commands ({describe_code(self._gripper.code)})")

    def _finish_stop(self) -> None:
        """Tell the controller to stay stopped, again and again until it says that it is."""
        self._judge(self._api.set_state(4))
        code, state = self._api.get_state()
        if code == OK and state == 4 and self._phase is Phase.STOPPING:
            self._set_phase(Phase.STOPPED)

    def _read_state(self) -> None:
        before = time.monotonic()
        code, state = self._api.get_joint_states(num=2)
        if code == OK:
            when = 0.5 * (before + time.monotonic())
            self._state = (when, np.array(state[0][:6]), np.array(state[1][:6]))
            self.log.add_measured(when, self._state[1])
        told = self._phase is Phase.IDLE or self.released  # otherwise calls that fail tell of errors
        self._judge(CONTROLLER_ERROR if code == OK and told and self._api.has_err_warn else code)

    def _judge(self, code: int) -> None:
        """Decide what the code of a call means for the arm."""
        if code in (OK, CONTROLLER_ERROR, WARNING):
            self._last_answer, self._unanswered = time.monotonic(), 0
        if code == CONTROLLER_ERROR:
            _, (error, _) = self._api.get_err_warn_code()
            if error:
                self._give_up(describe_error(error))
        elif code == NO_ANSWER:
            self._unanswered += 1
            silence = time.monotonic() - self._last_answer
            if silence > self.settings.link_timeout and self._unanswered >= MAX_UNANSWERED:
                self._give_up(describe_code(code))
        elif code not in (OK, WARNING):
            self._give_up(describe_code(code))

    def _give_up(self, what: str) -> None:
        """The arm stopped by itself or cannot be reached: send nothing more."""
        if self.released or self._phase not in (Phase.STOPPED, Phase.DISCONNECTED):
            self._set_phase(Phase.STOPPED, what)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _set_phase(self, phase: Phase, fault: str | None = None) -> None:
        if fault is not None:
            self._fault = f"{self.settings.name} arm: {fault}"
            logger.error(self._fault)
        elif phase in (Phase.IDLE, Phase.STREAMING):
            self._fault = ""
        self._phase = phase
        if phase in (Phase.STOPPING, Phase.STOPPED) and self._gripper is not None:
            self._gripper.forget()

    def _check_startable(self, what: str) -> None:
        if self._phase is not Phase.IDLE:
            raise ArmError(f"{self.settings.name} arm: cannot {what} while {self._phase.value}. {self._fault}".strip())
        if not self._prepared:
            raise ArmError(f"{self.settings.name} arm: cannot {what} before it is prepared. To do: enable it")

    def _stop_again(self) -> None:
        """A stop came while the controller was made ready, which may have lifted it."""
        self._step("stop", lambda: self._api.set_state(4))
        raise ArmError(self._fault)

    def _connected(self) -> Any:
        if not self.connected:
            raise ArmError(f"{self.settings.name} arm: not connected. To do: connect")
        return self._api

    def _ready(self, mode: int) -> None:
        """Enter a mode and state 0; each changed setting asks for this again."""
        self._step(f"enter mode {mode}", lambda: self._api.set_mode(mode))
        self._step("make ready", lambda: self._api.set_state(0))

    def _step(self, what: str, call: Callable[[], Any]) -> None:
        """Run one call of a preparation; repetition covers a lost reply, as all these calls can be repeated."""
        for _ in range(MAX_UNANSWERED):
            if (code := call()) != NO_ANSWER:
                break
        code = code[0] if isinstance(code, list) else code
        if code not in (OK, WARNING):
            self._refuse_error()
            raise ArmError(f"{self.settings.name} arm: could not {what}: {describe_code(code)}")

    def _refuse_error(self) -> None:
        code, (error, _) = self._api.get_err_warn_code()
        if code == OK and error:
            raise ArmError(f"{self.settings.name} arm: {describe_error(error)}")
