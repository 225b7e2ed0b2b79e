"""An exported policy is the trained one, carries its contract, and needs no torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.policies import checkpoint, ppo, runtime
from horseshoe.policies import export as exporting
from horseshoe.policies.card import SCRATCH, write_card
from horseshoe.policies.export import export
from horseshoe.policies.runtime import OnnxPolicy
from horseshoe.sim.assembly.scene import FIELDS
from tests.policies.conftest import TINY


@pytest.fixture
def copy(policy: Path, tmp_path: Path) -> Path:
    """A policy folder to spoil."""
    return Path(shutil.copytree(policy, tmp_path / "copy"))


def test_torch_and_onnx_agree_on_recorded_observations(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "policy") < 1e-5


def test_an_export_that_does_not_agree_leaves_the_folder_as_it_was(
    run: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_replay", lambda *_: 1e-3)
    before = {file: file.read_bytes() for file in copy.iterdir()}
    with pytest.raises(HorseshoeError, match=r"differ by 1.0e-03, more than 1e-5"):
        export(run, copy)
    assert {file: file.read_bytes() for file in copy.iterdir()} == before
    assert list(copy.parent.iterdir()) == [copy]


def test_the_attention_policy_exports_and_runs_too(attention_run: Path, tmp_path: Path) -> None:
    assert export(attention_run, tmp_path / "policy") < 1e-5
    policy = OnnxPolicy(tmp_path / "policy")
    assert policy.contract.training["architecture"] == "attention"
    assert policy.act(np.zeros((3, 2, FIELDS.size), np.float32)).shape == (3, 2, 7)


def test_the_contract_says_how_the_policy_was_trained(policy: Path) -> None:
    contract = contracts.load(policy)
    assert contract.env == TINY.env
    assert contract.blueprint == "connect"
    assert contract.robots == 2
    assert contract.training["seed"] == TINY.seed
    assert contract.environment["task"]["horizon"] == 1.0
    assert [f.name for f in contract.observation] == [f.name for f in FIELDS.fields]
    assert contract.revision
    contracts.check_observation(contract, FIELDS)


def test_the_card_shows_runs_from_scratch_where_there_are_any(copy: Path) -> None:
    write_card(copy)
    assert "From scratch" not in (copy / "card.md").read_text()
    points = [{"seconds": 60.0 * k, "success": 0.1 * k, "level": 0.1 * k} for k in range(5)]
    one = {"decisions": 3.2e6, "minutes": 45.0, "success_rate": 0.455, "ci95": [0.387, 0.524], "episodes": 200}
    runs = [one | {"name": name, "curve": points} for name in ("mlp-0", "attention-0")]
    (copy / SCRATCH).write_text(json.dumps(runs))
    write_card(copy)
    assert "| attention-0 | 3.2 M | 45 min | 45.5% of 200 [38.7%, 52.4%] |" in (copy / "card.md").read_text()
    assert (copy / "scratch.png").stat().st_size > 5000


def test_actions_are_within_one_and_do_not_depend_on_the_batch(policy: Path) -> None:
    loaded = OnnxPolicy(policy)
    seen = np.random.default_rng(0).normal(0, 3, (5, 2, FIELDS.size)).astype(np.float32)
    action = loaded.act(seen)
    assert action.shape == (5, 2, 7)
    assert np.abs(action).max() <= 1.0
    np.testing.assert_allclose(loaded.act(seen[2, 1]), action[2, 1], atol=1e-6)


def test_an_observation_of_another_size_or_with_nan_is_refused(policy: Path) -> None:
    loaded = OnnxPolicy(policy)
    with pytest.raises(HorseshoeError, match=f"observation: 3 numbers, the contract says {FIELDS.size}"):
        loaded.act(np.zeros((1, 3), np.float32))
    with pytest.raises(HorseshoeError, match="observation: contains NaN"):
        loaded.act(np.full((1, FIELDS.size), np.nan, np.float32))


def test_weights_that_were_tampered_with_are_refused(copy: Path) -> None:
    weights = copy / contracts.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"contract.yaml: weights_sha256"):
        OnnxPolicy(copy)


def test_an_unknown_key_in_the_contract_is_refused_by_name(copy: Path) -> None:
    file = copy / contracts.FILE
    file.write_text(file.read_text().replace("robots: 2", "robot: 2"))
    with pytest.raises(ConfigurationError, match=r"contract.yaml: robot: unknown key; did you mean 'robots'"):
        OnnxPolicy(copy)


def test_an_unknown_policy_is_answered_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HorseshoeError, match=r"policy 'w_shape': neither a shipped one \(.*\) nor a folder"):
        runtime.find("w_shape")
    for name in runtime.names():
        with pytest.raises(HorseshoeError, match=name):
            runtime.find("w_shape")


def test_a_run_without_a_checkpoint_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"checkpoint.safetensors: no such checkpoint"):
        export(tmp_path / "run", tmp_path / "policy")
    assert not list(tmp_path.iterdir())


def test_a_run_in_which_no_episode_has_ended_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    run, policy = tmp_path / "run", ppo.build(TINY, n_threads=1).policy
    configuration.save_yaml(TINY, run / "train.yaml")
    checkpoint.save(run, policy, policy.optimizer, {"curve": []})
    with pytest.raises(HorseshoeError, match=f"{run}: its learning curve is empty"):
        export(run, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_the_card_says_where_the_settings_are_that_repeat_the_training(copy: Path) -> None:
    write_card(copy)
    assert "settings.yaml holds what `contract.yaml` says under `training`" in (copy / "card.md").read_text()
    assert configuration.load(ppo.TrainConfig, contracts.load(copy).training) == TINY


def test_measured_results_are_added_and_replaced_by_command(copy: Path) -> None:
    runtime.add_result(copy, {"command": "a", "success_rate": 0.5})
    runtime.add_result(copy, {"command": "b", "success_rate": 0.6})
    runtime.add_result(copy, {"command": "a", "success_rate": 0.7})
    results = contracts.load(copy).results
    assert {r["command"]: r["success_rate"] for r in results} == {"a": 0.7, "b": 0.6}
    assert len(results) == 2


def test_the_exported_policy_runs_in_its_environment_without_torch(policy: Path) -> None:
    code = f"""
import sys
from horseshoe.policies.evaluate import evaluate
from horseshoe.policies.runtime import OnnxPolicy
result = evaluate(OnnxPolicy({str(policy)!r}), episodes=1, seed=9, threads=1)
assert len(result.outcomes) == 1
heavy = {{"torch", "stable_baselines3", "tensorboard", "safetensors"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_shipped_policy_loads_and_fits_the_environment_of_today() -> None:
    for name in runtime.names():
        policy = OnnxPolicy(name)
        file = policy.folder / contracts.FILE
        if policy.contract.env.startswith(("horseshoe/UShape", "horseshoe/Connect")):
            contracts.check_observation(policy.contract, FIELDS, file)
        assert configuration.dump(policy.contract)["weights_sha256"] == contracts.sha256(
            policy.folder / contracts.WEIGHTS
        )
