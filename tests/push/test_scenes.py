import numpy as np
import pytest

from horseshoe import configuration
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import scenes, shapes
from horseshoe.sim.push.config import MATERIALS, PushConfig
from horseshoe.sim.push.warm_start import pair, path, warm_start

CONFIG = PushConfig()


def cover(points: np.ndarray, area: float) -> np.ndarray:
    return shapes.occupancy(points, area, CONFIG)


def at(shape: str, x: float, y: float, turn: float = 0.0) -> np.ndarray:
    return cover(shapes.place(shapes.particles(shape, 256), (x, y), turn), shapes.area(shape))


def write_image(path, dark: np.ndarray) -> None:
    import matplotlib.image

    matplotlib.image.imsave(path, np.where(dark, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)


def test_incremental_iou_is_zero_at_the_start_one_at_the_goal_and_grows_on_the_way():
    start, goal = at("L", 0.5, 0.5), at("L", 0.7, 0.6, 1.0)
    way = [at("L", 0.5 + 0.2 * k, 0.5 + 0.1 * k, k) for k in (0.0, 0.4, 0.7, 0.9, 1.0)]
    score = shapes.incremental_iou(np.array(way), start, goal)
    assert score[0] == 0.0
    assert score[-1] == pytest.approx(1.0, abs=1e-9)
    assert (np.diff(score) > 0).all()


def test_being_pushed_away_from_the_goal_does_not_count_below_zero():
    start, goal = at("box", 0.5, 0.5), at("box", 0.6, 0.5)
    assert shapes.incremental_iou(at("box", 0.3, 0.5), start, goal) == 0.0


@pytest.mark.parametrize("shape", sorted(shapes.SHAPES))
def test_particles_cover_their_shape_evenly_and_completely(shape):
    covered = at(shape, 0.64, 0.64)
    assert covered.sum() * CONFIG.dx**2 == pytest.approx(shapes.area(shape), rel=0.08)
    assert shapes.particles(shape, 256).mean(0) == pytest.approx([0, 0], abs=3e-3)


def test_bending_a_rope_keeps_its_length_and_turns_its_ends():
    rope = shapes.particles("rope", 256)
    arc = shapes.bend(rope, np.pi)
    assert np.ptp(arc[:, 0]) == pytest.approx(2 * 0.5 / np.pi + 0.05, abs=0.02)  # a half circle of that length
    assert shapes.bend(rope, 0.0) == pytest.approx(rope)


@pytest.mark.parametrize("name", scenes.goal_sets())
def test_every_goal_set_keeps_its_promises(name):
    goals = scenes.load_goal_set(name)
    for seed in range(scenes.HELD_OUT, scenes.HELD_OUT + 20):
        scene = scenes.sample(goals, name, seed, 6, CONFIG)
        assert np.linalg.norm(scene.goal.mean(0) - scene.start.mean(0)) <= max(goals.move[1], goals.rope_move) + 5e-3
        assert min(scene.start.min(), scene.goal.min()) > CONFIG.low
        assert max(scene.start.max(), scene.goal.max()) < CONFIG.high
        gaps = np.linalg.norm(scene.robots[:, None] - scene.robots, axis=-1) + np.eye(6)
        assert gaps.min() > 2 * CONFIG.robot_radius
        assert np.linalg.norm(scene.robots[:, None] - scene.start, axis=-1).min() > CONFIG.robot_radius


def test_a_seed_names_one_scene():
    goals = scenes.load_goal_set("wide")
    a, b, c = (scenes.sample(goals, "wide", seed, 4, CONFIG) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a.goal, b.goal)
    np.testing.assert_array_equal(a.robots, b.robots)
    assert a.goal.shape != c.goal.shape or not np.allclose(a.goal, c.goal)


def test_an_image_becomes_a_goal_of_its_size_and_place(tmp_path):
    dark = np.zeros((128, 128), bool)
    dark[30:46, 80:104] = True  # rows from the top
    write_image(tmp_path / "goal.png", dark)
    points, area = shapes.from_image(tmp_path / "goal.png", 256, CONFIG)
    assert area == pytest.approx(16 * 24 * 1e-4)
    assert points.mean(0) == pytest.approx([0.92, 0.90], abs=0.005)
    scene = scenes.custom("box", points, area, 0, 3, CONFIG)
    assert not scene.paired


def test_an_empty_a_full_and_a_broken_goal_image_are_refused(tmp_path):
    write_image(tmp_path / "empty.png", np.zeros((32, 32), bool))
    with pytest.raises(HorseshoeError, match=r"empty\.png: no dark pixel"):
        shapes.from_image(tmp_path / "empty.png", 256, CONFIG)
    write_image(tmp_path / "full.png", np.ones((32, 32), bool))
    with pytest.raises(HorseshoeError, match="every pixel is dark"):
        shapes.from_image(tmp_path / "full.png", 256, CONFIG)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(HorseshoeError, match=r"broken\.png: cannot be read"):
        shapes.from_image(tmp_path / "broken.png", 256, CONFIG)


def test_a_goal_outside_the_arena_or_of_another_size_is_refused():
    box = shapes.particles("box", 256)
    with pytest.raises(
        HorseshoeError, match=r"goal: .* m is outside the arena: x and y must be within \[0\.060, 1\.220\]"
    ):
        scenes.custom("box", box + 1.2, shapes.area("box"), 0, 3, CONFIG)
    with pytest.raises(HorseshoeError, match=r"3\.00 times that of the box"):
        scenes.custom("box", box + 0.6, 3 * shapes.area("box"), 0, 3, CONFIG)


def test_unknown_names_are_answered_with_the_valid_ones():
    with pytest.raises(HorseshoeError, match="the sets are near, ropes, unseen, wide"):
        scenes.load_goal_set("far")
    with pytest.raises(HorseshoeError, match="the shapes are box, rope"):
        shapes.particles("X", 10)
    wide = configuration.dump(scenes.load_goal_set("wide"))
    with pytest.raises(HorseshoeError, match=r"shapes.*'X'.*box, rope"):
        configuration.load(scenes.GoalSet, wide | {"shapes": ["box", "X"]})
    with pytest.raises(HorseshoeError, match="shapes: there must be one"):
        configuration.load(scenes.GoalSet, wide | {"shapes": []})
    with pytest.raises(HorseshoeError, match=r"robots: 0 is outside \[1, 12\]"):
        scenes.sample(scenes.load_goal_set("wide"), "wide", 0, 0, CONFIG)


def test_pairing_recovers_a_turn_and_the_path_begins_and_ends_right():
    start = shapes.place(shapes.particles("L", 120), (0.5, 0.5), 0.3)
    goal = shapes.place(shapes.particles("L", 120), (0.8, 0.6), 1.2)
    shuffled = goal[np.random.default_rng(0).permutation(120)]
    assert np.linalg.norm(pair(start, shuffled) - goal, axis=1).mean() < 0.02
    way = path(start, goal, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(way[0], start, atol=1e-9)
    np.testing.assert_allclose(way[2], goal, atol=1e-9)
    assert np.ptp(way[1], axis=0).prod() > 0.5 * np.ptp(start, axis=0).prod()  # a turn does not shrink the body


@pytest.mark.parametrize("robots", [1, 2, 12])
def test_the_first_plan_respects_speed_and_ends_at_rest(robots):
    scene = scenes.sample(scenes.load_goal_set("wide"), "wide", 3, robots, CONFIG)
    actions = warm_start(scene, scene.goal, CONFIG, 0.5, np.random.default_rng(0))
    assert actions.shape[1:] == (robots, 2)
    assert np.linalg.norm(actions, axis=-1).max() < 1.05
    assert np.abs(actions[-3:]).max() < 1e-9


def test_a_heavier_object_differs_only_in_its_material():
    scene = scenes.sample(scenes.load_goal_set("near"), "near", 0, 2, CONFIG)
    heavy = scenes.heavier(scene, density=2.0)
    assert heavy.material.density == 2 * MATERIALS["box"].density
    assert heavy.start is scene.start
