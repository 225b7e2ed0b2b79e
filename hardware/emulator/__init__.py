"""An xArm6 controller that the unmodified SDK talks to over TCP; `docs/emulator.md` says what is known and guessed."""

from horseshoe.hardware.emulator.arm_model import ArmModel, ArmState, KinematicArm
from horseshoe.hardware.emulator.controller import Controller
from horseshoe.hardware.emulator.server import ControllerServer, cannot_bind

__all__ = ["ArmModel", "ArmState", "Controller", "ControllerServer", "KinematicArm", "cannot_bind"]
