import numpy as np
import pytest

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import picture, planner, scenes
from horseshoe.sim.push.config import PushConfig

CONFIG = PushConfig()


def near(seed: int, robots: int = 6) -> scenes.Scene:
    return scenes.sample(scenes.load_goal_set("near"), "near", seed, robots, CONFIG)


def test_six_robots_reach_a_near_goal_and_the_plan_replays_exactly():
    scene = near(scenes.HELD_OUT)
    found = planner.plan(scene, CONFIG, planner.PlannerConfig(iterations=5, restarts=1))
    assert found.score > 0.9
    assert found.success
    particles, robots = planner.simulate(scene, found.actions[None], CONFIG)
    np.testing.assert_array_equal(particles[0], found.particles)
    np.testing.assert_array_equal(robots[0], found.robots)


def test_planning_twice_gives_the_same_plan():
    settings = planner.PlannerConfig(iterations=2, candidates=1, restarts=1, good_enough=1.0)
    a, b = (planner.plan(near(1, 3), CONFIG, settings, seed=4) for _ in range(2))
    np.testing.assert_array_equal(a.actions, b.actions)
    assert a.score == b.score


def test_gradient_steps_improve_a_plan_that_geometry_leaves_short():
    scene = near(2, 2)
    settings = planner.PlannerConfig(iterations=24, candidates=1, restarts=1, good_enough=1.0)
    steps: list[float] = []
    found = planner.plan(scene, CONFIG, settings, progress=lambda step, score: steps.append(score))
    assert len(steps) == 12
    assert steps == sorted(steps)
    assert found.score == steps[-1] > steps[0]


def test_a_goal_that_no_restart_reaches_gets_a_longer_descent():
    rope = scenes.sample(scenes.load_goal_set("wide"), "wide", scenes.HELD_OUT + 2, 6, CONFIG)
    settings = planner.PlannerConfig(iterations=8, patience=1, candidates=1, restarts=1)
    found = planner.plan(rope, CONFIG, settings)
    assert not found.success
    assert len(found.history) == 8


def test_gradients_from_the_law_are_the_same_for_the_same_state_and_better_than_the_law(monkeypatch):
    monkeypatch.setattr(planner, "AHEAD", 30)
    rope = scenes.sample(scenes.load_goal_set("wide"), "wide", scenes.HELD_OUT + 2, 6, CONFIG)
    law = planner.follow(rope, CONFIG, 30)
    a, b = (planner.improve(rope, CONFIG, 6) for _ in range(2))
    np.testing.assert_array_equal(a.actions, b.actions)
    assert a.score > law.score
    assert len(a.actions) == 30


def test_replanning_carries_on_from_where_the_object_is():
    settings = planner.PlannerConfig(iterations=0, candidates=2, restarts=1)
    found = planner.replan(near(scenes.HELD_OUT), CONFIG, settings, 0, every=12, rounds=6)
    assert found.score > 0.7
    assert len(found.particles) == len(found.actions) + 1
    with pytest.raises(HorseshoeError, match="horizon: 0 decisions"):
        planner.replan(near(0), CONFIG, settings, 0, every=0)


def test_a_plan_is_drawn_as_a_picture_and_as_an_animation(tmp_path):
    scene = near(3, 2)
    particles, robots = planner.simulate(scene, np.zeros((1, 3, 2, 2)), CONFIG)
    still = planner.Plan(np.zeros((3, 2, 2)), particles[0], robots[0], 0.0, [], 0.0)
    picture.picture(tmp_path / "plan.png", still, scene, CONFIG)
    picture.animation(tmp_path / "plan.gif", still, scene, CONFIG)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plan.gif").read_bytes().startswith(b"GIF8")
    with pytest.raises(HorseshoeError, match=r"must be \.gif or \.mp4"):
        picture.animation(tmp_path / "plan.avi", still, scene, CONFIG)
