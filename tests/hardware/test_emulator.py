"""The emulated controller by itself, in its own time: what raises which error and what happens afterwards."""

import numpy as np
import pytest

from horseshoe.hardware import xarm6
from horseshoe.hardware.emulator import Controller, KinematicArm
from horseshoe.hardware.emulator.protocol import Register, Request, Status, encode_reply, pack_floats, take_requests
from horseshoe.hardware.emulator.registers import answer
from horseshoe.hardware.timing_log import TimingLog, measure_delay

HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
DT = 0.004


def ask(controller: Controller, register: int, payload: bytes = b"") -> tuple[int, bytes]:
    reply = answer(controller, Request(1, 3, register, payload), None)
    return reply.status, reply.payload


def servo(controller: Controller, q: np.ndarray) -> int:
    return ask(controller, Register.MOVE_SERVOJ, pack_floats(*q, 0.0, 1.0, 5.0, 0.0))[0]


@pytest.fixture
def controller() -> Controller:
    """In servo mode, ready, at home."""
    controller = Controller(KinematicArm(HOME))
    controller.settings.tcp_offset = (0.0, 0.0, 1000 * xarm6.TOOL_OFFSET, 0.0, 0.0, 0.0)
    ask(controller, Register.MOTION_EN, bytes([8, 1]))
    ask(controller, Register.SET_MODE, bytes([1, 0]))
    ask(controller, Register.SET_STATE, bytes([0]))
    return controller


def stream(controller: Controller, velocity: np.ndarray, ticks: int) -> None:
    for _ in range(ticks):
        servo(controller, controller.target + velocity * DT)
        controller.tick()


def test_only_the_last_target_of_a_cycle_is_executed_and_the_others_are_lost(controller: Controller) -> None:
    for offset in (0.001, 0.002, 0.003):
        servo(controller, HOME + offset)
    controller.tick()
    assert controller.executed == 1 and controller.lost == 2
    assert np.allclose(controller.target, HOME + 0.003, atol=1e-6)


def test_set_point_obeys_the_firmware_limits_whatever_is_asked(controller: Controller) -> None:
    servo(controller, HOME + np.array([0.06, 0, 0, 0, 0, 0.06]))
    path = [controller.set_point.q]
    for _ in range(100):
        controller.tick()
        path.append(controller.set_point.q)
    velocity = np.diff(path, axis=0) / DT
    assert np.abs(velocity).max() <= xarm6.MAX_JOINT_SPEED + 1e-9
    assert np.abs(np.diff(velocity, axis=0)).max() / DT <= xarm6.MAX_JOINT_ACCELERATION + 1e-6
    assert np.allclose(path[-1][[0, 5]], HOME[[0, 5]] + 0.06, atol=1e-5)


def test_c23_when_a_target_is_outside_the_joint_limits(controller: Controller) -> None:
    beyond = HOME.copy()
    beyond[2] = xarm6.JOINT_UPPER[2] + 0.01
    servo(controller, beyond)
    controller.tick()
    assert (controller.error, controller.state, controller.mode) == (23, 4, 0)
    assert ask(controller, Register.GET_COMMON_INFO, bytes([103]))[1][0] == 3


def test_c24_when_a_joint_is_streamed_too_fast(controller: Controller) -> None:
    stream(controller, np.array([0, 0, 0, 0, 0, 1.1 * xarm6.MAX_JOINT_SPEED]), 10)
    assert controller.error == 24


def test_c60_when_the_tool_is_streamed_too_fast(controller: Controller) -> None:
    stream(controller, np.array([3.0, 2.0, 0, 0, 0, 0]), 10)
    assert controller.error == 60


def test_c35_when_the_tool_leaves_the_boundary(controller: Controller) -> None:
    controller.settings.boundary = (900, -900, 20, -900, 1000, -200)  # [mm], y at most 20
    controller.settings.fence = True
    stream(controller, np.array([0.5, 0, 0, 0, 0, 0]), 10)
    assert controller.error == 0
    stream(controller, np.array([0.5, 0, 0, 0, 0, 0]), 100)
    assert controller.error == 35


def test_c22_before_the_arm_meets_itself(controller: Controller) -> None:
    controller.settings.self_collision = True
    stream(controller, np.array([0, 0.0, 0, 0, 1.0, 0]), 50)  # away from the column
    assert controller.error == 0
    for _ in range(1500):  # the hand folds in towards the base
        stream(controller, np.array([0, -0.8, 0.0, 0, 0.6, 0]), 1)
        if controller.error:
            break
    assert controller.error == 22


@pytest.mark.parametrize("code", [1, 2, 3])
def test_emergency_stop_drops_power_and_cannot_be_cleared_while_pressed(controller: Controller, code: int) -> None:
    stream(controller, np.array([0.5, 0, 0, 0, 0, 0]), 20)
    controller.inject(code)
    for register, payload in ((16, b""), (11, bytes([8, 1])), (19, bytes([1, 0])), (12, bytes([0]))):
        status, _ = ask(controller, register, payload)
        assert status & Status.ERROR
    assert (controller.error, controller.state, controller.mode, controller.enabled) == (code, 4, 0, False)
    controller.release(code)
    assert controller.error == code
    ask(controller, Register.CLEAN_ERR)
    ask(controller, Register.SET_STATE, bytes([0]))
    assert (controller.error, controller.state) == (0, 4)  # motors are still off
    ask(controller, Register.MOTION_EN, bytes([8, 1]))
    ask(controller, Register.SET_STATE, bytes([0]))
    assert controller.state == 2


@pytest.mark.parametrize("code", [19, 22, 23, 24, 31, 35, 60])
def test_any_error_holds_the_arm_within_100_ms(controller: Controller, code: int) -> None:
    stream(controller, np.array([1.0, 0, 0, 0, 0, 0]), 30)
    assert controller.set_point.moving
    controller.inject(code)
    for _ in range(25):
        servo(controller, controller.target + 0.01)
        controller.tick()
    held = controller.set_point.q
    for _ in range(50):
        assert servo(controller, held + 0.01) & Status.NOT_READY
        controller.tick()
    assert np.array_equal(controller.set_point.q, held)


@pytest.mark.parametrize("register", [Register.SET_MODE, Register.SET_COLLIS_SENS])
def test_changed_settings_need_state_0_before_the_next_motion(controller: Controller, register: Register) -> None:
    ask(controller, register, bytes([1, 0]))
    assert controller.state == 5
    assert servo(controller, HOME) & Status.NOT_READY
    ask(controller, Register.SET_STATE, bytes([0]))
    assert not servo(controller, HOME) & Status.NOT_READY


def test_joint_move_starts_and_stops_all_joints_together(controller: Controller) -> None:
    controller.change_mode(0)
    controller.change_state(0)
    goal = HOME + np.array([0.5, 0.1, 0.0, -0.3, 0.0, 0.2])
    controller.move(goal, 1.0, 5.0, None)
    path = []
    while controller.moves:
        controller.tick()
        path.append(controller.set_point.q)
    share = (np.array(path) - HOME)[:, 0] / 0.5
    assert np.allclose(np.array(path), HOME + share[:, None] * (goal - HOME), atol=1e-9)
    assert np.abs(np.diff(path, axis=0)).max() / DT <= 1.0 + 1e-9
    assert np.allclose(path[-1], goal) and controller.state == 2


def test_frames_survive_being_cut_into_pieces() -> None:
    buffer, requests = bytearray(), []
    data = b"\x00\x07\x00\x03\x00\x02\x0c\x00" + b"\x00\x08\x00\x03\x00\x01\x0d"
    for byte in data:
        buffer.append(byte)
        requests += take_requests(buffer)
    assert [(r.transaction, r.register, r.payload) for r in requests] == [(7, 12, b"\0"), (8, 13, b"")]
    assert not buffer
    reply = encode_reply(requests[1], answer(Controller(KinematicArm()), requests[1], None))
    assert reply == b"\x00\x08\x00\x03\x00\x03\x0d\x10\x04"


@pytest.mark.parametrize("register", range(256))
def test_garbage_in_any_register_is_answered(register: int) -> None:
    controller = Controller(KinematicArm(HOME))
    for payload in (b"", b"\xff", bytes(7), b"\xff" * 64):
        answer(controller, Request(1, 3, register, payload), None)
        controller.tick()
    assert np.allclose(controller.set_point.q, HOME)


def test_measured_delay_is_that_of_the_servos(controller: Controller) -> None:
    log = TimingLog()
    for tick in range(1000):
        q = HOME + 0.2 * np.sin(2.0 * tick * DT) * np.array([1, 0, 0, 1, 0, 0])
        servo(controller, q)
        log.add_sent(tick * DT, q, 0)
        controller.tick()
        log.add_measured((tick + 1) * DT, controller.measured.joints)
    assert measure_delay(log.read()) == pytest.approx(0.022, abs=0.004)  # 20 ms of lag and a cycle


def test_delay_cannot_be_measured_on_an_arm_that_stands_still() -> None:
    log = TimingLog()
    for tick in range(1000):
        log.add_sent(tick * DT, HOME, 0)
        log.add_measured(tick * DT, HOME)
    with pytest.raises(ValueError, match=r"0\.02 rad"):
        measure_delay(log.read())
