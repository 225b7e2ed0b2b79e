"""The state machine of an emulated controller: modes, states, errors and motion, in its own time.

Nothing here knows of sockets or clocks: `registers` calls it for requests, `tick` advances 4 ms, all in one
thread.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from horseshoe.hardware import xarm6
from horseshoe.hardware.capsules import self_clearance
from horseshoe.hardware.emulator.arm_model import ArmModel, ArmState
from horseshoe.hardware.emulator.gripper import Gripper
from horseshoe.hardware.emulator.motion import BRAKE_DECELERATION, DT, Move, SetPoint, SpeedWatch
from horseshoe.hardware.emulator.protocol import Feedback, Reply, Request, Status
from horseshoe.hardware.xarm6 import Array

EMERGENCY_STOPS = (1, 2, 3)
MOVING, READY, PAUSED, STOPPED, RESET_NEEDED = 1, 2, 3, 4, 5
POSITION, SERVO, ONLINE = 0, 1, 6
JOINT_TOLERANCE = math.radians(0.1)  # the SDK's own check allows as much
SELF_COLLISION_EVERY = 10  # cycles between two checks; a guess


@dataclass
class Settings:
    """What an operator sets, with the controller's defaults; lengths are in millimetres as on the wire."""

    tcp_offset: tuple[float, ...] = (0.0,) * 6
    load: tuple[float, ...] = (0.0,) * 4
    collision_sensitivity: int = 3
    teach_sensitivity: int = 3
    self_collision: bool = False
    tool_model: int = 0
    fence: bool = False
    boundary: tuple[int, ...] = (9999, -9999, 9999, -9999, 9999, -9999)  # [mm], x max, x min, y max, ...
    reduced: bool = False
    reduced_tcp_speed: float = 1000.0  # [mm/s]
    reduced_joint_speed: float = math.pi  # [rad/s]
    reduced_range: tuple[float, ...] = field(
        default_factory=lambda: tuple(np.stack([xarm6.JOINT_LOWER, xarm6.JOINT_UPPER], 1).ravel()) + (0.0, 0.0)
    )
    tcp_speed_factor: float = 1.2


@dataclass
class Finish:
    """Whom to tell when a motion ends, and how it ended."""

    notify: Callable[[Request, int, int], None] | None
    request: Request

    def __call__(self, code: int, microseconds: int) -> None:
        """Send the feedback frame, if somebody asked for it."""
        if self.notify is not None:
            self.notify(self.request, code, microseconds)


class Controller:
    """One arm's controller.

    Args:
        model: the physical arm.
        serial: robot serial number; characters 3 to 6 from 1305 on mean the tighter joint limits.

    Attributes:
        ticks: servo cycles since power-on, 4 ms each.
        mode, state, error, warning: as the controller reports them.
        lost, ignored: servo targets overwritten within one cycle, and those sent in a wrong mode.
        executed: servo targets that reached the motors.
        on_execute: called with each of them, for measurements.
        trace: (tick, set point) of the last 20 s.
    """

    def __init__(self, model: ArmModel, serial: str = "XI130512345678") -> None:
        self.model, self.serial = model, serial
        self.settings = Settings()
        self.measured: ArmState = model.measured()
        self.set_point, self.speeds = SetPoint(self.measured.joints), SpeedWatch()
        self.gripper = Gripper(self.measured.opening)
        self.ticks = self.mode = self.error = self.warning = 0
        self.state, self.enabled = STOPPED, False
        self.pressed: set[int] = set()
        self.detail: tuple[float, ...] = ()
        self.moves: deque[tuple[Move, Finish | None]] = deque()
        self.waiting: list[Finish] = []
        self.target = self.set_point.q
        self.pending: Array | None = None
        self.online_limits = (0.35, 8.7)
        self.lost = self.ignored = self.executed = 0
        self.on_execute: Callable[[Array], None] | None = None
        self.trace: deque[tuple[int, Array]] = deque(maxlen=5000)
        self._brake_hard = False

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Advance one servo cycle."""
        self.ticks += 1
        if self.state in (MOVING, READY):
            self._move()
        else:
            self.pending = None
            if self.set_point.moving:
                self.set_point.stop(BRAKE_DECELERATION if self._brake_hard else xarm6.MAX_JOINT_ACCELERATION)
        if self.set_point.moving and self.state in (MOVING, READY):
            self._check_position()
        self.gripper.step(DT)
        self.model.command(self.set_point.q, self.gripper.opening)
        self.model.step(DT)
        self.measured = self.model.measured()
        self.gripper.measured = self.measured.opening
        self.trace.append((self.ticks, self.set_point.q))

    def _move(self) -> None:
        before = self.target
        if self.mode == SERVO:
            if self.pending is not None:
                self.target, self.pending = self.pending, None
                self.executed += 1
                if self.on_execute is not None:
                    self.on_execute(self.target)
            if self._within_range(self.target) and self._within_speed():
                velocity = np.minimum(np.maximum((self.target - before) / DT, -self.top_speed), self.top_speed)
                self.set_point.track(self.target, velocity, self.top_speed, xarm6.MAX_JOINT_ACCELERATION)
        elif self.mode == ONLINE:
            self.set_point.track(self.target, np.zeros(6), *self.online_limits)
        elif self.moves:
            move, finish = self.moves[0]
            if not move.begun:
                move.begin(self.set_point.q)
            self.set_point.run(move)
            if move.finished:
                self.moves.popleft()
                if finish is not None:
                    finish(Feedback.DONE, self.microseconds)
        if self.state in (MOVING, READY):
            self.state = MOVING if self.set_point.moving or self.moves else READY
        if not self.moves and self.waiting:
            for finish in self.waiting:
                finish(Feedback.DONE, self.microseconds)
            self.waiting.clear()

    @property
    def microseconds(self) -> int:
        """Time since power-on [us]."""
        return round(self.ticks * DT * 1e6)

    @property
    def top_speed(self) -> float:
        """Fastest joint speed the controller will command [rad/s]."""
        settings = self.settings
        return min(xarm6.MAX_JOINT_SPEED, settings.reduced_joint_speed) if settings.reduced else xarm6.MAX_JOINT_SPEED

    # --- checks that end in an error ----------------------------------------------------------------------------------

    def _within_range(self, joints: Array) -> bool:
        lower, upper = xarm6.JOINT_LOWER, xarm6.JOINT_UPPER
        if self.settings.reduced:
            ranges = np.array(self.settings.reduced_range[:12]).reshape(6, 2)
            lower, upper = np.maximum(lower, ranges[:, 0]), np.minimum(upper, ranges[:, 1])
        if (joints >= lower).all() and (joints <= upper).all():
            return True
        outside = np.maximum(lower - joints, joints - upper)
        # An arm that stands outside may be moved back in.
        leaving = outside > np.maximum(np.maximum(lower - self.set_point.q, self.set_point.q - upper), JOINT_TOLERANCE)
        if leaving.any():
            self.fail(23, (float(np.argmax(outside) + 1), *joints, 0.0))
        return not leaving.any()

    def _within_speed(self) -> bool:
        joints, tool = self.speeds.add(self.target, self._tool_offset())
        limit = self.settings.tcp_speed_factor
        if joints.max() > xarm6.MAX_JOINT_SPEED:
            self.fail(24, (float(np.argmax(joints) + 1), float(joints.max())))
        elif tool > limit:
            self.fail(60, (limit * 1000, tool * 1000))
        return self.error == 0

    def _check_position(self) -> None:
        settings = self.settings
        if settings.fence:
            tool = xarm6.tool_position(self.set_point.q, self._tool_offset()) * 1000
            upper, lower = np.array(settings.boundary[::2]), np.array(settings.boundary[1::2])
            if (tool > upper).any() or (tool < lower).any():
                self.fail(35)
        if settings.self_collision and self.ticks % SELF_COLLISION_EVERY == 0:
            ahead = self.set_point.q + self.set_point.v * (SELF_COLLISION_EVERY * DT)
            clearance = self_clearance(ahead, self.gripper.opening)
            if clearance < 0 and clearance < self_clearance(self.set_point.q, self.gripper.opening):
                self.fail(22)  # on the way out of a collision the arm may move

    def _tool_offset(self) -> tuple[float, float, float]:
        x, y, z = self.settings.tcp_offset[:3]
        return x / 1000, y / 1000, z / 1000

    # --- faults and recovery ------------------------------------------------------------------------------------------

    def inject(self, code: int) -> None:
        """Make error `code` happen now. The cause of an emergency stop (1, 2, 3) or of C19 stays until `release`."""
        if code in EMERGENCY_STOPS:
            self.pressed.add(code)
        if code == 19:
            self.gripper.unplugged = True
        self.fail(code)

    def release(self, code: int) -> None:
        """Let go of an emergency stop, or plug the gripper in again. The error stays until it is cleaned."""
        self.pressed.discard(code)
        if code == 19:
            self.gripper.unplugged = False

    def fail(self, code: int, detail: tuple[float, ...] = ()) -> None:
        """Raise an error: state 4, mode 0, queue dropped; an emergency stop also drops motor power."""
        if code in EMERGENCY_STOPS:
            self.enabled, self._brake_hard = False, True
        if self.error == 0 or code in EMERGENCY_STOPS:
            self.error, self.detail = code, detail
        self.mode = POSITION
        self._halt(STOPPED, Feedback.FAILED)

    def clean_error(self) -> None:
        """Forget the error, unless its cause is still there. The arm stays in state 4."""
        self.error, self.detail = min(self.pressed, default=0), ()

    def _halt(self, state: int, code: int = Feedback.DISCARDED) -> None:
        self.state, self.pending = state, None
        ended = [finish for _, finish in self.moves if finish is not None] + self.waiting
        self.moves.clear()
        self.waiting.clear()
        for finish in ended:
            finish(code, self.microseconds)

    # --- orders -------------------------------------------------------------------------------------------------------

    def enable(self, on: bool) -> None:
        """Switch the motors on or off. Does nothing while an emergency stop is pressed."""
        if self.pressed:
            return
        if on and not self.enabled:
            self.set_point.jump_to(self.measured.joints)
            self._brake_hard = False
        self.enabled = on
        if not on:
            self._halt(STOPPED)

    def change_mode(self, mode: int) -> None:
        """Enter a mode; motion stops and state 0 must be set again. Ignored during an error."""
        if self.error == 0:
            self.mode = mode
            self._halt(RESET_NEEDED)

    def change_state(self, state: int) -> None:
        """Order 0 ready, 3 pause or 4 stop. Ready is refused during an error and with motors off."""
        if state == 0 and self.error == 0 and self.enabled:
            if self.state not in (MOVING, READY):
                self.target = self.set_point.q
                self.speeds.restart()
                self.state = READY
        elif state == 3 and self.state in (MOVING, READY):
            self.state = PAUSED
            for move, _ in self.moves:
                move.begun = False  # the rest of an interrupted move is planned anew
        elif state == 4:
            self._halt(STOPPED)

    def changed(self) -> None:
        """A setting that the motion depends on changed: state 5 until state 0 is set."""
        if self.state in (MOVING, READY, PAUSED):
            self._halt(RESET_NEEDED)

    @property
    def ready(self) -> bool:
        """Whether a motion command would be taken."""
        return self.state not in (STOPPED, RESET_NEEDED)

    def servo(self, target: Array) -> Reply:
        """Take a servo_j target; only the last one of a cycle survives."""
        if not self.ready or not np.isfinite(target).all():
            return Reply() if not self.ready else Reply(Status.INVALID)
        if self.mode != SERVO:
            self.ignored += 1
        else:
            self.lost += self.pending is not None
            self.pending = target
        return Reply()

    def move(self, goal: Array, speed: float, acceleration: float, finish: Finish | None) -> Reply:
        """Take a joint move: queued in mode 0, replaces the target in mode 6."""
        if not self.ready:
            return Reply()
        goal = np.where(np.isfinite(goal), goal, self.set_point.q)
        if not self._within_range(goal):
            return Reply()
        speed = min(max(speed, 1e-3), self.top_speed)
        acceleration = min(max(acceleration, 0.1), xarm6.MAX_JOINT_ACCELERATION)
        if self.mode == ONLINE:
            self.target, self.online_limits = goal, (speed, acceleration)
        elif self.mode == POSITION:
            self.moves.append((Move(goal, speed, acceleration), finish))
            self.state = MOVING
        else:
            self.ignored += 1
        return Reply()

    def when_idle(self, finish: Finish) -> None:
        """Tell `finish` once all queued moves are done."""
        self.waiting.append(finish)

    def tool_pose(self, joints: Array) -> tuple[float, ...]:
        """Pose of the tool with the set offset, x, y, z [mm] and roll, pitch, yaw [rad] (fixed axes)."""
        flange = xarm6.link_frames(joints)[-1, :3]
        rotation = flange[:, :3] @ _rpy_matrix(*self.settings.tcp_offset[3:])
        position = 1000 * flange[:, 3] + flange[:, :3] @ np.array(self.settings.tcp_offset[:3])
        roll = math.atan2(rotation[2, 1], rotation[2, 2])
        pitch = math.asin(max(-1.0, min(1.0, -rotation[2, 0])))
        return (*position.tolist(), roll, pitch, math.atan2(rotation[1, 0], rotation[0, 0]))


def _rpy_matrix(roll: float, pitch: float, yaw: float) -> Array:
    (sr, sp, sy), (cr, cp, cy) = np.sin((roll, pitch, yaw)), np.cos((roll, pitch, yaw))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
