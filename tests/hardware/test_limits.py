"""No limit is ever exceeded, whatever is asked for; the emulated controller judges."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from horseshoe.hardware import xarm6
from horseshoe.hardware.arm_settings import ArmSettings, CommandRefused, check_targets
from horseshoe.hardware.emulator import Controller, KinematicArm
from horseshoe.hardware.emulator.protocol import Register, Request, pack_floats
from horseshoe.hardware.emulator.registers import answer
from horseshoe.hardware.limits import Limiter, ServoLimits
from horseshoe.hardware.servo_stream import ServoStream

ACTIONS = 100_000
DT = 0.004
HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
LOWER, UPPER = xarm6.JOINT_LOWER, xarm6.JOINT_UPPER


def controller_in_servo_mode(home: np.ndarray = HOME) -> Controller:
    controller = Controller(KinematicArm(home))
    controller.settings.tcp_offset = (0.0, 0.0, 1000 * xarm6.TOOL_OFFSET, 0.0, 0.0, 0.0)
    controller.enable(True)
    controller.change_mode(1)
    controller.change_state(0)
    return controller


def actions(kind: str, count: int, q: np.ndarray, dt: float, rng: np.random.Generator) -> np.ndarray:
    """A burst of targets: random ones, and those that break naive limiters."""
    if kind == "anywhere":
        return rng.uniform(1.5 * LOWER, 1.5 * UPPER, (count, 6))
    if kind == "corner":
        return np.tile(np.where(rng.random(6) < 0.5, 2 * LOWER, 2 * UPPER), (count, 1))
    if kind == "there and back":
        return q + np.where(np.arange(count) % 2, 1.0, -1.0)[:, None] * rng.uniform(0, 3, 6)
    if kind == "fold":  # joints that cancel each other's motion at the tool, then do not
        sign = rng.choice([-1.0, 1.0])
        return np.tile(q + sign * np.array([0, 3.0, -3.0, 0, 3.0, 0]), (count, 1))
    if kind == "noise":
        return q + np.cumsum(rng.normal(0, 0.05, (count, 6)), axis=0)
    steps = np.arange(1, count + 1)[:, None] * dt
    return q + steps * rng.uniform(-4, 4, 6)  # a ramp, often too fast


def stream_and_judge(limits: ServoLimits, rate: float, count: int, seed: int) -> int:
    """Stream random and adversarial actions, some ticks late, into a controller; the actions that it executed."""
    rng, dt = np.random.default_rng(seed), 1 / rate
    controller, stream = controller_in_servo_mode(), ServoStream(ArmSettings("left", "", rate, limits=limits))
    stream.begin(HOME, 0.0)
    kinds = ("anywhere", "corner", "there and back", "fold", "noise", "ramp")
    sent, executed, now, ticked = [HOME], [], 10.0, 10.0
    controller.on_execute = executed.append
    while len(sent) <= count:
        burst = actions(kinds[rng.integers(len(kinds))], int(rng.integers(1, 200)), stream.limiter.q, dt, rng)
        stream.take(burst, now)
        for _ in burst:
            late = int(rng.integers(1, 10)) if rng.random() < 0.02 else 0
            q = stream.next_target(now, late, stopping=False)
            frame = Request(1, 3, Register.MOVE_SERVOJ, pack_floats(*q.tolist(), 0.0, 1.0, 5.0, 0.0))
            assert answer(controller, frame, None).status == 0
            sent.append(q)
            now += (1 + late) * dt
            while ticked < now - 1e-9:
                controller.tick()
                ticked += DT
        assert controller.error == 0, f"C{controller.error} {controller.detail} after {len(sent)} actions"
    path = np.array(sent)
    velocity = np.diff(path, axis=0) / dt
    acceleration = np.diff(velocity, axis=0, prepend=np.zeros((1, 6))) / dt
    tool = xarm6.forward_kinematics(path)[:, :3, 3]
    assert len(executed) == len(sent) - 1
    assert np.all((path >= limits.lower) & (path <= limits.upper))
    assert np.abs(velocity).max() <= limits.speed * (1 + 1e-6)
    assert np.abs(acceleration).max() <= limits.acceleration * (1 + 1e-6)
    # The tool is judged by what the controller tolerates; our own limit may be passed by 2 % along a curve.
    assert np.linalg.norm(np.diff(tool, axis=0), axis=1).max() / dt <= 1.02 * limits.tool_speed
    assert controller.speeds.peak_joint_speed <= xarm6.MAX_JOINT_SPEED
    assert controller.speeds.peak_tool_speed <= xarm6.MAX_TOOL_SPEED
    return len(executed)


def test_no_limit_is_exceeded_by_100_000_random_and_adversarial_actions() -> None:
    slow = ServoLimits(tool_speed=0.25, speed=1.0, acceleration=5.0)
    # Four streams, so that two cores share the work: at the rate that policies are shipped with, and at the highest.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        streams = [(limits, rate, ACTIONS // 4, 0) for limits in (ServoLimits(), slow) for rate in (100.0, 250.0)]
        assert sum(pool.map(stream_and_judge, *zip(*streams, strict=True))) >= ACTIONS


def test_stream_within_the_limits_passes_unchanged() -> None:
    limiter = Limiter(ServoLimits(), DT)
    time = np.arange(0, 4, DT)
    wanted = HOME + 0.3 * (1 - np.cos(1.5 * time))[:, None] * np.array([1.0, 0.5, 0.5, 1.0, 0.5, 1.0])
    limiter.reset(HOME)
    sent = np.array([limiter.step(q) for q in wanted])
    assert np.abs(sent - wanted).max() < 1e-9


def test_target_out_of_reach_of_the_limits_is_reached_later_without_overshoot() -> None:
    limiter = Limiter(ServoLimits(), DT)
    limiter.reset(HOME)
    goal = HOME + np.array([1.0, 0.2, 0.2, -1.0, 0.3, 2.0])
    path = np.array([limiter.step(goal) for _ in range(1000)])
    assert np.allclose(path[-1], goal, atol=1e-6)
    assert np.all(np.abs(path - HOME) <= np.abs(goal - HOME) + 2e-3)


def test_braking_ends_at_rest_within_the_acceleration() -> None:
    limiter = Limiter(ServoLimits(), DT)
    limiter.reset(HOME)
    for _ in range(60):
        limiter.step(HOME + 2.0)
    assert np.abs(limiter.v).max() > 0.5
    velocities = []
    for _ in range(60):
        limiter.brake()
        velocities.append(limiter.v)
    assert not limiter.v.any()
    assert np.abs(np.diff(velocities, axis=0)).max() / DT <= limiter.limits.acceleration * (1 + 1e-9)


def test_late_ticks_skip_targets_instead_of_sending_faster() -> None:
    stream = ServoStream(ArmSettings("left", "127.0.0.1"))
    stream.begin(HOME, 0.0)
    plan = HOME + 0.0002 * np.arange(1, 101)[:, None]
    stream.take(plan, 5.0)
    first = stream.next_target(5.0, 0, stopping=False)
    after_pause = stream.next_target(5.044, 10, stopping=False)  # ten deadlines were missed
    assert np.allclose(first, plan[0])
    assert np.abs(after_pause - first).max() <= stream.limiter.limits.acceleration * DT * DT + 0.0002 + 1e-9
    rest = [stream.next_target(5.048 + DT * i, 0, stopping=False) for i in range(100)]
    assert np.abs(np.diff(rest, axis=0)).max() / DT <= ServoLimits().speed
    assert np.allclose(rest[-1], plan[-1])


def test_unanswered_targets_are_repeated_so_that_a_burst_of_them_is_no_jump() -> None:
    stream = ServoStream(ArmSettings("left", "127.0.0.1"))
    stream.begin(HOME, 0.0)
    stream.take(HOME + 0.002 * np.arange(1, 51)[:, None], 5.0)
    moving = [stream.next_target(5.0 + DT * i, 0, stopping=False) for i in range(20)]
    assert all(np.array_equal(stream.repeat(), moving[-1]) for _ in range(5))
    again = stream.next_target(5.2, 0, stopping=False)
    assert np.abs(again - moving[-1]).max() <= stream.limiter.limits.acceleration * DT * DT + 1e-9


@pytest.mark.parametrize("rate", [100.0, 150.0, 250.0])
def test_one_late_packet_at_full_speed_raises_no_error(rate: float) -> None:
    limits = ServoLimits(speed=xarm6.MAX_JOINT_SPEED).at_rate(rate)
    controller = controller_in_servo_mode()
    every, now = 1 / rate, 0.0
    target = HOME.copy()
    for packet in range(1, 100):
        arrival = packet * every + (0.9 * every if packet % 10 == 0 else 0.0)
        while now < arrival:
            controller.tick()
            now += DT
        target = target + np.array([0, 0, 0, 0, 0, limits.speed * every]) * (1 if packet < 60 else -1)
        controller.servo(target)
    assert controller.error == 0
    assert controller.speeds.peak_joint_speed > 0.6 * xarm6.MAX_JOINT_SPEED


def test_streaming_starts_slowly() -> None:
    settings = ArmSettings("left", "127.0.0.1", ramp=1.0)
    stream = ServoStream(settings)
    stream.begin(HOME, 0.0)
    stream.take(np.tile(HOME + 0.2, (1, 1)), 0.0)
    early = [stream.next_target(DT * i, 0, stopping=False) for i in range(25)]
    assert np.abs(np.diff(early, axis=0)).max() / DT <= 0.2 * settings.limits.speed


@pytest.mark.parametrize("field", ["speed", "acceleration", "tool_speed"])
def test_limits_the_firmware_does_not_allow_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        ServoLimits(**{field: 1000.0})


def test_refusal_of_a_jump_names_joint_and_limit() -> None:
    with pytest.raises(CommandRefused, match=r"left arm: target 0 jumps 0.400 rad on joint3; at most 0.25 rad"):
        check_targets(HOME + np.array([0, 0, 0.4, 0, 0, 0]), HOME, ArmSettings("left", "127.0.0.1"))
