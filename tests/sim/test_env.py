"""The environments keep Gymnasium's contract and judge episodes by what really stands on the table."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco")

import horseshoe.sim  # noqa: F401  registers the environments
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.hardware import capsules
from horseshoe.sim.assembly.env import TRAINING_PHYSICS, AssemblyConfig, AssemblyVectorEnv
from horseshoe.sim.assembly.perception import NoiseConfig
from horseshoe.sim.assembly.scene import FIELDS
from horseshoe.sim.assembly.starts import HOME, StartConfig
from horseshoe.sim.assembly.task import OUTCOMES, RewardScales, TaskConfig

ASSEMBLY = ("horseshoe/UShape-v0", "horseshoe/Connect-v0")
SMALL: dict[str, Any] = {"n_threads": 1, "pool": 2, "start_batch": 8}


def quiet(n: int = 2, name: str = "connect", **task: Any) -> AssemblyVectorEnv:
    """Without noise, delay or randomisation."""
    config = AssemblyConfig(blueprint=name, noise=NoiseConfig.none(), task=TaskConfig(**task))
    return AssemblyVectorEnv(n, config, **SMALL)


def place(env: AssemblyVectorEnv, gap: float | list[float]) -> None:
    """Blocks of `connect` that far apart [m], arms well above them."""
    n = env.num_envs
    env.reset(seed=0)
    q, opening = np.tile(HOME, (n, 2, 1)), np.full((n, 2), 0.0425)
    position = np.zeros((n, 2, 3))
    position[..., 2] = 0.02
    position[:, 1, 1] = 0.06 + np.asarray(gap)
    mask = np.ones(n, dtype=bool)
    quaternion = np.tile([1.0, 0, 0, 0], (n, 2, 1))
    env.world.reset(mask, np.zeros(n, dtype=np.intp), q, opening, position, quaternion)
    env.path.reset(q, opening)


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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_single_environment_passes_the_checks_of_gymnasium_and_sb3() -> None:
    from gymnasium.utils.env_checker import check_env

    env = gym.make(ASSEMBLY[1], pool=2, start_batch=4).unwrapped
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


def test_every_reward_term_has_a_scale_of_the_same_name_and_every_scale_a_term() -> None:
    env = quiet()
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.ones((2, 2, 7)))
    scales = dataclasses.asdict(RewardScales())
    assert set(info["terms"]) == set(scales)
    total = sum(scales[name] * term for name, term in info["terms"].items())
    np.testing.assert_allclose(info["arm_reward"], total)


def terms_of(env: AssemblyVectorEnv, **state: np.ndarray) -> dict[str, np.ndarray]:
    """Unscaled terms of the left arm, which serves the leg's head, in the world's state but for what is given."""
    no = np.zeros(env.num_envs, dtype=bool)
    changed = dataclasses.replace(env.world.state(), **state)
    env.assignment.pair[:] = 0, -1
    terms, _ = env.task.judge(changed, env.path.target, np.zeros((env.num_envs, 2, 7)), env.assignment, no, no)
    return {name: value[:, 0] for name, value in terms.items()}


def test_a_block_gains_by_turning_before_it_comes_to_its_socket() -> None:
    env = quiet(4)
    place(env, [0.0, 0.08, 0.0, 0.08])
    turned = env.world.state().quaternion
    turned[2:, 1] = [np.cos(0.7), 0.0, 0.0, np.sin(0.7)]
    straight_near, straight_far, askew_near, askew_far = terms_of(env, quaternion=turned)["place"]
    assert straight_near > straight_far > askew_far > askew_near


def test_a_hand_beside_its_block_gains_by_staying_above_it() -> None:
    env = quiet(4)
    place(env, 0.05)
    state = env.world.state()
    tool = env.observer.tool_poses(state.q)[0, 0]
    yaw = np.arctan2(tool[1, 1], tool[0, 1])  # the fingers close across the block
    state.quaternion[:, 1] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    at, under, aside = np.array([0.0, 0.0, 0.006]), np.array([0.0, 0.0, -0.07]), np.array([0.06, 0.0, 0.0])
    state.position[:, 1] = tool[:3, 3] + np.stack([at, at + under, at + aside, at + aside + under])
    held, above, beside, above_beside = terms_of(env, position=state.position, quaternion=state.quaternion)["reach"]
    assert held > above > beside
    assert above_beside > beside


def test_an_arm_that_has_connected_gains_by_making_room() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    terms = env.step(np.zeros((2, 2, 7)))[4]["terms"]
    serves = env.assignment.pair >= 0
    np.testing.assert_array_equal(terms["connected"][serves], [1.0, 0.0])
    away, at_block = terms["retreat"][serves]
    assert 0.4 < away <= 1.0
    assert at_block == 0.0
    home = np.tile(HOME, (2, 2, 1))
    assert terms_of(env, q=home)["retreat"][0] > terms_of(env, q=home + 0.5)["retreat"][0] > 0.4


def test_success_is_a_joined_structure_at_rest_for_half_a_second() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    outcomes = []
    for _ in range(4):
        outcomes.append([OUTCOMES[o] for o in env.step(np.zeros((2, 2, 7)))[4]["outcome"]])
        if outcomes[-1][0] != "running":
            break
    assert outcomes == [["running", "running"], ["running", "running"], ["success", "running"]]


def test_a_block_pushed_out_of_its_arms_reach_ends_an_episode_that_gives_up() -> None:
    env = quiet(2, give_up=True)
    place(env, [0.05, 0.05])
    arm = int(env.assignment.pair[1].argmax())  # the other one serves nothing
    block = int(env.blueprint.magnet_block[env.blueprint.pairs[env.assignment.pair[1, arm], 2]])
    start = 1 + 16 + 7 * block
    env.world._state[1, start : start + 3] = [-0.5 * env.observer.base_positions[arm, 0], 0.3, 0.02]
    _, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "out_of_reach"]
    assert terminated.tolist() == [False, True]
    assert not truncated.any()


@pytest.mark.parametrize(("block", "height"), [(0, 0.02), (1, 0.04)])
def test_a_base_on_its_side_or_a_leg_on_end_ends_an_episode_that_gives_up(block: int, height: float) -> None:
    env = quiet(2, give_up=True)
    place(env, [0.05, 0.05])
    start = 1 + 16 + 7 * block
    env.world._state[1, start + 2 : start + 7] = [height, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    _, _, terminated, _, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "toppled"]
    assert terminated.tolist() == [False, True]


def test_without_giving_up_a_leg_on_end_is_named_when_time_is_over() -> None:
    env = quiet(1, horizon=1.0)
    place(env, 0.05)
    env.world._state[:, 1 + 16 + 7 + 2 : 1 + 16 + 7 + 7] = [0.04, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    outcomes, ends = [], []
    for _ in range(5):
        _, _, terminated, truncated, info = env.step(np.zeros((1, 2, 7)))
        outcomes.append(OUTCOMES[info["outcome"][0]])
        ends.append((bool(terminated[0]), bool(truncated[0])))
    assert outcomes == ["running"] * 4 + ["toppled"]
    assert ends[-1] == (False, True)


def test_a_latch_without_the_pose_is_no_success() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    state = env.world.state()
    env.world.magnets.latched[:, 0] = True
    assert env.task.joined(state).tolist() == [True, False]
    env.world.magnets.latched[:] = False
    assert env.task.joined(state).tolist() == [False, False]


def test_a_block_that_flies_off_ends_the_episode_as_a_failure() -> None:
    env = quiet(2)
    place(env, [0.05, 0.05])
    env.world._state[1, 1 + 16 : 1 + 19] = [0.2, 0.0, 1.0]  # the base, thrown up
    _, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "flew_off"]
    assert terminated.tolist() == [False, True]
    assert not truncated.any()


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
    config = AssemblyConfig(blueprint="connect")
    env = AssemblyVectorEnv(4, config, **SMALL)
    env.set_level(0.0)
    env.reset(seed=0)
    assert env.path.delay.max() <= config.noise.delay[1] / 3 + 0.01
    env.set_level(1.0)
    assert env.perception.scale == 1.0


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
