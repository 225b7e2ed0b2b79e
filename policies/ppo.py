"""Training with SB3's PPO on a batch environment: resumable, deterministic for a seed."""

import dataclasses
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint, environments, parallel
from horseshoe.policies.checkpoint import CHECKPOINT, read_state
from horseshoe.policies.networks import ActorCritic
from horseshoe.policies.vec_env import AgentVecEnv

if TYPE_CHECKING:
    from horseshoe.policies.push_ppo import PushPPOConfig

ACTIONS = 7  # of an arm: six joints and the gripper
LEARNING_RATE = 5e-5, 1e-3  # least and largest step size


@dataclass(frozen=True)
class TrainConfig:
    """Training settings.

    Attributes:
        env: Gymnasium id.
        env_config: overrides of the environment's configuration.
        engine: physics of the assembly environments, MuJoCo without it.
        architecture: of the actor.
        processes: processes that each train on n_envs cells of their own and average their gradients.
        n_envs: environments side by side, in every process.
        n_steps: decisions of a rollout.
        decisions: how many environment decisions to train for, those of all processes and stages together.
        stages: settings that are others at first, by their names, stage after stage, each until its own `decisions`;
            `env_config` by its first keys.
        seed: of everything.
        gamma: discount a decision.
        minibatch: samples of a gradient, in every process.
        learning_rate: at the beginning; it adapts within its range.
        kl: update size the step size is adapted to.
        full_level: success rate on whole starts at which the curriculum is over.
        initial_std: of every action; a hand that shakes by centimetres never learns to hold.
        save_every: updates between two checkpoints.
        initial: run whose weights this one started from, empty for none; written by `train`.
    """

    env: str
    env_config: dict[str, Any] = field(default_factory=dict)
    engine: Literal["", "mujoco", "quasistatic"] = ""
    architecture: Literal["mlp", "attention"] = "mlp"
    processes: int = field(default=1, metadata={"range": (1, 256)})
    n_envs: int = field(default=512, metadata={"range": (1, 65536)})
    n_steps: int = field(default=20, metadata={"range": (1, 4096)})
    decisions: int = field(default=8_000_000, metadata={"range": (1, 10**10)})
    stages: list[dict[str, Any]] = field(default_factory=list)
    seed: int = field(default=0, metadata={"range": (0, 2**31)})
    gamma: float = field(default=0.95, metadata={"range": (0.5, 0.9999)})
    gae_lambda: float = field(default=0.92, metadata={"range": (0.0, 1.0)})
    epochs: int = field(default=4, metadata={"range": (1, 100)})
    minibatch: int = field(default=5120, metadata={"range": (2, 10**6)})
    learning_rate: float = field(default=5e-4, metadata={"range": LEARNING_RATE})
    kl: float = field(default=0.016, metadata={"range": (1e-4, 1.0)})
    entropy: float = field(default=0.001, metadata={"range": (0.0, 1.0)})
    initial_std: tuple[float, ...] = (0.18, 0.18, 0.18, 0.18, 0.18, 0.18, 0.5)
    full_level: float = field(default=0.8, metadata={"range": (0.01, 1.0)})
    save_every: int = field(default=20, metadata={"range": (1, 10**6)})
    initial: str = ""

    def __post_init__(self) -> None:
        if len(self.initial_std) != ACTIONS or not all(0 < std < np.inf for std in self.initial_std):
            raise ValueError(f"initial_std: {list(self.initial_std)} is not {ACTIONS} numbers above 0, one per action")


class SharedPolicy(ActorCriticPolicy):
    """SB3's actor-critic with our networks; `networks` holds their arguments."""

    def __init__(self, *args: Any, networks: dict[str, Any], **kwargs: Any) -> None:
        self._networks = networks
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = ActorCritic(**self._networks)


class _Progress(BaseCallback):
    """Curriculum, step size, learning curve, checkpoints and the progress bar."""

    def __init__(self, config: TrainConfig, folder: Path, started: dict[str, Any], group: parallel.Group) -> None:
        super().__init__()
        self.config, self.folder, self.group = config, folder, group
        self.curve: list[dict[str, float]] = started.get("curve", [])
        self.success = float(started.get("success", 0.0))
        self.rate = float(started.get("learning_rate", config.learning_rate))
        self.updates = int(started.get("updates", 0))
        self.seconds = float(started.get("seconds", 0.0))
        self._clock = time.monotonic()
        self.bar: Any = None

    def _on_training_start(self) -> None:
        self.bar = progress_bar(self.config.decisions, self.decisions, self.group)
        self._ppo.lr_schedule = lambda _: self.rate
        self._set_level()

    @property
    def _ppo(self) -> Any:
        return self.model

    @property
    def _env(self) -> AgentVecEnv:
        return self._ppo.env

    @property
    def decisions(self) -> int:
        """Taken so far, by all processes; SB3 counts the samples of its own."""
        return self._ppo.num_timesteps * self.group.size // self._env.robots

    def _on_rollout_start(self) -> None:
        if self._ppo._n_updates == 0:
            return
        # What adapts follows all processes, so that it is the same in each.
        kl = np.mean(self.group.gather(self._ppo.logger.name_to_value.get("train/approx_kl", 0.0)))
        if not kl:
            return
        # Here an update has just ended: adapt, count, save. The next rollout starts from exactly this state.
        if kl > 2 * self.config.kl:
            self.rate = max(self.rate / 1.5, LEARNING_RATE[0])
        elif kl < self.config.kl / 2:
            self.rate = min(self.rate * 1.5, LEARNING_RATE[1])
        self.updates += 1
        self._set_level()
        self._ppo.policy.mlp_extractor.update_normalisers(
            torch.as_tensor(self._ppo.rollout_buffer.observations.reshape(-1, self._env.n_actor + self._env.n_critic)),
            self.group.gather,
        )
        if self.updates % self.config.save_every == 0:
            self._account()
            save(self._ppo, self, self.folder)

    def _set_level(self) -> None:
        self._env.env.set_level(min(self.success / self.config.full_level, 1.0))

    def _account(self) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def _on_rollout_end(self) -> None:
        own = self._env.finished, self._env.terms, float(self._ppo.rollout_buffer.rewards.mean())
        self._env.finished, self._env.terms = [], []
        everyone = self.group.gather(own)
        finished = [f for part, _, _ in everyone for f in part]
        terms = [t for _, part, _ in everyone for t in part]
        for name in terms[0]:
            self.logger.record(f"terms/{name}", float(np.mean([t[name] for t in terms])))
        if not finished:
            return
        whole = np.concatenate([f["whole"] for f in finished])
        success = np.concatenate([f["success"] for f in finished])
        if whole.any():
            weight = min(int(whole.sum()) / 300, 1.0)
            self.success += weight * (float(success[whole].mean()) - self.success)
        self._account()
        std = float(self._ppo.policy.log_std.detach().exp().mean())
        point = {
            "seconds": round(self.seconds, 1),
            "decisions": self.decisions,
            "success": round(self.success, 4),
            "assisted_success": round(float(success[~whole].mean()) if (~whole).any() else self.success, 4),
            "connected": round(float(np.mean([t["connected"] for t in terms])), 4),
            "level": round(self._env.env.level, 3),
            "std": round(std, 4),
            "learning_rate": self.rate,
            "reward": round(float(np.mean([reward for _, _, reward in everyone])), 4),
        }
        self.curve.append(point)
        for key, value in point.items():
            self.logger.record(f"rollout/{key}", value)
        ends = np.concatenate([f["outcome"] for f in finished])
        diverged = (ends == self._env.env.outcomes.index("diverged")).sum()
        self.logger.record("rollout/diverged", int(diverged))  # of assisted starts too
        ends = ends[whole]
        for index, name in enumerate(self._env.env.outcomes):
            self.logger.record(f"outcome/{name}", float((ends == index).mean()) if whole.any() else 0.0)
        self.bar.update(self.decisions - self.bar.n)
        self.bar.set_postfix(success=f"{self.success:.1%}", level=f"{point['level']:.2f}", std=f"{std:.2f}")

    def _on_training_end(self) -> None:
        self.bar.close()

    def _on_step(self) -> bool:
        return True


def _prefix(rank: int) -> str:
    """Of the names of what a checkpoint keeps of each process."""
    return f"rank{rank}." if rank else ""


def save(model: PPO, progress: _Progress, folder: Path) -> None:
    """Write a checkpoint from which `train` goes on exactly; the previous one is replaced in one step.

    Weights and optimiser are those of all processes; worlds and random states are kept of each.
    """
    env: Any = model.env
    own: dict[str, Any] = {f"env.{k}": v for k, v in env.env.snapshot().items()}
    own["last_obs"] = model._last_obs
    own["last_starts"] = np.asarray(model._last_episode_starts, dtype=np.float32)
    own["torch_rng"] = torch.get_rng_state().numpy()
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002 (SB3 shuffles minibatches with it)
    own["numpy_rng"], own["numpy_rng_position"] = np.asarray(keys), np.asarray(position)
    everyone = progress.group.collect(own)
    if progress.group.rank > 0:
        return
    worlds = {_prefix(rank) + k: v for rank, part in enumerate(everyone) for k, v in part.items()}
    state = {
        "timesteps": model.num_timesteps * progress.group.size,
        "n_updates": model._n_updates,
        "curve": progress.curve,
        "success": progress.success,
        "learning_rate": progress.rate,
        "updates": progress.updates,
        "seconds": progress.seconds,
    }
    checkpoint.save(folder, model.policy, model.policy.optimizer, state, worlds)


def _restore(model: PPO, file: Path, group: parallel.Group, world: bool = True) -> dict[str, Any]:
    """Take everything a checkpoint holds; with `world` False all but the episodes it was in the middle of."""
    env: Any = model.env
    state = read_state(file)
    checkpoint.restore(file, model.policy, model.policy.optimizer)
    model.num_timesteps, model._n_updates = state["timesteps"] // group.size, state["n_updates"]
    if not world:
        return state
    arrays = checkpoint.read_arrays(file, _prefix(group.rank))
    env.env.restore({k.removeprefix("env."): v for k, v in arrays.items() if k.startswith("env.")})
    model._last_obs = arrays["last_obs"]
    model._last_episode_starts = arrays["last_starts"].astype(bool)
    torch.set_rng_state(torch.from_numpy(arrays["torch_rng"]))
    np.random.set_state(("MT19937", arrays["numpy_rng"], arrays["numpy_rng_position"].item(), 0, 0.0))  # noqa: NPY002
    return state


def learner(policy: type[ActorCriticPolicy], agents: VecEnv, config: "TrainConfig | PushPPOConfig", **more: Any) -> PPO:
    """SB3's PPO with the settings of a configuration and `more` of SB3's own."""
    return PPO(
        policy,
        agents,
        n_steps=config.n_steps,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        ent_coef=config.entropy,
        device="cpu",
        **more,
    )


def progress_bar(total: int, done: int, group: parallel.Group) -> Any:
    """A bar of decisions, shown by the first process of a group."""
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which stays behind a killed process
    return tqdm(total=total, initial=done, unit=" decisions", smoothing=0.05, disable=group.rank > 0)


def together(policy: ActorCriticPolicy, group: parallel.Group) -> None:
    """Let the processes of a group learn as one: with the first one's weights, then with the mean of all gradients."""
    group.copy(list(policy.state_dict().values()))
    if group.size > 1:
        weights = list(policy.parameters())
        policy.optimizer.register_step_pre_hook(
            lambda *_: group.average([w.grad for w in weights if w.grad is not None])
        )


def _make_env(config: TrainConfig, n_envs: int, n_threads: int, **more: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The environment of a configuration.

    Raises:
        HorseshoeError: there is no such environment, or its settings are wrong.
    """
    kwargs: dict[str, Any] = {"config": config.env_config} if config.env_config else {}
    kwargs |= {"engine": config.engine} if config.engine else {}
    kwargs |= {"num_envs": n_envs, "seed": config.seed, "n_threads": n_threads, **more}
    return environments.make(config.env, None, "env_config", **kwargs)


def _stages(config: TrainConfig) -> list[TrainConfig]:
    """What a training goes through before its own settings hold.

    Raises:
        HorseshoeError: a stage has what is no setting, or no end.
    """
    found = []
    for k, others in enumerate(config.stages):
        env_config = {"env_config": config.env_config | others.get("env_config", {})}
        try:
            if not 0 < others.get("decisions", 0) < config.decisions:
                raise HorseshoeError(f"decisions: must be given, above 0 and below the {config.decisions} of all")
            stage = configuration.dump(config) | others | env_config | {"stages": []}
            found.append(configuration.load(TrainConfig, stage))
        except HorseshoeError as error:
            raise HorseshoeError(f"stages[{k}].{error}") from error
    return found


def check(config: TrainConfig) -> None:
    """Refuse a configuration whose environments cannot be made; nothing is written.

    Raises:
        HorseshoeError: names what is wrong with it.
    """
    for each in (config, *_stages(config)):
        _make_env(each, 1, 1, pool=1).close()


def build(config: TrainConfig, n_threads: int = 2) -> PPO:
    """Environment and learner of a configuration, untrained."""
    torch.set_num_threads(n_threads)
    env = _make_env(config, config.n_envs, n_threads)
    agents = AgentVecEnv(env, config.gamma)
    tokens = list(agents.env.observer.fields.tokens().values())
    model = learner(
        SharedPolicy,
        agents,
        config,
        learning_rate=config.learning_rate,
        max_grad_norm=1.0,
        policy_kwargs={
            "networks": {
                "n_actor": agents.n_actor,
                "n_critic": agents.n_critic,
                "architecture": config.architecture,
                "tokens": tokens,
            },
        },
        seed=config.seed,
    )
    with torch.no_grad():
        model.policy.log_std.copy_(torch.log(torch.tensor(config.initial_std)))
    return model


def train(config: TrainConfig, folder: Path, initial: Path | None = None, n_threads: int = 2) -> None:
    """Train, or go on where the checkpoint in `folder` ends.

    Args:
        config: settings; they must be those of the checkpoint, `decisions` aside.
        folder: run folder for `train.yaml`, checkpoint and TensorBoard events.
        initial: a checkpoint that a new run goes on from, in a world of its own; without it a run that has begun
            keeps the one it began with.
        n_threads: physics threads; of several processes each has one.

    Raises:
        HorseshoeError: the folder holds a run with other settings or from another checkpoint, or `initial` is none
            that this run can go on from.
    """
    file, begun = folder / "train.yaml", (folder / CHECKPOINT).exists()
    if initial is not None:
        _check_initial(config, initial, n_threads)
        config = dataclasses.replace(config, initial=initial.resolve().parent.name)
    elif file.exists():
        config = dataclasses.replace(config, initial=configuration.load(TrainConfig, file).initial)
    if begun and initial is not None and not file.exists():
        raise HorseshoeError(f"{folder}: its checkpoint need not come from {initial}; give another --run folder")
    if config.initial and initial is None and not begun:
        raise HorseshoeError(f"{folder}: begins with the weights of '{config.initial}'; give its checkpoint (--from)")
    folder.mkdir(parents=True, exist_ok=True)
    configuration.keep(config, file, free=("decisions",))
    if initial is None and not begun:
        for k, stage in enumerate(_stages(config)):
            part = folder / f"stage_{k + 1}"
            part.mkdir(exist_ok=True)
            configuration.keep(stage, part / "train.yaml", free=("decisions",))
            _run(stage, part, initial, n_threads)
            initial = part / CHECKPOINT
    _run(config, folder, initial, n_threads)


def _check_initial(config: TrainConfig, initial: Path, n_threads: int) -> None:
    """Refuse a checkpoint whose weights do not fit, or that leaves nothing to do; nothing is written."""
    curve = read_state(initial)["curve"]
    small = dataclasses.replace(config, n_envs=1, n_steps=2, minibatch=2)
    checkpoint.restore(initial, build(small, n_threads).policy)
    if (done := curve[-1]["decisions"] if curve else 0) >= config.decisions:
        raise HorseshoeError(f"decisions: {initial} has {done} behind it, which is not below {config.decisions}")


def _run(config: TrainConfig, folder: Path, initial: Path | None, n_threads: int) -> None:
    """Train in one or several processes."""
    if config.processes > 1:
        parallel.run(_learn, config.processes, config, folder, initial, 1)
    else:
        _learn(parallel.Group(), config, folder, initial, n_threads)


def _learn(group: parallel.Group, config: TrainConfig, folder: Path, initial: Path | None, n_threads: int) -> PPO:
    """What every process of a training does: its share of it."""
    file, started = folder / CHECKPOINT, {}
    model = build(dataclasses.replace(config, seed=config.seed + contracts.RANK_SEED * group.rank), n_threads)
    if file.exists():
        started = _restore(model, file, group)
    elif initial is not None:
        started = _restore(model, initial, group, world=False)
    together(model.policy, group)
    model.set_logger(configure(str(folder), ["tensorboard"]) if group.rank == 0 else Logger(None, []))
    progress = _Progress(config, folder, started, group)
    agents: Any = model.env
    left = config.decisions * agents.robots - model.num_timesteps * group.size
    if left > 0:
        model.learn(-(-left // group.size), callback=progress, reset_num_timesteps=False)
        progress._account()
        save(model, progress, folder)
    return model
