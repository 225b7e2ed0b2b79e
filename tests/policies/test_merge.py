"""Two policies become one: each does its part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint, merge, ppo
from tests.policies.conftest import TINY


def constant(folder: Path, action: float) -> Path:
    """Checkpoint of a policy that always does the same with all joints."""
    model = ppo.build(TINY, n_threads=1)
    with torch.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.fill_(action)
        model.policy.value_net.bias.fill_(action)
    folder.mkdir()
    checkpoint.save(folder, model.policy, model.policy.optimizer, {"curve": [], "timesteps": int(100 * action)})
    return folder / checkpoint.CHECKPOINT


def test_the_merged_policy_does_what_one_does_while_holding_and_what_the_other_does_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, otherwise = constant(tmp_path / "a", -0.2), constant(tmp_path / "b", 0.1)
    monkeypatch.setattr(merge, "STEPS", (20, 300))
    monkeypatch.setattr(merge, "BATCH", 256)
    monkeypatch.setattr(merge, "ROUNDS", 2)
    told: list[np.ndarray] = []
    errors: list[float] = []
    learn = merge._learn

    def remember(*args):
        learn(*args)
        told[:] = args[3]
        errors[:] = [np.abs(merge._act(args[0], x) - y).mean() for x, y in zip(args[2], told, strict=True)]

    monkeypatch.setattr(merge, "_learn", remember)
    merge.merge(TINY, holding, otherwise, tmp_path / "merged", n_threads=1)
    answers = np.concatenate(told)
    assert set(np.unique(answers.round(3))) == {np.float32(-0.2), np.float32(0.1)}
    assert np.mean(errors) < 0.05
    merged = checkpoint.read_arrays(tmp_path / "merged" / checkpoint.CHECKPOINT, "policy.")
    assert merged["value_net.bias"] == pytest.approx(-0.2)
    assert checkpoint.read_state(tmp_path / "merged" / checkpoint.CHECKPOINT)["timesteps"] == 10
    with pytest.raises(HorseshoeError, match="merged: holds a checkpoint"):
        merge.merge(TINY, holding, otherwise, tmp_path / "merged", n_threads=1)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path, attention_run: Path) -> None:
    file = attention_run / checkpoint.CHECKPOINT
    with pytest.raises(HorseshoeError, match=f"{file}: holds the weights of another architecture"):
        merge.merge(TINY, file, file, tmp_path / "merged", n_threads=1)
    assert not (tmp_path / "merged").exists()
