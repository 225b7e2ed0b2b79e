"""Speed of the assembly environment beside raw `mujoco.rollout`, and beside robosuite where it is installed.

Run it with `horseshoe bench sim`. What is counted:

- ours: whole `env.step` calls of the training environment (action path, magnets, latches, physics, rewards, outcomes,
  perception, observations, resets); drawing start states, which happens in batches, is measured apart and its share
  per step added;
- raw: one `mujoco.rollout` per decision, with the same models, states, controls, forces and threads that our step just
  had, writing states and sensor data as ours does;
- raw, one model: the same once more with the first cell's model for all, which tells what it costs that every cell has
  physics of its own;
- robosuite, where a Python that has it is given: steps of 50 ms, as it makes them; ours at the rate of the training,
  and at faster ones up to the same 50 ms.

They alternate in every round; ratios are medians over the rounds. A loaded machine makes both slower, ratios hold.

The first part is of one thread, as every process of the training has, and is done again with more threads in one
process; robosuite is measured beside the latter.
"""

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from horseshoe import configuration
from horseshoe.errors import HorseshoeError

ROBOSUITE = Path(__file__).with_name("robosuite_lift.py")
ACTION_STD = 0.2  # as a policy explores
FASTER = (10.0, 20.0)  # decisions per second beside robosuite's 20, apart from those of the training [Hz]


def make_env(n_envs: int, threads: int, rate: float | None = None) -> Any:
    """The environment of the shipped training, or with another decision rate; its episodes out of step."""
    from horseshoe.sim.assembly.config import default_action_config
    from horseshoe.sim.assembly.env import make_vector

    settings = configuration.read_yaml(configuration.resource("config/train/u_shape.yaml"))["env_config"]
    if rate:
        action = default_action_config()
        step = [full * action.decision_rate / rate for full in action.joint_step]  # as fast as ever
        settings["action"] = dataclasses.asdict(action) | {"decision_rate": rate, "joint_step": step}
    env = make_vector(n_envs, "u_shape", config=settings, n_threads=threads)
    env.reset(seed=0)
    horizon = np.where(env.whole, env._whole_horizon, env._assisted_horizon)
    env.steps[:] = np.random.default_rng(0).integers(horizon)
    return env


def record(env: Any, actions: np.ndarray) -> list[tuple[Any, ...]]:
    """Step, and keep what physics was given in every decision: models, states (n, size), controls (n, ticks, size)."""
    from horseshoe.sim.assembly import world as worlds

    world, kept = env.world, []
    chunks: list[tuple[Any, ...]] = []
    looks = -(-env.config.action.ticks_per_decision // worlds.LOOK)

    def one_by_one(work: Any, *more: Any) -> None:
        for arguments in zip(shares.rows, *more, strict=True):
            work(*arguments)

    class Tap:
        def __init__(self, pool: Any) -> None:
            self._rollout = pool.rollout

        def rollout(self, models: Any, data: Any, initial: np.ndarray, control: np.ndarray, **kwargs: Any) -> None:
            chunks.append((list(models), initial.copy(), control.copy()))
            self._rollout(models, data, initial, control, **kwargs)

    rollouts, shares = world._rollouts, world._shares
    world._rollouts, shares.run = [Tap(pool) for pool in rollouts], one_by_one
    try:
        for action in actions:
            chunks.clear()
            back = np.argsort(world._order)  # the world takes its cells in another order than we
            env.step(action)
            parts = [chunks[k : k + looks] for k in range(0, len(chunks), looks)]
            models = [model for part in parts for model in part[0][0]]
            state = np.concatenate([part[0][1] for part in parts])
            control = np.concatenate([np.concatenate([c[2] for c in part], axis=1) for part in parts])
            kept.append(([models[i] for i in back], state[back], control[back]))
    finally:
        world._rollouts = rollouts
        del shares.run
    return kept


def raw_seconds(env: Any, kept: list[tuple[Any, ...]], threads: int) -> float:
    """The same physics, one rollout a decision [s]."""
    import mujoco
    from mujoco.rollout import Rollout

    from horseshoe.sim.assembly import world as worlds

    world = env.world
    data = [mujoco.MjData(world.models[0]) for _ in range(threads)]
    n, ticks = kept[0][2].shape[:2]
    # Cells of one model side by side, as is fastest for it: a model has to be fetched once.
    orders = [sorted(range(n), key=lambda i, models=models: id(models[i])) for models, _, _ in kept]
    kept = [([m[i] for i in o], s[o], c[o]) for o, (m, s, c) in zip(orders, kept, strict=True)]
    states = np.empty((n, ticks, kept[0][1].shape[1]))
    sensors = np.empty((n, ticks, world.models[0].nsensordata))
    with Rollout(nthread=threads if threads > 1 else 0) as pool:
        begun = time.perf_counter()
        for models, state, control in kept:
            pool.rollout(
                models, data, state, control, control_spec=worlds._SPEC, skip_checks=True, nstep=ticks,
                state=states, sensordata=sensors,
            )  # fmt: skip
        return time.perf_counter() - begun


def our_seconds(env: Any, actions: np.ndarray) -> float:
    """Whole steps [s]."""
    begun = time.perf_counter()
    for action in actions:
        env.step(action)
    return time.perf_counter() - begun


def draw_starts(env: Any) -> None:
    """Draw starts now if they would run out inside a measurement."""
    if env._next + env.num_envs > len(env._pool):
        env._pool, env._next = env.sampler.sample(env.rng, env._start_batch, env.start_config), 0


def seconds_per_start(env: Any, count: int = 1024) -> float:
    """What one start state costs, drawn in batches as the environment does [s]."""
    begun = time.perf_counter()
    env.sampler.sample(np.random.default_rng(1), count, env.start_config)
    return (time.perf_counter() - begun) / count


class Robosuite:
    """robosuite's TwoArmLift in a process of its own (it needs an older MuJoCo)."""

    def __init__(self, python: str) -> None:
        try:
            self._process = subprocess.Popen(
                [python, str(ROBOSUITE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise HorseshoeError(f"--robosuite-python: {python} cannot be run ({error.strerror})") from error
        self.info = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # robosuite prints hints of its own
            if line.startswith("{"):
                return json.loads(line)
        raise HorseshoeError("--robosuite-python: that interpreter cannot run robosuite 1.5.2 with mujoco 3.3.7")

    def seconds(self, steps: int) -> float:
        """That many steps [s]."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def run(n_envs: int, threads: int, rounds: int, decisions: int, robosuite: str | None) -> dict[str, Any]:
    """Measure; see the module for what is counted."""
    peer = Robosuite(robosuite) if robosuite else None
    env = make_env(n_envs, 1)
    result = beside_raw(env, 1, rounds, decisions)
    if threads > 1:
        env = make_env(n_envs, threads)
        result["more_threads"] = beside_raw(env, threads, rounds, decisions)
    if peer:
        result |= beside_robosuite(peer, env, threads, rounds, decisions)
    return result


def beside_raw(env: Any, threads: int, rounds: int, decisions: int) -> dict[str, Any]:
    """Speed of an environment, and of raw rollouts of the same physics with as many threads."""
    n_envs, rng = env.num_envs, np.random.default_rng(0)
    ticks = env.config.action.ticks_per_decision
    our_seconds(env, random_actions(rng, env, 5))
    start_cost = seconds_per_start(env)
    ours, raw, alike, resets = [], [], [], []
    for k in tqdm(range(rounds), unit=" rounds", desc=f"{threads} threads" if threads > 1 else "1 thread"):
        chosen = random_actions(rng, env, decisions)
        draw_starts(env)
        before = env.snapshot()
        first = env._next
        kept = record(env, chosen)
        resets.append((env._next - first) / decisions)
        env.restore(before)
        order = (0, 1) if k % 2 else (1, 0)
        for which in order:
            if which:
                raw.append(raw_seconds(env, kept, threads))
            else:
                ours.append(our_seconds(env, chosen))
        one = [(models[:1] * n_envs, state, control) for models, state, control in kept]
        alike.append(raw_seconds(env, one, threads))
    starts = float(np.mean(resets)) * start_cost * decisions
    total = np.array(ours) + starts
    per_step = float(np.median(total)) / decisions
    return {
        "n_envs": n_envs,
        "threads": threads,
        "rounds": rounds,
        "decisions_per_round": decisions,
        "env_steps_per_second": round(n_envs / per_step, 1),
        "physics_steps_per_second": round(n_envs * ticks / per_step, 1),
        "raw_physics_steps_per_second": round(n_envs * ticks * decisions / float(np.median(raw)), 1),
        "raw_one_model_physics_steps_per_second": round(n_envs * ticks * decisions / float(np.median(alike)), 1),
        "ratio_to_raw_rollout": round(float(np.median(np.array(raw) / total)), 3),
        "share_of_drawing_starts": round(starts / float(np.median(total)), 4),
        "load_average": os.getloadavg(),
    }


def random_actions(rng: np.random.Generator, env: Any, count: int) -> np.ndarray:
    """For that many decisions."""
    return rng.normal(0, ACTION_STD, (count, env.num_envs, env.n_arms, 7))


def beside_robosuite(peer: Robosuite, env: Any, threads: int, rounds: int, decisions: int) -> dict[str, Any]:
    """Steps per second of robosuite, and how many times as many ours makes at each rate."""
    start_cost = seconds_per_start(env)
    n, rng = env.num_envs, np.random.default_rng(1)
    envs = {env.config.action.decision_rate: env, **{rate: make_env(n, threads, rate) for rate in FASTER}}
    for each in envs.values():
        our_seconds(each, random_actions(rng, env, 5))
    theirs: list[float] = []
    ratios: dict[float, list[float]] = {rate: [] for rate in envs}
    for _ in tqdm(range(rounds), unit=" rounds"):
        theirs.append(peer.seconds(10) / 10)
        for rate, each in envs.items():
            draw_starts(each)
            first = each._next
            seconds = our_seconds(each, random_actions(rng, env, decisions)) + (each._next - first) * start_cost
            ratios[rate].append(theirs[-1] * decisions * n / seconds)
    peer.close()
    return {
        "robosuite": peer.info,
        "robosuite_env_steps_per_second": round(float(1 / np.median(theirs)), 1),
        "ratio_to_robosuite_at_hz": {f"{rate:g}": round(float(np.median(r)), 1) for rate, r in ratios.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = []
    for part in (result, result.get("more_threads")):
        if part:
            alike = part["raw_one_model_physics_steps_per_second"]
            lines += [
                f"{part['n_envs']} cells, threads: {part['threads']}, load {part['load_average'][0]:.1f}",
                f"environment   {part['env_steps_per_second']:12,.0f} steps/s",
                f"physics       {part['physics_steps_per_second']:12,.0f} steps/s",
                f"raw rollout   {part['raw_physics_steps_per_second']:12,.0f} steps/s"
                f"   ratio {part['ratio_to_raw_rollout']:.3f}",
                f"  one model   {alike:12,.0f} steps/s   instead of one for each cell",
            ]
    if "robosuite" in result:
        theirs, rate = result["robosuite_env_steps_per_second"], result["robosuite"]["control_rate"]
        lines.append(f"robosuite     {theirs:12,.1f} steps/s   at {rate} Hz, one process; it has no batches")
        lines += [
            f"  ours at {r:>2} Hz {ratio:10,.1f} times as many"
            for r, ratio in result["ratio_to_robosuite_at_hz"].items()
        ]
    else:
        lines.append("robosuite     skipped; see --robosuite-python")
    return "\n".join(lines)
