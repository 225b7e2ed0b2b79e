"""Every fault, on either arm, while both move: both hold until an operator acts, and the message says why."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from horseshoe.hardware.arm_settings import GRIPPER_MASS, ArmError, CommandRefused
from horseshoe.hardware.arm_state import Phase
from horseshoe.hardware.emulator.controller import EMERGENCY_STOPS
from horseshoe.hardware.error_codes import CONTROLLER_ERRORS
from horseshoe.hardware.sdk import connect_sdk, disconnect_sdk
from horseshoe.hardware.xarm6 import TOOL_OFFSET
from tests.conftest import NoteFault, wait_until
from tests.hardware.conftest import HOME, HOSTS, Pair

ARMS = ("left", "right")
OTHER = {"left": "right", "right": "left"}
CODES = (1, 2, 3, 19, 22, 23, 24, 31, 35, 60)
HOLD_WITHIN = 0.1  # [s]


def both_stopped(pair: Pair) -> bool:
    return all(driver.snapshot().phase is Phase.STOPPED for driver in pair.drivers.values())


def longest_rest_time(pair: Pair, since: dict[str, int]) -> float:
    """Emulated time from these ticks until the set points of both arms stood still for good [s]."""
    return max(pair.rest_time(each, since[each]) for each in ARMS)


def nothing_moves(pair: Pair) -> bool:
    """Watch both arms for 200 ms of emulated time, after 100 ms for what was under way."""
    held: list[list[np.ndarray]] = []
    for ticks in (25, 50):
        goal = {arm: pair.controller(arm).ticks + ticks for arm in ARMS}
        wait_until(lambda goal=goal: all(pair.controller(arm).ticks >= goal[arm] for arm in ARMS))
        held.append([pair.controller(arm).set_point.q for arm in ARMS])
    return np.array_equal(*held)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("code", CODES)
def test_fault_on_one_arm_holds_both_until_an_operator_clears_it(
    pair: Pair, note_fault: NoteFault, arm: str, code: int
) -> None:
    pair.swing()
    paused = pair.not_run()
    since = {each: pair.controller(each).ticks for each in ARMS}
    pair.servers[arm].run(lambda controller: controller.inject(code))
    wait_until(lambda: both_stopped(pair))
    paused = pair.not_run() - paused

    assert pair.rest_time(arm, since[arm]) <= HOLD_WITHIN
    assert pair.rest_time(OTHER[arm], since[OTHER[arm]]) <= HOLD_WITHIN + paused
    assert nothing_moves(pair)
    held = longest_rest_time(pair, since)
    note_fault(f"controller error C{code}", f"{arm} arm", pair.drivers[OTHER[arm]].snapshot().fault, held)
    happened, action = CONTROLLER_ERRORS[code]
    for each in ARMS:
        fault = pair.drivers[each].snapshot().fault
        assert f"{arm} arm: C{code}: {happened}" in fault and action in fault
        with pytest.raises(ArmError, match=f"C{code}"):
            pair.drivers[each].send(HOME)
    assert pair.controller(arm).state == 4 and pair.controller(arm).mode == 0
    assert pair.controller(OTHER[arm]).state == 4

    if code in EMERGENCY_STOPS:  # clearing is in vain while the button is pressed
        with pytest.raises(ArmError, match=f"C{code}"):
            pair.drivers[arm].clear()
        assert not pair.controller(arm).enabled
    pair.recover()
    assert all(
        driver.snapshot().phase is Phase.IDLE and not driver.snapshot().fault for driver in pair.drivers.values()
    )


@pytest.mark.parametrize("arm", ARMS)
def test_cut_link_stops_the_other_arm_and_reconnecting_is_the_operators_act(
    pair: Pair, note_fault: NoteFault, arm: str
) -> None:
    pair.swing()
    pair.servers[arm].cut()
    pair.retune(arm, link_timeout=0.5)
    since = pair.noticed(arm)
    wait_until(lambda: both_stopped(pair))
    assert nothing_moves(pair)
    fault = pair.drivers[OTHER[arm]].snapshot().fault
    assert f"{arm} arm: SDK code 3: the controller does not answer" in fault
    note_fault("link cut", f"{arm} arm", fault, longest_rest_time(pair, since))
    with pytest.raises(ArmError, match="no xArm controller answers"):
        pair.drivers[arm].connect()
    pair.servers[arm].cut(False)
    pair.recover()
    pair.swing()


@pytest.mark.parametrize("arm", ARMS)
def test_controller_that_is_switched_off_is_named(pair: Pair, note_fault: NoteFault, arm: str) -> None:
    pair.swing()
    pair.servers[arm].drop_clients()
    since = pair.noticed(arm)
    wait_until(lambda: both_stopped(pair))
    fault = pair.drivers[arm].snapshot().fault
    assert "connection" in fault or "does not answer" in fault
    assert nothing_moves(pair)
    note_fault("controller switched off", f"{arm} arm", fault, longest_rest_time(pair, since))


def test_stall_of_190_ms_is_ridden_out_without_a_jump(pair: Pair) -> None:
    pair.swing()
    controller = pair.controller("left")
    pair.servers["left"].stall(0.19)
    time.sleep(0.5)
    assert controller.error == 0
    assert pair.drivers["left"].snapshot().phase is Phase.STREAMING
    assert controller.speeds.peak_joint_speed < np.pi


def test_lost_and_late_replies_do_not_stop_the_stream(pair: Pair) -> None:
    pair.swing()
    pair.servers["right"].loss, pair.servers["right"].delay = 0.05, 0.002
    time.sleep(0.8)
    assert pair.drivers["right"].snapshot().phase is Phase.STREAMING
    assert pair.controller("right").error == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.full(6, np.nan), "NaN"),
        (np.append(HOME[:5], np.inf), "infinity"),
        (HOME[:5], "shape"),
        (np.zeros((0, 6)), "shape"),
        (["a"] * 6, "not numbers"),
        (HOME + 1.0, "jumps 1.000 rad"),
        (np.stack([HOME, HOME + 0.5]), "target 1 jumps"),
    ],
)
def test_invalid_targets_are_refused_and_the_last_valid_ones_stay(pair: Pair, targets: object, message: str) -> None:
    driver = pair.drivers["left"]
    driver.start()
    with pytest.raises(CommandRefused, match=message):
        driver.send(targets)  # type: ignore[arg-type]
    assert driver.snapshot().phase is Phase.STREAMING
    assert np.abs(driver.send(HOME).joints - HOME).max() < 0.02


def test_watchdog_holds_then_stops_when_commands_cease(pair: Pair) -> None:
    pair.swing()
    pair.stop_feeding.set()
    driver = pair.drivers["left"]
    pair.retune("left", hold_after=0.3)
    wait_until(lambda: driver.snapshot().holding)
    assert driver.snapshot().phase is Phase.STREAMING
    pair.retune("left", stop_after=0.6)
    wait_until(lambda: both_stopped(pair))
    assert "no commands arrive" in driver.snapshot().fault
    assert pair.controller("left").state == 4
    assert nothing_moves(pair)


def test_somebody_elses_stop_is_not_undone(pair: Pair) -> None:
    pair.swing()
    pair.servers["left"].run(lambda controller: controller.change_state(4))
    wait_until(lambda: both_stopped(pair))
    assert "stopped by someone else" in pair.drivers["left"].snapshot().fault


@pytest.mark.parametrize("arm", ARMS)
def test_driver_stops_when_the_gripper_bus_dies(pair: Pair, note_fault: NoteFault, arm: str) -> None:
    pair.swing()
    pair.servers[arm].run(lambda c: setattr(c.gripper, "unplugged", True))
    pair.drivers[arm].send(pair.drivers[arm].snapshot().sent, opening=0.03)
    since = pair.noticed(arm)
    wait_until(lambda: both_stopped(pair))
    fault = pair.drivers[arm].snapshot().fault
    assert nothing_moves(pair)
    assert "C19" in fault
    note_fault("gripper unplugged", f"{arm} arm", fault, longest_rest_time(pair, since))
    gripper = pair.controller(arm).gripper
    before = gripper.goal
    pair.servers[arm].run(lambda c: (setattr(c.gripper, "unplugged", False), c.release(19)))
    pair.drivers[arm].clear()
    time.sleep(0.5)
    assert gripper.goal == before, "it must not do by itself what was wanted before the stop"


def test_a_released_arm_goes_on_without_an_operator(pair: Pair) -> None:
    driver = pair.drivers["left"]
    driver.start()
    driver.release()
    wait_until(lambda: driver.snapshot().phase is Phase.STOPPED)
    assert driver.released and driver.snapshot().fault == ""
    driver.resume()
    assert driver.snapshot().phase is Phase.IDLE
    driver.start()
    assert driver.snapshot().phase is Phase.STREAMING


def _collide(pair: Pair) -> None:
    pair.servers["left"].run(lambda controller: controller.inject(31))


def _call_stop(pair: Pair) -> None:
    pair.drivers["left"].stop("somebody calls stop")


@pytest.mark.parametrize(("event", "message"), [(_collide, "C31"), (_call_stop, "somebody calls stop")])
def test_what_happens_to_a_released_arm_is_lifted_by_an_operator_only(
    pair: Pair, event: Callable[[Pair], None], message: str
) -> None:
    driver = pair.drivers["left"]
    driver.start()
    driver.release()
    wait_until(lambda: driver.snapshot().phase is Phase.STOPPED)
    event(pair)
    wait_until(lambda: message in driver.snapshot().fault)
    assert not driver.released
    with pytest.raises(ArmError, match=message):
        driver.resume()
    assert driver.snapshot().phase is Phase.STOPPED
    driver.clear()
    assert driver.snapshot().phase is Phase.IDLE


def test_preparing_an_arm_tells_its_controller_all_settings(pair: Pair) -> None:
    driver, before = pair.drivers["left"], pair.drivers["left"].settings
    driver.settings = replace(before, load=0.5, sensitivity=2, boundary=((-0.2, -0.5, 0.0), (0.7, 0.5, 1.0)))
    driver.prepare()
    told = pair.controller("left").settings
    assert told.load[0] == pytest.approx(GRIPPER_MASS + 0.5)
    assert told.tcp_offset[2] == pytest.approx(1000 * TOOL_OFFSET)
    assert (told.collision_sensitivity, told.self_collision, told.tool_model) == (2, True, 1)
    assert (told.fence, told.boundary) == (True, (700, -200, 500, -500, 1000, 0))
    driver.settings = before
    driver.prepare()
    assert not pair.controller("left").settings.fence


def test_a_preparation_that_fails_leaves_the_arm_stopped_until_all_of_it_is_done(pair: Pair) -> None:
    driver = pair.drivers["left"]
    driver.settings = replace(driver.settings, load=0.5)
    pair.servers["left"].run(lambda c: setattr(c.gripper, "unplugged", True))
    with pytest.raises(ArmError, match="gripper"):
        driver.prepare()
    assert driver.snapshot().phase is Phase.STOPPED
    assert "gripper" in driver.snapshot().fault
    with pytest.raises(ArmError, match="stopped"):
        driver.move_to(HOME)
    pair.servers["left"].run(lambda c: (setattr(c.gripper, "unplugged", False), c.release(19)))
    driver.clear()
    assert pair.controller("left").settings.load[0] == pytest.approx(GRIPPER_MASS + 0.5)
    assert driver.snapshot().phase is Phase.IDLE
    driver.settings = replace(driver.settings, load=0.0)
    driver.prepare()


def test_an_arm_that_streams_is_neither_cleared_nor_prepared(pair: Pair) -> None:
    driver = pair.drivers["left"]
    driver.start()
    for act in (driver.clear, driver.prepare):
        with pytest.raises(ArmError, match="left arm: is streaming; stop it first"):
            act()
    assert driver.snapshot().phase is Phase.STREAMING


def test_an_arm_outside_its_limits_does_not_stream(pair: Pair) -> None:
    driver, before = pair.drivers["left"], pair.drivers["left"].settings
    upper = before.limits.upper.copy()
    upper[1] = driver.snapshot().joints[1] - 0.01
    driver.settings = replace(before, limits=replace(before.limits, upper=upper))
    with pytest.raises(ArmError, match=r"joint 2 is at .* rad, outside"):
        driver.start()
    assert driver.snapshot().phase is Phase.IDLE
    driver.settings = before


def test_every_error_that_the_sdk_knows_is_named_in_plain_words() -> None:
    from xarm.core.config.x_code import ControllerErrorCodeMap

    assert {code for code in ControllerErrorCodeMap if isinstance(code, int)} <= set(CONTROLLER_ERRORS)


@pytest.mark.parametrize("report", ["normal", "rich", "real"])
def test_the_sdk_hears_joints_and_errors_in_every_kind_of_report(pair: Pair, report: str) -> None:
    api = connect_sdk(HOSTS["left"], 1.0, report_type=report)
    try:
        wait_until(lambda: np.allclose(api.angles[:6], HOME, atol=0.02))
        pair.servers["left"].run(lambda controller: controller.inject(31))
        wait_until(lambda: api.state == 4)
        wait_until(lambda: api.error_code == 31 if report != "real" else api.get_err_warn_code()[1][0] == 31)
    finally:
        disconnect_sdk(api)


def test_closing_a_connection_ends_although_a_thread_of_the_sdk_waits_for_ever(pair: Pair) -> None:
    api = connect_sdk(HOSTS["left"], 1.0, report_type="real")
    for_ever = threading.Event()
    api._arm._stream_report.join = for_ever.wait  # what its race for a full queue comes to
    begin = time.monotonic()
    disconnect_sdk(api)
    assert time.monotonic() - begin < 10.0
    assert not api.connected
    for_ever.set()
