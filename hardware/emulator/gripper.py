"""The xArm gripper on the emulated tool bus: Modbus-RTU registers without CRC, host id 9, slave id 8."""

import struct

from horseshoe.hardware import xarm6

HOST, SLAVE = 9, 8
PULSES = 850  # position when fully open
FULL_SPEED = 5000  # r/min that move at GRIPPER_MAX_SPEED; the ratio is a guess
BUS_TIME = 0.008  # [s] of one transaction; a guess
VERSION = (3, 4, 3)

ENABLE, MODE, SPEED, TARGET, POSITION, ERROR, CLEAR, STATUS = (
    0x0100, 0x0101, 0x0303, 0x0700, 0x0702, 0x000F, 0x0109, 0x0000,
)  # fmt: skip
VERSION_REGISTERS = (0x0801, 0x0802, 0x0803)
G2_COMMAND = 0x0C00
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS = 1, 2


class Gripper:
    """Registers and motion of the fingers.

    Attributes:
        opening: commanded distance between the pads, which runs at the set speed [m].
        measured: what the physical fingers did [m].
        unplugged: when set, nobody answers on the bus (C19).
    """

    def __init__(self, opening: float) -> None:
        self.opening = self.measured = self.goal = opening
        self.enabled, self.mode, self.speed, self.error, self.unplugged = False, 0, 2000, 0, False

    @property
    def status(self) -> int:
        """0 stopped, 1 moving, 2 holding something."""
        if abs(self.opening - self.goal) > 1e-6:
            return 1
        return 2 if abs(self.measured - self.goal) > 0.002 else 0

    def step(self, dt: float) -> None:
        """Run the fingers for `dt` [s]."""
        if self.enabled and self.goal != self.opening:
            reach = self.speed / FULL_SPEED * xarm6.GRIPPER_MAX_SPEED * dt
            self.opening += min(max(self.goal - self.opening, -reach), reach)

    def transact(self, frame: bytes) -> bytes:
        """Answer a Modbus-RTU frame without CRC; an unknown request gets the protocol's exception."""
        function, address = struct.unpack_from(">BH", frame, 1)
        if function == 0x03:
            values = self._read(address, struct.unpack_from(">H", frame, 4)[0])
            if values is not None:
                return struct.pack(">BBB", SLAVE, function, len(values)) + values
        elif function == 0x10:
            if self._write(address, frame[7 : 7 + frame[6]]):
                return frame[:6]
        else:
            return struct.pack(">BBB", SLAVE, function | 0x80, ILLEGAL_FUNCTION)
        return struct.pack(">BBB", SLAVE, function | 0x80, ILLEGAL_ADDRESS)

    def _read(self, address: int, count: int) -> bytes | None:
        if address == POSITION and count == 2:
            return struct.pack(">i", round(self.measured / xarm6.GRIPPER_STROKE * PULSES))
        values = {ENABLE: int(self.enabled), MODE: self.mode, SPEED: self.speed, ERROR: self.error, STATUS: self.status}
        values |= dict(zip(VERSION_REGISTERS, VERSION, strict=True))
        return struct.pack(">H", values[address]) if address in values and count == 1 else None

    def _write(self, address: int, data: bytes) -> bool:
        if address == TARGET:
            self._go(struct.unpack(">i", data)[0])
        elif address == G2_COMMAND:
            _, self.speed, _force, target = struct.unpack(">HHHi", data)
            self._go(target)
        elif address == ENABLE:
            self.enabled = data[1] != 0
        elif address == MODE:
            self.mode = data[1]
        elif address == SPEED:
            self.speed = struct.unpack(">H", data)[0]
        elif address == CLEAR:
            self.error = 0
        else:
            return False
        return True

    def _go(self, pulses: int) -> None:
        if self.enabled and self.error == 0:
            self.goal = min(max(pulses, 0), PULSES) / PULSES * xarm6.GRIPPER_STROKE
