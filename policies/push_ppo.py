"""SB3's PPO on pushing: from nothing, which the distilled policy is compared with, or on from a distilled policy.

The robots of several environments, each with another number of them, are agents that share one policy of the same form
as the distilled one, so it is exported and run in the same way.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import nn

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError
from horseshoe.policies import checkpoint, distill, parallel
from horseshoe.policies.checkpoint import CHECKPOINT
from horseshoe.policies.distill import ENV, ActorConfig, make_actor, make_env, pack
from horseshoe.policies.networks import TokenActor, mlp
from horseshoe.policies.ppo import learner, progress_bar, together
from horseshoe.policies.vec_env import SharedVecEnv, ends

FILE = "push_ppo.yaml"
FIRST_SEED = 60  # of the scenes; data sets begin at 0
VALUE_SCALE = 10.0  # of rewards: a decision earns about a hundredth


@dataclass(frozen=True)
class PushPPOConfig(ActorConfig):
    """Settings of a training.

    Attributes:
        env: Gymnasium id.
        scenes: scenes side by side, in every process, by goal set and number of robots.
        processes: processes that each train on scenes of their own and average their gradients.
        n_steps: decisions of a rollout.
        decisions: of all scenes of all processes together to train for.
        warm_up: rollouts at first from which only the critic learns, which knows nothing of a distilled policy.
        gamma: discount a decision.
        gae_lambda: of the advantages.
        epochs: per rollout.
        minibatch: samples of a gradient, in every process.
        learning_rate: at the beginning; falls to 0 at the end.
        entropy: weight of the entropy bonus.
        initial_std: of the actions.
        save_every: rollouts between two checkpoints.
        initial: run whose policy this one started from, empty for none; written by `train`.
    """

    env: str = ENV
    scenes: dict[str, dict[int, int]] = field(default_factory=lambda: {"wide": {3: 16, 4: 16, 6: 16}})
    processes: int = field(default=1, metadata={"range": (1, 256)})
    n_steps: int = field(default=46, metadata={"range": (1, 4096)})
    decisions: int = field(default=400_000, metadata={"range": (1, 10**10)})
    warm_up: int = field(default=0, metadata={"range": (0, 10**6)})
    gamma: float = field(default=0.98, metadata={"range": (0.5, 0.9999)})
    gae_lambda: float = field(default=0.95, metadata={"range": (0.0, 1.0)})
    epochs: int = field(default=5, metadata={"range": (1, 100)})
    minibatch: int = field(default=1024, metadata={"range": (2, 10**6)})
    learning_rate: float = field(default=5e-4, metadata={"range": (1e-7, 1.0)})
    entropy: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    initial_std: float = field(default=0.5, metadata={"range": (0.01, 2.0)})
    save_every: int = field(default=5, metadata={"range": (1, 10**6)})
    initial: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.batches:
            raise ValueError("scenes: there must be one goal set with one number of robots at least")

    @property
    def batches(self) -> list[tuple[str, int, int]]:
        """Goal set, number of robots and of scenes of every environment."""
        return [(goals, robots, n) for goals, parts in self.scenes.items() for robots, n in parts.items()]

    @property
    def robots_per_scene(self) -> float:
        """On average, each of which is an agent: samples of a decision."""
        return sum(robots * n for _, robots, n in self.batches) / sum(n for _, _, n in self.batches)


class PushVecEnv(SharedVecEnv):
    """All robots of several pushing environments as agents; observations are all tokens in a row.

    Args:
        envs: with as many neighbours and particles each.
        first: seed of the first one's scenes.
    """

    def __init__(self, envs: list[Any], first: int = FIRST_SEED) -> None:
        self.envs = envs
        self._sizes = [env.num_envs * env.robots for env in envs]
        self._starts = [first + k for k in range(len(envs))]
        self._whole = [np.zeros(env.num_envs, dtype=bool) for env in envs]  # the first episodes are not
        width = pack(envs[0].reset(seed=self._starts[0])[0]).shape[1]
        space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        super().__init__(envs[0], sum(self._sizes), space, gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
        self.ends: list[bool] = []  # successes of the whole episodes that ended since the last look

    def reset(self) -> NDArray[np.float32]:
        """Start all scenes."""
        spread = {"spread": True}
        starts = zip(self.envs, self._starts, strict=True)
        return np.concatenate([pack(env.reset(seed=seed, options=spread)[0]) for env, seed in starts])

    def step_wait(self) -> VecEnvStepReturn:
        """Step every scene."""
        seen, rewards, dones = [], [], []
        infos: list[dict[str, Any]] = []
        acting = np.split(self._actions, np.cumsum(self._sizes)[:-1])
        for env, whole, actions in zip(self.envs, self._whole, acting, strict=True):
            observation, _, terminated, truncated, info = env.step(actions.reshape(env.num_envs, env.robots, 2))
            done = terminated | truncated
            if done.any():
                self.ends += info["success"][done & whole].tolist()
                whole |= done
                infos += ends(done, truncated, pack(info["final_obs"]))
            else:
                infos += [{}] * (env.num_envs * env.robots)
            seen.append(pack(observation))
            rewards.append(VALUE_SCALE * info["robot_reward"].reshape(-1))
            dones.append(np.repeat(done, env.robots))
        return np.concatenate(seen), np.concatenate(rewards).astype(np.float32), np.concatenate(dones), infos


class _Networks(nn.Module):
    """The trunk of a `TokenActor`, and a critic that sees as much."""

    def __init__(self, config: PushPPOConfig, inputs: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 128
        self.actor, self.critic = make_actor(config).trunk, mlp([inputs, 256, 256, 128])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(x), self.forward_critic(x)

    def forward_actor(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.actor(x)
        return found

    def forward_critic(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.critic(x)
        return found


class _Policy(ActorCriticPolicy):
    """SB3's actor-critic with these networks."""

    def __init__(self, *args: Any, config: PushPPOConfig, **kwargs: Any) -> None:
        self._config = config
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = _Networks(self._config, self.features_dim)


class _Progress(BaseCallback):
    """Progress bar, learning curve, checkpoints, and who learns."""

    def __init__(self, config: PushPPOConfig, folder: Path, state: dict[str, Any], group: parallel.Group) -> None:
        super().__init__()
        self._config, self._folder, self._clock = config, folder, time.monotonic()
        self.state, self._group, self._rollouts = state, group, -1
        self._bar: Any = None

    def _on_training_start(self) -> None:
        self._bar = progress_bar(self._config.decisions, self.decisions, self._group)

    @property
    def decisions(self) -> int:
        """Of all scenes so far."""
        return round(self._group.size * self.num_timesteps / self._config.robots_per_scene)

    def _on_rollout_start(self) -> None:
        self._rollouts += 1  # this one has not begun: here an update has just ended
        if self._rollouts and self._rollouts % self._config.save_every == 0:
            self.keep()
        policy: Any = self.model.policy
        learns = self.num_timesteps >= self._config.warm_up * self._config.n_steps * self.training_env.num_envs
        for part in (policy.mlp_extractor.actor, policy.action_net):
            part.requires_grad_(learns)
        policy.log_std.requires_grad_(learns)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        env: Any = self.training_env
        now = time.monotonic()
        self.state["seconds"], self._clock = round(self.state["seconds"] + now - self._clock, 1), now
        self._bar.update(self.decisions - self._bar.n)
        ends, env.ends = [end for part in self._group.gather(env.ends) for end in part], []
        if ends:
            success = float(np.mean(ends))
            point = {"step": self.decisions, "seconds": self.state["seconds"], "success": round(success, 4)}
            self.state["curve"].append(point)
            self.logger.record("rollout/success", success)
            self._bar.set_postfix(success=f"{success:.1%}")

    def keep(self) -> None:
        """Write a checkpoint."""
        if self._group.rank > 0:
            return
        model: Any = self.model
        self.state["timesteps"] = model.num_timesteps * self._group.size
        checkpoint.save(self._folder, model.policy, model.policy.optimizer, self.state)

    def _on_training_end(self) -> None:
        self._bar.close()
        self.keep()


def _load(part: nn.Module, file: Path, prefix: str) -> None:
    part.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.read_arrays(file, prefix).items()})


def load(folder: Path) -> tuple[PushPPOConfig, TokenActor, dict[str, Any]]:
    """Read a run folder: settings, the actor alone, state.

    Raises:
        HorseshoeError: there is no checkpoint.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        raise HorseshoeError(f"{file}: no such checkpoint; `horseshoe train push` writes it")
    config = configuration.load(PushPPOConfig, folder / FILE)
    actor = make_actor(config)
    _load(actor.trunk, file, "policy.mlp_extractor.actor.")
    _load(actor.head, file, "policy.action_net.")
    return config, actor, checkpoint.read_state(file)


def train(config: PushPPOConfig, folder: Path, initial: Path | None = None) -> None:
    """Train, or go on from the checkpoint in `folder`, in new scenes.

    Args:
        config: settings; they must be those of the checkpoint, but for more decisions.
        folder: run folder for `push_ppo.yaml`, checkpoint and TensorBoard events.
        initial: checkpoint of a distillation or a training whose policy a new run goes on from; a run that has begun
            keeps the one it began with.

    Raises:
        HorseshoeError: there is no such goal set, the folder holds a run with other settings or from another policy, or
            `initial` has another network.
    """
    _make_envs(config)  # refused before the folder is theirs
    file, begun = folder / FILE, (folder / CHECKPOINT).exists()
    if initial is not None:
        _read_initial(config, initial)
        config = replace(config, initial=initial.resolve().parent.name)
    elif file.exists():
        config = replace(config, initial=configuration.load(PushPPOConfig, file).initial)
    if config.initial and initial is None and not begun:
        raise HorseshoeError(f"{folder}: begins with the policy of '{config.initial}'; give its checkpoint (--from)")
    folder.mkdir(parents=True, exist_ok=True)
    configuration.keep(config, file, grows=("decisions",))
    if config.processes > 1:
        parallel.run(_learn, config.processes, config, folder, initial)
    else:
        _learn(parallel.Group(), config, folder, initial)


def _make_envs(config: PushPPOConfig) -> list[Any]:
    return [make_env(goals, robots, n, config) for goals, robots, n in config.batches]


def _read_initial(config: PushPPOConfig, initial: Path) -> tuple[TokenActor, dict[str, Any]]:
    """A policy to go on from, and the settings with which it was trained, those of the one before it among them."""
    folder = initial.parent
    if initial.name != CHECKPOINT:
        raise HorseshoeError(f"{initial}: is no {CHECKPOINT} of a run folder")
    theirs, actor, state = distill.load(folder) if (folder / distill.FILE).exists() else load(folder)
    for name in ("architecture", "width", "heads", "layers", "neighbours", "particles"):
        if getattr(theirs, name) != getattr(config, name):
            raise HorseshoeError(f"{name}: {initial} has {getattr(theirs, name)}, not {getattr(config, name)}")
    settings = configuration.dump(theirs)
    if isinstance(theirs, distill.DistillConfig):
        settings["dataset"] = Path(theirs.dataset).name
    if "taught" in state:
        settings["taught"] = state["taught"]
    return actor, settings


def _learn(group: parallel.Group, config: PushPPOConfig, folder: Path, initial: Path | None) -> None:
    """What every process of a training does: its share of it."""
    torch.set_num_threads(1)
    file = folder / CHECKPOINT
    begun: dict[str, Any] = {"curve": [], "seconds": 0.0, "timesteps": 0, "begun": 0}
    if file.exists():
        begun = checkpoint.read_state(file)
    # What follows must not be what was before.
    state = {**begun, "robots": sorted({robots for _, robots, _ in config.batches}), "begun": begun["begun"] + 1}
    seed = config.seed + begun["timesteps"] + contracts.RANK_SEED * group.rank
    first = FIRST_SEED + (begun["begun"] * group.size + group.rank) * len(config.batches)
    env = PushVecEnv(_make_envs(config), first)
    model = learner(
        _Policy,
        env,
        config,
        learning_rate=lambda left: config.learning_rate * left,
        max_grad_norm=0.5,
        policy_kwargs={"config": config, "log_std_init": float(np.log(config.initial_std))},
        seed=seed,
    )
    torch.manual_seed(seed)  # the weights were drawn with the seed of the configuration
    policy: Any = model.policy
    if file.exists():
        checkpoint.restore(file, policy, policy.optimizer)
        model.num_timesteps = begun["timesteps"] // group.size
    elif initial is not None:
        actor, state["taught"] = _read_initial(config, initial)
        policy.mlp_extractor.actor.load_state_dict(actor.trunk.state_dict())
        policy.action_net.load_state_dict({k: actor.gain * v for k, v in actor.head.state_dict().items()})
        if (initial.parent / FILE).exists():  # it has a critic too
            _load(policy.mlp_extractor.critic, initial, "policy.mlp_extractor.critic.")
            _load(policy.value_net, initial, "policy.value_net.")
    together(policy, group)
    model.set_logger(configure(str(folder), ["tensorboard"]) if group.rank == 0 else Logger(None, []))
    left = round(config.decisions / group.size * config.robots_per_scene) - model.num_timesteps
    if left > 0:
        model.learn(left, callback=_Progress(config, folder, state, group), reset_num_timesteps=False)
