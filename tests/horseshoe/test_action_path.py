"""The action path: what is asked for, when it arrives, and what limits it on the way."""

from typing import Any

import numpy as np
import pytest

from horseshoe.action_config import ActionConfig
from horseshoe.action_path import ActionPath
from horseshoe.errors import HorseshoeError
from horseshoe.hardware import capsules, xarm6

HOME = np.array([0.0, -0.35, -0.9, 0.0, 1.25, 0.0])
LOOSE: dict[str, Any] = {"max_speed": 3.15, "max_acceleration": 20.0, "max_tool_speed": 1.2}


def config(**changes: Any) -> ActionConfig:
    return ActionConfig(tuple(xarm6.JOINT_LOWER), tuple(xarm6.JOINT_UPPER), **changes)


def path(n_envs: int = 1, n_arms: int = 1, delay: Any = 0.0, **changes: Any) -> ActionPath:
    made = ActionPath(config(**changes), n_envs, n_arms, xarm6.tool_pose_and_jacobian)
    made.reset(np.tile(HOME, (n_envs, n_arms, 1)), np.full((n_envs, n_arms), 0.05), delay)
    return made


def actions(seed: int, decisions: int, n_envs: int = 1, n_arms: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (decisions, n_envs, n_arms, 7))


def run(path: ActionPath, chosen: np.ndarray) -> np.ndarray:
    """Everything sent, (n_envs, ticks, n_arms, 7), by a robot that follows at once."""
    measured, sent = path._sent.copy(), []
    for action in chosen:
        sent.append(path.decision(action, measured))
        measured = sent[-1][:, -1, :, :6]
    return np.concatenate(sent, axis=1)


@pytest.mark.parametrize("ticks", [1, 7, 20, 33, 40])
def test_a_transport_delay_shifts_everything_sent_by_exactly_that_many_ticks(ticks: int) -> None:
    chosen = 0.2 * actions(0, 8)
    # Reach aside: it is measured from joints that arrive later too.
    prompt, late = run(path(reach=3.0), chosen), run(path(delay=ticks / 100, reach=3.0), chosen)
    assert np.ptp(prompt[..., :6], axis=1).max() > 0.02
    # The Jacobian of the tool speed limit is that of the last decision; it does not bind at this speed.
    np.testing.assert_allclose(late[:, ticks:], prompt[:, :-ticks], atol=1e-12)
    np.testing.assert_array_equal(late[:, :ticks, :, :6], np.tile(HOME, (1, ticks, 1, 1)))


def test_the_delay_of_one_environment_is_not_that_of_another() -> None:
    chosen = np.repeat(0.2 * actions(1, 5), 2, axis=1)
    sent = run(path(2, delay=[0.0, 0.1], reach=3.0), chosen)
    np.testing.assert_allclose(sent[1, 10:], sent[0, :-10], atol=1e-12)


def test_the_target_moves_at_once_whatever_the_delay() -> None:
    late = path(delay=0.4)
    action = np.full((1, 1, 7), 0.5)
    late.decide(action, HOME[None, None])
    np.testing.assert_allclose(late.target[0, 0, :6], HOME + 0.5 * np.array(late.config.joint_step))
    assert late.target[0, 0, 6] == pytest.approx(0.75 * 0.085)


@pytest.mark.parametrize("seed", range(5))
def test_random_actions_never_exceed_speed_acceleration_or_tool_speed(seed: int) -> None:
    cfg = config(max_speed=1.0, max_acceleration=8.0, max_tool_speed=0.3)
    fast = ActionPath(cfg, 3, 2, xarm6.tool_pose_and_jacobian)
    fast.reset(np.tile(HOME, (3, 2, 1)), np.zeros((3, 2)), [0.0, 0.05, 0.2])
    sent = run(fast, np.sign(actions(seed, 15, 3, 2)))[..., :6]
    sent = np.concatenate([np.tile(HOME, (3, 1, 2, 1)), sent], axis=1)
    speed = np.diff(sent, axis=1) * cfg.tick_rate
    assert np.abs(speed).max() <= cfg.max_speed + 1e-9
    assert np.abs(speed).max() > 0.9 * cfg.max_speed / 2  # it really moved
    gained = np.diff(np.abs(speed), axis=1) * cfg.tick_rate
    assert gained.max() <= cfg.max_acceleration + 1e-6
    tool = xarm6.forward_kinematics(sent)[..., :3, 3]
    # The limit takes the Jacobian of the decision; the arm turns by up to 0.2 rad until the next one.
    assert np.linalg.norm(np.diff(tool, axis=1), axis=-1).max() * cfg.tick_rate < 1.2 * cfg.max_tool_speed


def test_the_tool_never_reaches_the_speed_at_which_the_controller_stops_the_arm() -> None:
    made = path(4, 2, delay=[0.0, 0.05, 0.1, 0.2])
    sent = run(made, np.sign(actions(9, 40, 4, 2)))[..., :6]
    tool = xarm6.forward_kinematics(sent)[..., :3, 3]
    assert np.linalg.norm(np.diff(tool, axis=1), axis=-1).max() * made.config.tick_rate < xarm6.MAX_TOOL_SPEED


def test_nothing_is_sent_beyond_the_joint_limits() -> None:
    made = path(reach=3.0)
    near = np.clip(HOME, xarm6.JOINT_LOWER, xarm6.JOINT_UPPER)
    near[2] = xarm6.JOINT_UPPER[2] - 0.01
    made.reset(near[None, None], [[0.0]])
    sent = run(made, np.ones((10, 1, 1, 7)))
    assert sent[..., 2].max() == pytest.approx(xarm6.JOINT_UPPER[2])
    assert (sent[..., :6] <= xarm6.JOINT_UPPER + 1e-12).all()


def test_the_target_stays_within_reach_of_the_measured_joints() -> None:
    made = path(reach=0.2)
    for _ in range(10):  # an arm that is blocked
        made.decide(np.ones((1, 1, 7)), HOME[None, None])
    np.testing.assert_allclose(made.target[0, 0, :6], HOME + 0.2)


def test_reset_seeds_the_target_and_everything_sent_from_the_measured_joints() -> None:
    made = path()
    run(made, actions(2, 3))
    elsewhere = HOME + 0.3
    made.reset(elsewhere[None, None], [[0.02]])
    sent = made.decision(np.zeros((1, 1, 7)), elsewhere[None, None])
    np.testing.assert_allclose(sent[..., :6], np.tile(elsewhere, (1, 20, 1, 1)), atol=1e-12)


def test_resetting_one_environment_leaves_the_other_alone() -> None:
    both, alone, chosen = path(2), path(1), actions(3, 6, 2)
    run(both, chosen[:3])
    run(alone, chosen[:3, 1:])
    both.reset(HOME[None, None], [[0.0]], 0.1, np.array([True, False]))
    np.testing.assert_array_equal(run(both, chosen[3:])[1], run(alone, chosen[3:, 1:])[0])
    np.testing.assert_allclose(both.delay, [0.1, 0.0])


@pytest.mark.parametrize("delay", [-0.01, 0.41])
def test_a_delay_there_is_no_room_for_is_refused(delay: float) -> None:
    with pytest.raises(HorseshoeError, match=r"delay.*\[0, 0.4\].*max_delay"):
        path(delay=delay)


def test_interpolation_arrives_at_the_policys_target_with_the_decision() -> None:
    made = path(**LOOSE)
    sent = made.decision(np.full((1, 1, 7), 0.1), HOME[None, None])
    # Acceleration from rest costs a little more time.
    np.testing.assert_allclose(sent[:, -1, :, :6], made.target[..., :6], atol=2e-3)


def test_half_an_interpolation_arrives_after_half_a_decision() -> None:
    small = np.full((1, 1, 7), 0.005)  # which no limit of speed or acceleration holds back for longer than a tick
    for interpolation, arrived in ((0.5, 10), (1.0, 20)):
        made = path(interpolation=interpolation, **LOOSE)
        way = (made.decision(small, HOME[None, None])[0, :, 0, :6] - HOME) / (made.target[0, 0, :6] - HOME)
        np.testing.assert_allclose(way[: arrived - 1], np.tile(np.arange(1, arrived) / arrived, (6, 1)).T, atol=0.02)
        np.testing.assert_allclose(way[arrived:], 1.0, atol=1e-3)


def test_one_robot_does_what_it_does_in_a_batch() -> None:
    n, chosen = 3, actions(4, 6, 3, 2)
    batch = path(n, 2, delay=[0.0, 0.07, 0.2])
    measured, expected = batch._sent.copy(), []
    for action in chosen:
        expected.append(batch.decision(action, measured))
        measured = expected[-1][:, -1, :, :6]
    for env, delay in enumerate([0.0, 0.07, 0.2]):
        robot = path(1, 2, delay=delay)
        joints = np.tile(HOME, (1, 2, 1))
        for action, sent in zip(chosen, expected, strict=True):
            now = robot.decision(action[env : env + 1], joints)
            np.testing.assert_array_equal(now[0], sent[env])
            joints = now[:, -1, :, :6]


def test_what_is_sent_does_not_depend_on_the_threads() -> None:
    sent = []
    for threads in (1, 3):
        made = ActionPath(config(floor=0.05, clearance=0.03), 4, 2, xarm6.tool_pose_and_jacobian, gap, threads)
        made.reset(np.tile(HOME, (4, 2, 1)), np.full((4, 2), 0.05), [0.0, 0.05, 0.1, 0.2])
        sent.append(run(made, actions(6, 10, 4, 2)))
    np.testing.assert_array_equal(*sent)


def test_a_snapshot_continues_exactly() -> None:
    made, chosen = path(2, delay=0.13), actions(5, 8, 2)
    run(made, chosen[:4])
    kept = made.snapshot()
    first = run(made, chosen[4:])
    other = path(2)
    other.restore(kept)
    np.testing.assert_array_equal(run(other, chosen[4:]), first)


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 1, 6)), np.zeros((2, 1, 7)), np.full((1, 1, 7), np.nan), np.full((1, 1, 7), np.inf)]
)
def test_an_action_that_is_no_action_is_refused_and_moves_nothing(wrong: np.ndarray) -> None:
    made = path()
    before = made.snapshot()
    with pytest.raises(HorseshoeError, match="action: "):
        made.decide(wrong, HOME[None, None])
    for name, value in made.snapshot().items():
        np.testing.assert_array_equal(value, before[name])


def test_actions_beyond_one_count_as_one() -> None:
    a, b = path(), path()
    np.testing.assert_array_equal(run(a, np.full((2, 1, 1, 7), 9.0)), run(b, np.ones((2, 1, 1, 7))))


def test_a_tick_rate_that_does_not_fit_the_decisions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tick_rate: 100.0 Hz is no multiple of decision_rate 7.0 Hz"):
        config(decision_rate=7.0)


def lowest_fingertip(joints: np.ndarray, opening: float) -> float:
    """As the guard sees it [m]."""
    fingers = [capsules.NAMES.index(name) for name in ("left finger", "right finger")]
    return float((capsules.arm_capsules(joints, opening)[fingers, 1, 2] - capsules.RADII[fingers]).min())


def test_a_hand_commanded_into_the_table_slides_along_above_it() -> None:
    made, measured, floor = path(floor=0.05), HOME[None, None].copy(), 0.05
    down = np.zeros((1, 1, 7))
    down[..., 1], down[..., 0] = 1.0, 0.3  # the shoulder leans forward while the arm turns
    heights = []
    for _ in range(30):
        measured = made.decision(down, measured)[:, -1, :, :6]
        heights.append(lowest_fingertip(measured[0, 0], 0.05))
    assert heights[0] > 0.15
    assert min(heights) == pytest.approx(floor, abs=0.002), "it gets to the floor and no further"
    assert measured[0, 0, 0] > HOME[0] + 0.5, "and still moves sideways there"


def lowest_part_of_the_hand(joints: np.ndarray, opening: float) -> float:
    """As the guard sees it [m]."""
    hand = [capsules.NAMES.index(name) for name in ("gripper", "left finger", "right finger")]
    return float((capsules.arm_capsules(joints, opening)[hand, :, 2].min(1) - capsules.RADII[hand]).min())


@pytest.mark.parametrize("roll", [0.0, 0.8, 1.57])
def test_a_hand_that_leans_over_keeps_its_knuckles_and_its_palm_off_the_table(roll: float) -> None:
    made, measured = path(floor=0.05), HOME[None, None].copy()
    measured[..., 5] = roll
    made.reset(measured, np.array([[0.05]]))
    leaning = np.zeros((1, 1, 7))
    leaning[..., 1], leaning[..., 4] = 0.7, 0.6  # the hand tilts back while it goes down
    heights, tips = [], []
    for _ in range(20):
        measured = made.decision(leaning, measured)[:, -1, :, :6]
        heights.append(lowest_part_of_the_hand(measured[0, 0], 0.05))
        tips.append(lowest_fingertip(measured[0, 0], 0.05))
    assert heights[0] > 0.1
    assert min(heights) == pytest.approx(0.05, abs=0.003)
    assert min(tips) > 0.055, "something else is lower"


def test_a_diving_hand_slows_down_on_its_way_to_the_floor() -> None:
    down = np.zeros((12, 1, 1, 7))
    down[..., 1] = 1.0
    sent = run(path(floor=0.05), down)[0, :, 0]
    heights = np.array([lowest_fingertip(q, 0.05) for q in sent[:, :6]]) - 0.05
    fall = -np.diff(heights) * 100.0
    assert fall.max() > 0.2, "it dives"
    assert (fall < 8.0 * np.maximum(heights[:-1], 0.0) + 0.02).all()
    assert -0.001 < heights.min() < 0.01


def test_a_target_above_the_floor_is_left_alone() -> None:
    chosen = 0.2 * actions(3, 6)
    np.testing.assert_array_equal(run(path(floor=0.05), chosen), run(path(floor=-1.0), chosen))


BASES = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
BASES[:, 0, 3] = -0.48, 0.48


def gap(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between two arms that face each other."""
    return capsules.gaps_and_gradients(q, BASES)


def lean_together(**changes: Any) -> tuple[float, np.ndarray]:
    """Tell both arms to lean at each other and turn: their smallest distance [m], and the joints where they end."""
    made = ActionPath(config(**changes), 1, 2, xarm6.tool_pose_and_jacobian, gap)
    measured, gaps = np.tile(HOME, (1, 2, 1)), []
    made.reset(measured, np.full((1, 2), 0.05))
    action = np.tile([0.1, 0.5, -0.2, 0.0, 0.0, 0.0, 0.0], (1, 2, 1))
    for _ in range(40):
        sent = made.decision(action, measured)[0, :, :, :6]
        gaps.append(gap(sent)[0].min())
        measured = sent[None, -1]
    return min(gaps), measured


def test_arms_commanded_into_each_other_slide_past_at_a_distance() -> None:
    assert lean_together()[0] < -0.02, "left to themselves they meet"
    nearest, ended = lean_together(clearance=0.03)
    assert nearest == pytest.approx(0.03, abs=0.01)
    assert np.abs(ended - HOME).max() > 0.3


def test_a_clearance_that_nothing_measures_is_refused() -> None:
    with pytest.raises(HorseshoeError, match=r"clearance: is 0.02 m, but nothing here measures"):
        path(2, 2, clearance=0.02)


def test_what_one_hand_must_do_to_stay_above_the_floor_changes_no_other_environment() -> None:
    still, down = np.zeros((1, 1, 7)), np.zeros((1, 1, 7))
    down[..., 1] = 1.0
    made = path(floor=0.0)
    made.decide(still, HOME[None, None])
    barely = made._above(HOME[None, None], made._spread)[0].item() + 5e-5  # below the floor, but within its tolerance
    both, alone = path(2, floor=barely), path(floor=barely)
    measured = np.tile(HOME, (2, 1, 1))
    sent = both.decision(np.concatenate([down, still]), measured)
    np.testing.assert_array_equal(alone.decision(still, measured[1:])[0], sent[1])
