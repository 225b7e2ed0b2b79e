"""The guard: what stops both arms, and what does not."""

import time
from dataclasses import replace

import numpy as np
import pytest

from horseshoe.hardware import capsules, xarm6
from horseshoe.hardware.arm_state import ArmSnapshot, Phase
from horseshoe.hardware.guard import Guard, GuardLimits
from tests.conftest import vendor_mesh

HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
NOW = 100.0


def bases(distance: float) -> dict[str, np.ndarray]:
    """Two arms that face each other across `distance` [m]."""
    right = np.diag([-1.0, -1.0, 1.0, 1.0])
    right[0, 3] = distance
    return {"left": np.eye(4), "right": right}


def arm(joints: np.ndarray = HOME, velocity: float = 0.0, **changes: object) -> ArmSnapshot:
    velocities = np.array([0.0, velocity, 0, 0, 0, 0])
    snapshot = ArmSnapshot(NOW, joints, velocities, NOW, joints, velocities, 0.08, Phase.STREAMING, False, "")
    return replace(snapshot, **changes)  # type: ignore[arg-type]


def check(left: ArmSnapshot, right: ArmSnapshot, distance: float = 1.5) -> str:
    return Guard(bases(distance)).check({"left": left, "right": right}, NOW)


def test_two_arms_at_rest_and_apart_may_go_on() -> None:
    assert check(arm(), arm()) == ""


def test_fault_of_one_arm_is_the_reason_for_both() -> None:
    assert check(arm(), arm(fault="right arm: C31: it hit something")) == "right arm: C31: it hit something"


def test_old_measurement_is_named_with_its_age() -> None:
    assert "left arm: the last measurement is 0.50 s old" in check(arm(time=NOW - 0.5), arm(time=NOW - 0.5))


def test_skew_between_the_arms_is_named() -> None:
    assert "0.180 s apart" in check(arm(time=NOW - 0.18), arm())


def test_arm_that_does_not_follow_is_stopped() -> None:
    assert "right arm: is 0.40 rad away" in check(arm(), arm(sent=HOME + np.array([0, 0, 0.4, 0, 0, 0])))


def test_measurement_that_is_not_a_number_is_a_reason() -> None:
    assert "not numbers" in check(arm(joints=np.full(6, np.nan)), arm())


def test_arms_too_close_are_stopped_and_the_parts_named() -> None:
    fault = check(arm(), arm(), distance=0.7)
    assert "left" in fault and "right" in fault and "limit 10 mm" in fault


def test_approach_is_stopped_earlier_when_it_is_fast() -> None:
    guard = Guard(bases(0.0), GuardLimits())
    gap = 0.05 + next(d for d in np.arange(0.6, 1.5, 0.005) if not check(arm(), arm(), d))
    guard = Guard(bases(gap))
    assert guard.check({"left": arm(), "right": arm()}, NOW) == ""
    assert guard.check({"left": arm(velocity=3.0), "right": arm(velocity=3.0)}, NOW) != ""
    assert guard.check({"left": arm(velocity=-3.0), "right": arm(velocity=-3.0)}, NOW) == ""


def test_arms_too_close_may_move_apart() -> None:
    touching = 0.02 + next(d for d in np.arange(0.6, 1.5, 0.005) if not check(arm(), arm(), d)) - 0.03
    assert check(arm(), arm(), touching) != ""
    assert check(arm(velocity=-1.0), arm(velocity=-1.0), touching) == ""


def test_hand_below_the_table_is_stopped() -> None:
    low = HOME + np.array([0, 0.9, 0, 0, 0, 0])
    assert "of the table" in check(arm(joints=low), arm())


def test_segment_distance_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 100, 2, 3))
    share = np.linspace(0, 1, 201)[:, None]
    points = [s[:, 0, None] + share * (s[:, 1] - s[:, 0])[:, None] for s in (first, second)]
    brute = np.linalg.norm(points[0][:, :, None] - points[1][:, None], axis=-1).min((1, 2))
    assert capsules.segment_distances(first, second) == pytest.approx(brute, abs=0.01)


@pytest.mark.parametrize(
    ("link", "mesh"),
    [
        (4, "xarm_description/meshes/xarm6/visual/link4.stl"),
        (5, "xarm_description/meshes/xarm6/visual/link5.stl"),
        (6, "xarm_gripper/meshes/base_link.STL"),
    ],
)
def test_from_the_wrist_on_the_capsules_hold_the_vendors_meshes_up_to_a_centimetre(link: int, mesh: str) -> None:
    vertices = vendor_mesh(mesh)
    rng = np.random.default_rng(0)
    for q in rng.uniform(-1.5, 1.5, (8, 6)):
        pose = xarm6.link_frames(q)[link - 1]
        points = vertices @ pose[:3, :3].T + pose[:3, 3]
        ends = capsules.arm_capsules(q, 0.085)
        along = ends[:, 1] - ends[:, 0]
        part = np.clip(((points[:, None] - ends[:, 0]) * along).sum(-1) / (along**2).sum(-1), 0, 1)
        off = np.linalg.norm(points[:, None] - ends[:, 0] - part[..., None] * along, axis=-1) - capsules.RADII
        assert off.min(1).max() < 0.01


def test_home_is_free_of_self_collision_and_the_guard_is_cheap_to_call() -> None:
    assert capsules.self_clearance(HOME, 0.08) > 0.05
    begin = time.process_time()
    for _ in range(20):
        check(arm(), arm())
    assert time.process_time() - begin < 1.0  # the rate itself is judged by the benchmark


def test_a_streaming_arm_is_judged_by_where_its_targets_come_to_rest() -> None:
    low = HOME + np.array([0, 0.48, 0, 0, -0.48, 0])  # the fingertips a few centimetres above the table
    dive = np.array([0.0, 1.5, 0, 0, 0, 0])
    still = arm(low)
    assert not check(still, arm())
    bumped = replace(still, velocities=dive)
    assert not check(bumped, arm()), "a finger that touches something jumps, its targets do not"
    assert "table" in check(replace(still, sent_velocities=dive), arm())
    assert "table" in check(replace(bumped, phase=Phase.IDLE), arm()), "what nobody streams to is judged as it moves"


def test_an_arm_that_is_too_low_already_is_stopped_whatever_its_targets_say() -> None:
    below = arm(HOME + np.array([0, 0.6, 0, 0, -0.6, 0]))
    above = HOME + np.array([0, 0.45, 0, 0, -0.45, 0])
    down, up = np.array([0.0, 0.2, 0, 0, 0, 0]), np.array([0.0, -0.2, 0, 0, 0, 0])
    assert "table" in check(replace(below, sent=above, velocities=down), arm())
    assert not check(replace(below, sent=above, velocities=up), arm()), "it may move away"
