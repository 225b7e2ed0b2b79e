"""From a checkpoint to a policy folder: ONNX, contract and card."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from horseshoe import __version__, configuration
from horseshoe import contract as contracts
from horseshoe.action_config import ActionConfig
from horseshoe.errors import HorseshoeError
from horseshoe.policies import distill, push_ppo
from horseshoe.policies.checkpoint import CHECKPOINT, read_state, restore, thin
from horseshoe.policies.networks import TokenActor
from horseshoe.policies.ppo import TrainConfig, build
from horseshoe.policies.runtime import OnnxPolicy, TokenPolicy


class _Deterministic(nn.Module):
    """Mean action of a trained actor, clipped as the action path would."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.networks, self.head = policy.mlp_extractor, policy.action_net

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.head(self.networks.forward_actor(observation)), -1.0, 1.0)


def _revision() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"horseshoe {__version__}"


def _write_onnx(actor: nn.Module, sizes: Sequence[Sequence[int]], names: list[str], folder: Path) -> Path:
    """Write a network whose inputs have these names and sizes, and any number of agents each."""
    weights = folder / contracts.WEIGHTS
    torch.onnx.export(
        actor,
        tuple(torch.zeros(2, *size) for size in sizes),
        str(weights),
        input_names=names,
        output_names=["action"],
        dynamic_axes={name: {0: "agents"} for name in [*names, "action"]},
        opset_version=17,
        dynamo=False,
    )
    return weights


def export(run: Path, folder: Path) -> float:
    """Export the checkpoint of a run folder.

    Args:
        run: folder that `horseshoe train` wrote.
        folder: policy folder to write, made if missing.

    `run` may also be what `horseshoe distill` or a training for pushing wrote.

    Returns:
        Largest difference between torch and ONNX on observations recorded in the environment.

    Raises:
        HorseshoeError: no checkpoint there, none in which an episode has ended, or the two disagree by more than 1e-5;
            the folder is as it was then.
    """
    with tempfile.TemporaryDirectory() as made:
        difference = _export(run, Path(made))
        if not json.loads((Path(made) / "curve.json").read_text()):
            raise HorseshoeError(f"{run}: its learning curve is empty, no episode has ended yet; train on")
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(made).iterdir():
            shutil.copy(file, folder)
    return difference


def _export(run: Path, folder: Path) -> float:
    if (run / distill.FILE).exists():
        taught, pusher, state = distill.load(run)
        return _export_pushing(taught, pusher, state, Path(taught.dataset).name, folder)
    if (run / push_ppo.FILE).exists():
        return _export_pushing(*push_ppo.load(run), "", folder)
    file = run / CHECKPOINT
    if not file.exists():
        raise HorseshoeError(f"{file}: no such checkpoint; `horseshoe train` writes it")
    config = configuration.load(TrainConfig, run / "train.yaml")
    small = configuration.load(TrainConfig, {**configuration.dump(config), "n_envs": 16})
    model = build(small, n_threads=1)
    restore(file, model.policy)
    agents: Any = model.env
    actor = _Deterministic(model.policy).eval()
    weights = _write_onnx(actor, [(agents.n_actor,)], ["observation"], folder)
    env = agents.env
    contract = contracts.Contract(
        version=contracts.VERSION,
        env=config.env,
        blueprint=env.blueprint.name,
        robots=agents.robots,
        action=env.config.action,
        observation=contracts.observation_fields(env.observer.fields),
        delay=env.config.noise.delay,
        environment={k: v for k, v in configuration.dump(env.config).items() if k != "action" and v is not None},
        training=configuration.dump(config),
        revision=_revision(),
        weights_sha256=contracts.sha256(weights),
    )
    configuration.save_yaml(contract, folder / contracts.FILE)
    state = read_state(file)
    (folder / "curve.json").write_text(json.dumps(thin(state["curve"])) + "\n")
    difference = _replay(actor, OnnxPolicy(folder), env, agents.n_actor)
    if difference > 1e-5:
        raise HorseshoeError(f"{weights}: torch and ONNX differ by {difference:.1e}, more than 1e-5")
    return difference


def _export_pushing(
    config: distill.ActorConfig,
    actor: TokenActor,
    state: dict[str, Any],
    dataset: str,
    folder: Path,
) -> float:
    fields = contracts.token_fields(config.neighbours, config.particles)
    sizes = [(f.size,) if f.name == "self" else (f.count, f.size) for f in fields]
    weights = _write_onnx(actor.eval(), sizes, [f.name for f in fields], folder)
    env = distill.make_env("near", max(state["robots"]), 2, config)
    world = env.config
    action = ActionConfig(
        (), (), decision_rate=round(1.0 / world.control_period), joint_step=(), gripper_range=(0.0, 0.0),
        max_tool_speed=world.robot_speed, max_delay=0.0,
    )  # fmt: skip
    training = {**configuration.dump(config), "dataset": dataset, "robots": state["robots"]}
    if "taught" in state:
        training["taught"] = state["taught"]
    contract = contracts.Contract(
        version=contracts.VERSION,
        env=distill.ENV,
        blueprint="",
        robots=max(state["robots"]),
        action=action,
        observation=fields,
        delay=(config.delay[0] * world.control_period, config.delay[1] * world.control_period),
        environment={"neighbours": config.neighbours, "particles": config.particles, "delay": list(config.delay)},
        training=training,
        revision=_revision(),
        weights_sha256=contracts.sha256(weights),
    )
    configuration.save_yaml(contract, folder / contracts.FILE)
    (folder / "curve.json").write_text(json.dumps(thin(state["curve"])) + "\n")
    onnx, worst = TokenPolicy(folder), 0.0
    observation, _ = env.reset(seed=distill.FIRST_SEED)
    for _ in range(20):
        seen = {name: value.reshape(-1, *value.shape[2:]) for name, value in observation.items()}
        answer = onnx.act(seen)
        with torch.no_grad():
            reference = actor(*(torch.from_numpy(seen[f.name]) for f in fields)).numpy()
        worst = max(worst, float(np.abs(answer - reference).max()))
        observation = env.step(answer.reshape(2, -1, 2))[0]
    if worst > 1e-5:
        raise HorseshoeError(f"{weights}: torch and ONNX differ by {worst:.1e}, more than 1e-5")
    return worst


def _replay(actor: nn.Module, onnx: OnnxPolicy, env: Any, size: int) -> float:
    """Drive the environment with the exported policy and compare on what it sees."""
    observation, _ = env.reset(seed=12345)
    worst = 0.0
    for _ in range(20):
        action = onnx.act(observation)
        with torch.no_grad():
            reference = actor(torch.as_tensor(observation.reshape(-1, size))).numpy().reshape(action.shape)
        worst = max(worst, float(np.abs(action - reference).max()))
        observation = env.step(action)[0]
    return worst
