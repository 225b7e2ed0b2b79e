"""What an arm sees does not depend on which arm it is, nor on which side it works."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import blueprint, cell
from horseshoe.sim.assembly.magnets import matrices, rotation_angle
from horseshoe.sim.assembly.scene import FIELDS, MIRROR_ACTION, MIRROR_JOINTS, Assignment, Scene, SceneObserver
from horseshoe.sim.assembly.starts import StartConfig, Starts, StartSampler

FLIP = np.diag([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def observer() -> SceneObserver:
    return SceneObserver(cell.load(), blueprint.load("u_shape"))


@pytest.fixture(scope="module")
def starts(observer: SceneObserver) -> Starts:
    return StartSampler(observer.cell, observer.blueprint).sample(np.random.default_rng(0), 128, StartConfig())


def scene_of(starts: Starts) -> Scene:
    target = np.concatenate([starts.q + 0.05, starts.command[..., None]], -1)
    return Scene(starts.q.copy(), starts.opening, starts.position.copy(), matrices(starts.quaternion), target)


def reflected(scene: Scene) -> Scene:
    """The scene behind a mirror between the arms: arms change places, blocks are their own image."""
    target = scene.target[:, ::-1] * [*MIRROR_JOINTS, 1]
    rotation = FLIP @ scene.rotation @ FLIP
    q = scene.q[:, ::-1] * MIRROR_JOINTS
    return Scene(q, scene.opening[:, ::-1], scene.position * [-1, 1, 1], rotation, target)


def reflected_assignment(observer: SceneObserver, assignment: Assignment) -> Assignment:
    """Left socket and right one change places, and so do the arms."""
    table = {tuple(row): i for i, row in enumerate(observer.blueprint.pairs.tolist())}
    image = {i: table[(1 - c, 1 - s, a)] for (c, s, a), i in table.items()}
    return Assignment(np.vectorize(image.__getitem__)(assignment.pair)[:, ::-1])


def some_assignments(observer: SceneObserver, n: int) -> Assignment:
    return Assignment(observer._options[np.random.default_rng(1).integers(len(observer._options), size=n)])


def test_a_reflected_tool_is_where_the_other_arms_tool_would_be(observer: SceneObserver, starts: Starts) -> None:
    scene = scene_of(starts)
    tool, image = observer.tool_poses(scene.q), observer.tool_poses(reflected(scene).q)
    np.testing.assert_allclose(image[..., :3, 3], tool[:, ::-1, :3, 3] * [-1, 1, 1], atol=1e-9)


def test_the_observation_of_a_mirrored_cell_is_the_mirrored_observation(
    observer: SceneObserver, starts: Starts
) -> None:
    plain = SceneObserver(observer.cell, observer.blueprint)
    plain._mirror_pair[:] = False  # nobody is shown a mirror image
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    image = plain.observe(reflected(scene), reflected_assignment(observer, assignment))
    expected = plain.observe(scene, assignment)[:, ::-1] * FIELDS.mirror
    for name, where in FIELDS.slices.items():
        np.testing.assert_allclose(image[..., where], expected[..., where], atol=1e-9, err_msg=name)


def test_an_arm_at_the_right_socket_sees_what_one_at_the_left_socket_would_see(
    observer: SceneObserver, starts: Starts
) -> None:
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    other = reflected_assignment(observer, assignment)
    seen, image = observer.observe(scene, assignment), observer.observe(reflected(scene), other)
    np.testing.assert_allclose(image, seen[:, ::-1], atol=1e-9)
    np.testing.assert_array_equal(observer.mirrored(other), ~observer.mirrored(assignment)[:, ::-1])


def test_the_same_action_moves_the_reflected_arm_the_reflected_way(observer: SceneObserver, starts: Starts) -> None:
    assignment = some_assignments(observer, len(starts))
    other = reflected_assignment(observer, assignment)
    action = np.random.default_rng(2).uniform(-1, 1, (len(starts), 2, 7))
    moved = observer.unmirror(action, assignment)
    np.testing.assert_array_equal(observer.unmirror(action[:, ::-1], other), moved[:, ::-1] * MIRROR_ACTION)


def test_turning_the_whole_cell_by_half_a_turn_changes_the_arms_and_nothing_else(
    observer: SceneObserver, starts: Starts
) -> None:
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    half = np.diag([-1.0, -1.0, 1.0])
    turned = Scene(
        scene.q[:, ::-1], scene.opening[:, ::-1], scene.position @ half, half @ scene.rotation, scene.target[:, ::-1]
    )
    seen = observer.observe(turned, Assignment(assignment.pair[:, ::-1]))
    np.testing.assert_allclose(seen, observer.observe(scene, assignment)[:, ::-1], atol=1e-9)


def test_no_arm_owns_a_leg_or_a_side(observer: SceneObserver, starts: Starts) -> None:
    pair = observer.assign(scene_of(starts)).pair
    pairs, block = observer.blueprint.pairs, observer.blueprint.magnet_block
    for arm in range(2):
        served = {(int(pairs[p, 0]), int(block[pairs[p, 2]])) for p in pair[:, arm]}
        assert served == {(0, 1), (0, 2), (1, 1), (1, 2)}
    both = pairs[pair]
    assert (both[:, 0, 0] != both[:, 1, 0]).all(), "one connection each"
    assert (block[both[:, 0, 2]] != block[both[:, 1, 2]]).all(), "one leg each"


def test_roles_follow_the_scene_not_the_names_of_legs(observer: SceneObserver, starts: Starts) -> None:
    """With the two (equal) legs exchanged, each arm serves the same place with the other leg."""
    scene, bp = scene_of(starts), observer.blueprint
    order = [0, 2, 1]
    exchanged = replace(scene, position=scene.position[:, order], rotation=scene.rotation[:, order])
    first, second = observer.assign(scene), observer.assign(exchanged)
    place = scene.position[np.arange(len(starts))[:, None], bp.magnet_block[bp.pairs[first.pair, 2]]]
    same = exchanged.position[np.arange(len(starts))[:, None], bp.magnet_block[bp.pairs[second.pair, 2]]]
    np.testing.assert_array_equal(place, same)
    np.testing.assert_allclose(observer.observe(scene, first), observer.observe(exchanged, second), atol=1e-12)


def test_of_two_arms_with_one_connection_the_nearer_serves_and_the_other_is_told() -> None:
    observer = SceneObserver(cell.load(), blueprint.load("connect"))
    starts = StartSampler(observer.cell, observer.blueprint).sample(np.random.default_rng(0), 16, StartConfig())
    scene = scene_of(starts)
    assignment = observer.assign(scene)
    assert ((assignment.pair >= 0).sum(1) == 1).all()
    serves = observer.observe(scene, assignment)[..., FIELDS.slices["serves"]][..., 0]
    np.testing.assert_array_equal(serves, assignment.pair >= 0)


def test_goal_errors_vanish_where_the_blocks_are_joined(observer: SceneObserver, starts: Starts) -> None:
    scene, bp = scene_of(starts), observer.blueprint
    for p, (_, s, a) in enumerate(bp.pairs):
        base, leg = bp.magnet_block[s], bp.magnet_block[a]
        scene.rotation[:, leg] = scene.rotation[:, base] @ bp.goal_rotation[p]
        scene.position[:, leg] = scene.position[:, base] + scene.rotation[:, base] @ bp.goal_position[p]
        goal, off = observer.goal_errors(scene, np.full((len(starts), 1), p))
        np.testing.assert_allclose(goal, 0.0, atol=1e-12)
        np.testing.assert_allclose(off, np.tile(np.eye(3), (len(starts), 1, 1, 1)), atol=1e-9)


def test_the_observation_says_where_the_tool_really_is(observer: SceneObserver, starts: Starts) -> None:
    scene = scene_of(starts)
    assignment = observer.assign(scene)
    seen = observer.observe(scene, assignment)[..., FIELDS.slices["tool_position"]]
    expected = xarm6.forward_kinematics(scene.q)[..., :3, 3]
    expected[observer.mirrored(assignment), 1] *= -1
    np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_one_cell_sees_what_it_sees_in_a_batch(observer: SceneObserver, starts: Starts) -> None:
    """The robot observes with n = 1."""
    scene = scene_of(starts)
    assignment = observer.assign(scene)
    seen = observer.observe(scene, assignment)
    for i in (0, 7):
        one = scene_of(starts.take(np.array([i])))
        alone = observer.assign(one)
        np.testing.assert_array_equal(alone.pair[0], assignment.pair[i])
        np.testing.assert_allclose(observer.observe(one, alone)[0], seen[i], atol=1e-12)


def test_a_field_that_is_not_given_is_missed_by_name() -> None:
    with pytest.raises(HorseshoeError, match="missing fields"):
        FIELDS.pack({})


@pytest.mark.parametrize("half_turns", [0, 1, -1])
def test_an_arm_sees_which_way_its_hand_must_turn_to_grasp(
    observer: SceneObserver, starts: Starts, half_turns: int
) -> None:
    """The last joint turns by what is seen, and the fingers close across the block's width."""
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    scene.q[..., 5] += np.pi * half_turns
    where = FIELDS.slices["grasp_turn"]
    seen = observer.observe(scene, assignment)[..., where]
    seen = np.where(observer.mirrored(assignment)[..., None], seen * FIELDS.mirror[where], seen)
    turn = np.arctan2(seen[..., 0], seen[..., 1]) / 2
    assert np.abs(turn).max() <= np.pi / 2
    scene.q[..., 5] -= turn
    after = observer.observe(scene, assignment)[..., where]
    assert (after[..., 1] > 0.6).all(), "but for the hands' tilt"
    np.testing.assert_allclose(after[..., 0], 0.0, atol=1e-9)


def test_a_block_that_was_turned_round_is_joined_by_its_other_end(observer: SceneObserver, starts: Starts) -> None:
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    after = observer.reconsider(scene, assignment)
    np.testing.assert_array_equal(observer.reconsider(scene, after).pair, after.pair)
    angle = rotation_angle(observer.goal_errors(scene, after.pair)[1])
    assert (angle < np.radians(106)).all()
    scene.rotation[:, 1:] = scene.rotation[:, 1:] @ np.diag([-1.0, -1.0, 1.0])
    turned = observer.reconsider(scene, after)
    changed = turned.pair != after.pair
    assert changed.mean() > 0.5
    before, now = observer.blueprint.pairs[after.pair], observer.blueprint.pairs[turned.pair]
    np.testing.assert_array_equal(now[..., 1], before[..., 1], err_msg="the socket stays")
    block = observer.blueprint.magnet_block
    np.testing.assert_array_equal(block[now[..., 2]], block[before[..., 2]], err_msg="and so does the block")


def test_a_block_at_another_arms_socket_stays_there_and_that_arm_takes_the_one_that_is_left(
    observer: SceneObserver, starts: Starts
) -> None:
    scene, assignment = scene_of(starts), some_assignments(observer, len(starts))
    bp, rows = observer.blueprint, np.arange(len(starts))
    socket, accepted = bp.pairs[assignment.pair, 1], bp.magnet_block[bp.pairs[assignment.pair, 2]]
    elsewhere = [np.flatnonzero((bp.pairs[:, 1] == s) & (bp.magnet_block[bp.pairs[:, 2]] == b))[0]
                 for s, b in zip(socket[:, 1], accepted[:, 0], strict=True)]  # fmt: skip
    base = scene.rotation[:, 0]
    scene.position[rows, accepted[:, 0]] = (
        scene.position[:, 0] + (base @ bp.goal_position[elsewhere][..., None])[..., 0]
    )
    scene.rotation[rows, accepted[:, 0]] = base @ bp.goal_rotation[elsewhere]
    after = observer.reconsider(scene, assignment)
    np.testing.assert_array_equal(bp.pairs[after.pair, 1], socket[:, ::-1], err_msg="the sockets change hands")
    np.testing.assert_array_equal(bp.magnet_block[bp.pairs[after.pair, 2]], accepted, err_msg="the blocks do not")
    assert np.linalg.norm(observer.goal_errors(scene, after.pair)[0][:, 0], axis=-1).max() < 1e-9
    np.testing.assert_array_equal(observer.reconsider(scene, after).pair, after.pair)
