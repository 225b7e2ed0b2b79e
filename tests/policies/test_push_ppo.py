"""PPO on pushing: a policy of the same form as the distilled one, trained from nothing or on from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from horseshoe import cli, configuration
from horseshoe import tokens as seeing
from horseshoe.errors import HorseshoeError
from horseshoe.policies import distill, push_ppo
from horseshoe.policies.distill import make_env, pack
from horseshoe.policies.evaluate_push import evaluate
from horseshoe.policies.push_ppo import PushPPOConfig, PushVecEnv
from horseshoe.policies.runtime import TokenPolicy

TINY = PushPPOConfig(
    scenes={"near": {2: 1, 3: 1}}, width=16, heads=2, layers=1, neighbours=2, particles=4, n_steps=60, decisions=480,
    minibatch=64, epochs=1, save_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a training over four rollouts, in which every scene ends twice."""
    folder = tmp_path_factory.mktemp("push_ppo")
    push_ppo.train(TINY, folder)
    return folder


def test_robots_of_all_environments_are_agents_of_one_policy() -> None:
    env = PushVecEnv([make_env("near", robots, 2, TINY) for robots in (2, 3)])
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
    rest, done = np.zeros((2, 2), dtype=np.float32), np.zeros(2, dtype=bool)
    while not done.all():
        _, _, done, _ = env.step(rest)
    assert env.ends == [], "the first episode was not a whole one"
    for _ in range(env.env.max_steps):
        _, _, done, infos = env.step(rest)
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
    assert policy.contract.training["decisions"] == 480
    assert len(json.loads((tmp_path / "curve.json").read_text())) == 2
    assert len(evaluate(policy, episodes=1, robots=4, goals="near").outcomes) == 1


def test_a_training_goes_on_where_it_ended_and_not_with_other_settings(run: Path) -> None:
    before = load_file(run / push_ppo.CHECKPOINT)
    push_ppo.train(TINY, run)  # it is over
    for name, value in load_file(run / push_ppo.CHECKPOINT).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    with pytest.raises(HorseshoeError, match=r"push_ppo.yaml: gamma is 0.98 there, 0.9 here"):
        push_ppo.train(replace(TINY, gamma=0.9), run)
    push_ppo.train(replace(TINY, decisions=960), run)
    _, actor, state = push_ppo.load(run)
    assert state["timesteps"] == 960 // 2 * 5
    assert [point["step"] for point in state["curve"]] == [360, 480, 840, 960]
    assert state["begun"] == 2, "in scenes that the first part did not meet"
    assert not torch.equal(actor.head.weight, torch.from_numpy(before["policy.action_net.weight"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scenes": {"far": {2: 1}}}, "goal set 'far' is unknown"),
        ({"scenes": {}}, "scenes: there must be one goal set"),
        ({"scenes": {"near": {13: 1}}}, "robots: 13 is outside"),
        ({"scenes": {"near": {2: 0}}}, "scenes.*positive"),
        ({"scenes": {"near": 3}}, "scenes.near: expected a mapping"),
    ],
)
def test_wrong_settings_are_refused_before_the_folder_is_theirs(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(HorseshoeError, match=message):
        push_ppo.train(configuration.load(PushPPOConfig, configuration.dump(TINY) | wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def of_distilled(distilled: Path, **changes: Any) -> PushPPOConfig:
    """Settings of a training that goes on from the distilled policy, for two rollouts without `changes`."""
    form = {name: getattr(distill.load(distilled)[0], name) for name in ("layers", "neighbours", "particles")}
    return replace(TINY, **{"decisions": 240, **form, **changes})


def test_a_training_goes_on_from_a_distilled_policy_whose_critic_learns_first(distilled: Path, tmp_path: Path) -> None:
    taught, actor, _ = distill.load(distilled)
    push_ppo.train(of_distilled(distilled, warm_up=2), tmp_path, distilled / push_ppo.CHECKPOINT)
    config, same, state = push_ppo.load(tmp_path)
    x = torch.randn(
        8, seeing.SELF + seeing.ROBOT * taught.neighbours + (seeing.OBJECT + seeing.GOAL) * taught.particles
    )
    with torch.no_grad():
        torch.testing.assert_close(same.act(x), taught.gain * actor.act(x))
    assert config.initial == distilled.name
    assert state["taught"]["dagger"] == taught.dagger
    weights = load_file(tmp_path / push_ppo.CHECKPOINT)
    assert any(name.startswith("optimizer") for name in weights), "the critic has learned"
    push_ppo.train(of_distilled(distilled, warm_up=2, decisions=480), tmp_path)
    _, other, _ = push_ppo.load(tmp_path)
    assert not torch.equal(other.head.weight, same.head.weight), "and then the actor"


def test_a_training_that_goes_on_from_another_takes_over_its_critic_too(distilled: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    push_ppo.train(of_distilled(distilled), before, distilled / push_ppo.CHECKPOINT)
    push_ppo.train(of_distilled(distilled, learning_rate=1e-7), after, before / push_ppo.CHECKPOINT)
    old, new = load_file(before / push_ppo.CHECKPOINT), load_file(after / push_ppo.CHECKPOINT)
    parts = [name for name in old if name.startswith("policy.") and "log_std" not in name]  # the noise is its own
    assert any("critic" in name for name in parts)
    for name in parts:
        np.testing.assert_allclose(new[name], old[name], atol=1e-4, err_msg=name)


def test_the_card_of_such_a_policy_tells_of_all_its_trainings(distilled: Path, tmp_path: Path) -> None:
    given = ["--from", str(distilled / push_ppo.CHECKPOINT), "--run", str(tmp_path / "run")]
    file = tmp_path / "further.yaml"
    configuration.save_yaml(of_distilled(distilled, decisions=480), file)
    for command in (["train", str(file), *given], ["export", str(tmp_path / "run"), str(tmp_path / "policy")]):
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 0, result.output
    card = (tmp_path / "policy" / "card.md").read_text()
    assert "Distilled: cloning" in card
    assert "PPO (SB3) went on from there." in card
    again = ["--from", str(tmp_path / "run" / push_ppo.CHECKPOINT), "--run", str(tmp_path / "again")]
    for command in (["train", str(file), *again], ["export", str(tmp_path / "again"), str(tmp_path / "policy")]):
        assert CliRunner().invoke(cli.main, command).exit_code == 0
    card = (tmp_path / "policy" / "card.md").read_text()
    assert "Distilled: cloning" in card
    assert "PPO (SB3) went on from there, 2 times." in card
    assert card.count("| PPO: scenes side by side |") == 2


def test_a_policy_with_another_network_is_refused_by_its_difference(distilled: Path, tmp_path: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"width: .*has 16, not 8"):
        push_ppo.train(of_distilled(distilled, width=8), tmp_path / "run", distilled / push_ppo.CHECKPOINT)
    assert not (tmp_path / "run").exists()


def test_a_run_that_went_on_from_a_policy_does_not_begin_without_it(distilled: Path, tmp_path: Path) -> None:
    with pytest.raises(HorseshoeError, match="begins with the policy of 'distilled'; give its checkpoint"):
        push_ppo.train(of_distilled(distilled, initial="distilled"), tmp_path / "run")


def test_two_processes_train_one_policy_together(tmp_path: Path) -> None:
    push_ppo.train(replace(TINY, processes=2, decisions=960), tmp_path)
    _, _, state = push_ppo.load(tmp_path)
    assert state["timesteps"] == 960 // 2 * 5
    assert state["curve"][-1]["step"] == 960
