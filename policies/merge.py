"""Two policies of a task into one: what the first does while a hand holds its block, what the second does otherwise.

A network that learned to carry where that was cheap to learn, and one that grasps where it counts, teach a third one,
which drives and is told at every decision what they would do (DAgger, Ross et al. 2011). Training goes on from there.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from horseshoe import configuration
from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint, ppo

Array = NDArray[np.float32]

KEPT = "log_std", "value_net.weight", "value_net.bias"  # of what holds, and its critic
ROUNDS, DECISIONS = 8, 60  # of every cell in a round
LED = 4  # rounds after which the teachers no longer drive
STEPS = 600, 4000  # gradient steps of a round, of the last one
BATCH = 4096
RATE = 1e-3
SATURATED = 1.3  # what an action is limited to as a teacher's answer: all beyond 1 is the same


def merge(config: ppo.TrainConfig, holding: Path, otherwise: Path, folder: Path, n_threads: int = 2) -> None:
    """Write a checkpoint that `train` can go on from.

    Critic and exploration are those of `holding`; counters and learning curve those of `otherwise`.

    Args:
        config: of the task; one process takes its part.
        holding: checkpoint of the policy that acts while its hand holds its block and has not joined it.
        otherwise: checkpoint of the policy that acts otherwise.
        folder: run folder for `train.yaml` and checkpoint.
        n_threads: cores to use.

    Raises:
        HorseshoeError: a checkpoint is of another network, or the folder holds one already.
    """
    if (folder / checkpoint.CHECKPOINT).exists():
        raise HorseshoeError(f"{folder}: holds a checkpoint; give a folder without one (--run)")
    model = ppo.build(config, n_threads)
    student: Any = model.policy
    teachers: list[Any] = []
    for file in (holding, otherwise):
        checkpoint.restore(file, student)
        teachers.append(copy.deepcopy(student))
    folder.mkdir(parents=True, exist_ok=True)
    configuration.keep(config, folder / "train.yaml")
    env: Any = model.env.env  # type: ignore[union-attr]
    env.set_level(1.0)
    rng, n, std = np.random.default_rng(config.seed), env.num_envs, teachers[0].log_std.detach().exp().numpy()
    torch.manual_seed(config.seed)
    optimizer = torch.optim.Adam([*student.mlp_extractor.actor.parameters(), *student.action_net.parameters()], RATE)
    seen: list[Array] = []
    told: list[Array] = []
    observation, _ = env.reset(seed=config.seed)
    holds = np.zeros(observation.shape[:2], dtype=bool)
    for done in tqdm(range(ROUNDS), unit=" rounds"):
        led = rng.random(n) < 1 - done / LED
        for _ in range(DECISIONS):
            x = observation.astype(np.float32).reshape(-1, observation.shape[-1])
            first, second, own = (_act(policy, x) for policy in (*teachers, student))
            answer = np.where(holds.reshape(-1, 1), first, second)
            seen.append(x)
            told.append(np.clip(answer, -SATURATED, SATURATED))
            driven = np.where(np.repeat(led, holds.shape[1])[:, None], answer, own)
            driven += std * rng.standard_normal(driven.shape).astype(np.float32)
            observation, _, terminated, truncated, info = env.step(np.clip(driven, -1, 1).reshape(*holds.shape, -1))
            holds = (info["terms"]["held"] > 0) & ~(terminated | truncated)[:, None]
        _learn(student, optimizer, seen, told, done == ROUNDS - 1)
    kept = {k: v for k, v in teachers[0].state_dict().items() if "critic" in k or k in KEPT}
    student.load_state_dict(student.state_dict() | kept)
    checkpoint.save(folder, student, student.optimizer, checkpoint.read_state(otherwise))


def _act(policy: Any, x: Array) -> Array:
    """What a policy does without chance, (n, actions), where it sees x (n, fields)."""
    with torch.no_grad():
        return np.asarray(policy.action_net(policy.mlp_extractor.forward_actor(torch.from_numpy(x))).numpy())


def _learn(student: Any, optimizer: torch.optim.Adam, seen: list[Array], told: list[Array], last: bool) -> None:
    """Follow the teachers in all that was seen; in the last round with a step size that falls to nothing."""
    x, y = torch.from_numpy(np.concatenate(seen)), torch.from_numpy(np.concatenate(told))
    for step in range(STEPS[last]):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS[1]) if last else RATE
        some = torch.randint(len(x), (BATCH,))
        actions = student.action_net(student.mlp_extractor.forward_actor(x[some]))
        loss = (actions - y[some]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
