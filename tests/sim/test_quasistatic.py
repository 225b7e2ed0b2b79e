"""The quasi-static world: what a policy learns there has to be true in MuJoCo."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("warp")

from scipy.spatial.transform import Rotation

from horseshoe.sim.assembly import blueprint, cell
from horseshoe.sim.assembly.quasistatic import QuasiStaticWorld
from horseshoe.sim.assembly.starts import HOME, inverse_kinematics
from horseshoe.sim.assembly.world import BatchWorld, PhysicsRange, WorldState

CELL = cell.load()
U_SHAPE = blueprint.load("u_shape")
ASIDE = np.array([[0.1, -0.15, 0.02], [-0.15, 0.1, 0.02], [0.2, 0.25, 0.02]])
GRASP = np.array([-0.15, 0.1, 0.014])  # of the left arm's tool about leg_a, world [m]
ENGINES = ("quasistatic", "mujoco")


def make(engine: str) -> QuasiStaticWorld | BatchWorld:
    if engine == "mujoco":
        return BatchWorld(CELL, U_SHAPE, 1, PhysicsRange(), pool=1, n_threads=1)
    return QuasiStaticWorld(CELL, U_SHAPE, 1, PhysicsRange(), pool=1)


def joints(place: np.ndarray, arm: int = 0, yaw: float = np.pi / 2) -> np.ndarray:
    """An arm's joints with the tool down at a place [m], closing along world yaw - pi/2."""
    pose = np.eye(4)
    pose[:3, :3] = (Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)).as_matrix()
    pose[:3, 3] = place
    pose = np.linalg.inv(CELL.base_poses[arm]) @ pose
    start = HOME.copy()
    start[0] = np.arctan2(pose[1, 3], pose[0, 3])
    q, reached = inverse_kinematics(pose[None], start[None], 100)
    assert reached.all()
    return q[0]


def park(world, blocks: np.ndarray, left: np.ndarray = HOME, right: np.ndarray = HOME, opening: float = 0.06) -> None:
    upright = np.tile([1.0, 0.0, 0.0, 0.0], (1, 3, 1))
    q = np.stack([left, right])[None]
    index = np.zeros(1, dtype=np.intp)
    world.reset(np.ones(1, dtype=bool), index, q, np.full((1, 2), opening), blocks[None].copy(), upright)


def go(world, ticks: int, left=(HOME, HOME), right=(HOME, HOME), opening: float = 0.06) -> WorldState:
    """Both arms move from the first to the second joints; the right hand keeps 6 cm open unless it moves."""
    part = np.linspace(0, 1, ticks)[:, None]
    targets = np.zeros((1, ticks, 2, 7))
    for r, (start, end) in enumerate((left, right)):
        targets[0, :, r, :6] = start + part * (end - start)
    targets[..., 6] = opening
    world.advance(targets)
    return world.state()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_hand_closes_on_a_block_carries_it_and_drops_it(engine: str) -> None:
    world = make(engine)
    grasp, up, aside = (joints(GRASP + d) for d in ([0, 0, 0], [0, 0, 0.1], [0.08, 0.05, 0.1]))
    park(world, ASIDE, grasp)
    go(world, 60, (grasp, grasp), opening=0.02)
    go(world, 60, (grasp, up), opening=0.02)
    carried = go(world, 80, (up, aside), opening=0.02)
    assert carried.opening[0, 0] == pytest.approx(0.04, abs=0.004)
    carried = go(world, 40, (aside, aside), opening=0.02)
    np.testing.assert_allclose(carried.position[0, 1], [-0.07, 0.15, 0.12], atol=0.004)
    dropped = go(world, 120, (aside, aside), opening=0.085)
    assert dropped.position[0, 1, 2] == pytest.approx(0.02, abs=0.003)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_finger_pushes_a_block_as_far_as_it_goes(engine: str) -> None:
    world = make(engine)
    beside, through = (joints(GRASP + d) for d in ([0, -0.08, 0], [0, -0.02, 0]))
    park(world, ASIDE, beside, opening=0.03)
    pushed = go(world, 100, (beside, through), opening=0.03)
    # The finger's front edge is 13 mm ahead of the tool, the block's 40 mm behind its centre.
    assert pushed.position[0, 1, 1] == pytest.approx(0.1 - 0.02 + 0.013 + 0.04, abs=0.008)
    assert pushed.position[0, 0] == pytest.approx(ASIDE[0], abs=1e-3), "and leaves the others alone"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_held_leg_joins_the_base_and_pulls_the_structure_along(engine: str) -> None:
    world = make(engine)
    blocks = np.array([[0.0, 0.0, 0.02], [-0.08, 0.10, 0.02], [0.2, 0.25, 0.02]])
    start, end, back = (joints(np.array([-0.08, y, 0.014])) for y in (0.10, 0.062, 0.12))
    park(world, blocks, start)
    go(world, 60, (start, start), opening=0.02)
    assert not world.magnets.latched.any()
    go(world, 60, (start, end), opening=0.02)
    go(world, 20, (end, end), opening=0.02)
    assert world.magnets.latched.sum() == 1
    pulled = go(world, 100, (end, back), opening=0.02)
    assert world.magnets.latched.sum() == 1
    assert pulled.position[0, 0, 1] == pytest.approx(0.058, abs=0.01)


def test_two_arms_that_pull_at_one_structure_open_a_latch() -> None:
    world = make("quasistatic")
    blocks = np.array([[0.0, 0.0, 0.02], [-0.08, 0.0602, 0.02], [0.08, 0.0602, 0.02]])
    left = [joints(np.array([-0.08, y, 0.014])) for y in (0.0602, 0.10)]
    right = joints(np.array([0.08, 0.0602, 0.014]), 1)
    park(world, blocks, left[0], right)
    together = go(world, 80, (left[0], left[0]), (right, right), opening=0.02)
    assert world.magnets.latched.sum() == 2
    assert np.abs(together.velocity).max() < 0.03
    go(world, 80, (left[0], left[1]), (right, right), opening=0.02)
    assert world.magnets.latched.sum() < 2


def test_it_goes_on_from_a_snapshot_exactly_as_without() -> None:
    world = make("quasistatic")
    grasp, up = joints(GRASP), joints(GRASP + [0, 0, 0.1])
    park(world, ASIDE, grasp)
    go(world, 60, (grasp, grasp), opening=0.02)
    kept = world.snapshot()
    expected = go(world, 60, (grasp, up), opening=0.02)
    go(world, 60, (up, grasp), opening=0.085)
    world.restore(kept)
    again = go(world, 60, (grasp, up), opening=0.02)
    np.testing.assert_array_equal(again.position, expected.position)
    np.testing.assert_array_equal(again.q, expected.q)
