import numpy as np
import pytest

from horseshoe import tokens
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.env import SCALES, CoopPushEnv, CoopPushVectorEnv


def test_observations_are_tokens_within_their_space_and_finite():
    env = CoopPushVectorEnv(2, robots=4, goals="near")
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        assert env.observation_space.contains(observation)
        assert all(np.isfinite(value).all() for value in observation.values())
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert reward.shape == terminated.shape == truncated.shape == (2,)
    assert set(info["metrics"]) == set(SCALES)
    assert info["robot_reward"].mean(1) == pytest.approx(reward)


def test_spread_episodes_end_one_here_and_one_there_and_are_whole_from_then_on():
    env = CoopPushVectorEnv(8, robots=1, goals="near", max_steps=5)
    env.reset(seed=0, options={"spread": True})
    ends = np.stack([env.step(np.zeros((8, 1, 2)))[3] for _ in range(10)])
    assert (ends[:5].sum(0) == 1).all()
    assert (ends[:5] == ends[5:]).all()
    assert (ends.sum(1) < 8).all()


def test_reaching_the_goal_pays_once():
    env = CoopPushVectorEnv(1, robots=4, goals="near")
    env.reset(seed=0)
    paid = []
    for _ in range(60):
        info = env.step(env.to_own_frames(env.steer(0)[None]))[4]
        paid.append((info["incremental_iou"][0], info["metrics"]["solved"][0]))
    scores, solved = np.array(paid).T
    assert scores[-1] > 0.95
    assert solved.sum() == pytest.approx(1.0, abs=0.05)
    assert solved[scores < 0.6].sum() < 0.1


def test_the_same_seed_gives_the_same_episode_and_another_seed_another():
    def run(seed: int) -> np.ndarray:
        env = CoopPushVectorEnv(2, robots=3, goals="near")
        env.reset(seed=seed)
        env.action_space.seed(0)
        return np.stack([env.step(env.action_space.sample())[0]["object"] for _ in range(3)])

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2))


def test_driving_ahead_brings_every_robot_closer_to_the_object():
    env = CoopPushVectorEnv(1, robots=5, goals="near")
    before = env.reset(seed=3)[0]["self"][..., 4]
    ahead = np.zeros((1, 5, 2))
    ahead[..., 0] = 1.0
    after = env.step(ahead)[0]["self"][..., 4]
    assert (after < before).all()


def test_what_robots_see_does_not_change_when_the_scene_is_turned():
    rng = np.random.default_rng(0)
    robots, velocities, body, goal = (rng.random((1, n, 2)) for n in (3, 3, 8, 8))
    messages = np.repeat(np.concatenate([robots, velocities], -1)[:, None], 3, axis=1)
    turned = np.array([np.cos(1.1), np.sin(1.1)])

    def see(turn: bool) -> dict[str, np.ndarray]:
        way = (lambda x: tokens.to_arena(x, turned)) if turn else (lambda x: x)
        parts = np.concatenate([way(messages[..., :2]), way(messages[..., 2:])], axis=-1)
        ages = np.zeros((1, 3, 3), int)
        return tokens.tokens(way(robots), way(velocities), parts, ages, way(body), way(goal), way(np.ones(2)), 2)

    for name, value in see(False).items():
        np.testing.assert_allclose(value, see(True)[name], atol=1e-5)


def test_a_message_arrives_as_late_as_its_link_says():
    radio = tokens.Radio(1, 2)
    radio.reset(np.array([0]), np.full((1, 2, 4), -1.0), (3, 3), np.random.default_rng(0))
    heard = []
    for k in range(6):
        radio.send(np.full((1, 2, 4), float(k)))
        heard.append(radio.heard()[0, 0, 1, 0])
    assert heard == [-1.0, -1.0, -1.0, 0.0, 1.0, 2.0]


def test_a_lone_robot_sees_no_neighbour():
    observation, _ = CoopPushEnv(robots=1, goals="near").reset(seed=0)
    assert not observation["robots"].any()


def test_an_episode_ends_in_time_reports_its_score_and_the_next_begins():
    env = CoopPushVectorEnv(2, robots=2, goals="near", max_steps=3)
    first = env.reset(seed=0)[0]["object"]
    names = [scene.name for scene in env.scenes]
    for _ in range(3):
        observation, _, terminated, truncated, info = env.step(np.zeros((2, 2, 2)))
    assert truncated.all()
    assert not terminated.any()
    assert info["final_info"]["seeds"] == names
    assert (info["final_info"]["incremental_iou"] < 0.2).all()
    assert not np.allclose(observation["object"], first)
    assert [scene.name for scene in env.scenes] != names


def test_one_scene_is_a_batch_of_one():
    single, batch = CoopPushEnv(robots=3, goals="near"), CoopPushVectorEnv(1, robots=3, goals="near")
    single.reset(seed=5)
    batch.reset(seed=5)
    action = np.full((3, 2), 0.3)
    a, b = single.step(action), batch.step(action[None])
    np.testing.assert_array_equal(a[0]["object"], b[0]["object"][0])
    assert a[1] == b[1][0]


def test_the_planner_can_take_over_at_any_time_and_rests_at_the_goal():
    env = CoopPushVectorEnv(1, robots=6, goals="near")
    env.reset(seed=0)
    env.step(np.zeros((1, 6, 2)))
    plan = env.plan(0)
    np.testing.assert_array_equal(plan, env.plan(0))
    for velocities in plan:
        *_, info = env.step(env.to_own_frames(velocities[None]))
    assert info["incremental_iou"][0] > 0.3
    assert np.abs(env.plan(0, {"good_enough": 0.0})).max() == 0.0
    with pytest.raises(HorseshoeError, match="valid keys: iterations"):
        env.plan(0, {"speed": 1.0})


def test_held_out_scenes_are_not_among_those_for_training():
    names = []
    for held_out in (False, True):
        env = CoopPushVectorEnv(2, robots=2, goals="wide", held_out=held_out)
        env.reset(seed=0)
        names.append([scene.name for scene in env.scenes])
    assert names == [["wide-0", "wide-1"], ["wide-1000000", "wide-1000001"]]


def test_disturbances_act():
    still = np.zeros((1, 3, 2))
    blown = CoopPushVectorEnv(1, robots=3, goals="near", disturbance={"current": 8.0})
    blown.reset(seed=0)
    start = blown.particles.mean(1)
    for _ in range(3):
        blown.step(still)
    assert np.linalg.norm(blown.particles.mean(1) - start) > 0.01

    gusty = CoopPushVectorEnv(1, robots=3, goals="near", disturbance={"gust": 12.0, "gust_chance": 0.5})
    gusty.reset(seed=0)
    speeds = []
    for _ in range(12):
        before = gusty.particles.mean(1)
        gusty.step(still)
        speeds.append(np.linalg.norm(gusty.particles.mean(1) - before) / gusty.config.control_period)
    assert 2 <= sum(speed > 0.1 for speed in speeds) <= 10, speeds

    dead = CoopPushVectorEnv(1, robots=3, goals="near", max_steps=4, disturbance={"dead_robots": 1, "stiffness": 2.0})
    dead.reset(seed=0)
    for _ in range(3):
        before = dead.robot_positions
        dead.step(np.full((1, 3, 2), -0.5))
    moved = np.linalg.norm(dead.robot_positions - before, axis=-1)[0]
    assert (moved < 1e-3).sum() == 1

    moving = CoopPushVectorEnv(1, robots=3, goals="near", disturbance={"goal_speed": 0.1})
    moving.reset(seed=0)
    goal = moving.scenes[0].goal.mean(0)
    for _ in range(4):
        moving.step(still)
    assert np.linalg.norm(moving._goal[0].mean(0) - goal) == pytest.approx(0.02, abs=1e-6)


def test_bad_options_are_refused_by_name():
    with pytest.raises(HorseshoeError, match="delay"):
        CoopPushVectorEnv(1, delay=(0, 11))
    with pytest.raises(HorseshoeError, match="valid keys: density"):
        CoopPushVectorEnv(1, disturbance={"wind": 1.0})
    with pytest.raises(HorseshoeError, match=r"stiffness \(1\) is above 5 times the density \(0.1\)"):
        CoopPushVectorEnv(1, disturbance={"density": 0.1})
    with pytest.raises(HorseshoeError, match="robots: 0"):
        CoopPushVectorEnv(1, robots=0)


def test_a_scene_is_rendered_as_a_picture():
    env = CoopPushEnv(robots=2, goals="near", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (480, 480, 3)
    assert picture.std() > 5
