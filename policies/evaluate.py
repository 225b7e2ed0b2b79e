"""Evaluation of a policy on episodes that training never saw."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from tqdm import tqdm

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError
from horseshoe.policies.runtime import OnnxPolicy

MAX_ENVS = 250
MARKS = (10, 15, 24, 40)  # by when episodes had succeeded [s]


@dataclass
class Evaluation:
    """Outcomes of a set of episodes.

    Attributes:
        outcomes: name of every episode's end, "success" among them.
        seconds: length of every episode [s].
        delays: transport delay of every episode [s].
        settings: what was evaluated, and how.
    """

    outcomes: list[str]
    seconds: NDArray[np.float64]
    delays: NDArray[np.float64]
    settings: dict[str, Any]

    @property
    def successes(self) -> int:
        """Number of successful episodes."""
        return self.outcomes.count("success")

    def summary(self) -> dict[str, Any]:
        """Success with its 95 % Wilson interval, time to success and what failed, as JSON types."""
        n = len(self.outcomes)
        interval = binomtest(self.successes, n).proportion_ci(0.95, method="wilson")
        times = self.seconds[np.array(self.outcomes) == "success"]
        failures = {o: self.outcomes.count(o) for o in sorted(set(self.outcomes) - {"success"})}
        return {
            **self.settings,
            "episodes": n,
            "success_rate": round(self.successes / n, 4),
            "ci95": [round(interval.low, 4), round(interval.high, 4)],
            "time_to_success_median": round(float(np.median(times)), 2) if times.size else None,
            "time_to_success_p95": round(float(np.percentile(times, 95)), 2) if times.size else None,
            "success_by_time": {str(mark): round(int((times <= mark).sum()) / n, 4) for mark in MARKS},
            "failures": failures,
        }

    def table(self) -> str:
        """The summary for people."""
        s = self.summary()
        low, high = s["ci95"]
        lines = [f"success      {s['success_rate']:7.1%}   [{low:.1%}, {high:.1%}] of {s['episodes']} episodes"]
        if s["time_to_success_median"] is not None:
            times = (
                f"{s['time_to_success_median']:.1f} s median, {s['time_to_success_p95']:.1f} s at the 95th percentile"
            )
            lines.append(f"time         {times}")
            by_time = [f"{rate:.1%} by {mark} s" for mark, rate in s["success_by_time"].items()]
            lines.append(f"             {', '.join(by_time)}")
        lines += [f"{name:<12} {count:7d}" for name, count in sorted(s["failures"].items(), key=lambda x: -x[1])]
        return "\n".join(lines)

    def save_json(self, path: Path) -> None:
        """Write the summary."""
        path.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_atomically(path, json.dumps(self.summary(), indent=2) + "\n")

    def save_picture(self, path: Path) -> None:
        """Draw outcomes, time to success and success over delay as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.4), layout="constrained")
        bars, times, delay = figure.subplots(1, 3)
        s = self.summary()
        names = ["success", *sorted(s["failures"], key=lambda name: -s["failures"][name])]
        counts = [self.outcomes.count(name) for name in names]
        bars.barh(names[::-1], counts[::-1], color=["0.6"] * (len(names) - 1) + ["tab:green"])
        bars.bar_label(bars.containers[0], padding=2)
        low, high = s["ci95"]
        bars.set(title=f"{s['success_rate']:.1%} of {s['episodes']}  [{low:.1%}, {high:.1%}]", xlabel="episodes")
        bars.margins(x=0.15)
        good = np.array(self.outcomes) == "success"
        by_then = np.sort(self.seconds[good])
        times.step(by_then, (1 + np.arange(len(by_then))) / len(good), where="post", color="tab:green")
        times.set(title="succeeded by then", xlabel="s", ylabel="share of episodes", ylim=(0, 1.03))
        times.set_xlim(0, 1.03 * float(self.seconds.max()))
        edges = np.linspace(0, max(float(self.delays.max()), 1e-3), 6)
        which = np.clip(np.digitize(self.delays, edges) - 1, 0, 4)
        for k in range(5):
            n, hits = int((which == k).sum()), int(good[which == k].sum())
            if n:
                interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
                centre = 500 * (edges[k] + edges[k + 1])
                delay.plot([centre] * 2, [100 * interval.low, 100 * interval.high], color="tab:blue")
                delay.plot(centre, 100 * hits / n, "o", color="tab:blue")
        delay.set(title="success over transport delay", xlabel="delay [ms]", ylabel="%", ylim=(0, 103))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def environment_of(policy: OnnxPolicy, noise: float, delay: tuple[float, float] | None) -> dict[str, Any]:
    """The environment a contract speaks of: the whole task, with noise scaled and another delay if asked.

    Raises:
        HorseshoeError: noise below zero, or a delay the action path has no room for.
    """
    if noise < 0:
        raise HorseshoeError(f"--noise: {noise} is below 0; 0 is none, 1 is as in training")
    environment = contracts.whole_task(policy.contract.environment)
    scaled = {
        key: [v * noise for v in value] if isinstance(value, list | tuple) else value * noise
        for key, value in environment["noise"].items()
    }
    room = policy.contract.action.max_delay
    span = policy.contract.delay if delay is None else delay
    if not 0 <= span[0] <= span[1] <= room:
        raise HorseshoeError(f"--delay: {span[0]}-{span[1]} s is not within 0 to {room} s")
    environment["noise"] = scaled | {"delay": list(span)}
    return environment | {"action": configuration.dump(policy.contract.action)}


def evaluate(
    policy: OnnxPolicy,
    episodes: int,
    seed: int,
    engine: str = "mujoco",
    noise: float = 1.0,
    delay: tuple[float, float] | None = None,
    video: Path | None = None,
    video_episodes: int = 4,
    threads: int = 2,
) -> Evaluation:
    """Run whole episodes of the policy's own task.

    Args:
        policy: what to run.
        episodes: how many.
        seed: of scenes, physics and noise; not one that training used.
        engine: physics engine.
        noise: scale of the perception and actuation noise of the contract.
        delay: transport delay range [s], the contract's without it.
        video: where to write a video of the first episodes.
        video_episodes: how many the video shows.
        threads: of the physics.

    Raises:
        HorseshoeError: training saw this seed, or the policy does not fit the environment.
    """
    from horseshoe.policies import environments

    if not policy.contract.blueprint:
        raise HorseshoeError(f"{policy.folder.name}: is no policy for assembly, but for {policy.contract.env}")
    if seed in contracts.training_seeds(policy.contract):
        raise HorseshoeError(f"--seed: {seed} is a seed of the training; take another")
    n = min(episodes, MAX_ENVS)
    file = policy.folder / contracts.FILE
    env = environments.make(
        policy.contract.env,
        file,
        f"environment of {file}",
        num_envs=n,
        config=environment_of(policy, noise, delay),
        seed=seed,
        engine=engine,
        n_threads=threads,
        pool=MAX_ENVS,
    )
    cell: Any = env.unwrapped
    contracts.check_observation(policy.contract, cell.observer.fields, file)
    contracts.check_task(policy.contract, cell.blueprint.name, cell.n_arms, file)
    recorder = cell.record(video_episodes) if video else None
    # Every environment runs its own share: stopping when enough have finished would favour short episodes.
    share = np.full(n, episodes // n)
    share[: episodes % n] += 1
    done = np.zeros(n, dtype=int)
    outcomes: list[str] = []
    seconds: list[float] = []
    delays: list[float] = []
    observation, _ = env.reset(seed=seed)
    with tqdm(total=episodes, unit=" episodes") as bar:
        while len(outcomes) < episodes:
            observation, _, terminated, truncated, info = env.step(policy.act(observation))
            for i in np.flatnonzero((terminated | truncated) & (done < share)):
                done[i] += 1
                outcomes.append(cell.outcomes[info["outcome"][i]])
                seconds.append(info["steps"][i] / policy.contract.action.decision_rate)
                delays.append(info["delay"][i])
                bar.update()
            if outcomes:
                bar.set_postfix(success=f"{outcomes.count('success') / len(outcomes):.1%}", refresh=False)
    if recorder and video:
        recorder.save(video, cell.frame_rate)
    settings = {
        "policy": policy.folder.name,
        "env": policy.contract.env,
        "engine": engine,
        "seed": seed,
        "noise": noise,
        "delay": list(policy.contract.delay if delay is None else delay),
    }
    return Evaluation(outcomes, np.array(seconds), np.array(delays), settings)
