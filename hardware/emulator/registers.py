"""What each register of the command port does to an emulated controller."""

import math
import struct
from collections.abc import Callable

import numpy as np

from horseshoe.hardware import xarm6
from horseshoe.hardware.emulator.controller import Controller, Finish
from horseshoe.hardware.emulator.gripper import BUS_TIME, HOST
from horseshoe.hardware.emulator.protocol import Register as R
from horseshoe.hardware.emulator.protocol import Reply, Request, Status, floats, pack_floats

Notify = Callable[[Request, int, int], None]
Handler = Callable[[Controller, bytes], Reply]

VERSION = "v2.7.1"
BAUD_REGISTER, BAUD_2M = 0x0A0B, 11
MOTION_FINISH = 2  # bit of the feedback type
# Settings without an effect here: they are acknowledged, as the SDK expects.
ACKNOWLEDGED = {
    R.CLEAN_WAR, R.SET_BRAKE, R.SET_TCP_JERK, R.SET_TCP_MAXACC, R.SET_JOINT_JERK, R.SET_JOINT_MAXACC, R.CLEAN_CONF,
    R.SAVE_CONF, R.SET_GRAVITY_DIR, R.SET_COLLIS_REB, R.TGPIO_MB_TIOUT, R.TGPIO_W16B,
}  # fmt: skip


def answer(controller: Controller, request: Request, notify: Notify | None) -> Reply:
    """Carry out a request and answer it.

    Args:
        controller: whose state it reads or changes.
        request: the frame.
        notify: sends a feedback frame (request, code, microseconds) later; None if the client did not ask for them.
    """
    ready = controller.ready  # as it was when the request came: a setting may ask for a reset but is itself taken
    reply = _dispatch(controller, request, notify)
    status = reply.status | (0 if ready else Status.NOT_READY)
    status |= Status.ERROR if controller.error else 0
    status |= Status.WARNING if controller.warning else 0
    return Reply(status, reply.payload, reply.delay)


def _dispatch(controller: Controller, request: Request, notify: Notify | None) -> Reply:
    register, payload = request.register, request.payload
    try:
        if register in (R.MOVE_JOINT, R.MOVE_JOINTB):
            values = floats(payload, 10)
            return controller.move(np.array(values[:6]), values[7], values[8], Finish(notify, request))
        if register == R.MOVE_HOME:
            speed, acceleration, _ = floats(payload, 3)
            return controller.move(np.zeros(6), speed, acceleration, Finish(notify, request))
        if register == R.FEEDBACK_CHECK:
            controller.when_idle(Finish(notify, request))
            return Reply()
        if register in ACKNOWLEDGED:
            return Reply()
        handler = _HANDLERS.get(register)
        return handler(controller, payload) if handler is not None else Reply(Status.INVALID)
    except (struct.error, IndexError):
        return Reply(Status.INVALID)


def _servo(c: Controller, p: bytes) -> Reply:
    return c.servo(np.array(floats(p, 6)))


def _version(c: Controller, p: bytes) -> Reply:
    text = f"6,6,{c.serial[:6]},AC{c.serial[2:6]},{VERSION}"
    return Reply(payload=text.encode().ljust(40, b"\0"))


def _serial(c: Controller, p: bytes) -> Reply:
    return Reply(payload=f"{c.serial}\0AC{c.serial[2:]}".encode().ljust(40, b"\0"))


def _enable(c: Controller, p: bytes) -> Reply:
    c.enable(p[1] != 0)
    return Reply()


def _set_state(c: Controller, p: bytes) -> Reply:
    c.change_state(p[0])
    return Reply()


def _set_mode(c: Controller, p: bytes) -> Reply:
    c.change_mode(p[0])
    return Reply()


def _clean_error(c: Controller, p: bytes) -> Reply:
    c.clean_error()
    return Reply()


def _joints(c: Controller, p: bytes) -> Reply:
    if not p:
        return Reply(payload=pack_floats(*c.set_point.q, 0.0))
    state = c.measured
    rows = (state.joints, state.velocities, np.zeros(6))[: p[0] & 0x0F]
    return Reply(payload=b"".join(pack_floats(*row, 0.0) for row in rows))


def _forward(c: Controller, p: bytes) -> Reply:
    return Reply(payload=pack_floats(*c.tool_pose(np.array(floats(p, 6)))))


def _joint_limit(c: Controller, p: bytes) -> Reply:
    q = np.array(floats(p, 6))
    return Reply(payload=bytes([int(bool(np.any((q < xarm6.JOINT_LOWER) | (q > xarm6.JOINT_UPPER))))]))


def _setting(name: str, decode: Callable[[bytes], object], reset: bool = False) -> Handler:
    """A register that stores one setting; `reset` if motion must be made ready again after it."""

    def handle(c: Controller, p: bytes) -> Reply:
        setattr(c.settings, name, decode(p))
        if reset:
            c.changed()
        return Reply()

    return handle


def _reduced_state(c: Controller, p: bytes) -> Reply:
    s = c.settings
    body = struct.pack(">B6h", s.reduced, *s.boundary) + pack_floats(s.reduced_tcp_speed, s.reduced_joint_speed)
    return Reply(payload=body + pack_floats(*s.reduced_range) + bytes([s.fence, 0]))


def _gripper(c: Controller, p: bytes) -> Reply:
    if c.gripper.unplugged:
        c.fail(19)
        return Reply(Status.INVALID, bytes([HOST]), BUS_TIME)
    return Reply(payload=bytes([HOST]) + c.gripper.transact(p[1:]), delay=BUS_TIME)


def _read_bus_parameter(c: Controller, p: bytes) -> Reply:
    address = struct.unpack_from(">H", p, 1)[0]
    return Reply(payload=struct.pack(">i", BAUD_2M if address == BAUD_REGISTER else 0), delay=BUS_TIME)


def _set_common(c: Controller, p: bytes) -> Reply:
    if p[0] == 1:
        c.settings.tcp_speed_factor = floats(p, 1, 1)[0]
    return Reply()


def _get_common(c: Controller, p: bytes) -> Reply:
    return Reply(payload=pack_floats(c.settings.tcp_speed_factor) if p[0] == 1 else bytes(4))


def _error_detail(c: Controller, p: bytes) -> Reply:
    code = {101: 31, 103: 23, 104: 24, 105: 60}.get(p[0])
    if code is None:
        return Reply(Status.INVALID)
    counts = {31: (1, 2), 23: (1, 7), 24: (1, 1), 60: (0, 2)}[code]
    values = c.detail if c.error == code else ()
    values = (*values, *[0.0] * (sum(counts) - len(values)))
    return Reply(payload=bytes([int(v) for v in values[: counts[0]]]) + pack_floats(*values[counts[0] : sum(counts)]))


_HANDLERS: dict[int, Handler] = {
    R.GET_VERSION: _version,
    R.GET_ROBOT_SN: _serial,
    R.MOTION_EN: _enable,
    R.SET_STATE: _set_state,
    R.GET_STATE: lambda c, p: Reply(payload=bytes([c.state])),
    R.GET_CMDNUM: lambda c, p: Reply(payload=struct.pack(">H", len(c.moves))),
    R.GET_ERROR: lambda c, p: Reply(payload=bytes([c.error, c.warning])),
    R.CLEAN_ERR: _clean_error,
    R.SET_MODE: _set_mode,
    R.MOVE_SERVOJ: _servo,
    R.SET_TCP_OFFSET: _setting("tcp_offset", lambda p: floats(p, 6), reset=True),
    R.SET_LOAD_PARAM: _setting("load", lambda p: floats(p, 4), reset=True),
    R.SET_COLLIS_SENS: _setting("collision_sensitivity", lambda p: p[0], reset=True),
    R.SET_TEACH_SENS: _setting("teach_sensitivity", lambda p: p[0], reset=True),
    R.GET_TCP_POSE: lambda c, p: Reply(payload=pack_floats(*c.tool_pose(c.set_point.q))),
    R.GET_JOINT_POS: _joints,
    R.GET_FK: _forward,
    R.IS_JOINT_LIMIT: _joint_limit,
    R.SET_REDUCED_TRSV: _setting("reduced_tcp_speed", lambda p: floats(p, 1)[0]),
    R.SET_REDUCED_P2PV: _setting("reduced_joint_speed", lambda p: max(floats(p, 1)[0], math.radians(1))),
    R.GET_REDUCED_MODE: lambda c, p: Reply(payload=bytes([c.settings.reduced])),
    R.SET_REDUCED_MODE: _setting("reduced", lambda p: p[0] != 0),
    R.SET_LIMIT_XYZ: _setting("boundary", lambda p: struct.unpack_from("<6i", p)),
    R.GET_REDUCED_STATE: _reduced_state,
    R.GET_JOINT_TAU: lambda c, p: Reply(payload=bytes(28)),
    R.SET_REDUCED_JRANGE: _setting("reduced_range", lambda p: floats(p, 14)),
    R.SET_FENSE_ON: _setting("fence", lambda p: p[0] != 0),
    R.SET_SELF_COLLIS_CHECK: _setting("self_collision", lambda p: p[0] != 0),
    R.SET_COLLIS_TOOL: _setting("tool_model", lambda p: p[-1]),
    R.SERVO_DBMSG: lambda c, p: Reply(payload=bytes(16)),
    R.RS485_RTU: _gripper,
    R.TGPIO_ERR: lambda c, p: Reply(payload=bytes([c.error if c.error == 19 else 0, c.gripper.error])),
    R.TGPIO_R16B: _read_bus_parameter,
    R.SET_COMMON_PARAM: _set_common,
    R.GET_COMMON_PARAM: _get_common,
    R.GET_COMMON_INFO: _error_detail,
}
