"""Evaluation of pushing on goals kept for it, of a policy or of what it is compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from horseshoe import contract as contracts
from horseshoe.policies import baselines
from horseshoe.policies.evaluate import Evaluation
from horseshoe.policies.runtime import TokenPolicy
from horseshoe.tokens import in_decisions

MAX_ENVS = 50


@dataclass
class PushEvaluation(Evaluation):
    """Outcomes of pushing.

    Attributes:
        scores: incremental IoU at the end of every episode.
    """

    scores: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """As of any evaluation, and the mean incremental IoU."""
        return {**super().summary(), "mean_incremental_iou": round(float(self.scores.mean()), 4)}

    def table(self) -> str:
        """The summary for people."""
        return f"{super().table()}\nincremental IoU {self.scores.mean():.3f} on average"

    def save_picture(self, path: Path) -> None:
        """Draw the scores and the times to success as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.2), layout="constrained")
        scores, times = figure.subplots(1, 2)
        s = self.summary()
        low, high = s["ci95"]
        scores.hist(self.scores, bins=np.linspace(0.0, 1.0, 21), color="tab:orange")
        scores.axvline(0.75, color="0.3", ls="--")
        scores.set(
            title=f"{s['success_rate']:.1%} of {s['episodes']}  [{low:.1%}, {high:.1%}]",
            xlabel="incremental IoU at the end",
            ylabel="episodes",
        )
        times.hist(self.seconds[np.array(self.outcomes) == "success"], bins=20, color="tab:green")
        times.set(title="time to success", xlabel="s", ylabel="episodes")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def evaluate(
    policy: TokenPolicy,
    episodes: int,
    seed: int = 0,
    robots: int = 6,
    goals: str = "wide",
    delay: tuple[float, float] | None = None,
    disturbance: dict[str, Any] | None = None,
    baseline: str | None = None,
    video: Path | None = None,
    video_episodes: int = 4,
) -> PushEvaluation:
    """Push to goals kept for evaluation.

    Args:
        policy: what to run.
        episodes: how many.
        seed: of the sequence of scenes; those of seed 0 begin with the first one kept.
        robots: how many.
        goals: goal set.
        delay: least and largest lateness of the neighbours' messages [s], rounded to decisions, the contract's
            without it.
        disturbance: of the world; see the environment.
        baseline: run this instead of the policy, on the same scenes and with the same messages.
        video: where to write a video of the first episodes.
        video_episodes: how many the video shows.

    Raises:
        HorseshoeError: a value out of range, or a policy that does not fit the environment.
    """
    import gymnasium as gym

    file, contract = policy.folder / contracts.FILE, policy.contract
    contracts.check_tokens(contract, policy.neighbours, policy.particles, file)
    period = 1.0 / contract.action.decision_rate
    decisions = in_decisions(contract.delay if delay is None else delay, period)
    late = decisions[0] * period, decisions[1] * period  # what is run
    n = min(episodes, MAX_ENVS)
    env: Any = gym.make_vec(
        f"horseshoe.sim:{contract.env}",
        num_envs=n,
        vectorization_mode="vector_entry_point",
        robots=robots,
        goals=goals,
        held_out=True,
        neighbours=policy.neighbours,
        particles=policy.particles,
        delay=decisions,
        disturbance=disturbance,
    ).unwrapped
    contracts.check_rate(contract, env.config.control_period, file)
    controller = _own(policy) if baseline is None else baselines.make(baseline, env)
    frames: list[Any] = []
    share = np.full(n, episodes // n)  # every scene of the batch runs its own share
    share[: episodes % n] += 1
    finished, taken, reached = np.zeros(n, dtype=int), np.zeros(n, dtype=int), np.full(n, -1)
    outcomes: list[str] = []
    seconds: list[float] = []
    scores: list[float] = []
    observation, _ = env.reset(seed=seed)
    with tqdm(total=episodes * env.max_steps, unit=" decisions") as bar:
        while len(outcomes) < episodes:
            if video and not finished[:video_episodes].any() and not taken[0] % 2:
                frames.append(_tile([env.picture(k) for k in range(min(video_episodes, n))]))
            observation, _, terminated, truncated, info = env.step(controller(observation, taken))
            taken += 1
            reached[(reached < 0) & info["success"]] = taken[(reached < 0) & info["success"]]
            for k in np.flatnonzero(terminated | truncated):
                if finished[k] < share[k]:
                    finished[k] += 1
                    good = bool(info["success"][k])
                    outcomes.append(_outcome(good, bool(terminated[k]), reached[k] >= 0))
                    seconds.append(float(reached[k] if good else taken[k]) * period)
                    scores.append(float(info["incremental_iou"][k]))
                    bar.update(env.max_steps)
                taken[k], reached[k] = 0, -1
            if outcomes:
                bar.set_postfix(success=f"{outcomes.count('success') / len(outcomes):.1%}", refresh=False)
    if video:
        _save_video(video, frames, 0.5 / period)
    settings = {
        "policy": policy.folder.name if baseline is None else baseline,
        "env": contract.env,
        "seed": seed,
        "robots": robots,
        "goals": goals,
        "delay": list(late),
        "disturbance": disturbance or {},
    }
    delays = np.full(len(outcomes), late[1])
    return PushEvaluation(outcomes, np.array(seconds), delays, settings, np.array(scores))


def _own(policy: TokenPolicy) -> baselines.Controller:
    """A policy for every robot of every scene."""

    def act(tokens: baselines.Tokens, taken: NDArray[np.int_]) -> NDArray[Any]:
        n, robots = tokens["self"].shape[:2]
        answer = policy.act({name: value.reshape(n * robots, *value.shape[2:]) for name, value in tokens.items()})
        return answer.reshape(n, robots, 2)

    return act


def _outcome(success: bool, exploded: bool, was_there: bool) -> str:
    if exploded:
        return "exploded"
    return "success" if success else "lost_again" if was_there else "not_reached"


def _tile(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    rows = [np.concatenate(pictures[k : k + 2], axis=1) for k in range(0, len(pictures), 2)]
    width = rows[0].shape[1]
    white = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(white)


def _save_video(path: Path, frames: list[Any], rate: float) -> None:
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        imageio.mimsave(path, frames, duration=1000.0 / rate, loop=0)
    else:
        imageio.mimsave(path, frames, fps=rate, macro_block_size=None)
