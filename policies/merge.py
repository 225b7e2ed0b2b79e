"""Two policies of a task into one: what the first does while a hand holds its block, what the second does otherwise.

A network that learned to carry where that was cheap to learn, and one that grasps where it counts, teach a third one, which
drives and is told at every decision what they would do (DAgger, Ross et al. 2011). It is where training goes on from.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint, ppo

Array = NDArray[np.float32]

ROUNDS = 8
LED = 4  # rounds after which the teachers no longer drive
STEPS = 600, 4000  # gradient steps of a round, of the last one
BATCH = 4096
RATE = 1e-3
SATURATED = 1.3  # what an action is limited to as a teacher's answer: all beyond 1 is the same


def merge(
    config: ppo.TrainConfig, holding: Path, otherwise: Path, folder: Path, decisions: int = 60, n_threads: int = 2
) -> None:
    """Write a checkpoint that `train` can go on from.

    Critic and exploration are those of `holding`; counters and learning curve those of `otherwise`.

    Args:
        config: of the task; its processes are not used.
        holding: checkpoint of the policy that acts while its hand holds its block and has not joined it.
        otherwise: checkpoint of the policy that acts otherwise.
        folder: to write `checkpoint.safetensors` to.
        decisions: that are taken in a round, by every one of `n_envs` cells.
        n_threads: cores to use.

    Raises:
        HorseshoeError: a checkpoint is of another network.
    """
    model = ppo.build(config, n_threads)
    student, agents = model.policy, model.env
    teachers = []
    for file in (holding, otherwise):
        try:
            checkpoint.restore(file, student)
        except RuntimeError as error:
            raise HorseshoeError(f"{file}: does not fit {config.env} with architecture {config.architecture}") from error
        teachers.append(_weights(student))
    act = [_actor(ppo.build(config, n_threads).policy, weights) for weights in teachers]
    env: Any = agents.env
    env.set_level(1.0)
    rng, n, robots = np.random.default_rng(config.seed), env.num_envs, agents.robots
    std = teachers[0]["log_std"].exp().numpy()
    optimizer = torch.optim.Adam([*student.mlp_extractor.actor.parameters(), *student.action_net.parameters()], RATE)
    seen: list[Array] = []
    told: list[Array] = []
    observation, holds = env.reset(seed=config.seed)[0], np.zeros((n, robots), dtype=bool)
    for done in tqdm(range(ROUNDS), unit=" rounds"):
        led = rng.random(n) < 1 - done / LED
        for _ in range(decisions):
            x = observation.reshape(n * robots, -1).astype(np.float32)
            answers = [a(x) for a in act]
            answer = np.where(holds.reshape(-1, 1), *answers)
            own = _actor(student)(x)
            seen.append(x)
            told.append(np.clip(answer, -SATURATED, SATURATED))
            driven = np.where(np.repeat(led, robots)[:, None], answer, own) + std * rng.standard_normal(own.shape)
            observation, _, terminated, truncated, info = env.step(np.clip(driven, -1, 1).reshape(n, robots, -1))
            holds = (info["terms"]["held"] > 0) & ~(terminated | truncated)[:, None]
        _learn(student, optimizer, seen, told, STEPS[done == ROUNDS - 1])
    weights = _weights(student)
    for name, value in teachers[0].items():
        if "critic" in name or name.startswith("value_net") or name == "log_std":
            weights[name] = value
    student.load_state_dict(weights)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder, student, torch.optim.Adam(student.parameters()), checkpoint.read_state(otherwise))


def _weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.state_dict().items()}


def _actor(policy: Any, weights: dict[str, torch.Tensor] | None = None) -> Any:
    """What a policy does, without chance, as a function of observations (n, fields)."""
    if weights is not None:
        policy.load_state_dict(weights)

    def act(x: Array) -> Array:
        with torch.no_grad():
            return np.asarray(policy.action_net(policy.mlp_extractor.forward_actor(torch.from_numpy(x))).numpy())

    return act


def _learn(student: Any, optimizer: torch.optim.Adam, seen: list[Array], told: list[Array], steps: int) -> None:
    """Follow the teachers in all that was seen, at last with a step size that falls to nothing."""
    x, y = torch.from_numpy(np.concatenate(seen)), torch.from_numpy(np.concatenate(told))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps) if steps == STEPS[1] else RATE
        some = torch.randint(len(x), (BATCH,))
        actions = student.action_net(student.mlp_extractor.forward_actor(x[some]))
        loss = (actions - y[some]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
