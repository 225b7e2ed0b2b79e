"""A policy that was really trained and exported, in seconds, shared by the tests of this room."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

import gymnasium as gym

import horseshoe.sim  # noqa: F401  registers the environments
from horseshoe.policies import ppo
from horseshoe.policies.export import export
from horseshoe.policies.ppo import TrainConfig

ENV = "horseshoe/Connect-v0"
TINY = TrainConfig(
    env=ENV,
    env_config={"task": {"horizon": 1.0}, "starts": {"holding": 0.5, "joining": 0.5, "assisted": 0.5}},
    n_envs=8,
    n_steps=4,
    decisions=4 * 32,
    minibatch=32,
    epochs=2,
    seed=3,
    save_every=2,
)


@pytest.fixture(scope="session", autouse=True)
def few_starts() -> Iterator[None]:
    """Draw starts a handful at a time: inverse kinematics for a thousand is most of a second."""
    kwargs: dict[str, Any] = gym.registry[ENV].kwargs
    kwargs.update(start_batch=16, pool=4)
    yield
    del kwargs["start_batch"], kwargs["pool"]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted training of four updates."""
    folder = tmp_path_factory.mktemp("run")
    ppo.train(TINY, folder, n_threads=1)
    return folder


@pytest.fixture(scope="session")
def policy(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the exported policy."""
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    export(run, folder)
    return folder


@pytest.fixture(scope="session")
def attention_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of two updates of the attention policy."""
    folder = tmp_path_factory.mktemp("attention")
    ppo.train(dataclasses.replace(TINY, architecture="attention", decisions=64), folder, n_threads=1)
    return folder
