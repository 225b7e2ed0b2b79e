"""The card of a policy: what it does, how it was trained, what it measured. Made from contract and learning curve."""

import json
from pathlib import Path
from typing import Any

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.configuration import write_atomically

SCRATCH = "scratch.json"  # learning curves of runs from scratch, of `benchmarks/learning_curves.py`


def _reached(curve: list[dict[str, float]], level: float) -> str:
    for point in curve:
        if point["success"] >= level and point["level"] >= 1.0:
            return f"{level:.0%} of whole starts after {point['seconds'] / 60:.0f} min"
    last = curve[-1]
    return (
        f"{level:.0%} at full difficulty not reached ({last['success']:.0%} at level {last['level']:.2f} when it ended)"
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value} s"


def _origin(contract: contracts.Contract) -> str:
    if contract.training.get("initial"):
        return (
            f"The run went on from the weights of `{contract.training['initial']}`, so that no single command repeats it;\n"
            "docs/u_shape.md tells the stages of the shipped policies, among them the merging of two that PPO had trained."
        )
    return "Reproduce: `horseshoe train settings.yaml`, where settings.yaml holds what `contract.yaml` says under `training`."


def _row(result: dict[str, Any]) -> str:
    low, high = result["ci95"]
    failures = ", ".join(f"{k} {v}" for k, v in sorted(result["failures"].items(), key=lambda item: -item[1]))
    rate = f"{result['success_rate']:.1%} [{low:.1%}, {high:.1%}]"
    return f"| `{result['command']}` | {rate} | {_seconds(result['time_to_success_median'])} | {failures or '-'} |"


def _push_row(result: dict[str, Any]) -> str:
    low, high = result["ci95"]
    rate, score = f"{result['success_rate']:.1%} [{low:.1%}, {high:.1%}]", result["mean_incremental_iou"]
    return f"| `{result['command']}` | {rate} | {score:.3f} | {_seconds(result['time_to_success_median'])} |"


def _write_push_card(folder: Path, contract: contracts.Contract, curve: list[dict[str, float]]) -> None:
    training, seen, last = contract.training, contract.environment, curve[-1]
    minutes, seed = f"{last['seconds'] / 60:.0f} min", training["seed"]
    stages = [training]  # the last one first
    while "taught" in stages[-1]:
        stages.append(stages[-1]["taught"])
    taught = stages.pop() if "dagger" in stages[-1] else {}
    settings, how = [], "Trained by PPO (SB3) from nothing, no teacher."
    if taught:
        how = """Distilled: cloning of rollouts of its teachers, then rounds in which the policy drives and they say what
they would do (DAgger). The teacher is the law of feedback (`sim/push/steer.py`), where the object must bend with gradients of the planner."""
        rounds = f"{taught['dagger']} rounds of {taught['episodes']} episodes per number of robots"
        if taught.get("ropes"):
            rounds += f" and {taught['ropes']} with ropes"
        settings.append(f"| rounds with the teachers | {rounds if taught['dagger'] else 'none'} |")
        settings.append(f"| gain on what it learned | {taught.get('gain', 1.0):g} |")
    if "dagger" in training:
        learning = f"""{last["step"]:.0f} gradient steps of {training["batch"]} decisions of a whole scene, from {last["decisions"]:.0f} decisions of single robots, in {minutes}
(seed {seed}). Mean error of the velocity on rollouts not learnt from: {last["error"]:.3f} of the top speed."""
        drawn = {"loss": ("loss of a batch", "0.7"), "error": ("error on rollouts not learnt from", "C0")}
        axis = {"xlabel": "gradient steps", "ylabel": "velocity over top speed"}
    else:
        if taught:
            how += "\nPPO (SB3) went on from there" + (f", {len(stages)} times." if len(stages) > 1 else ".")
        for ppo in reversed(stages):
            scenes = "; ".join(
                f"{goals}: " + ", ".join(f"{n} with {robots} robots" for robots, n in parts.items())
                for goals, parts in ppo["scenes"].items()
            )
            settings.append(f"| PPO: scenes side by side | {ppo['processes']} x ({scenes}) |")
            settings.append(f"| PPO: decisions, discount | {ppo['decisions']}, {ppo['gamma']:g} |")
            settings.append(f"| PPO: noise, step size | {ppo['initial_std']:g}, {ppo['learning_rate']:g}, to 0 |")
        learning = f"""{last["step"]:.0f} decisions of PPO in {minutes} (seed {seed}); exploring policy on all of its scenes: {last["success"]:.0%} success."""
        drawn, axis = {"success": ("exploring policy", "C0")}, {"xlabel": "decisions", "ylabel": "success"}
    rows = "\n".join(settings)
    text = f"""# Policy `{folder.name}`

Task: `{contract.env}`. Any number of robots share the weights; each runs the policy for itself. {how}
Revision `{contract.revision}`.

| setting | value |
|---|---|
| actor | {training["architecture"]}, width {training["width"]}, {training["layers"]} layers, {training["heads"]} heads |
| sees | itself, the {seen["neighbours"]} nearest robots, {seen["particles"]} points of the object and of the goal |
| neighbours' messages | {1000 * contract.delay[0]:.0f} to {1000 * contract.delay[1]:.0f} ms late, drawn for every link |
| control | {contract.action.decision_rate:g} Hz, at most {contract.action.max_tool_speed:g} m/s |
| numbers of robots | {", ".join(map(str, training["robots"]))} |
{rows}

## Learning

{learning}

![learning curve](curve.png)

## Measured

Goals kept for evaluation, 95 % Wilson intervals; a success is an incremental IoU above 0.75 at the end of 115 decisions.

| command | success | mean incremental IoU | median time |
|---|---|---|---|
""" + "\n".join(_push_row(r) for r in contract.results)
    write_atomically(folder / "card.md", text + "\n")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, (label, colour) in drawn.items():
        axes.plot([p["step"] for p in curve], [p[name] for p in curve], color=colour, label=label)
    axes.set(**axis, ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(folder / "curve.png", dpi=100)


def write_card(folder: Path) -> None:
    """Write card.md and curve.png of a policy folder."""
    contract = contracts.load(folder)
    curve = json.loads((folder / "curve.json").read_text())
    if not contract.blueprint:
        _write_push_card(folder, contract, curve)
        return
    training, noise = contract.training, contract.environment["noise"]
    physics = ", ".join(f"{k} {v[0]:g} to {v[1]:g}" for k, v in contract.environment["physics"].items() if v[0] != v[1])
    last = curve[-1]
    action = configuration.dump(contract.action)
    text = f"""# Policy `{folder.name}`

Task: `{contract.env}`, blueprint `{contract.blueprint}`, {contract.robots} robots that share the weights. Trained by PPO (SB3) in
simulation: no demonstrations, no hand-made controller. Revision `{contract.revision}`.

| setting | value |
|---|---|
| actor | {training["architecture"]}, {sum(f.size for f in contract.observation)} observations, 7 actions per arm |
| control | {action["decision_rate"]:g} Hz decisions, {action["tick_rate"]:g} Hz servo targets, full action {action["joint_step"]} rad |
| transport delay | {1000 * contract.delay[0]:.0f} to {1000 * contract.delay[1]:.0f} ms, drawn once an episode |
| block pose noise | {1000 * noise["position"]:g} mm and {noise["rotation"]:g} rad every decision, {1000 * noise["position_bias"]:g} mm and {noise["rotation_bias"]:g} rad bias, {noise["dropout"]:.0%} drop-outs |
| latency | blocks {noise["block_latency"]} s, joints {noise["joint_latency"]} s |
| physics | {physics} |
| discount, rollout | {training["gamma"]:g}, {training.get("processes", 1)} x {training["n_envs"]} cells x {training["n_steps"]} decisions |

## Learning

{last["decisions"] / 1e6:.1f} million decisions in {last["seconds"] / 60:.0f} min (seed {training["seed"]}); exploring policy, noise and delay on:
{_reached(curve, 0.9)}. {_origin(contract)}

![learning curve](curve.png)
{_from_scratch(folder)}
## Measured

Deterministic policy, seeds that training never saw, 95 % Wilson intervals.

| command | success | median time | failures |
|---|---|---|---|
""" + "\n".join(_row(r) for r in contract.results)
    write_atomically(folder / "card.md", text + "\n")
    _draw({"success, whole starts": curve}, folder / "curve.png")


def _from_scratch(folder: Path) -> str:
    """What runs from scratch came to, and a picture of their curves; nothing where none were kept."""
    if not (folder / SCRATCH).exists():
        return ""
    runs = json.loads((folder / SCRATCH).read_text())
    _draw({r["name"]: r["curve"] for r in runs}, folder / "scratch.png")
    lines = [
        f"| {r['name']} | {r['decisions'] / 1e6:.1f} M | {r['minutes']:.0f} min | {r['success_rate']:.1%} of {r['episodes']} "
        f"[{r['ci95'][0]:.1%}, {r['ci95'][1]:.1%}] |"
        for r in runs
    ]
    rows = "\n".join(lines)
    there = [r["minutes"] for r in runs if r["success_rate"] >= 0.9]
    verdict = f"90 % is reached within {min(there):.0f} minutes" if there else "None of them came to 90 % in that time"
    return f"""
From scratch (`python benchmarks/learning_curves.py`); curves fall where MuJoCo takes over from the quasi-static
world. Success is that of the deterministic policy at the end. Runs named by architecture and seed had a core each and episodes of
24 s that gave up; others are those of `horseshoe train`, in a minute:

| run | decisions | wall time | success |
|---|---|---|---|
{rows}

{verdict}; none of them is the shipped policy.

![learning curves from scratch](scratch.png)
"""


def _draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for k, (name, curve) in enumerate(curves.items()):
        minutes = [p["seconds"] / 60 for p in curve]
        axes.plot(minutes, [100 * p["success"] for p in curve], color=f"C{k}", label=name)
        axes.plot(
            minutes, [100 * p["level"] for p in curve], ":", color=f"C{k}", label=None if k else "curriculum level"
        )
    axes.set(xlabel="wall time [min]", ylabel="%", ylim=(0, 102), title="exploring policy, noise and delay on")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
