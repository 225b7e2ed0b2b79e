"""How far a pushing policy carries beyond what it was distilled from, beside the planner and a rule. Resumes.

    python benchmarks/push_generalisation.py
    python benchmarks/push_generalisation.py --policy runs/mine --also runs/mlp --episodes 20 --out results/mine
    python benchmarks/push_generalisation.py --rows "gusts and a current" --baselines open-loop      # some of it

Every row is 50 goals kept for evaluation, the same scenes for all columns. `--also` adds other policy folders, such
as an MLP distilled likewise. Writes push_generalisation.json, .png and .md (a table) to --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from horseshoe.configuration import write_atomically
from horseshoe.policies import baselines
from horseshoe.policies.evaluate_push import evaluate
from horseshoe.policies.runtime import TokenPolicy

# What differs from six robots and the wide set.
ROWS: dict[str, dict[str, Any]] = {
    "6 robots, wide": {},
    **{f"{count} robots": {"robots": count} for count in (2, 3, 4, 5, 8, 12)},
    "unseen shapes": {"goals": "unseen"},
    "twice as stiff": {"disturbance": {"stiffness": 2.0}},
    "twice as heavy": {"disturbance": {"density": 2.0}},
    "messages at once": {"delay": (0.0, 0.0)},
    "messages 0.5 s late": {"delay": (0.5, 0.5)},
    "gusts and a current": {"disturbance": {"gust": 6.0, "gust_chance": 0.2, "current": 1.0}},
    "gusts twice as strong": {"disturbance": {"gust": 12.0, "gust_chance": 0.2}},
    "a robot dies": {"disturbance": {"dead_robots": 1}},
    "the goal moves": {"disturbance": {"goal_speed": 0.06}},
}


def table(cells: dict[str, dict[str, Any]], columns: list[str]) -> str:
    """Success with its interval as a Markdown table."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row, results in cells.items():
        texts = []
        for column in columns:
            s = results.get(column)
            texts.append(
                "-" if s is None else f"{s['success_rate']:.0%} [{s['ci95'][0]:.0%}, {s['ci95'][1]:.0%}], "
                f"{s['mean_incremental_iou']:.2f}"
            )  # fmt: skip
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def plot(cells: dict[str, dict[str, Any]], columns: list[str], path: Path) -> None:
    """Success of every row, one mark per column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.55 * len(cells) + 1.2), layout="constrained")
    axes = figure.subplots()
    for k, column in enumerate(columns):
        for at, results in enumerate(cells.values()):
            if column in results:
                s, y = results[column], -at + 0.12 * (k - (len(columns) - 1) / 2)
                label = column if at == 0 else None
                axes.plot([100 * v for v in s["ci95"]], [y, y], color=f"C{k}", lw=1, alpha=0.6)
                axes.plot(100 * s["success_rate"], y, "o", color=f"C{k}", ms=4, label=label)
    axes.set(yticks=[-k for k in range(len(cells))], yticklabels=list(cells), xlim=(-2, 102), xlabel="success [%]")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="push")
    parser.add_argument("--also", nargs="*", default=[], help="Other policy folders.")
    parser.add_argument("--baselines", nargs="*", default=list(baselines.BASELINES), choices=baselines.BASELINES)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    file = options.out / "push_generalisation.json"
    policies = {p.folder.name: p for p in map(TokenPolicy, (options.policy, *options.also))}
    if len(policies) <= len(options.also):
        parser.error("policies are told apart by their folders' names; give each another one")
    first = next(iter(policies.values()))
    weights = {name: policy.contract.weights_sha256 for name, policy in policies.items()}
    recipe = {"episodes": options.episodes, "weights": weights}
    result: dict[str, Any] = {"recipe": recipe, "cells": {}}
    if file.exists():
        result = json.loads(file.read_text())
        theirs = result["recipe"]["weights"]
        if result["recipe"]["episodes"] != options.episodes or {**theirs, **weights} != {**weights, **theirs}:
            parser.error(f"{file} holds another recipe: {result['recipe']}")
        theirs.update(weights)  # other policies may join later
    measured = [*policies, *options.baselines]
    for row in options.rows:
        cells = result["cells"].setdefault(row, {})
        for column in measured:
            if column in cells:
                continue
            print(f"{row}, {column}:")
            baseline = None if column in policies else column
            found = evaluate(policies.get(column, first), options.episodes, baseline=baseline, **ROWS[row])
            cells[column] = found.summary()
            options.out.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(result, indent=1) + "\n")
    cells = {row: result["cells"][row] for row in ROWS if row in result["cells"]}
    before = [name for name in result["recipe"]["weights"] if name not in policies]  # policies of an earlier call
    columns = [*policies, *before, *options.baselines]
    write_atomically(file.with_suffix(".md"), table(cells, columns))
    plot(cells, columns, file.with_suffix(".png"))
    print(table(cells, columns))


if __name__ == "__main__":
    main()
