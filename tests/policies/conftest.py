"""A policy that was really trained and exported, in seconds, shared by the tests of this room."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

import gymnasium as gym

import horseshoe.sim  # noqa: F401  registers the environments
from horseshoe import demonstrations
from horseshoe.policies import distill, ppo
from horseshoe.policies.distill import DistillConfig
from horseshoe.policies.export import export
from horseshoe.policies.ppo import TrainConfig
from horseshoe.sim.push.dataset import Recipe, make_shard
from horseshoe.sim.push.planner import PlannerConfig

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


RECIPE = Recipe("near", (4,), 0, PlannerConfig(iterations=0, candidates=2, restarts=1))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three planned scenes."""
    folder = tmp_path_factory.mktemp("dataset")
    _, content, entry = make_shard((RECIPE, 0, 3))
    (folder / "shard-00000.npz").write_bytes(content)
    manifest = {"recipe": {"goals": "near"}, "shards": {"shard-00000.npz": entry}}
    (folder / demonstrations.MANIFEST).write_text(json.dumps(manifest))
    return folder


def tiny(dataset: Path, **changes: Any) -> DistillConfig:
    small = DistillConfig(
        str(dataset), width=16, heads=2, layers=2, particles=4, steps=6, batch=8, dagger=1, episodes=1, save_every=4
    )
    return dataclasses.replace(small, **changes)


@pytest.fixture(scope="session")
def distilled(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted distillation with one round of the planner."""
    folder = tmp_path_factory.mktemp("runs") / "distilled"
    distill.distill(tiny(dataset), folder)
    return folder
