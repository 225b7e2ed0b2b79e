"""Node of one arm: hands commands to the driver, publishes what the arm does, stops on request.

Subscribes  command (JointTrajectory: the servo ticks of one decision), /stop (String), /guard/heartbeat (Header)
Publishes   joint_states, sent_joint_states (JointState, 100 Hz), state (String), delay (Float64), /diagnostics
Services    ~/enable, ~/clear, ~/stop, ~/pull_back, ~/home, ~/measure_delay (Trigger)

configure connects and prepares, activate holds the measured position and then follows commands, deactivate stops.
"""

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.arm_driver import ArmDriver, Phase
from horseshoe.hardware.arm_settings import ArmSettings
from horseshoe.hardware.homing import HOME, pulled_back
from horseshoe.hardware.limits import ServoLimits
from horseshoe.hardware.timing_log import measure_delay
from horseshoe.ros_ws.base_node import (
    ERROR,
    EVENT,
    GOING,
    LATCHED,
    OK,
    RECORD,
    STREAM,
    Inbox,
    diagnostics,
    joint_names,
    joint_state,
    parameter,
    run,
    seconds,
    system_time,
)

WIGGLE, WIGGLE_TIME, WIGGLE_PERIOD = 0.06, 2.4, 0.8  # [rad] of the last joint, [s], [s]
WIGGLE_SAMPLES = 150  # measurements that are needed to tell the delay
NO_GUARD = "no guard was heard yet"
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class ArmNode(LifecycleNode):
    """See the module.

    Args:
        make_driver: makes what drives the arm; the simulated world offers one that needs no connection.
        namespace: of the node, if it is not given on the command line.
    """

    def __init__(self, make_driver: Callable[[ArmSettings], Any] = ArmDriver, namespace: str = "") -> None:
        super().__init__("arm", namespace=namespace)
        self.arm = self.get_namespace().strip("/") or "arm"
        limits = ServoLimits()
        share = parameter(self, "speed_share", 1.0, "Share of all speed limits, for first runs.", 0.05, 1.0)
        tool_speed = parameter(self, "max_tool_speed", limits.tool_speed, "Of the tool centre point [m/s].", 0.01, 1.2)
        speed = parameter(self, "max_speed", limits.speed, "Of any joint [rad/s].", 0.01, 3.14)
        jump = parameter(self, "max_jump", limits.jump, "Refused above this, target to target [rad].", 0.01, 1.0)
        acceleration = parameter(self, "max_acceleration", limits.acceleration, "Of any joint [rad/s^2].", 0.1, 19.9)
        box = parameter(
            self, "boundary", [0.0] * 6, "Box that the tool must not leave, in the frame of the arm's base [m]: "
            "x, y, z of its lowest corner, x, y, z of its highest one; zeros: none.",
        )  # fmt: skip
        if len(box) != 6 or (any(box) and not all(low < high for low, high in zip(box[:3], box[3:], strict=True))):
            raise HorseshoeError(f"boundary: {list(box)}, expected x, y, z of the lowest corner, then of the highest")
        self.settings = ArmSettings(
            name=self.arm,
            ip=parameter(self, "robot_ip", "", "Address of the control box."),
            rate=parameter(self, "rate", 100.0, "Servo targets per second [Hz]; the policy's tick rate.", 100, 250),
            online_planning=parameter(self, "online_planning", False, "Stream in mode 6, gentler, for first runs."),
            limits=ServoLimits(speed=speed, acceleration=acceleration, tool_speed=tool_speed, jump=jump).slowed(share),
            hold_after=parameter(
                self, "hold_after", 0.5, "Age of the newest command that makes the arm hold [s].", 0.05, 3600
            ),
            stop_after=parameter(
                self, "stop_after", 1.5, "Age of the newest command that stops the arm [s].", 0.1, 3600
            ),
            link_timeout=parameter(self, "link_timeout", 0.5, "Silence that counts as a broken link [s].", 0.05, 3600),
            sensitivity=parameter(self, "collision_sensitivity", 3, "1 (insensitive) to 5.", 1, 5),
            load=parameter(self, "load", 0.0, "Mass that the arm carries besides its gripper [kg].", 0.0, 4.0),
            boundary=((box[0], box[1], box[2]), (box[3], box[4], box[5])) if any(box) else None,
        )
        self.home = np.array(parameter(self, "home", list(HOME), "Where ~/home goes [rad], six joints."))
        if self.home.shape != (6,):
            raise HorseshoeError(f"home: {len(self.home)} numbers, expected six")
        self.home_speed = parameter(self, "home_speed", 0.35, "Of the joint that turns furthest [rad/s].", 0.05, 1.5)
        self.guard_timeout = parameter(
            self,
            "guard_timeout",
            0.25,
            "Silence of the guard that stops the arm [s]; 0: none.",
            0,
            3600,
        )
        self.stale_command = parameter(
            self, "stale_command", 0.3, "Age at which a command is not taken [s].", 0.02, 3600
        )
        self._timing = parameter(self, "timing", "", "Folder for the timing of servo ticks, at the end; empty: none.")
        self.driver = make_driver(self.settings)
        self._names, self._phase_told = joint_names(self.arm), ""
        self._guard_seen = -math.inf  # a clock near zero is no proof of a guard: a computer may have just started
        self._active = False
        # Where the arm waits after a measurement; refreshed until a command comes, so that the watchdog keeps quiet.
        self._hold: np.ndarray | None = None
        self._send_lock = threading.Lock()
        self._where = ""  # what an idle arm says instead: that it moves home, or is there
        self._ages: list[float] = []  # of commands on arrival [s]
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=16384)  # stamps and arrivals of commands [s]
        self._work: threading.Thread | None = None
        self._measured = self.create_publisher(JointState, "joint_states", EVENT)
        self._sent = self.create_publisher(JointState, "sent_joint_states", EVENT)
        self._state = self.create_publisher(String, "state", LATCHED)
        self._delay = self.create_publisher(Float64, "delay", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self.create_subscription(JointTrajectory, "command", self._on_command, STREAM)
        self.create_subscription(String, "/stop", lambda m: self.driver.stop(m.data or "stopped over /stop"), RECORD)
        self._heartbeat = Inbox(self, Header, "/guard/heartbeat")
        for name, act in (
            ("enable", self._enable),
            ("clear", self._clear),
            ("stop", self._halt),
            ("home", self._home),
            ("pull_back", self._pull_back),
            ("measure_delay", self._measure_delay),
        ):
            self.create_service(Trigger, f"~/{name}", lambda _, response, act=act: self._serve(act, response))  # type: ignore[misc]
        self.create_timer(0.1, self._follow_phase)
        self._alive = True
        self._thread = threading.Thread(target=self._publish, name="publish", daemon=True)
        self._thread.start()

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Connect and prepare; nothing moves."""
        return self._try(lambda: (self.driver.connect(), self.driver.prepare()))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Hold the measured position, then follow commands."""
        result = self._try(self._start)
        self._active = result is SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brake and stop."""
        self.driver.release()
        self._active = False
        return SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and disconnect."""
        self._active = False
        self.driver.close()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and disconnect."""
        return self.on_cleanup(state)

    def close(self) -> None:
        """Stop the arm before the process ends."""
        self.driver.close()
        self._alive = False
        self._thread.join()
        if self._timing:
            commands = np.array(self._arrivals).reshape(-1, 2)
            self.driver.log.read().save(Path(self._timing) / f"{self.arm}_sent.npz", commands=commands)

    def _start(self) -> None:
        self._check_free()
        self._check_guarded()
        self._resume()
        self._hold, self._where = None, ""
        self.driver.start()

    def _follow_phase(self) -> None:
        """A stop ends the lifecycle state `active`: whoever asks for the state sees the truth."""
        phase = self.driver.snapshot().phase
        if self._active and phase in (Phase.STOPPED, Phase.DISCONNECTED):
            self.trigger_deactivate()

    # --- services -----------------------------------------------------------------------------------------------------

    def _try(self, act: Callable[[], object]) -> TransitionCallbackReturn:
        try:
            act()
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(str(error) if isinstance(error, HorseshoeError) else repr(error))
            self._tell(f"refused: {error}")
            if self._work is not None and self._work.is_alive() and self._where:
                self._tell(self._where)  # the guard must not take it for an arm at rest
            return FAILURE
        return SUCCESS

    def _serve(self, act: Callable[[], object], response: Trigger.Response) -> Trigger.Response:
        try:
            if act != self._halt:
                self._check_free()
            answer = act()
            response.success, response.message = True, str(answer or "done")
        except HorseshoeError as error:
            self.get_logger().error(str(error))
            response.success, response.message = False, str(error)
        return response

    def _check_free(self) -> None:
        if self._work is not None and self._work.is_alive():
            raise HorseshoeError(f"{self.arm} arm: still busy with {self._work.name}")

    def _check_guarded(self) -> None:
        if self.guard_timeout and time.monotonic() - self._guard_seen > self.guard_timeout:
            raise HorseshoeError(f"{self.arm} arm: no guard is running. To do: start the guard node")

    def _halt(self) -> None:
        self.driver.stop("stopped by the operator")

    def _enable(self) -> None:
        self.driver.prepare()
        self._where = ""

    def _clear(self) -> None:
        self._where = ""
        if self.driver.connected:
            self.driver.clear()
        else:
            self.driver.connect()
            self.driver.prepare()

    def _resume(self) -> None:
        """Lift a stop that was only a deactivation."""
        if self.driver.released:
            end = time.monotonic() + 1.0
            while self.driver.snapshot().phase is Phase.STOPPING and time.monotonic() < end:
                time.sleep(0.01)
            self.driver.resume()

    def _background(self, name: str, act: Callable[[], object]) -> str:
        """Work that takes seconds, so that a stop still gets through."""

        def work() -> None:
            try:
                act()
            except (HorseshoeError, ValueError) as error:
                self.get_logger().error(f"{name}: {error}")
                phase = self.driver.snapshot().phase
                if phase is Phase.STREAMING:  # an arm that moves must not be called anything else
                    self.driver.stop(f"{name}: {error}")
                elif phase not in (Phase.STOPPING, Phase.STOPPED):  # which say why themselves
                    self._tell(f"refused: {error}")

        self._work = threading.Thread(target=work, name=name, daemon=True)
        self._work.start()
        return f"{name} begun; the topic state tells the end"

    def _home(self) -> str:
        return self._go(lambda: self.home, GOING[0], "at home")

    def _pull_back(self) -> str:
        return self._go(lambda: pulled_back(self.driver.snapshot().joints, self.home), GOING[1], "pulled back")

    def _go(self, goal: Callable[[], np.ndarray], going: str, there: str) -> str:
        self._resume()
        now = self.driver.snapshot()
        if now.phase is not Phase.IDLE:
            raise HorseshoeError(f"{self.arm} arm: not {going} while {now.phase.value}. {now.fault}".strip())
        self._check_guarded()
        # The thread that tells the phase tells this instead: the guard watches arms that say that they move.
        self._where = going
        self._tell(going)

        def move() -> None:
            try:
                self.driver.move_to(goal(), self.home_speed)
            except (HorseshoeError, ValueError):
                self._where = ""
                raise
            self._where = there
            self._tell(there)

        return self._background(going, move)

    def _measure_delay(self) -> str:
        """Wiggle the last joint by a few degrees and see how late the arm follows."""
        begin = self.driver.snapshot()
        if begin.phase is not Phase.STREAMING:
            raise HorseshoeError(f"{self.arm} arm: activate it before its delay is measured")
        if self._arrivals and time.time() - self._arrivals[-1][1] < self.settings.hold_after:
            raise HorseshoeError(f"{self.arm} arm: commands arrive; deactivate the policy before its delay is measured")

        def wiggle() -> None:
            log, ticks, end = self.driver.log, int(0.2 * self.settings.rate), WIGGLE_TIME
            first, enough = log.ticks, log.measurements + WIGGLE_SAMPLES
            # Time counts in ticks that were sent, so that a busy machine slows the wiggle instead of cutting it.
            while (t := (log.ticks - first) / self.settings.rate) < end:
                if t > end - 0.2 and log.measurements < enough and end < 20 * WIGGLE_TIME:
                    end += WIGGLE_PERIOD
                ahead = np.clip(t + np.arange(ticks) / self.settings.rate, 0.0, end)
                targets = np.tile(begin.sent, (ticks, 1))
                targets[:, 5] += WIGGLE / 2 * (1 - np.cos(2 * np.pi * ahead / WIGGLE_PERIOD))
                self.driver.send(targets)
                time.sleep(0.1)
            self._hold = begin.sent
            time.sleep(0.3)
            delay = measure_delay(self.driver.log.read())
            self._delay.publish(Float64(data=delay))
            self.get_logger().info(f"{self.arm} arm: {1000 * delay:.0f} ms from a servo target to its motion")

        return self._background("measuring the delay", wiggle)

    # --- commands -----------------------------------------------------------------------------------------------------

    def _on_command(self, message: JointTrajectory) -> None:
        age = time.time() - seconds(message.header.stamp)
        if self.driver.snapshot().phase is not Phase.STREAMING:
            return
        try:
            if list(message.joint_names) != self._names:
                raise HorseshoeError(f"joint_names: {list(message.joint_names)}, expected {self._names}")
            if age > self.stale_command:
                raise HorseshoeError(f"command is {age:.2f} s old (limit {self.stale_command} s): not taken")
            if not message.points or any(len(point.positions) != 7 for point in message.points):
                raise HorseshoeError("command: every point needs seven positions, six joints and the gripper")
            ticks = np.array([point.positions for point in message.points])
            with self._send_lock:
                self._hold = None
                self.driver.send(ticks[:, :6], float(ticks[-1, 6]))
            self._ages.append(age)
            self._arrivals.append((seconds(message.header.stamp), seconds(message.header.stamp) + age))
        except HorseshoeError as error:
            self.get_logger().error(f"{self.arm} arm: {error}", throttle_duration_sec=1.0)

    # --- publishing ---------------------------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        if text != self._phase_told:
            self._phase_told = text
            self._state.publish(String(data=text))

    def _publish(self) -> None:
        """Publish at 100 Hz, in a thread of its own so that a long service call leaves no gap."""
        last, told, tick, start = 0.0, None, 0, time.monotonic()
        while self._alive:
            arm = self.driver.snapshot()
            if self._heartbeat.newest() is not None:
                self._guard_seen = time.monotonic()
            if arm.time != last:
                last, when = arm.time, system_time(arm.time)
                self._measured.publish(joint_state(self.arm, when, arm.joints, arm.velocities, arm.opening))
                if arm.phase in (Phase.STREAMING, Phase.STOPPING):
                    self._sent.publish(
                        joint_state(self.arm, system_time(arm.sent_time), arm.sent, arm.sent_velocities, None)
                    )
            alone = bool(arm.phase is Phase.IDLE and self.guard_timeout and self._guard_seen == -math.inf)
            where = self._where if arm.phase is Phase.IDLE else ""
            if (arm.phase, arm.fault, alone, where) != told:
                told = (arm.phase, arm.fault, alone, where)
                why = arm.fault or (NO_GUARD if alone else "")
                self._tell(where or (f"{arm.phase.value}: {why}" if why else arm.phase.value))
                self._diagnose(arm)
            silence = time.monotonic() - self._guard_seen
            moves = arm.phase is Phase.STREAMING or where in GOING
            if moves and self.guard_timeout and silence > self.guard_timeout:
                self.driver.stop(f"the guard has been silent for {silence:.2f} s. To do: start it again, then clear")
            if arm.phase is Phase.STREAMING:
                with self._send_lock:
                    if tick % 10 == 0 and self._hold is not None:
                        self._keep()
                if (n := self.count_publishers(self._command_topic)) > 1:
                    self.driver.stop(f"{n} nodes send commands. To do: end all but one, then clear")
            tick += 1
            if tick % 100 == 0:
                self._diagnose(arm)
            time.sleep(max(0.0, start + 0.01 * tick - time.monotonic()))
            if time.monotonic() - start - 0.01 * tick > 0.1:  # after a pause of this process, go on from now
                start = time.monotonic() - 0.01 * tick

    def _keep(self) -> None:
        with contextlib.suppress(HorseshoeError):  # a stop came first
            self.driver.send(self._hold)

    @property
    def _command_topic(self) -> str:
        return f"{self.get_namespace().rstrip('/')}/command"

    def _diagnose(self, arm: Any) -> None:
        ages, self._ages = self._ages[-100:], []
        values = {
            "phase": arm.phase.value,
            "holding": arm.holding,
            "servo ticks": self.driver.log.ticks,
            "late ticks": self.driver.log.late,
            "command age p99 [ms]": f"{1000 * np.percentile(ages, 99):.1f}" if ages else "-",
        }
        level = ERROR if arm.fault else OK
        self._diagnostics.publish(diagnostics(f"{self.arm}/arm", level, arm.fault or arm.phase.value, values))


def main() -> int:
    """Entry point."""
    return run(ArmNode, prompt=True)


if __name__ == "__main__":
    sys.exit(main())
