"""PPO on pushing: a policy of the same form as the distilled one, trained from nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from horseshoe import cli, configuration
from horseshoe.errors import HorseshoeError
from horseshoe.policies import push_ppo
from horseshoe.policies.distill import make_env, pack
from horseshoe.policies.evaluate_push import evaluate
from horseshoe.policies.push_ppo import PushPPOConfig, PushVecEnv
from horseshoe.policies.runtime import TokenPolicy

TINY = PushPPOConfig(
    robots=(2, 3), goals="near", width=16, heads=2, layers=1, neighbours=2, particles=4, n_envs=1, n_steps=60,
    decisions=240, minibatch=64, epochs=1, save_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a training over two rollouts, in which every scene ends once."""
    folder = tmp_path_factory.mktemp("push_ppo")
    push_ppo.train(TINY, folder)
    return folder


def test_robots_of_all_environments_are_agents_of_one_policy() -> None:
    env = PushVecEnv([make_env("near", robots, 2, TINY) for robots in TINY.robots])
    assert env.num_envs == 2 * (2 + 3)
    first = env.reset()
    alone = make_env("near", 3, 2, TINY)
    np.testing.assert_array_equal(first[4:], pack(alone.reset(seed=push_ppo.FIRST_SEED + 1)[0]))
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2)).astype(np.float32)
    seen, reward, done, _ = env.step(actions)
    there, _, _, _, info = alone.step(actions[4:].reshape(2, 3, 2))
    np.testing.assert_array_equal(seen[4:], pack(there))
    np.testing.assert_allclose(reward[4:], push_ppo.VALUE_SCALE * info["robot_reward"].reshape(-1), rtol=1e-6)
    assert not done.any()


def test_an_episode_that_ends_tells_what_was_seen_last() -> None:
    env = PushVecEnv([make_env("near", 2, 1, TINY)])
    env.reset()
    for _ in range(env.env.max_steps):
        _, _, done, infos = env.step(np.zeros((2, 2), dtype=np.float32))
    assert done.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert infos[0]["terminal_observation"].shape == env.observation_space.shape
    assert env.ends == [False]


def test_it_is_exported_in_the_form_of_the_distilled_policy_and_pushes(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["export", str(run), str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "Trained by PPO" in (tmp_path / "card.md").read_text()
    assert (tmp_path / "curve.png").exists()
    policy = TokenPolicy(tmp_path)
    assert policy.contract.training["decisions"] == 240
    assert len(json.loads((tmp_path / "curve.json").read_text())) == 1
    assert len(evaluate(policy, episodes=1, robots=4, goals="near").outcomes) == 1


def test_a_training_goes_on_where_it_ended_and_not_with_other_settings(run: Path) -> None:
    before = load_file(run / push_ppo.CHECKPOINT)
    push_ppo.train(TINY, run)  # it is over
    for name, value in load_file(run / push_ppo.CHECKPOINT).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    with pytest.raises(HorseshoeError, match=r"push_ppo.yaml: gamma is 0.98 there, 0.9 here"):
        push_ppo.train(replace(TINY, gamma=0.9), run)
    push_ppo.train(replace(TINY, decisions=480), run)
    _, actor, state = push_ppo.load(run)
    assert state["timesteps"] == 480 // 2 * 5
    assert len(state["curve"]) == 2
    assert state["begun"] == 2, "in scenes that the first part did not meet"
    assert not torch.equal(actor.head.weight, torch.from_numpy(before["policy.action_net.weight"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"goals": "far"}, "goal set 'far' is unknown"), ({"robots": []}, "robots"), ({"robots": [13]}, "robots.*12")],
)
def test_wrong_settings_are_refused_before_the_folder_is_theirs(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(HorseshoeError, match=message):
        push_ppo.train(configuration.load(PushPPOConfig, configuration.dump(TINY) | wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_for_pushing_starts_from_no_checkpoint(run: Path) -> None:
    given = ["train", "push", "--from", str(run / push_ppo.CHECKPOINT)]
    result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 2
    assert "--from: a policy for pushing is trained from the beginning" in result.stderr
