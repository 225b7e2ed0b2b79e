"""The batch world: every cell for itself, exactly repeatable, and physically sound."""

from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from horseshoe.sim.assembly import blueprint, cell, mjcf
from horseshoe.sim.assembly import world as worlds
from horseshoe.sim.assembly.magnets import matrices
from horseshoe.sim.assembly.scene import GRASP_HEIGHT, MIRROR_JOINTS
from horseshoe.sim.assembly.starts import HOME, inverse_kinematics
from horseshoe.sim.assembly.twin import TwinWorld
from horseshoe.sim.assembly.world import BatchWorld, PhysicsRange
from tests.sim.conftest import FAR_BLOCK, hold, park

VARIED = PhysicsRange(
    mass=(0.5, 2.0), size=(0.97, 1.03), pad_friction=(0.7, 1.3), servo_lag=(0.01, 0.08), magnet=(0.8, 1.2)
)


def wave(world: BatchWorld, ticks: int, seed: int = 0) -> np.ndarray:
    """Targets that swing every joint a little, differently in every environment."""
    rng = np.random.default_rng(seed)
    targets = hold(world, ticks)
    phase = np.linspace(0, np.pi, ticks)[None, :, None, None]
    size = rng.uniform(-0.1, 0.1, (world.n_envs, 1, world.n_arms, 6))
    targets[..., :6] += size * np.sin(phase)
    return targets


def grasp(world: BatchWorld, joints: np.ndarray, block: np.ndarray, yaw: float, base: np.ndarray) -> None:
    """The left arm holds leg_a (across its x axis) at `block`; the base block lies at `base`."""
    park(world, np.stack([base, block]), [[0.0, yaw]])
    state = world.state()
    q, opening = state.q, state.opening
    q[:, 0], opening[:, 0] = joints, 0.041
    mask = np.ones(world.n_envs, dtype=bool)
    world.reset(mask, np.zeros(world.n_envs, dtype=np.intp), q, opening, state.position, state.quaternion)


def tool_down(places: np.ndarray, yaw: float = 0.0) -> np.ndarray:
    """Joints of the left arm for a tool that points down at world positions (n, 3), fingers closing along y."""
    pose = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (len(places), 1, 1))
    pose[:, :3, 3] = places - cell.load().base_poses[0, :3, 3]
    q, ok = inverse_kinematics(pose, np.tile(HOME, (len(places), 1)))
    assert ok.all()
    return q


@pytest.fixture(scope="module")
def varied() -> BatchWorld:
    return BatchWorld(cell.load(), blueprint.load("connect"), 3, VARIED, pool=3, seed=5, n_threads=1)


def test_a_joint_with_friction_sticks_before_its_target() -> None:
    friction, step = 4.0, 0.01  # [N m], [rad]
    errors = []
    for each in (0.0, friction):
        physics = PhysicsRange(joint_friction=(each, each))
        world = BatchWorld(cell.load(), blueprint.load("connect"), 1, physics, n_threads=1)
        park(world, [[0, -0.5, 0.02], [0, 0.5, 0.02]])
        goal = hold(world, 100)
        goal[..., 0] += step
        world.advance(goal)
        errors.append(goal[0, -1, :, 0] - world.state().q[0, :, 0])
    # A joint that turns about the vertical carries no weight: nothing but friction keeps it from its target.
    np.testing.assert_allclose(errors[0], 0.0, atol=2e-5)
    assert (errors[1] > 0.3 * friction / mjcf.STIFFNESS[0]).all()
    assert (errors[1] < 1.1 * friction / mjcf.STIFFNESS[0]).all()


def test_an_environment_of_a_batch_is_the_same_as_one_alone(varied: BatchWorld) -> None:
    park(varied, [[0, 0, 0.02], [0, 0.075, 0.02]], [[0.0, 0.1]], np.arange(3))
    alone = BatchWorld(cell.load(), blueprint.load("connect"), 1, VARIED, pool=3, seed=5, n_threads=1)
    controls = [wave(varied, 20, seed) for seed in range(3)]
    for targets in controls:
        varied.advance(targets)
    for env in range(3):
        park(alone, [[0, 0, 0.02], [0, 0.075, 0.02]], [[0.0, 0.1]], env)
        for targets in controls:
            alone.advance(targets[env : env + 1])
        np.testing.assert_array_equal(alone.trace.states[-1][0], varied.trace.states[-1][env])
        np.testing.assert_array_equal(alone.magnets.latched[0], varied.magnets.latched[env])


def test_two_threads_compute_what_one_does(varied: BatchWorld) -> None:
    two = BatchWorld(cell.load(), blueprint.load("connect"), 3, VARIED, pool=3, seed=5, n_threads=2)
    for world in (varied, two):
        park(world, [[0, 0, 0.02], [0, 0.075, 0.02]], [[0.0, 0.1]], np.arange(3))
        world.advance(wave(world, 20))
    np.testing.assert_array_equal(two.trace.states[-1], varied.trace.states[-1])


def test_a_snapshot_continues_exactly(varied: BatchWorld) -> None:
    park(varied, [[0, 0, 0.02], [0, 0.072, 0.02]], 0.0, np.arange(3))
    varied.advance(wave(varied, 20))
    kept, rest = varied.snapshot(), wave(varied, 20, 1)
    varied.advance(rest)
    first = varied.snapshot()
    park(varied, FAR_BLOCK, 0.0, 0)
    varied.restore(kept)
    varied.advance(rest)
    for name, value in varied.snapshot().items():
        np.testing.assert_array_equal(value, first[name], err_msg=name)


def test_a_cell_goes_back_alone(varied: BatchWorld) -> None:
    park(varied, [[0, 0, 0.02], [0, 0.072, 0.02]], 0.0, np.arange(3))
    varied.advance(wave(varied, 20))
    kept = varied.snapshot()
    varied.advance(wave(varied, 20, 1))
    later, one = varied.snapshot(), np.array([1])
    varied.restore({name: value[one] for name, value in kept.items()}, one)
    for name, value in varied.snapshot().items():
        expected = later[name].copy()
        expected[one] = kept[name][one]
        np.testing.assert_array_equal(value, expected, err_msg=name)


@pytest.mark.parametrize("absurd", [np.nan, 1e9])
def test_an_exploding_state_is_reported_and_poisons_no_other(
    make_world: Callable[..., BatchWorld], absurd: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning here
    world = make_world(3)
    ends = []
    for broken in (False, True):
        park(world, [[0, 0, 0.02], [0, 0.2, 0.02]])
        targets = wave(world, 20)
        if broken:
            world._state[1, 1 + world._nq + 20] = absurd  # the speed of a block
        world.advance(targets)
        ends.append(world.trace.states[-1].copy())
        assert world.diverged.tolist() == [False, broken, False]
    np.testing.assert_array_equal(ends[0][[0, 2]], ends[1][[0, 2]])
    world.advance(np.nan_to_num(hold(world, 4)))
    assert world.diverged.tolist() == [False, True, False], "it stays frozen until reset"
    park(world, [[0, 0, 0.02], [0, 0.2, 0.02]])
    world.advance(wave(world, 20))
    assert not world.diverged.any()
    np.testing.assert_array_equal(world.trace.states[-1], ends[0])


def test_random_motions_among_blocks_explode_nowhere() -> None:
    n = 16
    world = BatchWorld(cell.load(), blueprint.load("u_shape"), n, VARIED, pool=8, n_threads=1)
    rng = np.random.default_rng(0)
    park(world, [[0, 0, 0.02], [-0.12, 0.1, 0.02], [0.12, 0.1, 0.02]], rng.uniform(-3, 3, (n, 3)), np.arange(n) % 8)
    target = hold(world, 20)
    for _ in range(8):
        goal = target[:, -1:] + rng.uniform(-0.2, 0.2, target[:, -1:].shape)
        goal[..., 6] = np.clip(goal[..., 6], 0.0, 0.085)
        ramp = np.linspace(0, 1, 20)[None, :, None, None]
        target = target[:, -1:] + ramp * (goal - target[:, -1:])
        world.advance(target)
        assert not world.diverged.any()
    assert np.abs(world.state().velocity[..., :3]).max() < 4.0


def test_models_of_the_pool_differ_as_asked_and_are_compiled_not_patched(varied: BatchWorld) -> None:
    """Masses changed in a compiled model leave stale inverse weights, which make blocks explode."""
    masses = [m.body("base").mass[0] for m in varied.models]
    assert len(set(masses)) == len(masses) == 3
    for model, physics in zip(varied.models, varied.physics, strict=True):
        nominal = blueprint.load("connect").blocks[0]
        assert model.body("base").mass[0] == pytest.approx(nominal.mass * physics.mass, rel=1e-5)
        np.testing.assert_allclose(model.geom("base").size, np.array(nominal.size) / 2 * physics.size, rtol=1e-5)
        weights = model.body_invweight0.copy()
        mujoco.mj_setConst(model, mujoco.MjData(model))
        np.testing.assert_allclose(model.body_invweight0, weights, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(varied._sizes, [p.size for p in varied.physics])


def test_the_solver_has_the_iterations_that_pinched_blocks_need(make_world: Callable[..., BatchWorld]) -> None:
    assert make_world().models[0].opt.iterations >= 50


def test_a_joint_follows_its_target_with_the_lag_of_its_servo() -> None:
    settled = []
    for lag in (0.01, 0.08):
        world = BatchWorld(cell.load(), blueprint.load("connect"), 1, PhysicsRange(servo_lag=(lag, lag)), n_threads=1)
        park(world, FAR_BLOCK + [[0, 0, 0], [0.3, 0, 0]])
        targets = hold(world, 8)
        targets[..., 0] += 0.05
        world.advance(targets)
        settled.append((world.state().q[0, 0, 0] - HOME[0]) / 0.05)
        world.advance(np.repeat(targets[:, -1:], 80, axis=1))
        assert world.state().q[0, 0, 0] - HOME[0] == pytest.approx(0.05, abs=2e-3)
        assert world.lag[0] == lag
    assert 0.2 < settled[1] < settled[0] < 1.01


def test_the_same_grasp_holds_at_half_the_time_step(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.array([-0.1, 0.0, 0.20])
    path = tool_down(np.array([block, block + [0.05, 0.10, 0.05]]) + [0.0, 0.0, GRASP_HEIGHT])
    slips = []
    for step in (0.01, 0.005):
        monkeypatch.setattr(mjcf, "TIME_STEP", step)
        monkeypatch.setattr(worlds, "TICK", step)
        world = BatchWorld(cell.load(), blueprint.load("connect"), 1, n_threads=1)
        assert world.models[0].opt.timestep == step
        grasp(world, path[0], block, np.pi / 2, FAR_BLOCK)
        targets = hold(world, round(2.0 / step))
        part = np.clip(np.linspace(-0.25, 1.5, targets.shape[1]), 0, 1)[:, None]
        targets[0, :, 0, :6] = path[0] + part * (path[1] - path[0])
        targets[0, :, 0, 6] = 0.02
        world.advance(targets)
        state = world.state()
        slips.append(state.position[0, 1] - block - [0.05, 0.10, 0.05])
        assert np.linalg.norm(slips[-1]) < 0.01, f"at {step} s the block slipped by {slips[-1]} m"
        assert np.linalg.norm(state.velocity[0, 1, :3]) < 0.05
    assert np.linalg.norm(slips[1] - slips[0]) < 0.004


def test_an_open_gripper_drops_the_block(make_world: Callable[..., BatchWorld]) -> None:
    block = np.array([-0.1, 0.0, 0.20])
    world = make_world()
    grasp(world, tool_down((block + [0, 0, GRASP_HEIGHT])[None])[0], block, np.pi / 2, FAR_BLOCK)
    targets = hold(world, 80)
    targets[..., 6] = 0.085
    world.advance(targets)
    assert world.state().position[0, 1, 2] == pytest.approx(0.02, abs=0.002)


def test_pushing_a_held_block_against_the_base_moves_the_base(make_world: Callable[..., BatchWorld]) -> None:
    """This is why the second arm is needed."""
    start, way = np.array([-0.125, 0.0, 0.026]), 0.06
    steps = np.linspace(0, way, 13)
    joints = tool_down(start + np.stack([steps, 0 * steps, 0 * steps + GRASP_HEIGHT], -1))
    world = make_world()
    grasp(world, joints[0], start, np.pi / 2, np.array([0.0, 0.0, 0.02]))
    targets = hold(world, 200)
    progress = np.clip(np.linspace(-0.1, 1.1, 200), 0, 1) * way
    for j in range(6):
        targets[0, :, 0, j] = np.interp(progress, steps, joints[:, j])
    targets[0, :, 0, 6] = 0.02
    world.advance(targets)
    # 25 mm of air, then 35 mm of push.
    assert world.state().position[0, 0, 0] > 0.02


def test_an_arm_that_presses_on_the_table_is_felt(make_world: Callable[..., BatchWorld]) -> None:
    world = make_world()
    park(world, FAR_BLOCK + [[0, 0, 0], [0.3, 0, 0]])
    world.advance(hold(world, 8))
    assert world.state().arm_contact[0] == 0.0
    assert not world.state().table_contact.any()
    low = tool_down(np.array([[-0.1, 0.0, 0.10], [-0.1, 0.0, -0.01]]))
    grasp(world, low[0], np.array([0.3, -0.5, 0.02]), 0.0, FAR_BLOCK)
    targets = hold(world, 100)
    targets[0, :, 0, :6] = low[0] + np.clip(np.linspace(0, 1.6, 100), 0, 1)[:, None] * (low[1] - low[0])
    world.advance(targets)
    touched = world.state().table_contact[0]
    assert touched[0] > 5.0
    assert touched[1] == 0.0


def test_a_mirrored_scene_behaves_mirrored(make_world: Callable[..., BatchWorld]) -> None:
    """Reflected in the plane between the arms: arms change places, and so do the base's magnets."""
    world = make_world(2, "u_shape")
    position = np.array([[0.01, 0.0, 0.02], [-0.068, 0.073, 0.02], [0.15, 0.14, 0.02]])
    yaw = np.array([0.02, -0.05, 0.6])
    park(world, np.stack([position, position * [-1, 1, 1]]), np.stack([yaw, -yaw]))
    targets = wave(world, 40)
    targets[1] = targets[0, :, ::-1]
    targets[1, ..., :6] *= MIRROR_JOINTS
    world.advance(targets)
    state = world.state()
    np.testing.assert_allclose(state.q[1], state.q[0, ::-1] * MIRROR_JOINTS, atol=1e-4)
    np.testing.assert_allclose(state.position[1], state.position[0] * [-1, 1, 1], atol=5e-4)
    np.testing.assert_allclose(np.abs(state.quaternion[1]), np.abs(state.quaternion[0]), atol=5e-3)
    assert np.linalg.norm(state.position[0, 1] - position[1]) > 0.005, "the magnets moved the leg"
    sockets = [world.blueprint.pairs[world.magnets.latched[env], 0].tolist() for env in range(2)]
    assert sockets == [[0], [1]]


@pytest.mark.parametrize("engine", [BatchWorld, TwinWorld])
def test_a_leg_that_rolled_over_is_called_by_the_side_that_is_up_and_joins_as_any_other(
    engine: type[BatchWorld],
) -> None:
    world = engine(cell.load(), blueprint.load("u_shape"), 3, pool=1)
    position = np.tile([[0.0, 0.0, 0.02], [-0.08, 0.065, 0.02], [0.2, 0.3, 0.02]], (3, 1, 1))
    turned = [[0], [90], [180]]
    quaternion = np.tile([1.0, 0.0, 0.0, 0.0], (3, 3, 1))
    quaternion[:, 1] = Rotation.from_euler("y", turned, degrees=True).as_quat(scalar_first=True)
    joints, opening = np.tile(HOME, (3, 2, 1)), np.full((3, 2), 0.085)
    world.reset(np.ones(3, dtype=bool), np.zeros(3, dtype=np.intp), joints, opening, position, quaternion)
    world.advance(hold(world, 20))
    state = world.state()
    up = matrices(state.quaternion)[:, 1, 2, 2]
    assert up.min() > 0.99, "the same side is up everywhere"
    np.testing.assert_array_less(np.abs(state.position[:, 1] - position[:, 1]).max(), 0.006)
    world.advance(hold(world, 40))
    assert world.magnets.latched.any(1).all(), "and its magnet meets the base's"


def test_a_tumbling_leg_keeps_its_motion_when_it_is_renamed() -> None:
    world = BatchWorld(cell.load(), blueprint.load("u_shape"), 2, n_threads=1)
    position = np.tile([[0.0, 0.3, 0.02], [0.0, 0.0, 0.3], [0.2, 0.3, 0.02]], (2, 1, 1))
    quaternion = np.tile([1.0, 0.0, 0.0, 0.0], (2, 3, 1))
    # A whole quarter turn apart: the second is renamed after the first decision, and both fall alike.
    quaternion[:, 1] = Rotation.from_euler("y", [[20], [110]], degrees=True).as_quat(scalar_first=True)
    joints, opening = np.tile(HOME, (2, 2, 1)), np.full((2, 2), 0.085)
    world.reset(np.ones(2, dtype=bool), np.zeros(2, dtype=np.intp), joints, opening, position, quaternion)
    for _ in range(5):
        world.advance(hold(world, 8))
        state = world.state()
        np.testing.assert_allclose(matrices(state.quaternion[1, 1]), matrices(state.quaternion[0, 1]), atol=1e-6)
        np.testing.assert_allclose(state.velocity[1, 1], state.velocity[0, 1], atol=1e-6)
    assert np.abs(state.velocity[:, 1, 4]).max() > 0.3, "landing on its edge turns it"
