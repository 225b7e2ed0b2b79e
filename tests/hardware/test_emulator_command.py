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


def test_what_is_typed_makes_things_go_wrong() -> None:
    if reason := cannot_bind("127.0.0.21"):
        pytest.skip(f"no controller can be emulated: {reason}")
    command, pipe = [sys.executable, "-u", "-c", SCRIPT], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write("left fault 31\nmiddle fault 31\nright explode 1\nright fault 1\n")
    process.stdin.flush()
    said: list[str] = []
    while not {"left arm: mode 0, state 4, error 31\n", "right arm: mode 0, state 4, error 1\n"} <= set(said):
        said.append(process.stdout.readline())
        assert said[-1], "ended early"
    for wrong in ("middle fault 31", "right explode 1"):
        assert process.stderr.readline() == (
            f"not understood: {wrong!r}; type {{left,right}} {{fault,release,stall,loss,delay,cut}} NUMBER\n"
        )
    process.send_signal(signal.SIGINT)
    assert "stopped" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_address_in_use_is_refused_in_one_line() -> None:
    if reason := cannot_bind("127.0.0.21"):
        pytest.skip(f"no controller can be emulated: {reason}")
    with ControllerServer(Controller(KinematicArm()), "127.0.0.21"):
        assert "is another emulator running" in cannot_bind("127.0.0.21")
