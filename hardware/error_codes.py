"""What the controller's and the SDK's codes mean and what the operator should do about them."""

# Code: (what happened, what to do). Titles follow the vendor's manual, in our words.
CONTROLLER_ERRORS: dict[int, tuple[str, str]] = {
    1: ("the emergency stop button on the control box is pressed", "check the cell, turn the button to release it"),
    2: ("the emergency stop input of the control box is open", "check the cell and the wiring of both EI inputs"),
    3: ("the emergency stop of the three-position switch is pressed", "check the cell, release the switch"),
    10: ("a servo motor reports an error", "read the servo codes in UFACTORY Studio"),
    **{
        10 + joint: (
            f"the motor of joint {joint} reports an error",
            "power-cycle the arm; if it returns, call the vendor",
        )
        for joint in range(1, 8)
    },
    18: ("the force sensor does not answer", "check its cable, or disable it"),
    19: ("the gripper does not answer", "check the gripper's plug and its baud rate of 2,000,000"),
    21: ("the target has no kinematic solution", "choose another target"),
    22: ("the arm is about to collide with itself", "move it apart by hand in manual mode; check the targets"),
    23: ("a joint target is outside its limits", "check the targets; move to the start position"),
    24: ("a joint is commanded too fast", "lower the speed limit; look for late packets in the timing log"),
    25: ("the motion cannot be planned", "lower speed and acceleration"),
    26: ("the control box lost its real-time clock", "power-cycle the control box; if it returns, call the vendor"),
    27: ("the control box did not answer a command", "try again; if it returns, power-cycle the control box"),
    28: ("the tool board does not answer", "power-cycle with the emergency stop button"),
    30: ("a joint moves faster than it should", "stop using this arm and call the vendor"),
    31: ("abnormal motor current: the arm hit something", "look for the collision; check tool load and sensitivity"),
    32: ("three points give no arc", "choose other points"),
    33: ("the inputs and outputs of the control box failed", "power-cycle the control box"),
    34: ("a recording took longer than five minutes", "record a shorter trajectory"),
    35: ("the tool left the safety boundary", "move it back in manual mode; check the boundary of the cell"),
    36: ("more than 36 commands wait for a delay or a position", "send fewer of them"),
    37: ("unexpected motion in manual mode", "check tool load and mounting direction"),
    38: ("a joint angle is abnormal", "press the emergency stop and call the vendor"),
    39: ("the circuits of the power board do not hear each other", "call the vendor"),
    40: ("no error-free joint trajectory was found", "choose another position"),
    41: ("the file of joint frictions is not valid", "power-cycle with the emergency stop button; or call the vendor"),
    42: ("the calibration file is not valid", "power-cycle with the emergency stop button; or call the vendor"),
    50: ("the force sensor cannot be read", "check its cable, or disable it"),
    51: ("the force sensor does not take its mode", "check its cable, or disable it"),
    52: ("the force sensor cannot be set to zero", "take all load off it and try again"),
    53: ("the force sensor is overloaded", "take the load off the tool"),
    60: ("the tool is commanded too fast in servo mode", "lower the tool speed limit; look for late packets"),
    110: ("the base board of the arm does not answer", "power-cycle the arm; if it returns, call the vendor"),
    111: ("a device on the control box's serial port does not answer", "check its cable"),
}

# Return codes of SDK calls, where they do not stand for a controller error.
SDK_CODES: dict[int, tuple[str, str]] = {
    -8: ("the SDK refused a joint target outside the limits", "check the serial number's limits and the targets"),
    -1: ("the connection is closed", "check power and network cable, then connect again"),
    3: ("the controller does not answer", "check power and network cable, then connect again"),
    8: ("the connection broke while sending", "check power and network cable, then connect again"),
    9: ("the arm was stopped by someone else (pendant, UFACTORY Studio or another program)", "find out by whom"),
}


def describe_error(code: int) -> str:
    """What a controller error means and what to do, in one sentence."""
    happened, action = CONTROLLER_ERRORS.get(
        code, ("an error that is not in our table", "look it up in UFACTORY Studio")
    )
    return f"C{code}: {happened}. To do: {action}, then clear the error and enable"


def describe_code(code: int) -> str:
    """What a return code of the SDK means and what to do, in one sentence."""
    happened, action = SDK_CODES.get(code, ("the SDK reports a failure", "see the vendor's list of API codes"))
    return f"SDK code {code}: {happened}. To do: {action}"
