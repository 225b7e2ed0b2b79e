"""Distillation of the pushing planner into a policy that every robot runs for itself.

Behaviour cloning of a data set comes first. Then, in rounds, the policy drives and its teacher says at every decision
what it would have done there; that is added to the data, so that the policy learns the way back from its own mistakes
(DAgger). The teacher is the law of feedback. Where the object must bend, gradients make better what the law would do:
now and then the planner takes over from the policy like that, and what it does is added instead.
"""

import multiprocessing
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from horseshoe import configuration, demonstrations
from horseshoe import tokens as seeing
from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint
from horseshoe.policies.checkpoint import CHECKPOINT
from horseshoe.policies.networks import ARCHITECTURES, TokenActor

Array = NDArray[np.float64]

ENV = "horseshoe/CoopPush-v0"
FILE = "distill.yaml"
SHOWN = 32  # particles in a data set
FIRST_SEED = 50  # of the scenes that the policy meets while it learns; data sets begin at 0
ROPES = "ropes"  # goal set of the episodes that `DistillConfig.ropes` adds
LED = 0.2  # share of the scenes, of those in which nothing bends, that the teacher drives
SHAKEN = 0.3  # noise on what the policy does, in half of the scenes, over the top speed
ALONE = (10, 50)  # decisions that the policy drives before the planner takes over


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """What a pushing policy is and sees, however it is trained.

    Attributes:
        architecture: "attention" or "mlp".
        width: of a token.
        heads: attention heads.
        layers: attention layers.
        neighbours: other robots that a robot sees.
        particles: of the object that a robot sees.
        delay: least and largest lateness of the neighbours' messages [decisions].
        middle: centre of the arena [m].
        seed: of weights and samples.
    """

    architecture: str = field(default="attention", metadata={"choices": ARCHITECTURES})
    width: int = field(default=64, metadata={"range": (8, 1024)})
    heads: int = field(default=4, metadata={"range": (1, 64)})
    layers: int = field(default=2, metadata={"range": (1, 16)})
    neighbours: int = field(default=3, metadata={"range": (1, 11)})
    particles: int = field(default=16, metadata={"range": (1, SHOWN)})
    delay: tuple[int, int] = field(default=(0, seeing.MAX_DELAY), metadata={"range": (0, seeing.MAX_DELAY)})
    middle: tuple[float, float] = (0.64, 0.64)
    seed: int = field(default=0, metadata={"range": (0, 2**31)})

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.delay[0] > self.delay[1]:
            raise ValueError(f"delay: {self.delay} must have the least first")


@dataclass(frozen=True)
class DistillConfig(ActorConfig):
    """Settings of a distillation; the neighbours' lateness is drawn anew for every sample.

    Attributes:
        dataset: folder of demonstrations.
        steps: gradient steps per round; cloning is the first round.
        batch: decisions per gradient step, each of all robots of a scene.
        learning_rate: at the beginning; falls to 0 at the end.
        dagger: rounds with the teachers.
        episodes: per round and number of robots.
        ropes: further episodes, likewise, in which a rope is to be bent, which takes more to learn than all else.
        horizon: decisions for which the planner takes over where the object must bend.
        iterations: its gradient steps.
        save_every: gradient steps between checkpoints.
        gain: factor on the velocities of the exported policy; learning knows nothing of it. Where the teacher's
            answers contradict each other in what a robot sees, it learns their middle, which is too slow to get away.
    """

    dataset: str
    steps: int = field(default=20_000, metadata={"range": (1, None)})
    batch: int = field(default=64, metadata={"range": (1, 65_536)})
    learning_rate: float = field(default=1e-3, metadata={"range": (1e-6, 1.0)})
    dagger: int = field(default=0, metadata={"range": (0, 1000)})
    episodes: int = field(default=16, metadata={"range": (1, 10_000)})
    ropes: int = field(default=0, metadata={"range": (0, 10_000)})
    horizon: int = field(default=10, metadata={"range": (1, 45)})
    iterations: int = field(default=15, metadata={"range": (0, 1000)})
    save_every: int = field(default=500, metadata={"range": (1, None)})
    gain: float = field(default=1.6, metadata={"range": (0.1, 10.0)})


def pack(tokens: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """All numbers that a robot sees in a row: tokens (n, r, ...) -> (n * r, numbers)."""
    parts = [tokens[name] for name in ("self", "robots", "object", "goal")]
    return np.concatenate([part.reshape(part.shape[0] * part.shape[1], -1) for part in parts], axis=1)


class Demonstrations:
    """Rollouts in memory, by number of robots; every 20th is kept for validation."""

    def __init__(self, shards: Iterable[Mapping[str, NDArray[Any]]] = ()) -> None:
        self._groups: dict[int, dict[str, NDArray[Any]]] = {}
        for shard in shards:
            self.add(shard)

    def add(self, shard: Mapping[str, NDArray[Any]]) -> None:
        """Take in a shard (see `horseshoe.demonstrations`)."""
        if not len(shard["goals"]):
            return
        count, lengths = shard["robots"].shape[1], np.diff(shard["offsets"])
        before = self._groups.get(count)
        rows, rollouts = (len(before["robots"]), len(before["goals"])) if before else (0, 0)
        new = {name: shard[name] for name in ("robots", "velocities", "actions", "particles", "goals")}
        new["rollout"] = rollouts + np.repeat(np.arange(len(lengths)), lengths)
        new["first"] = rows + np.repeat(shard["offsets"][:-1], lengths)
        self._groups[count] = {k: np.concatenate([before[k], v]) for k, v in new.items()} if before else new

    @property
    def robots(self) -> list[int]:
        """Numbers of robots there are rollouts of."""
        return sorted(self._groups)

    def __len__(self) -> int:
        """Decisions of single robots."""
        return sum(len(group["robots"]) * count for count, group in self._groups.items())

    def sample(
        self, config: DistillConfig, rng: np.random.Generator, validation: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw decisions of one number of robots: what each robot sees (n, numbers) and does (n, 2)."""
        sizes = np.array([len(self._groups[count]["robots"]) * count for count in self.robots])
        count = int(rng.choice(self.robots, p=sizes / sizes.sum()))
        group = self._groups[count]
        rows = rng.integers(0, len(group["robots"]), config.batch)
        kept = group["rollout"][rows] % 20 == 19
        rows = rows[kept == validation] if (kept == validation).any() else rows
        robots, velocities = group["robots"][rows].astype(float), group["velocities"][rows].astype(float)
        body = group["particles"][rows].astype(float)
        goal = group["goals"][group["rollout"][rows]].astype(float)
        ages = rng.integers(config.delay[0], config.delay[1] + 1, (len(rows), count, count))
        when = np.maximum(rows[:, None, None] - ages, group["first"][rows][:, None, None])
        sender = np.arange(count)[None, None]
        messages = np.concatenate([group["robots"][when, sender], group["velocities"][when, sender]], axis=-1)
        shown = np.linspace(0, SHOWN - 1, config.particles).astype(int)
        seen = seeing.tokens(
            robots, velocities, messages.astype(float), ages, body[:, shown], goal[:, shown],
            np.array(config.middle), config.neighbours,
        )  # fmt: skip
        done = seeing.to_own(group["actions"][rows].astype(float), seeing.headings(robots, body.mean(1)))
        x, y = pack(seen), done.reshape(-1, 2).astype(np.float32)
        flip = rng.random(len(x)) < 0.5
        x[flip] *= seeing.mirror_signs(config.neighbours, config.particles)
        y[flip, 1] *= -1.0
        return x, y


def make_actor(config: ActorConfig, gain: float = 1.0) -> TokenActor:
    """The network of a configuration, untrained; gain as for `TokenActor`."""
    torch.manual_seed(config.seed)
    return TokenActor(
        config.architecture, config.neighbours, config.particles, config.width, config.heads, config.layers, gain
    )


def make_env(goals: str, robots: int, num_envs: int, config: ActorConfig) -> Any:
    """The environment in which a policy learns; its scenes are not those kept for evaluation."""
    return gym.make_vec(
        f"horseshoe.sim:{ENV}",
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        robots=robots,
        goals=goals,
        neighbours=config.neighbours,
        particles=config.particles,
        delay=config.delay,
    ).unwrapped


def collect(env: Any, actor: TokenActor, config: DistillConfig, seed: int) -> dict[str, NDArray[Any]]:
    """Let the policy drive while its teacher tells what it would do.

    Args:
        env: see `make_env`; one episode of each of its scenes.
        actor: the policy.
        config: settings.
        seed: of scenes and of when the teacher takes over.

    Returns:
        What the teacher would do or did, as a shard.
    """
    rng, n = np.random.default_rng([config.seed, seed]), env.num_envs
    observation, _ = env.reset(seed=seed)
    step = env.config.robot_speed * env.config.control_period
    shown = np.linspace(0, env.particles.shape[1] - 1, SHOWN).astype(int)
    before, goals = env.robot_positions, env.goals[:, shown]
    bends = np.array([env.bends(k) for k in range(n)])
    plans: list[list[Array]] = [[] for _ in range(n)]
    alone = rng.integers(0, ALONE[1], n)
    taught = (rng.random(n) < LED) & ~bends  # so that all of the way is in the data
    shaken = rng.choice([0.0, SHAKEN], n)[:, None, None]
    rows: list[dict[str, Array]] = []
    exploded = np.zeros(n, dtype=bool)
    for _ in range(env.max_steps):
        with torch.no_grad():
            driven = actor.act(torch.from_numpy(pack(observation))).numpy().reshape(n, -1, 2)
        driven = driven + shaken * rng.normal(size=driven.shape)
        wanted, led = np.stack([env.steer(k) for k in range(n)]), taught.copy()
        for k in np.flatnonzero(bends & ~exploded):
            if not plans[k] and alone[k] == 0:
                plans[k], alone[k] = list(env.improve(k, config.iterations)[: config.horizon]), rng.integers(*ALONE)
            if plans[k]:
                wanted[k], led[k] = plans[k].pop(0), True
            else:
                alone[k] -= 1
        robots = env.robot_positions
        moved = (robots - before) / step
        rows.append({"robots": robots, "velocities": moved, "actions": wanted, "particles": env.particles[:, shown]})
        before = robots
        actions = np.where(led[:, None, None], env.to_own_frames(wanted), driven)
        observation, _, terminated, _, _ = env.step(actions)
        exploded |= terminated
    kept = np.flatnonzero(~exploded)
    data = {"goals": goals[kept].astype(np.float32), "offsets": np.arange(len(kept) + 1) * len(rows)}
    for name in rows[0]:
        each = np.stack([row[name][kept] for row in rows], axis=1, dtype=np.float32)
        data[name] = each.reshape(-1, *each.shape[2:])
    return data


def load(folder: Path) -> tuple[DistillConfig, TokenActor, dict[str, Any]]:
    """Read a run folder: settings, policy and state.

    Raises:
        HorseshoeError: there is none.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        raise HorseshoeError(f"{file}: no such checkpoint; `horseshoe distill` writes it")
    config = configuration.load(DistillConfig, folder / FILE)
    actor = make_actor(config, config.gain)
    checkpoint.restore(file, actor)
    return config, actor, checkpoint.read_state(file)


def distill(config: DistillConfig, folder: Path, jobs: int = 1) -> TokenActor:
    """Distil a data set, or go on where the checkpoint in `folder` ends.

    Args:
        config: settings; they must be those of the checkpoint, but for gain and more rounds with the teachers.
        folder: run folder for `distill.yaml`, checkpoint and what the rounds with the teachers gave.
        jobs: number of processes for these rounds.

    Raises:
        HorseshoeError: the data set is broken, or the folder holds a run with other settings.
    """
    torch.set_num_threads(1)
    source = Path(config.dataset)
    goals = str(demonstrations.read_manifest(source)["recipe"]["goals"])
    data = Demonstrations(demonstrations.read(source))
    if not len(data):
        raise HorseshoeError(f"{source}: no plan in it succeeded, so there is nothing to learn")
    counts = data.robots
    configuration.keep(config, folder / FILE, grows=("dagger",), free=("gain",))
    actor = make_actor(config, config.gain)
    optimizer = torch.optim.Adam(actor.parameters(), lr=config.learning_rate)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "curve": [], "robots": counts}
    if (folder / CHECKPOINT).exists():
        state = checkpoint.read_state(folder / CHECKPOINT)
        checkpoint.restore(folder / CHECKPOINT, actor, optimizer)
    total, began = config.steps * (1 + config.dagger), time.monotonic() - state["seconds"]
    added = 0
    with tqdm(total=total, initial=state["step"], unit=" steps", smoothing=0.05) as bar:
        for step in range(state["step"], total):
            while added < step // config.steps:
                added += 1
                for shard in _dagger_round(counts, goals, actor, config, folder, added, jobs):
                    data.add(shard)
            loss = _learn(actor, optimizer, config, data, step, total)
            state["step"] = step + 1
            bar.update()
            if (step + 1) % config.save_every == 0 or (step + 1) % config.steps == 0:
                state["seconds"] = round(time.monotonic() - began, 1)
                error = _validate(actor, config, data)
                state["curve"].append(
                    {
                        "step": step + 1,
                        "seconds": state["seconds"],
                        "loss": loss,
                        "error": error,
                        "decisions": len(data),
                    }
                )
                bar.set_postfix(loss=f"{loss:.4f}", error=f"{error:.3f}")
                checkpoint.save(folder, actor, optimizer, state)
    return actor


def _learn(
    actor: TokenActor,
    optimizer: torch.optim.Optimizer,
    config: DistillConfig,
    data: Demonstrations,
    step: int,
    total: int,
) -> float:
    """One gradient step; all chance in it comes from seed and step, so that a run goes on as if never interrupted."""
    x, y = data.sample(config, np.random.default_rng([config.seed, 1, step]))
    optimizer.param_groups[0]["lr"] = config.learning_rate * (1.0 - step / total)
    difference = (actor.act(torch.from_numpy(x)) - torch.from_numpy(y)).square().sum(-1)
    loss = torch.sqrt(difference + 0.01).mean() - 0.1  # the way out of a dilemma is one of the ways, not their mean
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
    optimizer.step()
    return round(float(loss.detach()), 5)


def _validate(actor: TokenActor, config: DistillConfig, data: Demonstrations) -> float:
    """Mean error of the velocity over the top speed on rollouts that are not learnt from."""
    errors = []
    with torch.no_grad():
        for k in range(8):
            x, y = data.sample(config, np.random.default_rng([config.seed, 2, k]), validation=True)
            errors.append((actor.act(torch.from_numpy(x)).numpy() - y) ** 2)
    return round(float(np.sqrt(np.concatenate(errors).sum(-1)).mean()), 5)


def _dagger_round(
    counts: list[int], goals: str, actor: TokenActor, config: DistillConfig, folder: Path, number: int, jobs: int
) -> list[dict[str, NDArray[Any]]]:
    """A round's shards; those that are there already are not made again."""
    kinds = [(goals, config.episodes, ""), *([(ROPES, config.ropes, f"{ROPES}-")] if config.ropes else [])]
    # As arrays: torch's tensors would be shared with the processes, a file descriptor for each of them.
    weights = {name: value.numpy().copy() for name, value in actor.state_dict().items()}
    tasks = {
        folder / f"dagger-{number:03d}-{mark}{robots}.npz": (name, robots, episodes, number, weights, config)
        for name, episodes, mark in kinds
        for robots in counts
    }
    todo = {file: task for file, task in tasks.items() if not file.exists()}
    processes = min(jobs, len(todo))
    with ExitStack() as stack:
        made: Iterable[dict[str, NDArray[Any]]]
        if processes > 1:
            spawn = multiprocessing.get_context("spawn")
            made = stack.enter_context(ProcessPoolExecutor(processes, spawn)).map(_episodes, todo.values())
        else:
            made = map(_episodes, todo.values())
        bar = stack.enter_context(
            tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc=f"round {number}", leave=False)
        )
        for file, shard in zip(todo, made, strict=True):
            temporary = file.with_suffix(".tmp")
            with open(temporary, "wb") as out:
                np.savez_compressed(out, **shard)  # type: ignore[arg-type]
            os.replace(temporary, file)
            bar.update()
    shards = []
    for file in tasks:
        with np.load(file, allow_pickle=False) as read:
            shards.append(dict(read))
    return shards


def _episodes(task: tuple[str, int, int, int, dict[str, NDArray[Any]], DistillConfig]) -> dict[str, NDArray[Any]]:
    goals, robots, episodes, number, weights, config = task
    torch.set_num_threads(1)
    actor = make_actor(config)
    actor.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return collect(make_env(goals, robots, episodes, config), actor, config, FIRST_SEED + number)
