"""A policy for pushing is distilled from plans, repeats to the last bit, runs without torch, and is judged by scenes
kept for it."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from horseshoe import cli, demonstrations
from horseshoe import contract as contracts
from horseshoe import tokens as seeing
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.policies import baselines, distill
from horseshoe.policies.card import write_card
from horseshoe.policies.distill import Demonstrations
from horseshoe.policies.evaluate_push import evaluate
from horseshoe.policies.export import export
from horseshoe.policies.networks import ARCHITECTURES
from horseshoe.policies.runtime import TokenPolicy
from horseshoe.sim.push.warm_start import must_bend
from tests.policies.conftest import tiny


@pytest.fixture(scope="session")
def pusher(distilled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its policy folder."""
    folder = tmp_path_factory.mktemp("pusher")
    assert export(distilled, folder) < 1e-5
    write_card(folder)
    return folder


class Killed(BaseException):
    """As good as SIGKILL: no handler of ours runs."""


def test_a_distillation_that_was_killed_ends_as_one_that_was_not(
    dataset: Path, distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = distill._learn

    def die(*arguments: Any) -> float:
        if arguments[4] == 9:
            raise Killed
        return learn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(distill, "_learn", die)
        with pytest.raises(Killed):
            distill.distill(tiny(dataset), tmp_path)
    distill.distill(tiny(dataset), tmp_path)
    first, second = (load_file(folder / distill.CHECKPOINT) for folder in (distilled, tmp_path))
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_cloning_brings_the_policy_closer_to_the_planner(dataset: Path, tmp_path: Path) -> None:
    distill.distill(tiny(dataset, architecture="mlp", dagger=0, steps=60, save_every=10), tmp_path)
    curve = distill.load(tmp_path)[2]["curve"]
    assert [point["step"] for point in curve] == [10, 20, 30, 40, 50, 60]
    assert curve[-1]["error"] < 0.8 * curve[0]["error"]


def test_the_teacher_adds_what_it_would_do_where_the_policy_went(dataset: Path, distilled: Path) -> None:
    data = Demonstrations(demonstrations.read(dataset))
    before = len(data)
    with np.load(distilled / "dagger-001-4.npz") as shard:
        assert shard["offsets"][-1] == len(shard["robots"]) > 20
        assert np.linalg.norm(shard["actions"], axis=-1).max() < 1.1
        data.add(dict(shard))
    assert len(data) > before
    assert data.robots == [4]


def test_rounds_in_several_processes_give_the_same_and_ropes_come_on_top(
    dataset: Path, distilled: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run", ignore=shutil.ignore_patterns("dagger-*")))
    config, actor, _ = distill.load(run)
    ropes = replace(config, ropes=1, iterations=0)
    wide, bent = distill._dagger_round([4], "near", actor, ropes, run, 1, jobs=2)
    (alone,) = distill._dagger_round([4], "near", actor, config, tmp_path, 1, jobs=1)
    for name, value in wide.items():
        np.testing.assert_array_equal(alone[name], value, err_msg=name)
    assert sorted(file.name for file in run.glob("dagger-*")) == ["dagger-001-4.npz", "dagger-001-ropes-4.npz"]
    assert len(bent["robots"]) > 20
    start, goal = bent["particles"][bent["offsets"][0]], bent["goals"][0]
    assert must_bend(start, goal)


def test_samples_show_what_the_robots_saw_and_did(dataset: Path) -> None:
    config = tiny(dataset, delay=(0, 0), particles=distill.SHOWN)
    shard = next(demonstrations.read(dataset))
    x, y = Demonstrations([shard]).sample(config, np.random.default_rng(0))
    turned = seeing.to_own(
        shard["actions"].astype(float),
        seeing.headings(shard["robots"].astype(float), shard["particles"].astype(float).mean(1)),
    )
    done = np.concatenate([turned, turned * [1.0, -1.0]]).reshape(-1, 2)  # as it was, and mirrored
    assert np.abs(done[None] - y[:, None]).max(-1).min(1).max() < 1e-5
    assert x.shape == (len(y), 5 + 3 * 6 + 32 * 6)
    assert (x[:, 5 + 5 : 5 + 18 : 6] == 1.0).all(), "three neighbours of four robots"


def test_a_mirrored_scene_is_seen_with_the_signs_of_a_mirror() -> None:
    rng = np.random.default_rng(0)
    robots, velocities, body, goal = (rng.random((1, n, 2)) for n in (3, 3, 4, 4))

    def see(sign: float) -> np.ndarray:
        mirror = np.array([1.0, sign])
        messages = np.concatenate([robots * mirror, velocities * mirror], -1)[:, None].repeat(3, 1)
        ages = np.ones((1, 3, 3), int)
        return distill.pack(
            seeing.tokens(
                robots * mirror, velocities * mirror, messages, ages, body * mirror, goal * mirror, mirror / 2, 3
            )
        )

    np.testing.assert_allclose(see(-1.0), see(1.0) * seeing.mirror_signs(3, 4), atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_policy_takes_whatever_robots_there_are(dataset: Path, architecture: str) -> None:
    actor = distill.make_actor(tiny(dataset, architecture=architecture))
    own, robots, body, goal = torch.randn(5, 5), torch.randn(5, 3, 6), torch.randn(5, 4, 4), torch.randn(5, 4, 2)
    robots[..., 5] = 1.0
    robots[2:, 1:] = 0.0
    action = actor(own, robots, body, goal)
    assert action.shape == (5, 2)
    assert action.abs().max() <= 1.0
    torch.testing.assert_close(actor(own[3:], robots[3:], body[3:], goal[3:]), action[3:], rtol=0, atol=1e-6)


def test_attention_sees_neighbours_and_points_as_sets(dataset: Path) -> None:
    actor = distill.make_actor(tiny(dataset))
    own, robots, body, goal = torch.randn(1, 5), torch.randn(1, 3, 6), torch.randn(1, 4, 4), torch.randn(1, 4, 2)
    robots[..., 5] = 1.0
    other = actor(own, robots.flip(1), body.flip(1), goal.flip(1))
    torch.testing.assert_close(actor(own, robots, body, goal), other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mirrored_scene_gets_the_mirrored_velocity(dataset: Path, architecture: str) -> None:
    actor = distill.make_actor(tiny(dataset, architecture=architecture), gain=3.0)
    tokens = torch.randn(5, 5), torch.randn(5, 3, 6), torch.randn(5, 4, 4), torch.randn(5, 4, 2)
    signs = torch.from_numpy(seeing.mirror_signs(3, 4)).split([t[0].numel() for t in tokens])
    mirrored = [t * sign.reshape(t.shape[1:]) for t, sign in zip(tokens, signs, strict=True)]
    action = actor(*tokens)
    torch.testing.assert_close(actor(*mirrored), action * torch.tensor([1.0, -1.0]), rtol=0, atol=1e-6)
    assert action[:, 1].abs().min() > 1e-3


def test_a_run_may_be_given_more_rounds(dataset: Path, distilled: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    distill.distill(tiny(dataset, dagger=2), run)
    config, _, state = distill.load(run)
    assert config.dagger == 2
    assert state["step"] == 3 * config.steps
    with pytest.raises(HorseshoeError, match=r"dagger is 2 there, 1 here"):
        distill.distill(tiny(dataset), run)


def test_the_gain_of_a_finished_run_may_change_and_its_policy_asks_for_as_much_more(
    dataset: Path, distilled: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(distilled, tmp_path / "run"))
    tokens = torch.randn(5, 5), torch.randn(5, 3, 6), torch.randn(5, 4, 4), torch.randn(5, 4, 2)
    x, turned = torch.cat([t.flatten(1) for t in tokens], 1), torch.tensor([1.0, -1.0])
    before = distill.load(run)[1]
    distill.distill(tiny(dataset, gain=0.1), run)
    _, actor, state = distill.load(run)
    ways = actor.act(x), actor.act(x * torch.from_numpy(seeing.mirror_signs(3, 4))) * turned
    for policy, gain in ((actor, 0.1), (before, before.gain)):
        answers = [(gain * way).clamp(-1.0, 1.0) for way in ways]
        torch.testing.assert_close(policy(*tokens), (answers[0] + answers[1]) / 2, rtol=1e-4, atol=1e-5)
    assert state["step"] == 2 * tiny(dataset).steps


def test_going_on_with_other_settings_is_refused_by_name(dataset: Path, distilled: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"distill.yaml: batch is 8 there, 9 here"):
        distill.distill(tiny(dataset, batch=9), distilled)


def test_a_data_set_with_a_corrupt_shard_is_one_clear_error(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "copy"))
    shard = folder / "shard-00000.npz"
    shard.write_bytes(shard.read_bytes()[:-30])
    run = tmp_path / "run"
    result = CliRunner().invoke(cli.main, ["distill", str(folder), "--run", str(run)])
    assert result.exit_code == 2
    assert "shard-00000.npz: missing or corrupt" in result.stderr
    assert not run.exists()


def test_a_data_set_without_a_single_plan_is_refused(tmp_path: Path) -> None:
    entry = {"kept": 0, "failed": 3, "sha256": hashlib.sha256(b"").hexdigest()}
    (tmp_path / "shard-00000.npz").write_bytes(b"")
    manifest = {"recipe": {"goals": "near"}, "shards": {"shard-00000.npz": entry}}
    (tmp_path / demonstrations.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(HorseshoeError, match="no plan in it succeeded"):
        distill.distill(tiny(tmp_path), tmp_path / "run")


def test_wrong_settings_are_named(dataset: Path) -> None:
    result = CliRunner().invoke(cli.main, ["distill", str(dataset), "--particles", "33"])
    assert result.exit_code == 2
    assert "particles: 33 is outside [1, 32]" in result.stderr


def test_the_contract_says_what_the_policy_sees_and_how_it_was_distilled(pusher: Path) -> None:
    contract = contracts.load(pusher)
    contracts.check_tokens(contract, 3, 4)
    with pytest.raises(ConfigurationError, match=r"observation\[2\]"):
        contracts.check_tokens(contract, 3, 5)
    assert contract.robots == 4
    assert contract.delay == (0.0, 0.5)
    assert contract.action.decision_rate == 20.0
    assert contract.training["dagger"] == 1
    assert "Mean error of the velocity" in (pusher / "card.md").read_text()


def test_an_evaluation_runs_without_torch_and_repeats(pusher: Path) -> None:
    code = f"""
import sys
from horseshoe.policies.evaluate_push import evaluate
from horseshoe.policies.runtime import TokenPolicy
first, second = (evaluate(TokenPolicy({str(pusher)!r}), 2, 3, robots=2, goals="near") for _ in range(2))
assert first.outcomes == second.outcomes and (first.scores == second.scores).all()
summary = first.summary()
assert summary["episodes"] == 2 and sum(summary["failures"].values()) + first.successes == 2, summary
assert {{"success_rate", "ci95", "mean_incremental_iou", "time_to_success_median"}} <= set(summary)
heavy = {{"torch", "stable_baselines3", "safetensors"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("baseline", baselines.BASELINES)
def test_baselines_meet_the_same_scenes_and_the_planner_moves_the_object(pusher: Path, baseline: str) -> None:
    result = evaluate(TokenPolicy(pusher), 1, 0, robots=6, goals="near", baseline=baseline)
    assert result.summary()["policy"] == baseline
    assert len(result.outcomes) == 1
    assert baseline == "geometric" or result.scores[0] > 0.2


def test_the_command_writes_json_a_picture_a_video_and_the_card(pusher: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio")
    folder = Path(shutil.copytree(pusher, tmp_path / "policy"))
    files = [tmp_path / name for name in ("r.json", "r.png", "r.gif")]
    options = ["--json", str(files[0]), "--picture", str(files[1]), "--record", str(files[2]), "--save"]
    arguments = ["--episodes", "1", "--robots", "2", "--goals", "near", "--disturbance", "density=2"]
    result = CliRunner().invoke(cli.main, ["evaluate", str(folder), *arguments, *options])
    assert result.exit_code == 0, result.output
    summary = json.loads(files[0].read_text())
    assert (summary["robots"], summary["goals"], summary["disturbance"]) == (2, "near", {"density": 2})
    assert all(file.stat().st_size > 300 for file in files)
    command = "horseshoe evaluate policy --episodes 1 --seed 0 --robots 2 --goals near --disturbance density=2"
    assert contracts.load(folder).results[0]["command"] == command
    assert command in (folder / "card.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--robots", "0"], "robots: 0 is outside [1, 12]"),
        (["--goals", "far"], "goal set 'far' is unknown"),
        (["--delay", "9"], "delay: 9:9 s is not within [0, 0.5] s"),
        (["--delay", "nan"], "delay: nan:nan s is not within [0, 0.5] s"),
        (["--disturbance", "wind=1"], "wind: unknown key"),
        (["--disturbance", "density=heavy"], "give NAME=NUMBER"),
        (["--engine", "pybullet"], "--engine: .* is a policy for pushing"),
    ],
)
def test_bad_input_is_one_clear_error(pusher: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli.main, ["evaluate", str(pusher), "--episodes", "1", *arguments])
    assert result.exit_code == 2
    assert message.split(".*")[-1] in result.stderr.replace("\n", " ")


def test_options_of_pushing_are_refused_for_assembly() -> None:
    result = CliRunner().invoke(cli.main, ["evaluate", "u_shape", "--robots", "4"])
    assert result.exit_code == 2
    assert "--robots: u_shape is a policy for assembly" in result.stderr
