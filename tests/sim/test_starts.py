"""Start states: everywhere the arms can serve, and never inside one another."""

import mujoco
import numpy as np
import pytest

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import blueprint, cell
from horseshoe.sim.assembly.scene import REACH
from horseshoe.sim.assembly.starts import HOME, StartConfig, Starts, StartSampler, inverse_kinematics
from horseshoe.sim.assembly.world import BatchWorld
from tests.sim.conftest import hold

ASSISTED = StartConfig(above=0.25, holding=0.35, joining=0.4, assisted=1.0)


@pytest.fixture(scope="module")
def sampler() -> StartSampler:
    return StartSampler(cell.load(), blueprint.load("u_shape"))


@pytest.fixture(scope="module")
def wide(sampler: StartSampler) -> Starts:
    return sampler.sample(np.random.default_rng(0), 256, StartConfig())


@pytest.fixture(scope="module")
def assisted(sampler: StartSampler) -> Starts:
    return sampler.sample(np.random.default_rng(1), 64, ASSISTED)


def world_of(starts: Starts) -> BatchWorld:
    n = len(starts)
    world = BatchWorld(cell.load(), blueprint.load("u_shape"), n, n_threads=1)
    mask, model = np.ones(n, dtype=bool), np.zeros(n, dtype=np.intp)
    world.reset(mask, model, starts.q, starts.opening, starts.position, starts.quaternion)
    return world


def deepest(starts: Starts, held: bool) -> float:
    """Deepest overlap of two bodies in any start, as MuJoCo sees it [m]; of arms and their blocks only if `held`."""
    world = world_of(starts)
    model, data = world.models[0], mujoco.MjData(world.models[0])
    blocks = {model.body(b.name).id for b in world.blueprint.blocks}
    worst = 0.0
    for state in world.trace.states[-1]:
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_forward(model, data)
        for contact in data.contact[: data.ncon]:
            bodies = {int(model.geom_bodyid[g]) for g in contact.geom}
            if len(bodies & blocks) == 1 and 0 not in bodies and not held:
                continue  # an arm on a block it holds
            worst = max(worst, -float(contact.dist))
    return worst


def test_inverse_kinematics_reach_the_pose_they_claim() -> None:
    rng = np.random.default_rng(0)
    known = HOME + rng.uniform(-0.5, 0.5, (200, 6))
    pose = xarm6.forward_kinematics(known)
    q, ok = inverse_kinematics(pose, np.tile(HOME, (200, 1)))
    assert ok.mean() > 0.9
    here = xarm6.forward_kinematics(q[ok])
    assert np.linalg.norm(here[:, :3, 3] - pose[ok, :3, 3], axis=1).max() < 1e-3
    cosine = (np.einsum("nij,nij->n", here[:, :3, :3], pose[ok, :3, :3]) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.6
    assert (q[ok] > xarm6.JOINT_LOWER).all()
    assert (q[ok] < xarm6.JOINT_UPPER).all()


def test_a_pose_out_of_reach_is_not_claimed() -> None:
    pose = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (3, 1, 1))
    pose[:, 0, 3] = [0.4, 1.2, 3.0]
    pose[:, 2, 3] = 0.2
    assert inverse_kinematics(pose, np.tile(HOME, (3, 1)))[1].tolist() == [True, False, False]


def test_nothing_overlaps_at_the_start_of_the_whole_task(wide: Starts) -> None:
    assert deepest(wide, held=True) < 1e-3


def test_assisted_starts_overlap_only_where_fingers_close_on_a_block(assisted: Starts) -> None:
    assert deepest(assisted, held=False) < 3e-3


def test_each_arm_has_a_leg_of_its_own_in_reach(wide: Starts) -> None:
    base = np.array([a.position[:2] for a in cell.load().arms])
    far = np.linalg.norm(wide.position[:, None, 1:, :2] - base[None, :, None], axis=-1)  # (n, arm, leg)
    within = far < REACH
    straight, crossed = within[:, 0, 0] & within[:, 1, 1], within[:, 0, 1] & within[:, 1, 0]
    assert (straight | crossed).all()


def test_the_whole_task_is_wide(wide: Starts) -> None:
    """Any yaw, blocks anywhere both arms can serve, either leg on either side, arms in random poses."""
    yaw = 2 * np.arctan2(wide.quaternion[..., 3], wide.quaternion[..., 0]) % (2 * np.pi)
    for block in range(3):
        assert (np.histogram(yaw[:, block], 8, (0, 2 * np.pi))[0] > 8).all()
    assert np.ptp(wide.position[:, 0, 0]) > 0.12
    assert np.ptp(wide.position[:, 0, 1]) > 0.25
    for leg in (1, 2):
        assert 0.3 < (wide.position[:, leg, 0] < 0).mean() < 0.7
        assert np.ptp(wide.position[:, leg, 1]) > 0.6
    tool = xarm6.forward_kinematics(wide.q)
    assert np.ptp(tool[..., :3, 3], axis=0).min() > 0.1
    heading = np.arctan2(tool[..., 1, 1], tool[..., 0, 1])
    assert np.std(heading, axis=0).min() > 0.5
    assert wide.whole.all()
    np.testing.assert_allclose(wide.position[..., 2], [0.02] * 3 * np.ones((256, 1)))


def test_arms_start_within_their_limits(wide: Starts, assisted: Starts) -> None:
    for starts in (wide, assisted):
        assert ((starts.q > xarm6.JOINT_LOWER) & (starts.q < xarm6.JOINT_UPPER)).all()
        assert (starts.opening >= 0).all()
        assert (starts.opening <= xarm6.GRIPPER_STROKE).all()


def test_assisted_starts_are_marked(assisted: Starts) -> None:
    assert not assisted.whole.any()


def test_blocks_held_at_the_start_are_still_held_a_second_later(sampler: StartSampler) -> None:
    starts = sampler.sample(np.random.default_rng(2), 24, StartConfig(holding=1.0, assisted=1.0))
    world = world_of(starts)
    targets = hold(world, 100)
    targets[..., 6] = starts.command[:, None]
    before = starts.position
    world.advance(targets)
    lifted = before[..., 2] > 0.06
    assert lifted.sum() > 5
    fell = np.linalg.norm(world.state().position - before, axis=-1)[lifted]
    assert (fell < 0.01).mean() > 0.9, fell
    assert not world.diverged.any()


def test_the_same_seed_draws_the_same_starts(sampler: StartSampler) -> None:
    a, b = (sampler.sample(np.random.default_rng(7), 8, ASSISTED) for _ in range(2))
    np.testing.assert_array_equal(a.q, b.q)
    np.testing.assert_array_equal(a.position, b.position)
