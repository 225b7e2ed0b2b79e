from dataclasses import astuple

import numpy as np
import pytest
from scipy.spatial import cKDTree

from horseshoe.sim.push import dataset, planner, scenes
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.planner import PlannerConfig
from horseshoe.sim.push.shapes import bend, particles, place
from horseshoe.sim.push.steer import SOFT, STIFF, manner, rim, steer
from horseshoe.sim.push.warm_start import must_bend

CONFIG = PushConfig()


def near(seed: int, robots: int) -> scenes.Scene:
    return scenes.sample(scenes.load_goal_set("near"), "near", seed, robots, CONFIG)


@pytest.mark.parametrize("shape", ["box", "U", "rope"])
def test_the_rim_goes_around_the_object_at_its_distance(shape: str) -> None:
    body = place(particles(shape, scenes.PARTICLES), (0.6, 0.6), 0.3)
    ring, tangent = rim(body, 0.045)
    np.testing.assert_allclose(cKDTree(body).query(ring)[0], 0.045, atol=0.004)
    steps = np.roll(ring, -1, 0) - ring
    assert np.linalg.norm(steps, axis=1).max() < 0.008  # closed
    assert ((steps * tangent).sum(1) > 0.0).all()
    assert (ring[:, 0] * steps[:, 1] - ring[:, 1] * steps[:, 0]).sum() > 0.0  # counterclockwise


@pytest.mark.parametrize("robots", [1, 2, 3, 6, 12])
def test_velocities_are_within_the_top_speed_and_the_same_for_the_same_state(robots: int) -> None:
    scene = near(5, robots)
    velocity = steer(scene.start, scene.goal, scene.robots, CONFIG)
    assert velocity.shape == (robots, 2)
    assert 0.1 < np.linalg.norm(velocity, axis=1).max() <= 1.0 + 1e-9
    np.testing.assert_array_equal(velocity, steer(scene.start, scene.goal, scene.robots, CONFIG))
    order = np.roll(np.arange(robots), 1)
    np.testing.assert_allclose(velocity[order], steer(scene.start, scene.goal, scene.robots[order], CONFIG), atol=1e-9)


def test_robots_rest_where_the_goal_is_reached() -> None:
    scene = near(5, 4)
    assert np.abs(steer(scene.start, scene.start + 0.001, scene.robots, CONFIG)).max() == 0.0


@pytest.mark.parametrize("robots", [3, 6])
def test_the_law_brings_the_object_to_its_goal_and_keeps_it_there(robots: int) -> None:
    found = planner.follow(near(scenes.HELD_OUT, robots), CONFIG, 80)
    assert found.score > 0.85
    assert len(found.particles) == len(found.robots) == 81


def test_a_rope_that_must_bend_is_handled_as_something_soft_and_is_bent():
    rope = scenes.sample(scenes.load_goal_set("wide"), "wide", 500010, 6, CONFIG)
    assert must_bend(rope.start, rope.goal)
    assert astuple(manner(rope.start, rope.goal)) == pytest.approx(astuple(SOFT))
    assert manner(rope.start, rope.start + 0.1) == STIFF
    found = planner.follow(rope, CONFIG, 60)
    assert found.score > 0.5


def test_only_what_changes_its_shape_must_bend() -> None:
    body = particles("rope", scenes.PARTICLES)
    moved = place(body, (0.3, 0.2), 1.5)
    assert not must_bend(body, moved)
    assert must_bend(body, bend(body, 1.0) + 0.3)


def test_a_data_set_under_the_law_has_what_it_asked_for() -> None:
    recipe = dataset.Recipe("near", (3,), 0, PlannerConfig(iterations=0, candidates=1, restarts=1), 25, True)
    _, _, entry = dataset.make_shard((recipe, 0, 1))
    assert entry["kept"] == 1
    assert entry["steps"] == dataset.MAX_DECISIONS
