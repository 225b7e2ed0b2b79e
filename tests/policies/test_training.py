"""Training is repeatable to the last bit, also when it is killed and taken up again."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from horseshoe import cli, configuration
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.policies import checkpoint, parallel, ppo, push_ppo
from horseshoe.policies.networks import ARCHITECTURES, ActorCritic, EntityAttention, Normaliser
from horseshoe.policies.runtime import find
from tests.conftest import wait_until
from tests.policies.conftest import TINY

LEARN = ppo._learn  # as it is before a test puts something in its place


def assert_same(a: Path, b: Path) -> None:
    """The checkpoints of two run folders: weights, optimiser, environments, random states."""
    first, second = load_file(a / "checkpoint.safetensors"), load_file(b / "checkpoint.safetensors")
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def without_clock(folder: Path) -> dict[str, Any]:
    state = ppo.read_state(folder / "checkpoint.safetensors")
    state.pop("seconds")
    state["curve"] = [{k: v for k, v in point.items() if k != "seconds"} for point in state["curve"]]
    return state


class Killed(BaseException):
    """As good as SIGKILL: no handler of ours runs."""


def train_until(update: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, but die at the end of that rollout."""
    with monkeypatch.context() as patch:
        ended = ppo._Progress._on_rollout_end
        rollouts: list[int] = []

        def die(self: Any) -> None:
            ended(self)
            rollouts.append(self.num_timesteps)
            if len(rollouts) == update:
                raise Killed

        patch.setattr(ppo._Progress, "_on_rollout_end", die)
        with pytest.raises(Killed):
            ppo.train(TINY, folder, n_threads=1)


def test_training_writes_settings_a_checkpoint_a_curve_and_tensorboard_events(run: Path) -> None:
    assert configuration.load(ppo.TrainConfig, run / "train.yaml") == TINY
    state = ppo.read_state(run / "checkpoint.safetensors")
    assert state["timesteps"] == TINY.decisions * 2, "two arms, two samples a decision"
    assert {"seconds", "decisions", "success", "level"} <= set(state["curve"][-1])
    assert list(run.glob("events.out.tfevents.*"))


def test_training_changes_the_weights(run: Path) -> None:
    before = ppo.build(TINY, n_threads=1).policy.state_dict()
    after = load_file(run / "checkpoint.safetensors")
    assert all(np.isfinite(v).all() for k, v in after.items() if k.startswith("policy."))
    moved = [k for k, v in before.items() if not np.array_equal(after[f"policy.{k}"], v.numpy())]
    assert {"action_net.weight", "value_net.weight", "log_std"} <= set(moved)


def test_two_trainings_with_the_same_seed_are_identical(run: Path, tmp_path: Path) -> None:
    ppo.train(TINY, tmp_path, n_threads=1)
    assert_same(run, tmp_path)
    assert without_clock(run) == without_clock(tmp_path)


def test_a_training_that_was_killed_ends_as_one_that_was_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until(4, tmp_path, monkeypatch)
    assert ppo.read_state(tmp_path / "checkpoint.safetensors")["updates"] == 2
    ppo.train(TINY, tmp_path, n_threads=1)
    assert_same(run, tmp_path)
    assert without_clock(run) == without_clock(tmp_path)


PAIR = dataclasses.replace(TINY, processes=2, n_envs=4, minibatch=16)


def keep_weights(group: parallel.Group, config: ppo.TrainConfig, folder: Path, *args: Any) -> None:
    """What a process of a training does, and a file of the weights it ends with."""
    torch.save(LEARN(group, config, folder, *args).policy.state_dict(), folder / f"weights{group.rank}.pt")


def die_at_the_fourth(group: parallel.Group, *args: Any) -> None:
    """What a process of a training does, but that of rank 1 dies at the end of the fourth rollout."""
    ended = ppo._Progress._on_rollout_end

    def die(self: Any) -> None:
        ended(self)
        if group.rank == 1 and self.updates == 3:
            raise ValueError("the worker is dead")

    ppo._Progress._on_rollout_end = die  # type: ignore[method-assign]  # of this process, which ends
    LEARN(group, *args)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted training of four updates in two processes."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "_learn", keep_weights)
        ppo.train(PAIR, folder)
    return folder


def test_two_processes_train_one_policy_on_cells_of_their_own(pair: Path) -> None:
    first, second = (torch.load(pair / f"weights{rank}.pt") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(second[name], value), name
    saved = load_file(pair / "checkpoint.safetensors")
    np.testing.assert_array_equal(saved["policy.log_std"], first["log_std"])
    assert saved["last_obs"].shape == saved["rank1.last_obs"].shape
    assert not np.array_equal(saved["last_obs"], saved["rank1.last_obs"])
    assert ppo.read_state(pair / "checkpoint.safetensors")["timesteps"] == PAIR.decisions * 2, "two arms"
    assert len(list(pair.glob("events.out.tfevents.*"))) == 1


def test_two_processes_of_which_one_died_end_as_two_that_did_not(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ppo, "_learn", die_at_the_fourth)
        with pytest.raises(RuntimeError, match="ValueError: the worker is dead"):
            ppo.train(PAIR, tmp_path)
    assert not multiprocessing.active_children()
    assert ppo.read_state(tmp_path / "checkpoint.safetensors")["updates"] == 2
    ppo.train(PAIR, tmp_path)
    assert_same(pair, tmp_path)
    assert without_clock(pair) == without_clock(tmp_path)


def note_and_wait(group: parallel.Group, folder: Path) -> None:
    """What a process does that has nothing better to do."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed(tmp_path: Path) -> None:
    code = f"""from pathlib import Path
from tests.policies.test_training import note_and_wait, parallel
parallel.run(note_and_wait, 2, Path({str(tmp_path)!r}))"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])

    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, timeout=60.0)
    parent.kill()
    parent.wait()
    # A process that has ended has no command line, whether or not anybody has taken note of its end.
    commands = [Path("/proc") / note.name / "cmdline" for note in tmp_path.iterdir()]
    wait_until(lambda: not any(c.exists() and c.read_bytes() for c in commands), timeout=60.0)


def test_going_on_with_another_number_of_processes_is_refused(pair: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"train.yaml: processes is 2 there, 1 here"):
        ppo.train(dataclasses.replace(PAIR, processes=1), pair)


def test_one_process_goes_on_from_the_weights_of_two(pair: Path, tmp_path: Path) -> None:
    more = dataclasses.replace(PAIR, processes=1, decisions=PAIR.decisions + 16)
    ppo.train(more, tmp_path, pair / "checkpoint.safetensors", n_threads=1)
    before, after = (ppo.read_state(f / "checkpoint.safetensors") for f in (pair, tmp_path))
    assert after["timesteps"] == more.decisions * 2
    assert after["curve"][: len(before["curve"])] == before["curve"]


def test_what_a_process_refuses_is_said_as_by_one(tmp_path: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"horizn: unknown key"):
        ppo.train(dataclasses.replace(PAIR, env_config={"task": {"horizn": 1.0}}), tmp_path)


def test_a_training_goes_through_its_stages_and_then_on_with_its_own_settings(tmp_path: Path) -> None:
    pytest.importorskip("warp")
    stages = [{"engine": "quasistatic", "decisions": 32, "env_config": {"task": {"horizon": 12.0}}},
              {"decisions": 64, "entropy": 0.01}]  # fmt: skip
    config = dataclasses.replace(TINY, decisions=96, stages=stages)
    ppo.train(config, tmp_path, n_threads=1)
    folders = [tmp_path / "stage_1", tmp_path / "stage_2", tmp_path]
    first, second, whole = (configuration.load(ppo.TrainConfig, f / "train.yaml") for f in folders)
    assert (first.engine, second.engine, whole.engine) == ("quasistatic", "", "")
    assert first.env_config == {**TINY.env_config, "task": {"horizon": 12.0}}
    assert (second.env_config, second.entropy, whole) == (TINY.env_config, 0.01, config)
    states = [ppo.read_state(f / "checkpoint.safetensors") for f in folders]
    assert [s["timesteps"] for s in states] == [64, 128, 192], "two arms"
    for before, after in pairwise(states):
        assert after["curve"][: len(before["curve"])] == before["curve"]
    decisions = [p["decisions"] for p in states[-1]["curve"]]
    assert decisions == sorted(set(decisions))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"decisions": 8, "gama": 0.9}, r"stages\[0\].gama: unknown key.*gamma"),
        ({}, r"stages\[0\].decisions: must be given"),
        ({"decisions": TINY.decisions}, r"stages\[0\].decisions: must be given, above 0 and below"),
    ],
)
def test_a_wrong_stage_is_refused_by_name(stage: dict[str, object], message: str) -> None:
    with pytest.raises(HorseshoeError, match=message):
        ppo.check(dataclasses.replace(TINY, stages=[stage]))


def test_another_seed_trains_another_policy(run: Path, tmp_path: Path) -> None:
    ppo.train(dataclasses.replace(TINY, seed=4, decisions=32), tmp_path, n_threads=1)
    a, b = (load_file(f / "checkpoint.safetensors")["policy.action_net.weight"] for f in (run, tmp_path))
    assert not np.array_equal(a, b)


def test_going_on_with_other_settings_is_refused_by_name(run: Path) -> None:
    before = (run / "train.yaml").read_bytes()
    with pytest.raises(HorseshoeError, match=r"train.yaml: gamma is 0.95 there, 0.9 here"):
        ppo.train(dataclasses.replace(TINY, gamma=0.9), run, n_threads=1)
    assert (run / "train.yaml").read_bytes() == before


def test_a_run_keeps_the_weights_it_began_with_in_its_settings(run: Path, tmp_path: Path) -> None:
    first, folder = run / "checkpoint.safetensors", tmp_path / "new"
    more = [dataclasses.replace(TINY, decisions=TINY.decisions + 32 * k) for k in (1, 2, 3)]
    ppo.train(more[0], folder, first, n_threads=1)
    ppo.train(more[1], folder, n_threads=1)
    assert configuration.load(ppo.TrainConfig, folder / "train.yaml").initial == run.name
    with pytest.raises(HorseshoeError, match=r"train.yaml: initial is '' there, 'new' here"):
        ppo.train(more[2], run, folder / "checkpoint.safetensors", n_threads=1)
    (folder / "train.yaml").unlink()
    with pytest.raises(HorseshoeError, match=f"new: its checkpoint need not come from {first}"):
        ppo.train(more[1], folder, first, n_threads=1)


def test_a_run_that_goes_on_from_others_does_not_begin_from_nothing(tmp_path: Path) -> None:
    configuration.save_yaml(dataclasses.replace(TINY, initial="merged"), tmp_path / "train.yaml")
    with pytest.raises(HorseshoeError, match=f"{tmp_path}: begins with the weights of 'merged'; give its checkpoint"):
        ppo.train(TINY, tmp_path, n_threads=1)
    assert [f.name for f in tmp_path.iterdir()] == ["train.yaml"]


def test_a_finished_training_is_left_as_it_is(run: Path) -> None:
    before = (run / "checkpoint.safetensors").read_bytes()
    ppo.train(TINY, run, n_threads=1)
    assert (run / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("file", sorted(configuration.resource("config/train").glob("*.yaml")), ids=lambda f: f.stem)
def test_the_shipped_settings_are_valid(file: Path) -> None:
    pushing = file.stem.startswith("push")
    config: Any = configuration.load(push_ppo.PushPPOConfig if pushing else ppo.TrainConfig, file)
    assert config.env.startswith("horseshoe/")


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("env: horseshoe/Connect-v0\nlearning_rat: 0.1\n")
    with pytest.raises(ConfigurationError, match=r"mine.yaml: learning_rat: unknown key; did you mean 'learning_rate'"):
        configuration.load(ppo.TrainConfig, file)


def test_the_command_line_refuses_an_unknown_task_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from horseshoe.cli import main; main()", "train", "w_shape"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "task 'w_shape' is unknown; choose from connect, push, push_finer, push_further, u_shape" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("env: horseshoe/Conect-v0", "env: 'horseshoe/Conect-v0' is unknown; choose from horseshoe/Connect-v0"),
        ("noise: {dealy: [0, 0.1]}", "env_config: noise.dealy: unknown key; did you mean 'delay'"),
        ("noise: {delay: [0, 0.5]}", "env_config: noise.delay: [0.0, 0.5] s is outside [0, 0.4]"),
        ("noise: {joint_latency: [0.1, 0]}", "joint_latency: [0.1, 0.0] is no range, least first"),
        ("physics: {mass: [-1, 2]}", "env_config: physics.mass[0]: -1.0 is outside [0.05, 20.0]"),
        ("starts: {holding: 0.6, joined: 0.5}", "above, holding, joining, joined: add up to 1.1, which is more than 1"),
        (f"action: {{joint_lower: {[0] * 5}, joint_upper: {[1] * 6}}}", "action.joint_lower: expected 6 values, got 5"),
        ("env: horseshoe/Connect-v0\ninitial_std: [0.2, 0.2]", "initial_std: [0.2, 0.2] is not 7 numbers above 0"),
        (f"env: horseshoe/Connect-v0\ninitial_std: {[0.2] * 6 + [0]}", "is not 7 numbers above 0, one per action"),
        ("env: horseshoe/Connect-v0\nminibatch: 1", "minibatch: 1 is outside [2, 1000000]"),
        ("env: horseshoe/Connect-v0\nlearning_rate: 0.01", "learning_rate: 0.01 is outside [5e-05, 0.001]"),
    ],
)
def test_an_environment_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, settings: str, says: str
) -> None:
    file, runs = tmp_path / "mine.yaml", tmp_path / "runs"
    file.write_text(settings if settings.startswith("env:") else f"env: {TINY.env}\nenv_config: {{{settings}}}")
    result = CliRunner().invoke(cli.main, ["train", str(file), "--run", str(runs)])
    assert f"{file}: " in result.output
    assert says in result.output
    assert not runs.exists()


@pytest.mark.parametrize(("text", "says"), [("", "env: is missing"), ("- env\n", "expected a mapping, got list")])
def test_a_task_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    result = CliRunner().invoke(cli.main, ["train", str(file)])
    assert result.exit_code == 2
    assert f"{file}: {says}" in result.stderr


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_architectures_have_one_interface(architecture: str) -> None:
    tokens = [[0, 1, 2], [3, 4], [5]]
    net = ActorCritic(6, 9, architecture, tokens)
    actor, critic = net(torch.randn(5, 15))
    assert actor.shape == (5, net.latent_dim_pi)
    assert critic.shape == (5, net.latent_dim_vf)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_actor_sees_nothing_that_only_the_simulator_knows(architecture: str) -> None:
    net = ActorCritic(6, 9, architecture, [[0, 1, 2], [3, 4], [5]]).eval()
    x, y = torch.randn(5, 15), torch.randn(5, 15)
    y[:, :6] = x[:, :6]
    torch.testing.assert_close(net.forward_actor(x), net.forward_actor(y), rtol=0, atol=0)
    assert not torch.equal(net.forward_critic(x), net.forward_critic(y))


def test_attention_reads_every_number_of_every_entity() -> None:
    net = ActorCritic(6, 9, "attention", [[0, 1, 2], [3, 4], [5]])
    x = torch.randn(2, 15, requires_grad=True)
    net.forward_actor(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad[:, :6] != 0).all()


def test_entities_of_a_kind_share_an_embedding_and_who_is_absent_is_not_seen() -> None:
    net = EntityAttention([[0, 1], [2, 3], [4, 5]], kinds=[0, 1, 1], present=[None, 3, 5])
    assert len(net.embed) == 2
    x = torch.tensor([[0.1, 0.2, 0.3, 1.0, 9.0, 0.0]])
    hidden, there, swapped = x.clone(), x.clone(), x[:, [0, 1, 4, 5, 2, 3]]
    hidden[0, 4], there[0, 5] = -3.0, 1.0
    torch.testing.assert_close(net(x), net(hidden), rtol=0, atol=0)
    torch.testing.assert_close(net(x), net(swapped), rtol=0, atol=1e-6)
    assert not torch.allclose(net(x), net(there))


def test_the_normaliser_learns_mean_and_variance_batch_by_batch() -> None:
    torch.manual_seed(0)
    data, normaliser = torch.randn(4000, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2.0, Normaliser(3)
    for part in data.split(500):
        normaliser.update(part)
    torch.testing.assert_close(normaliser.mean, data.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(normaliser.var, data.var(0, unbiased=False), rtol=1e-3, atol=1e-3)
    assert normaliser(data).std(0) == pytest.approx(torch.ones(3), rel=0.01)


def test_a_success_is_worth_what_staying_there_would_earn() -> None:
    model = ppo.build(TINY, n_threads=1)
    agents: Any = model.env
    agents.reset()
    step = agents.env.step
    zero = np.zeros((agents.num_envs, 7))

    def won(actions: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = step(actions)
        terminated[:] = truncated[:] = False
        terminated[0] = True
        info |= {"success": np.arange(TINY.n_envs) == 0, "whole": terminated, "steps": terminated}
        info |= {"final_obs": observation, "final_privileged": agents.env.privileged()}
        info["arm_reward"] = np.ones((TINY.n_envs, 2))
        return observation, reward, terminated, truncated, info

    agents.env.step = won
    agents.step_async(zero)
    observation, reward, done, infos = agents.step_wait()
    assert observation.shape == (16, agents.n_actor + agents.n_critic)
    np.testing.assert_allclose(reward[:2], 0.1, rtol=1e-6)
    np.testing.assert_allclose(reward[2:], 0.1 * (1 - TINY.gamma), rtol=1e-6)
    assert done.tolist() == [True, True] + [False] * 14
    assert "terminal_observation" in infos[0]
    assert infos[2] == {}


def test_the_state_in_a_checkpoint_is_json(run: Path) -> None:
    assert json.loads(json.dumps(ppo.read_state(run / "checkpoint.safetensors")))["updates"] >= 2


def test_what_is_no_checkpoint_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"not a checkpoint at all")
    with pytest.raises(HorseshoeError, match=r"junk.safetensors: is no checkpoint of a training"):
        ppo.train(TINY, tmp_path / "run", junk)
    assert not (tmp_path / "run").exists()


def test_a_folder_is_no_checkpoint(run: Path, tmp_path: Path) -> None:
    with pytest.raises(HorseshoeError, match=f"{run}: is no checkpoint of a training"):
        checkpoint.read_state(run)
    result = CliRunner().invoke(cli.main, ["train", "connect", "--from", str(run), "--run", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "is a directory" in result.stderr
    assert not (tmp_path / "new").exists()


def test_weights_of_another_architecture_are_refused_before_anything_is_written(
    attention_run: Path, tmp_path: Path
) -> None:
    file = attention_run / "checkpoint.safetensors"
    with pytest.raises(HorseshoeError, match=f"{file}: holds the weights of another architecture"):
        ppo.train(TINY, tmp_path / "run", file, n_threads=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("weights", "task"), [("training.safetensors", "u_shape_further"), ("scratch.safetensors", "u_shape")]
)
def test_training_can_go_on_from_the_shipped_weights(weights: str, task: str) -> None:
    file = find("u_shape") / weights
    shipped = checkpoint.read_arrays(file, "policy.")
    config = configuration.load(ppo.TrainConfig, configuration.resource(f"config/train/{task}.yaml"))
    assert ppo.read_state(file)["curve"][-1]["decisions"] < config.decisions
    model = ppo.build(dataclasses.replace(config, n_envs=2, n_steps=2, minibatch=4), 1)
    checkpoint.restore(file, model.policy)
    np.testing.assert_array_equal(model.policy.state_dict()["log_std"].numpy(), shipped["log_std"])
