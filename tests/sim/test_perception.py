"""Sensors: perfect ones report the truth; late, blind and noisy ones are late, blind and noisy as configured."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from horseshoe.sim.assembly.magnets import matrices
from horseshoe.sim.assembly.perception import NoiseConfig, Perception, true_scene
from horseshoe.sim.assembly.trace import CHUNK
from horseshoe.sim.assembly.world import TICK, BatchWorld
from tests.sim.conftest import hold, park

N = 4


@pytest.fixture
def world(make_world: Callable[..., BatchWorld]) -> BatchWorld:
    """Blocks that fall and arms that move, so that every moment differs from the one before."""
    made = make_world(N)
    park(made, [[0, 0, 0.5], [0, 0.3, 0.5]], 0.3)
    step(made)
    return made


def step(world: BatchWorld) -> None:
    targets = hold(world, 20)
    targets[..., :6] += np.linspace(0, 0.1, 20)[:, None, None]
    world.advance(targets)


def perceive(config: NoiseConfig, world: BatchWorld, seed: int = 0) -> Perception:
    made = Perception(config, world, np.random.default_rng(seed))
    made.reset(np.ones(world.n_envs, dtype=bool))
    return made


TARGET = np.zeros((N, 2, 7))


def test_without_noise_the_truth_is_seen(world: BatchWorld) -> None:
    seen, truth = perceive(NoiseConfig.none(), world).perceive(TARGET), true_scene(world.state(), TARGET)
    for name in ("q", "opening", "position", "rotation", "target"):
        np.testing.assert_allclose(getattr(seen, name), getattr(truth, name), atol=1e-12, err_msg=name)


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_late_block_poses_are_those_of_that_many_chunks_ago(world: BatchWorld, chunks: int) -> None:
    late = chunks * CHUNK * TICK
    seen = perceive(replace(NoiseConfig.none(), block_latency=(late, late)), world).perceive(TARGET)
    then = world.read(world.trace.states[-1 - chunks])
    np.testing.assert_allclose(seen.position, then.position, atol=1e-12)
    np.testing.assert_allclose(seen.rotation, matrices(then.quaternion), atol=1e-12)
    assert np.abs(seen.position - world.state().position).max() > 1e-3, "they were falling"
    np.testing.assert_allclose(seen.q, world.state().q, atol=1e-12)


def test_late_joint_readings_are_those_of_a_chunk_ago(world: BatchWorld) -> None:
    late = CHUNK * TICK
    seen = perceive(replace(NoiseConfig.none(), joint_latency=(late, late)), world).perceive(TARGET)
    np.testing.assert_allclose(seen.q, world.read(world.trace.states[-2]).q, atol=1e-12)
    assert np.abs(seen.q - world.state().q).max() > 1e-3
    np.testing.assert_allclose(seen.position, world.state().position, atol=1e-12)


@pytest.mark.parametrize(("ticks", "late"), [(20, 44), (10, 16), (25, 16), (10, 32)])
def test_poses_may_be_older_than_a_decision_at_every_rate(
    make_world: Callable[..., BatchWorld], ticks: int, late: int
) -> None:
    world, seen = make_world(N), []
    sensors = perceive(replace(NoiseConfig.none(), block_latency=(late * TICK, late * TICK)), world)
    park(world, [[0, 0, 100.0], [0, 0.3, 100.0]], 0.3)
    for _ in range(8):
        world.advance(hold(world, ticks))
        seen.append(sensors.perceive(TARGET).position[0, 0, 2])
    # A block that falls for a time t is 9.81 t^2 / 2 lower; states are kept every CHUNK ticks.
    fallen = [np.sqrt((100.0 - height) * 2 / 9.81) / TICK for height in seen]
    age = ticks * np.arange(1, 9) - np.array(fallen)
    kept = ticks * np.arange(1, 9) > late
    assert np.abs(age[kept] - late).max() < CHUNK / 2 + 1.0


def test_the_first_look_of_an_episode_is_not_older_than_the_episode(world: BatchWorld) -> None:
    sensors = perceive(replace(NoiseConfig.none(), block_latency=(0.16, 0.16)), world)
    park(world, [[0, 0, 0.02], [0, 0.3, 0.02]])
    np.testing.assert_allclose(sensors.perceive(TARGET).position, world.state().position, atol=1e-12)


def test_a_block_that_is_not_seen_keeps_its_last_pose(world: BatchWorld) -> None:
    sensors = perceive(replace(NoiseConfig.none(), dropout=0.5), world)
    last = sensors.perceive(TARGET).position
    np.testing.assert_allclose(last, world.state().position, atol=1e-12)  # the first look sees everything
    lost = 0
    for _ in range(6):
        step(world)
        seen, truth = sensors.perceive(TARGET).position, world.state().position
        kept = np.abs(seen - last).max(-1) < 1e-12
        fresh = np.abs(seen - truth).max(-1) < 1e-12
        assert (kept | fresh).all()
        lost += int((kept & ~fresh).sum())
        last = seen
    assert 6 < lost < 42


def test_noise_has_the_size_asked_for_and_bias_stays_for_an_episode(make_world: Callable[..., BatchWorld]) -> None:
    world = make_world(N)
    park(world, [[0, 0, 0.02], [0, 0.3, 0.02]])
    truth = world.state().position
    noisy = perceive(replace(NoiseConfig.none(), position=0.004, joint=0.001), world)
    looks = [noisy.perceive(TARGET) for _ in range(200)]
    assert np.std([s.position - truth for s in looks]) == pytest.approx(0.004, rel=0.1)
    assert np.std([s.q - world.state().q for s in looks]) == pytest.approx(0.001, rel=0.1)
    biased = perceive(replace(NoiseConfig.none(), position_bias=0.004), world)
    first, second = (biased.perceive(TARGET).position - truth for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0.001 < np.std(first) < 0.01
    biased.reset(np.array([True, False, False, False]))
    third = biased.perceive(TARGET).position - truth
    assert np.abs(third[0] - first[0]).max() > 1e-4
    np.testing.assert_array_equal(third[1:], first[1:])


def test_noisy_rotations_are_rotations(world: BatchWorld) -> None:
    seen = perceive(replace(NoiseConfig.none(), rotation=0.2, rotation_bias=0.2), world).perceive(TARGET).rotation
    np.testing.assert_allclose(seen @ np.swapaxes(seen, -1, -2), np.broadcast_to(np.eye(3), seen.shape), atol=1e-12)
    assert np.abs(seen - matrices(world.state().quaternion)).max() > 0.05


def test_a_snapshot_continues_exactly(world: BatchWorld) -> None:
    sensors = perceive(NoiseConfig(), world)
    sensors.perceive(TARGET)
    kept, rng = sensors.snapshot(), np.random.default_rng(9)
    sensors._rng = rng
    state = rng.bit_generator.state
    first = sensors.perceive(TARGET)
    sensors.restore(kept)
    rng.bit_generator.state = state
    np.testing.assert_array_equal(sensors.perceive(TARGET).position, first.position)
