"""Magnets pull, repel, capture and let go as blocks with real magnets would."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("mujoco")

from horseshoe.sim.assembly import blueprint, cell, magnets
from horseshoe.sim.assembly.magnets import BREAK_FORCE, CAPTURE_ANGLE, CAPTURE_DISTANCE, GRACE, Magnets
from horseshoe.sim.assembly.world import BatchWorld
from tests.sim.conftest import hold, park

JOINED = 0.06  # distance of the blocks' centres when the leg stands on the base [m]


def at_gap(gap: float | np.ndarray) -> np.ndarray:
    """Base and leg of `connect` with that much air between their magnets, (n, 2, 3)."""
    gap = np.atleast_1d(gap)
    position = np.zeros((len(gap), 2, 3))
    position[..., 2] = 0.02
    position[:, 1, 1] = JOINED + gap
    return position


def gap_of(world: BatchWorld) -> np.ndarray:
    position = world.state().position
    return np.linalg.norm(position[:, 1] - position[:, 0], axis=-1) - JOINED


def pull(force: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on pull the leg off the base (along y) with that force, both ways [N]."""
    magnetic = Magnets.look

    def look(*args: Any) -> np.ndarray:
        total = magnetic(*args)
        total[:, 0, 1] -= force
        total[:, 1, 1] += force
        return total

    monkeypatch.setattr(Magnets, "look", look)


def dipoles(r: np.ndarray, m1: np.ndarray, m2: np.ndarray) -> np.ndarray:
    """Force and torques of each pair of dipoles (n, 3), shape (3, n, 3)."""
    wrench = np.empty((3, *r.shape))
    for k, args in enumerate(zip(r, *np.broadcast_arrays(m1, m2, r)[:2], strict=True)):
        magnets.dipole_wrench(*(a.copy() for a in args), *wrench[:, k])
    return wrench


def test_coaxial_dipoles_attract_by_the_textbook_formula_and_opposed_ones_repel() -> None:
    moment, distance = np.array([0.0, 0.0, 0.7]), np.array([[0.0, 0.0, 0.02], [0.0, 0.0, 0.05]])
    expected = 3 * magnets.MU_0 * 0.7**2 / (2 * np.pi * distance[:, 2] ** 4)
    force, torque_1, torque_2 = dipoles(distance, moment, moment)
    np.testing.assert_allclose(force[:, 2], -expected, rtol=1e-12)
    np.testing.assert_allclose(np.stack([torque_1, torque_2]), 0.0, atol=1e-15)
    np.testing.assert_allclose(dipoles(distance, moment, -moment)[0][:, 2], expected, rtol=1e-12)


def test_dipoles_do_not_create_momentum() -> None:
    """The force is a pair of opposites; with the torques of the dipoles it turns nothing as a whole."""
    rng = np.random.default_rng(0)
    r, m1, m2 = rng.normal(size=(3, 50, 3)) * 0.05
    force, torque_1, torque_2 = dipoles(r, m1, m2)
    np.testing.assert_allclose(torque_1 + torque_2 + np.cross(r, force), 0.0, atol=1e-9 * np.abs(force).max())


def test_magnets_move_and_turn_nothing_as_a_whole() -> None:
    rng = np.random.default_rng(1)
    many = Magnets(blueprint.load("u_shape"), 50)
    many.size, many.strength = rng.uniform(0.9, 1.1, (2, 50))
    position = rng.normal(0, 0.04, (50, 3, 3))
    wrench = many.wrenches(position, magnets.matrices(rng.normal(size=(50, 3, 4))))
    force, torque = wrench[..., :3], wrench[..., 3:]
    assert np.abs(force).max() > 1.0
    np.testing.assert_allclose(force.sum(1), 0.0, atol=1e-12)
    np.testing.assert_allclose((torque + np.cross(position, force)).sum(1), 0.0, atol=1e-12)


def test_rotation_matrices_are_those_of_scipy_for_quaternions_of_any_length() -> None:
    quaternions = np.random.default_rng(2).normal(size=(20, 3, 4))
    expected = Rotation.from_quat(quaternions.reshape(-1, 4), scalar_first=True).as_matrix().reshape(20, 3, 3, 3)
    np.testing.assert_allclose(magnets.matrices(quaternions), expected, atol=1e-14)


def test_magnets_in_contact_pull_with_the_break_away_force() -> None:
    both = Magnets(blueprint.load("connect"), 1)
    wrench = both.wrenches(at_gap(0.0), np.tile(np.eye(3), (1, 2, 1, 1)))
    # The leg's far magnet is 80 mm off and adds millinewtons.
    assert -wrench[0, 1, 1] == pytest.approx(BREAK_FORCE, rel=0.01)
    np.testing.assert_allclose(wrench[0, 0, :3], -wrench[0, 1, :3], atol=1e-12)


def test_two_blocks_are_pulled_together_from_12_mm_and_left_alone_at_40_mm(
    make_world: Callable[..., BatchWorld],
) -> None:
    world = make_world(2)
    park(world, at_gap(np.array([0.012, 0.040])))
    world.advance(hold(world, 60))
    assert world.magnets.latched.any(1).tolist() == [True, False]
    assert gap_of(world)[0] == pytest.approx(0.0, abs=1e-3)
    assert gap_of(world)[1] == pytest.approx(0.040, abs=1e-3)


def test_a_wrong_pole_repels_and_never_latches() -> None:
    bp = blueprint.load("connect")
    turned = tuple(replace(m, polarity="south") if m.name == "leg_a.head" else m for m in bp.magnets)
    only_tail = tuple(replace(c, accepts=("leg_a.tail",)) for c in bp.connections)
    world = BatchWorld(cell.load(), replace(bp, magnets=turned, connections=only_tail), 1, n_threads=1)
    park(world, at_gap(0.005))
    world.advance(hold(world, 60))
    assert not world.magnets.latched.any()
    assert gap_of(world)[0] > 0.010


def test_magnets_that_do_not_belong_together_never_latch_however_close(make_world: Callable[..., BatchWorld]) -> None:
    """Two legs head to head: same poles, no wanted connection."""
    world = make_world(1, "u_shape")
    position = np.array([[[0.0, -0.3, 0.02], [0.0, 0.0, 0.02], [0.0, 0.0805, 0.02]]])
    park(world, position, [[0.0, np.pi, 0.0]])
    world.advance(hold(world, 40))
    assert not world.magnets.latched.any()
    legs = world.state().position[0, 1:]
    assert np.linalg.norm(legs[1] - legs[0]) > 0.085


def test_a_pull_below_the_break_away_force_holds(
    make_world: Callable[..., BatchWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(2)
    park(world, at_gap(np.array([0.0, 0.0])))
    world.advance(hold(world, 60))
    pull(0.7 * BREAK_FORCE, monkeypatch)
    world.advance(hold(world, 60))
    assert world.magnets.latched.any(1).all()
    assert gap_of(world).max() < CAPTURE_DISTANCE


def test_a_pull_above_the_break_away_force_separates(
    make_world: Callable[..., BatchWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(2)
    park(world, at_gap(np.array([0.0, 0.0])))
    world.advance(hold(world, 60))
    assert world.magnets.latched.any(1).all()
    pull(1.5 * BREAK_FORCE, monkeypatch)
    world.advance(hold(world, 60))
    assert not world.magnets.latched.any()
    assert gap_of(world).min() > 0.05


def test_what_a_pull_has_separated_is_not_captured_in_the_same_moment() -> None:
    """Or a connection holds until its give exceeds the capture distance, up to three times the break-away force."""
    both = Magnets(blueprint.load("connect"), 1)
    closed, zero = np.array([[0.0, 0.08]]), np.zeros((1, 2))
    both.update(closed, zero, zero, zero, 0.04)
    both.update(closed, zero, zero, zero, 2 * GRACE)
    both.update(closed, zero, np.array([[1.1 * BREAK_FORCE, 0.0]]), zero, 0.04)
    assert not both.latched.any()


def test_what_still_touches_after_a_knock_holds_again_and_what_moves_apart_does_not() -> None:
    both = Magnets(blueprint.load("connect"), 2)
    closed, zero = np.array([[0.0, 0.08]] * 2), np.zeros((2, 2))
    both.update(closed, zero, zero, zero, 0.04)
    both.update(closed, zero, zero, zero, 2 * GRACE)
    both.update(closed, zero, np.array([[2 * BREAK_FORCE, 0.0]] * 2), zero, 0.04)
    apart = closed + [[0.0, 0.0], [0.8 * CAPTURE_DISTANCE, 0.0]]
    both.update(apart, zero, zero, zero, 0.9 * GRACE)
    assert not both.latched.any()
    both.update(apart, zero, zero, zero, 0.2 * GRACE)
    assert both.latched.tolist() == [[True, False], [False, False]]


def test_the_snap_of_a_capture_is_not_taken_for_a_pull() -> None:
    both = Magnets(blueprint.load("connect"), 1)
    closed, hard = np.array([[0.0, 0.08]]), np.array([[5 * BREAK_FORCE, 0.0]])
    zero = np.zeros((1, 2))
    both.update(closed, zero, zero, zero, 0.04)
    assert both.latched.tolist() == [[True, False]]
    both.update(closed, zero, hard, zero, GRACE / 2)
    assert both.latched.tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("distance", "angle", "expected"),
    [
        (0.9 * CAPTURE_DISTANCE, 0.0, True),
        (1.1 * CAPTURE_DISTANCE, 0.0, False),
        (0.0, 0.9 * CAPTURE_ANGLE, True),
        (0.0, 1.1 * CAPTURE_ANGLE, False),
    ],
)
def test_capture_needs_nearness_and_alignment(distance: float, angle: float, expected: bool) -> None:
    both = Magnets(blueprint.load("connect"), 1)
    far, zero = 0.5, np.zeros((1, 2))
    both.update(np.array([[distance, far]]), np.array([[angle, far]]), zero, zero, 0.04)
    assert both.latched[0, 0] == expected
    assert not both.latched[0, 1]


def test_a_magnet_takes_only_one_partner() -> None:
    bp = blueprint.load("u_shape")
    three = Magnets(bp, 1)
    zero = np.zeros((1, len(bp.pairs)))
    near = np.full((1, len(bp.pairs)), 0.004)
    near[0, 1] = 0.001
    for _ in range(20):
        three.update(near, zero, zero, zero, 0.04)
    used = bp.pairs[three.latched[0], 1:].ravel()
    assert three.latched[0, 1], "the nearest candidate goes first"
    assert len(used) == 4 == len(set(used.tolist())), "two sockets, two partners, all different"


def test_latches_belong_to_their_environment_and_open_at_reset() -> None:
    both = Magnets(blueprint.load("connect"), 3)
    distance, zero = np.full((3, 2), 0.5), np.zeros((3, 2))
    distance[:2, 0] = 0.0
    both.update(distance, zero, zero, zero, 0.04)
    assert both.latched.any(1).tolist() == [True, True, False]
    both.reset(np.array([True, False, False]))
    assert both.latched.any(1).tolist() == [False, True, False]


def test_a_stronger_magnet_pulls_and_holds_more() -> None:
    both = Magnets(blueprint.load("connect"), 2)
    both.strength = np.array([1.0, 1.2])
    wrench = both.wrenches(at_gap(np.array([0.01, 0.01])), np.tile(np.eye(3), (2, 2, 1, 1)))
    assert wrench[1, 1, 1] / wrench[0, 1, 1] == pytest.approx(1.44)


def test_distant_magnets_are_left_alone() -> None:
    both = Magnets(blueprint.load("connect"), 1)
    assert not both.wrenches(at_gap(0.3), np.tile(np.eye(3), (1, 2, 1, 1))).any()


def test_gaps_are_zero_where_blocks_are_joined_and_measure_what_is_missing() -> None:
    bp = blueprint.load("connect")
    both = Magnets(bp, 3)
    position = at_gap(np.array([0.0, 0.02, 0.0]))
    rotation = np.tile(np.eye(3), (3, 2, 1, 1))
    rotation[2] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # the whole structure turned
    position[2] = position[2] @ rotation[2, 0].T
    distance, angle = both.gaps(position, rotation)
    np.testing.assert_allclose(distance[:, 0], [0.0, 0.02, 0.0], atol=1e-12)
    np.testing.assert_allclose(angle[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(angle[:, 1], np.pi, atol=1e-6)  # the other end needs half a turn
