"""The PyBullet twin: the same cell and task, with arms, grips and latches that hold together physically."""

import gymnasium as gym
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("mujoco")
pytest.importorskip("pybullet")

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import blueprint, cell, magnets, twin_arm
from horseshoe.sim.assembly.starts import HOME, inverse_kinematics
from horseshoe.sim.assembly.twin import TwinWorld
from horseshoe.sim.assembly.world import PhysicsRange, WorldState
from tests.conftest import vendor_mesh

CELL = cell.load()
GRASP = np.array([-0.15, 0.1, 0.014])  # of the left arm's tool about leg_a, world [m]
ASIDE = np.array([[0.1, -0.15, 0.02], [-0.15, 0.1, 0.02], [0.2, 0.25, 0.02]])
UPRIGHT = np.tile([1.0, 0.0, 0.0, 0.0], (3, 1))


@pytest.fixture(scope="module")
def twin() -> TwinWorld:
    return TwinWorld(CELL, blueprint.load("u_shape"), 1, PhysicsRange(), pool=1)


def left_joints(place: np.ndarray) -> np.ndarray:
    """The left arm's joints with the tool down at a place [m], closing along the world's x."""
    pose = np.eye(4)
    pose[:3, :3] = (Rotation.from_euler("z", np.pi / 2) * Rotation.from_euler("x", np.pi)).as_matrix()
    pose[:3, 3] = place
    pose = np.linalg.inv(CELL.base_poses[0]) @ pose
    start = HOME.copy()
    start[0] = np.arctan2(pose[1, 3], pose[0, 3])
    q, reached = inverse_kinematics(pose[None], start[None], 100)
    assert reached.all()
    return q[0]


def park(twin: TwinWorld, position: np.ndarray, left: np.ndarray = HOME) -> None:
    q = np.stack([left, HOME])[None]
    index = np.zeros(1, dtype=np.intp)
    twin.reset(np.ones(1, dtype=bool), index, q, np.full((1, 2), 0.06), position[None], UPRIGHT[None])


def go(twin: TwinWorld, ticks: int, left: np.ndarray = HOME, opening: float = 0.06) -> WorldState:
    targets = np.zeros((1, ticks, 2, 7))
    targets[:, :, 0], targets[:, :, 1] = np.append(left, opening), np.append(HOME, 0.06)
    twin.advance(targets)
    return twin.state()


def legs_apart(gap: float) -> np.ndarray:
    """leg_a with that much air [m] in front of the base's left socket."""
    return np.array([[0.0, 0.0, 0.02], [-0.08, 0.06 + gap, 0.02], [0.2, 0.3, 0.02]])


def test_the_vendors_links_and_our_kinematics_put_the_tool_in_the_same_place(twin: TwinWorld) -> None:
    rng = np.random.default_rng(0)
    for q in rng.uniform(xarm6.JOINT_LOWER / 2, xarm6.JOINT_UPPER / 2, (20, 6)):
        park(twin, ASIDE, q)
        arm, client = twin.cells[0].arms[0], twin.cells[0].client
        link = client.getLinkState(arm.body, arm.link["link6"], computeForwardKinematics=True)
        tool = link[4] + xarm6.TOOL_OFFSET * Rotation.from_quat(link[5]).as_matrix()[:, 2]
        expected = CELL.base_poses[0] @ xarm6.forward_kinematics(q)
        np.testing.assert_allclose(tool, expected[:3, 3], atol=1e-4)


@pytest.mark.parametrize("opening", [0.02, 0.06, 0.085])
def test_the_opening_is_the_distance_between_the_pads(twin: TwinWorld, opening: float) -> None:
    park(twin, ASIDE)
    state = go(twin, 100, opening=opening)
    assert state.opening[0, 0] == pytest.approx(opening, abs=5e-4)
    arm, client = twin.cells[0].arms[0], twin.cells[0].client
    left, right = (
        client.getLinkState(arm.body, arm.link[f"{side}_finger"], computeForwardKinematics=True)[4]
        for side in ("left", "right")
    )
    pads = np.linalg.norm(np.subtract(left, right)) - 2 * 0.026  # a pad stands 26 mm in from its finger's pivot
    assert state.opening[0, 0] == pytest.approx(pads, abs=5e-4)


def test_a_servo_reaches_its_target_and_holds_the_arm_up(twin: TwinWorld) -> None:
    park(twin, ASIDE)
    ramp = np.linspace(0, 0.15, 30)
    for step in ramp:
        state = go(twin, 1, HOME + step)
    assert np.abs(state.q[0, 0] - HOME).min() > 0.05, "it follows"
    state = go(twin, 40, HOME + 0.15)
    np.testing.assert_allclose(state.q[0, 0], HOME + 0.15, atol=1e-3)
    np.testing.assert_allclose(state.q[0, 1], HOME, atol=1e-3)
    assert np.abs(state.qd).max() < 0.01


def test_a_held_block_is_lifted_and_stays_held_through_a_shake(twin: TwinWorld) -> None:
    grasp, up = left_joints(GRASP), left_joints(GRASP + [0, 0, 0.12])
    park(twin, ASIDE, grasp)
    go(twin, 60, grasp, opening=0.02)
    for part in np.linspace(0, 1, 60):
        go(twin, 1, grasp + part * (up - grasp), opening=0.02)
    lifted = go(twin, 40, up, opening=0.02)
    assert lifted.position[0, 1, 2] == pytest.approx(0.14, abs=0.002)
    for tick in range(100):
        sway = 0.1 * np.sin(0.04 * np.pi * tick) * np.array([1, 0, 0, 0, 1, 0])
        go(twin, 1, up + sway, opening=0.02)
    shaken = go(twin, 60, up, opening=0.02)
    np.testing.assert_allclose(shaken.position[0, 1], lifted.position[0, 1], atol=0.002)
    assert shaken.opening[0, 0] == pytest.approx(0.04, abs=0.003)


def test_a_hand_that_opens_drops_its_block(twin: TwinWorld) -> None:
    grasp, up = left_joints(GRASP), left_joints(GRASP + [0, 0, 0.1])
    park(twin, ASIDE, grasp)
    go(twin, 60, grasp, opening=0.02)
    for part in np.linspace(0, 1, 50):
        go(twin, 1, grasp + part * (up - grasp), opening=0.02)
    assert go(twin, 80, up, opening=0.085).position[0, 1, 2] < 0.05


def test_a_hand_pressed_on_the_table_is_felt_and_does_not_pass_through(twin: TwinWorld) -> None:
    low = left_joints(GRASP * [1, -1, 0] + [0, 0, 0.02])
    park(twin, ASIDE, low)
    assert go(twin, 20, low).table_contact.max() == 0.0
    pressed = go(twin, 30, left_joints(GRASP * [1, -1, 0] + [0, 0, -0.01]))
    assert pressed.table_contact[0, 0] > 20.0
    assert pressed.table_contact[0, 1] == 0.0
    arm, client = twin.cells[0].arms[0], twin.cells[0].client
    finger = client.getLinkState(arm.body, arm.link["left_finger"], computeForwardKinematics=True)
    tip = finger[4][2] + 0.0605 * Rotation.from_quat(finger[5]).as_matrix()[2, 2]
    assert tip == pytest.approx(0.0, abs=0.003)


def test_two_blocks_are_pulled_together_from_12_mm_and_left_alone_at_40_mm(twin: TwinWorld) -> None:
    for gap, joined in ((0.012, True), (0.040, False)):
        park(twin, legs_apart(gap))
        state = go(twin, 100)
        distance, angle = twin.magnets.gaps(state.position, magnets.matrices(state.quaternion))
        assert twin.magnets.latched.any() == joined
        if joined:
            assert distance.min() < 1e-3
            assert angle[0, distance.argmin()] < 0.01
        else:
            assert distance.min() == pytest.approx(gap, abs=1e-3)
        assert np.abs(state.velocity).max() < 0.01, "and all is at rest"


@pytest.mark.parametrize(("force", "holds"), [(0.7, True), (2.5, False)])
def test_a_latch_holds_a_pull_below_its_force_and_breaks_away_above(
    twin: TwinWorld, force: float, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(twin, legs_apart(0.003))
    go(twin, 60)
    assert twin.magnets.latched.any()
    magnetic = twin.magnets.wrenches

    def pulled(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """At the magnet, so that nothing turns: a couple about the base's centre would break it too."""
        total = magnetic(position, rotation)
        pull = np.array([0.0, force * magnets.BREAK_FORCE, 0.0])
        total[:, 1, :3] += pull
        total[:, 0, :3] -= pull
        total[:, 0, 3:] -= np.cross([-0.08, 0.0, 0.0], pull)
        return total

    monkeypatch.setattr(twin.magnets, "wrenches", pulled)
    state = go(twin, 40)
    assert twin.magnets.latched.any() == holds
    distance, _ = twin.magnets.gaps(state.position, magnets.matrices(state.quaternion))
    assert (distance.min() < 1e-3) == holds


def test_latched_blocks_can_be_pressed_together_without_breaking(
    twin: TwinWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(twin, legs_apart(0.003))
    go(twin, 60)
    magnetic = twin.magnets.wrenches

    def pressed(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        total = magnetic(position, rotation)
        push = np.array([0.0, 3 * magnets.BREAK_FORCE, 0.0])
        total[:, 1, :3] -= push
        total[:, 0, :3] += push
        total[:, 0, 3:] += np.cross([-0.08, 0.0, 0.0], push)
        return total

    monkeypatch.setattr(twin.magnets, "wrenches", pressed)
    go(twin, 60)
    assert twin.magnets.latched.any()
    force, _ = twin.cells[0].load()
    assert force.max() < magnets.BREAK_FORCE


def test_overlapping_blocks_part_without_an_explosion(twin: TwinWorld) -> None:
    park(twin, np.array([[0.0, 0.0, 0.02], [0.1, 0.055, 0.02], [-0.02, 0.2, 0.015]]))
    speed = max(np.abs(go(twin, 2).velocity[..., :3]).max() for _ in range(25))
    assert speed < 2.0
    assert not twin.diverged.any()
    assert go(twin, 20).position[..., 2].min() > 0.015


def test_whole_episodes_of_random_actions_repeat_exactly_from_their_seed() -> None:
    def run() -> tuple[np.ndarray, list[int]]:
        env = gym.make_vec(
            "horseshoe.sim:horseshoe/UShape-v0",
            num_envs=2,
            vectorization_mode="vector_entry_point",
            engine="pybullet",
            start_batch=64,
            config={"task": {"horizon": 3.0}},
        )
        assert isinstance(env.unwrapped.world, TwinWorld)  # type: ignore[attr-defined]
        rng = np.random.default_rng(1)
        observation, _ = env.reset(seed=5)
        seen, outcomes = [observation], []
        for _ in range(16):
            observation, _, _, _, info = env.step(rng.uniform(-1, 1, (2, 2, 7)))
            assert np.isfinite(observation).all()
            seen.append(observation)
            outcomes += info["outcome"][info["outcome"] > 0].tolist()
        return np.array(seen), outcomes

    first, outcomes = run()
    again, _ = run()
    np.testing.assert_array_equal(first, again)
    assert len(outcomes) >= 2, "both ran out of time and began anew"


def test_episodes_differ_in_their_physics() -> None:
    twin = TwinWorld(CELL, blueprint.load("connect"), 1, pool=8)
    masses = []
    for index in range(2):
        q = np.tile(HOME, (1, 2, 1))
        twin.reset(
            np.ones(1, dtype=bool), np.array([index]), q, np.full((1, 2), 0.06), ASIDE[None, :2], UPRIGHT[None, :2]
        )
        masses.append(twin.cells[0].client.getDynamicsInfo(twin.cells[0].blocks[0], -1)[0])
    assert masses[0] != masses[1]


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(
        HorseshoeError, match=r"'gazebo' is unknown; choose from \['mujoco', 'pybullet', 'quasistatic'\]"
    ):
        gym.make_vec("horseshoe.sim:horseshoe/UShape-v0", vectorization_mode="vector_entry_point", engine="gazebo")


def test_the_twin_says_that_it_cannot_be_saved(twin: TwinWorld) -> None:
    with pytest.raises(HorseshoeError, match="pybullet cannot save"):
        twin.snapshot()


def test_the_fingers_boxes_are_no_thicker_than_the_vendors_mesh_towards_the_tip() -> None:
    """Or a hand that leans presses on the table with corners that no real finger has."""
    points = vendor_mesh("xarm_gripper/meshes/left_finger.STL")
    boxes = [(np.array(centre), np.array(size) / 2) for part, centre, size in twin_arm._BOXES if part == "finger"]
    lower = points[points[:, 2] > 0.04]
    reached = [(c - h, c + h) for c, h in boxes if c[2] + h[2] > 0.04]
    for axis in range(3):
        assert min(low[axis] for low, _ in reached) > lower[:, axis].min() - 0.002 or axis == 2
        assert max(high[axis] for _, high in reached) < lower[:, axis].max() + 0.002
    outside = [(np.abs(points - c) - h).max(1) for c, h in boxes]
    assert np.min(outside, axis=0).max() < 0.008, "and nothing of the mesh sticks out by more than 8 mm"
