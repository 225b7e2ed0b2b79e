"""The `horseshoe emulator` command as a user meets it."""

import signal
import subprocess
import sys

import pytest

from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm, cannot_bind

# Addresses of their own, so that other tests may emulate the usual ones meanwhile.
SCRIPT = """
import horseshoe.hardware.cli as cli
cli.HOSTS.update(left="127.0.0.21", right="127.0.0.22")
cli.emulator()
"""


@pytest.mark.parametrize("arms", [(), ("--arm", "left")])
def test_ctrl_c_ends_it_without_a_traceback_and_frees_the_ports(arms: tuple[str, ...]) -> None:
    if reason := cannot_bind("127.0.0.21"):
        pytest.skip(f"no controller can be emulated: {reason}")
    command = [sys.executable, "-u", "-c", SCRIPT, *arms]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "error 0" not in (line := process.stdout.readline()):
        assert line, "ended early"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped" in output
    assert errors == ""
    assert cannot_bind("127.0.0.21") == ""


def test_address_in_use_is_refused_in_one_line() -> None:
    if reason := cannot_bind("127.0.0.21"):
        pytest.skip(f"no controller can be emulated: {reason}")
    with ControllerServer(Controller(KinematicArm()), "127.0.0.21"):
        assert "is another emulator running" in cannot_bind("127.0.0.21")
