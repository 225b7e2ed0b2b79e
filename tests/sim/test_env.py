"""The environments keep Gymnasium's contract."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco")

import horseshoe.sim  # noqa: F401  registers the environments
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.hardware import capsules
from horseshoe.sim.assembly.config import TRAINING_PHYSICS, AssemblyConfig
from horseshoe.sim.assembly.env import AssemblyVectorEnv
from horseshoe.sim.assembly.perception import NoiseConfig
from horseshoe.sim.assembly.scene import FIELDS
from horseshoe.sim.assembly.starts import StartConfig
from horseshoe.sim.assembly.task import OUTCOMES, TaskConfig
from tests.sim.conftest import SMALL, place, quiet

ASSEMBLY = ("horseshoe/UShape-v0", "horseshoe/Connect-v0")


@pytest.mark.parametrize("name", sorted(i for i in gym.registry if i.startswith("horseshoe/")))
def test_every_registered_environment_can_be_made_and_stepped(name: str) -> None:
    env = gym.make(name)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.action_space.seed(0)
    for _ in range(2):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        assert not (terminated or truncated)
    env.close()


@pytest.mark.parametrize("name", ASSEMBLY)
def test_gymnasium_makes_them_natively_vectorised(name: str) -> None:
    env = gym.make_vec(name, num_envs=3, vectorization_mode="vector_entry_point", **SMALL)
    observation, _ = env.reset(seed=0)
    assert isinstance(env.unwrapped, AssemblyVectorEnv)
    assert observation.shape == (3, 2, FIELDS.size)
    assert observation.dtype == np.float32
    observation, reward, terminated, truncated, info = env.step(np.zeros((3, 2, 7)))
    assert env.observation_space.contains(observation)
    assert reward.shape == terminated.shape == truncated.shape == (3,)
    assert info["arm_reward"].shape == (3, 2)
    np.testing.assert_allclose(info["arm_reward"].mean(1), reward)


@pytest.mark.parametrize("name", ASSEMBLY)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_single_environment_passes_the_checks_of_gymnasium_and_sb3(name: str) -> None:
    from gymnasium.utils.env_checker import check_env

    env = gym.make(name, pool=2, start_batch=4).unwrapped
    check_env(env, skip_render_check=True)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(env, warn=False, skip_render_check=True)


def test_the_same_seed_gives_the_same_episodes_noise_and_resets_included() -> None:
    config = AssemblyConfig(blueprint="connect", task=TaskConfig(horizon=1.0))
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2, 7))
    runs = []
    for _ in range(2):
        env = AssemblyVectorEnv(3, config, **SMALL)
        seen = [env.reset(seed=4)[0]]
        seen += [x for action in actions for x in env.step(action)[:4]]
        runs.append(seen)
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
    again, other = env.reset(seed=4)[0], env.reset(seed=5)[0]
    np.testing.assert_array_equal(again, runs[0][0])
    assert np.abs(other - again).max() > 0.1


def test_a_finished_episode_resets_in_the_same_step_and_hands_over_its_last_observation() -> None:
    env = AssemblyVectorEnv(2, AssemblyConfig(blueprint="connect", task=TaskConfig(horizon=1.0)), **SMALL)
    assert env.metadata["autoreset_mode"] == gym.vector.AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for _ in range(4):
        _, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
        assert not terminated.any()
        assert not truncated.any()
        assert "final_obs" not in info
    observation, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
    assert truncated.all()
    assert not terminated.any()
    assert info["final_obs"].shape == observation.shape
    assert np.abs(info["final_obs"] - observation).max() > 0.1, "a new scene"
    assert info["steps"].tolist() == [5, 5]
    assert env.steps.tolist() == [0, 0]
    assert {OUTCOMES[o] for o in info["outcome"]} <= {"no_grasp", "dropped", "misaligned", "time_out"}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full((2, 2, 7), np.nan), "action: contains NaN"),
        (np.zeros((2, 7)), r"action: shape \(2, 7\), expected \(2, 2, 7\)"),
        (np.zeros((2, 2, 6)), r"action: shape \(2, 2, 6\), expected \(2, 2, 7\)"),
    ],
)
def test_an_action_that_is_no_action_is_refused_and_moves_nothing(action: np.ndarray, message: str) -> None:
    env = quiet()
    env.reset(seed=0)
    before = {k: v for k, v in env.snapshot().items() if k != "rng"}
    with pytest.raises(HorseshoeError, match=message):
        env.step(action)
    for name, value in before.items():
        np.testing.assert_array_equal(env.snapshot()[name], value, err_msg=name)


@pytest.mark.parametrize("absurd", [np.nan, 1e12])
def test_an_exploding_cell_ends_its_own_episode_only(
    absurd: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning here
    seen = []
    for broken in (False, True):
        env = quiet(3)
        place(env, 0.05)
        if broken:
            env.world._state[1, 1 + env.world._nq] = absurd
        for _ in range(3):
            observation, reward, terminated, _, info = env.step(np.full((3, 2, 7), 0.1))
            assert np.isfinite(observation).all()
            assert np.isfinite(reward).all()
            seen.append((broken, observation, reward, terminated, info["outcome"]))
    fine, poisoned = seen[:3], seen[3:]
    assert OUTCOMES[poisoned[0][4][1]] == "diverged"
    assert poisoned[0][3].tolist() == [False, True, False]
    for a, b in zip(fine, poisoned, strict=True):
        np.testing.assert_array_equal(a[1][[0, 2]], b[1][[0, 2]])
        np.testing.assert_array_equal(a[2][[0, 2]], b[2][[0, 2]])


@pytest.mark.parametrize("engine", ["mujoco", "quasistatic"])
def test_some_episodes_go_on_where_others_were_before_they_failed_and_do_not_count_as_whole(engine: str) -> None:
    config = AssemblyConfig(blueprint="connect", starts=StartConfig(again=1.0), task=TaskConfig(horizon=1.6))
    env = AssemblyVectorEnv(3, config, engine=engine, **SMALL)
    env.reset(seed=0)
    actions, been, whole, back = np.random.default_rng(2).uniform(-1, 1, (32, 3, 2, 7)), [], [], []
    for action in actions:
        _, _, terminated, truncated, info = env.step(action)
        if (terminated | truncated).any():
            whole.append(info["whole"].tolist())
            back += [env.world.state().q[i].ravel() for i in np.flatnonzero(env.again & (env.steps == 0))]
        been += [*env.world.state().q.reshape(3, -1)]
    assert whole[0] == [True] * 3, "eight decisions make an episode, and nobody succeeds"
    assert not np.any(whole[1:])
    for q in back:
        assert min(np.abs(q - other).max() for other in been[:24]) == 0, "a state that the first episodes went through"
    assert len(back) >= 6


def test_an_episode_that_goes_on_before_a_failure_is_the_same_cell_in_everything() -> None:
    config = AssemblyConfig(
        blueprint="connect", starts=StartConfig(again=1.0), task=TaskConfig(horizon=1.6), physics=TRAINING_PHYSICS
    )
    env = AssemblyVectorEnv(1, config, **SMALL)
    env.reset(seed=3)
    actions, seen = np.random.default_rng(2).uniform(-1, 1, (8, 1, 2, 7)), []
    for action in actions:
        env.step(action)
        seen.append(env.privileged()[0])
    assert env.again.all()
    assert env.steps.tolist() == [0]
    assert min(np.abs(env.privileged()[0] - before).max() for before in seen[:-1]) < 1e-6, "delay, lag and target too"


def test_a_snapshot_of_the_environment_continues_exactly() -> None:
    config = AssemblyConfig(blueprint="connect", starts=StartConfig(again=0.5), task=TaskConfig(horizon=1.0))
    env, other = (AssemblyVectorEnv(2, config, **SMALL) for _ in range(2))
    actions = np.random.default_rng(1).uniform(-1, 1, (12, 2, 2, 7))
    env.reset(seed=1)
    for action in actions[:7]:
        env.step(action)
    other.restore(env.snapshot())
    for action in actions[7:]:
        for a, b in zip(env.step(action)[:4], other.step(action)[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(env.privileged(), other.privileged())


def test_a_transport_delay_makes_the_arms_move_later() -> None:
    moved = []
    for delay in (0.0, 0.2):
        noise = dataclasses.replace(NoiseConfig.none(), delay=(delay, delay))
        env = AssemblyVectorEnv(1, AssemblyConfig(blueprint="connect", noise=noise), **SMALL)
        env.reset(seed=0)
        before = env.world.state().q
        env.step(np.ones((1, 2, 7)))
        moved.append(np.abs(env.world.state().q - before).max())
        assert np.abs(env.path.target[..., :6] - before).max() > 0.1, "the target is integrated at once"
    assert moved[0] > 0.03
    assert moved[1] < 0.01


def test_an_easier_level_scales_noise_and_delay_and_assists_more() -> None:
    config = AssemblyConfig(blueprint="connect", starts=StartConfig(above=0.5, assisted=0.6))
    env = AssemblyVectorEnv(4, config, **SMALL)
    assert env.start_config.assisted == 0.6, "as configured, until a level is set"
    env.set_level(0.0)
    env.reset(seed=0)
    assert env.path.delay.max() <= config.noise.delay[1] / 3 + 0.01
    assert (env.start_config.assisted, env.task.contact_scale) == (0.6, 5.0)
    env.set_level(1.0)
    assert (env.perception.scale, env.task.contact_scale) == (1.0, 1.0)
    assert env.start_config.assisted == pytest.approx(0.2)


@pytest.mark.parametrize("level", [0.3, 0.99, 1.0])
def test_an_environment_that_is_restored_has_its_level_too(level: float) -> None:
    config = AssemblyConfig(blueprint="connect", starts=StartConfig(above=0.5, assisted=0.6))
    env, other = (AssemblyVectorEnv(2, config, **SMALL) for _ in range(2))
    env.set_level(level)
    env.reset(seed=1)
    other.restore(env.snapshot())
    assert (other.level, other.start_config) == (level, env.start_config)
    assert (other.perception.scale, other.task.contact_scale) == (env.perception.scale, env.task.contact_scale)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"blueprint": "w_shape"}, "'w_shape' is unknown"),
        ({"noize": {}}, "noize: unknown key; did you mean 'noise'"),
        ({"noise": {"dropout": 2.0}}, r"noise.dropout: 2.0 is outside \[0.0, 0.9\]"),
        ({"task": {"rewards": {"reech": 1.0}}}, "task.rewards.reech: unknown key; did you mean 'reach'"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gym.make_vec(ASSEMBLY[0], num_envs=1, vectorization_mode="vector_entry_point", config=config, **SMALL)


def test_a_picture_of_the_cell_can_be_drawn_without_a_screen() -> None:
    env = gym.make(ASSEMBLY[1], render_mode="rgb_array", pool=2, start_batch=4)
    env.reset(seed=0)
    env.step(np.zeros((2, 7)))
    image = env.render()
    assert isinstance(image, np.ndarray)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.std() > 5.0, "more than one colour"


def test_where_mujoco_cannot_draw_the_cell_is_sketched_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: Any) -> None:
        raise RuntimeError("no such display")

    monkeypatch.setattr("mujoco.Renderer", none)
    env = gym.make(ASSEMBLY[1], render_mode="rgb_array", pool=2, start_batch=4)
    env.reset(seed=0)
    env.step(np.zeros((2, 7)))
    image = env.render()
    assert "No EGL here (no such display): drawing with matplotlib" in caplog.text
    assert isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.std() > 5.0


def test_whatever_two_arms_are_told_they_keep_apart() -> None:
    env, rng = AssemblyVectorEnv(40, AssemblyConfig(noise=NoiseConfig.none()), **SMALL), np.random.default_rng(3)
    env.reset(seed=0)
    wish, q, gaps = np.zeros((40, 2, 7)), env.world.state().q, []
    for _ in range(60):
        wish = 0.85 * wish + rng.normal(0, 0.5, wish.shape)
        lean = np.zeros_like(wish)  # each at the other, forwards and down
        lean[..., 0], lean[..., 1], lean[..., 2] = -q[..., 0], 0.5, -0.3
        q = env.path.decision(np.clip(wish + lean, -1, 1), q)[:, -1, :, :6]
        gaps.append(capsules.gaps_and_gradients(q, env.cell.base_poses)[0].min())
    assert 0.012 < min(gaps) < 0.03, "nearer than the guard allows; or never near, which would prove nothing"


def test_the_end_of_one_episode_is_no_second_look_at_the_others() -> None:
    env = AssemblyVectorEnv(64, AssemblyConfig("connect", noise=NoiseConfig(dropout=0.5)), **SMALL)
    env.reset(seed=0)
    lost = []
    for _ in range(4):
        before = env.perception._last_position.copy()
        env.steps[0] = 10_000
        *_, info = env.step(np.zeros((64, 2, 7)))
        assert info["outcome"][0]
        lost.append((env.perception._last_position == before).all(-1)[1:])
    assert np.mean(lost) == pytest.approx(0.5, abs=0.08)
