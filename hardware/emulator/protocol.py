"""Frames of the controller's command port: registers, status bits, packing."""

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct(">HHHB")


class Register(IntEnum):
    """The registers that the emulator answers; names follow the SDK."""

    GET_VERSION = 1
    GET_ROBOT_SN = 2
    MOTION_EN = 11
    SET_STATE = 12
    GET_STATE = 13
    GET_CMDNUM = 14
    GET_ERROR = 15
    CLEAN_ERR = 16
    CLEAN_WAR = 17
    SET_BRAKE = 18
    SET_MODE = 19
    MOVE_JOINT = 23
    MOVE_JOINTB = 24
    MOVE_HOME = 25
    MOVE_SERVOJ = 29
    SET_TCP_JERK = 31
    SET_TCP_MAXACC = 32
    SET_JOINT_JERK = 33
    SET_JOINT_MAXACC = 34
    SET_TCP_OFFSET = 35
    SET_LOAD_PARAM = 36
    SET_COLLIS_SENS = 37
    SET_TEACH_SENS = 38
    CLEAN_CONF = 39
    SAVE_CONF = 40
    GET_TCP_POSE = 41
    GET_JOINT_POS = 42
    GET_FK = 44
    IS_JOINT_LIMIT = 45
    SET_REDUCED_TRSV = 47
    SET_REDUCED_P2PV = 48
    GET_REDUCED_MODE = 49
    SET_REDUCED_MODE = 50
    SET_GRAVITY_DIR = 51
    SET_LIMIT_XYZ = 52
    GET_REDUCED_STATE = 53
    GET_JOINT_TAU = 55
    SET_REDUCED_JRANGE = 58
    SET_FENSE_ON = 59
    SET_COLLIS_REB = 60
    SET_SELF_COLLIS_CHECK = 77
    SET_COLLIS_TOOL = 78
    SERVO_DBMSG = 106
    TGPIO_MB_TIOUT = 123
    RS485_RTU = 124
    TGPIO_ERR = 125
    TGPIO_W16B = 127
    TGPIO_R16B = 128
    SET_COMMON_PARAM = 232
    GET_COMMON_PARAM = 233
    GET_COMMON_INFO = 234
    FEEDBACK_CHECK = 253
    SET_FEEDBACK_TYPE = 254


class Status:
    """Bits of a reply's status byte."""

    INVALID = 0x08
    NOT_READY = 0x10
    WARNING = 0x20
    ERROR = 0x40


class Feedback:
    """Codes of a feedback frame: how a motion ended."""

    DONE = 0
    FAILED = 1
    DISCARDED = 2


@dataclass(frozen=True)
class Request:
    """One command frame."""

    transaction: int
    protocol: int
    register: int
    payload: bytes


@dataclass(frozen=True)
class Reply:
    """What a register answers, and how long the controller takes to [s]."""

    status: int = 0
    payload: bytes = b""
    delay: float = 0.0


def take_requests(buffer: bytearray) -> list[Request]:
    """Remove all complete frames from the front of `buffer` and return them."""
    requests = []
    while len(buffer) >= HEADER.size:
        transaction, protocol, length, register = HEADER.unpack_from(buffer)
        if len(buffer) < 6 + length:
            break
        requests.append(Request(transaction, protocol, register, bytes(buffer[HEADER.size : 6 + length])))
        del buffer[: 6 + max(length, 1)]
    return requests


def encode_reply(request: Request, reply: Reply) -> bytes:
    """The frame that answers `request`."""
    head = HEADER.pack(request.transaction, request.protocol, 2 + len(reply.payload), request.register)
    return head + bytes([reply.status]) + reply.payload


def encode_feedback(request: Request, kind: int, code: int, microseconds: int) -> bytes:
    """The unasked frame that tells how the motion started by `request` ended."""
    head = HEADER.pack(request.transaction, request.protocol, 15, 0xFF)
    return head + struct.pack(">BBBHBQ", 0, kind, request.register, 0, code, microseconds)


def floats(payload: bytes, count: int, offset: int = 0) -> tuple[float, ...]:
    """Unpack little-endian f32 parameters."""
    return struct.unpack_from(f"<{count}f", payload, offset)


def pack_floats(*values: float) -> bytes:
    """Pack little-endian f32 parameters."""
    return struct.pack(f"<{len(values)}f", *values)
