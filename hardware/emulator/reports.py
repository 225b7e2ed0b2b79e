"""The reports that a controller sends unasked; offsets as in the SDK's report structures."""

import struct

from horseshoe.hardware.emulator.controller import Controller
from horseshoe.hardware.emulator.protocol import pack_floats

REAL_SIZE, NORMAL_SIZE, RICH_SIZE = 135, 145, 587
ALL_MOTORS = 0x3F


def _head(c: Controller, size: int) -> bytes:
    """Size, mode and state, queue length, joints, tool pose, torques: 87 bytes that all reports share."""
    head = struct.pack(">IBH", size, c.mode << 4 | c.state, len(c.moves))
    return head + pack_floats(*c.set_point.q, 0.0, *c.tool_pose(c.set_point.q), *[0.0] * 7)


def real(c: Controller) -> bytes:
    """Port 30003, 100 Hz: joints and force sensor, no error code."""
    return _head(c, REAL_SIZE) + bytes(48)


def normal(c: Controller, size: int = NORMAL_SIZE) -> bytes:
    """Port 30001, 5 Hz: adds motor and error state, tool settings."""
    s, motors = c.settings, ALL_MOTORS if c.enabled else 0
    body = _head(c, size) + bytes([motors, motors, c.error, c.warning]) + pack_floats(*s.tcp_offset, *s.load)
    return body + bytes([s.collision_sensitivity, s.teach_sensitivity]) + pack_floats(0.0, 0.0, -1.0)


def rich(c: Controller) -> bytes:
    """Port 30002, 5 Hz: adds nearly everything else the controller knows."""
    s, report = c.settings, bytearray(RICH_SIZE)
    report[:NORMAL_SIZE] = normal(c, RICH_SIZE)
    report[145:147] = bytes([6, 6])
    report[151:157] = b"v2.7.1"
    struct.pack_into("<5f", report, 181, 1000.0, 1.0, 50000.0, 0.1, 1000.0)
    struct.pack_into("<5f", report, 201, 20.0, 0.01, 20.0, 0.0001, 4.0)
    struct.pack_into("<2f", report, 221, 2.3, 2.7)
    report[245:251] = bytes([35] * 6)
    struct.pack_into("<6f", report, 256, *c.set_point.v)
    report[315:317] = bytes([s.self_collision, s.tool_model])
    struct.pack_into(">6H", report, 341, *[4800] * 6)
    report[494:496] = bytes([s.reduced | s.fence << 1, s.reduced])
    struct.pack_into(">6h", report, 496, *s.boundary)
    struct.pack_into("<16f", report, 508, s.reduced_tcp_speed, s.reduced_joint_speed, *s.reduced_range)
    report[572] = s.fence
    return bytes(report)
