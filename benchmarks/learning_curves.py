"""How far `horseshoe train` gets from scratch in how long: several seeds, and both architectures, at equal wall time.

    python benchmarks/learning_curves.py                      # three seeds of the MLP and one of attention: 90 minutes
    python benchmarks/learning_curves.py --minutes 5 --warm-up 3 --run mlp-0 --run attention-0 --out runs/quick
    python benchmarks/learning_curves.py --also runs/u_shape-mlp-0      # what `horseshoe train u_shape` came to, too

Every run has one core and goes first through the quasi-static world, then through MuJoCo, with the settings of
`config/train/u_shape_curves.yaml`; two run side by side (`--at-once`). What they came to is exported and evaluated
like any policy. Time is what training itself counted, so the same command goes on where it was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.configuration import write_atomically
from horseshoe.policies.card import SCRATCH, write_card
from horseshoe.policies.checkpoint import CHECKPOINT, read_state, thin
from horseshoe.policies.networks import ARCHITECTURES

CONFIG = configuration.resource("config/train/u_shape_curves.yaml")
RUNS = ("mlp-0", "mlp-1", "mlp-2", "attention-0")
LOOK = 5.0  # [s]


def horseshoe(*arguments: str) -> list[str]:
    """The command line of `horseshoe` in this Python."""
    return [sys.executable, "-m", "horseshoe", *arguments]


def trained(folder: Path) -> dict[str, Any]:
    """What a run's checkpoint knows: its learning curve, and how long it trained."""
    file = folder / CHECKPOINT
    return read_state(file) if file.exists() else {"seconds": 0.0, "curve": []}


def train(command: list[str], folder: Path, done: float, minutes: float, bar: tqdm) -> None:
    """Train until a checkpoint says that so many minutes have gone into it, earlier stages (`done`) included."""
    done = max(trained(folder)["seconds"] / 60, done)
    if done >= minutes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            while done < minutes:
                time.sleep(LOOK)
                if process.poll() is not None:
                    raise SystemExit(f"{folder / 'output.txt'}: training ended by itself, see there")
                now = trained(folder)["seconds"] / 60
                bar.update(max(now - done, 0.0))
                done = max(now, done)
        finally:
            process.terminate()
            process.wait()


def finish(*arguments: str) -> None:
    """Run a command of `horseshoe` to its end."""
    done = subprocess.run(horseshoe(*arguments), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"horseshoe {' '.join(arguments)}:\n{done.stderr}")


def run(name: str, options: argparse.Namespace, bar: tqdm) -> dict[str, Any]:
    """One run from nothing to its evaluation."""
    architecture, _, seed = name.rpartition("-")
    folder = options.out / name
    settings = configuration.read_yaml(CONFIG)
    common = ["--seed", seed, "--architecture", architecture, "--threads", "1"]
    folder.mkdir(parents=True, exist_ok=True)
    warm = folder / "quasistatic.yaml"
    write_atomically(warm, json.dumps(settings | {"engine": "quasistatic"}))  # JSON is YAML
    command = horseshoe("train", str(warm), *common, "--run", str(folder / "warm_up"))
    train(command, folder / "warm_up", 0.0, options.warm_up, bar)
    command = horseshoe("train", str(CONFIG), *common, "--run", str(folder / "run"))
    command += ["--from", str(folder / "warm_up" / CHECKPOINT)]
    train(command, folder / "run", trained(folder / "warm_up")["seconds"] / 60, options.minutes, bar)
    return judge(name, folder / "warm_up", folder / "run", options.episodes)


def judge(name: str, first: Path, last: Path, episodes: int) -> dict[str, Any]:
    """What a run came to, whose stage in the quasi-static world is in the first folder, and its end in the last one."""
    file = last / f"evaluation_{episodes}.json"
    if not file.exists() or file.stat().st_mtime < (last / CHECKPOINT).stat().st_mtime:
        policy = str(last / "policy")
        finish("export", str(last), policy)
        finish("evaluate", policy, "--episodes", str(episodes), "--json", str(file))
    warm_state, state, result = trained(first), trained(last), json.loads(file.read_text())
    return {
        "name": name,
        "minutes": round(state["seconds"] / 60, 1),
        "warm_up_minutes": round(warm_state["seconds"] / 60, 1),
        "warm_up_decisions": round(warm_state["curve"][-1]["decisions"]),
        "decisions": round(state["curve"][-1]["decisions"]),
        "success_rate": result["success_rate"],
        "ci95": result["ci95"],
        "episodes": result["episodes"],
        "curve": [{k: p[k] for k in ("seconds", "success", "level")} for p in thin(state["curve"], 100)],
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results for people."""
    lines = [
        "| run | decisions, of which quasi-static | minutes | success, deterministic, everything random |",
        "|---|---|---|---|",
    ]
    for r in results:
        (low, high), million = r["ci95"], f"{r['decisions'] / 1e6:.1f} M, {r['warm_up_decisions'] / 1e6:.1f} M"
        success = f"{r['success_rate']:.1%} of {r['episodes']} [{low:.1%}, {high:.1%}]"
        lines.append(f"| {r['name']} | {million} | {r['minutes']:.0f} | {success} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45.0, help="of training, the warm-up included")
    parser.add_argument("--warm-up", type=float, default=32.0, help="minutes in the quasi-static world")
    parser.add_argument("--run", action="append", metavar="ARCHITECTURE-SEED", help=f"{', '.join(RUNS)} without it")
    parser.add_argument("--also", type=Path, help="no new runs, but this one beside those in --json")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--episodes", type=int, default=200, help="of the evaluation at the end")
    parser.add_argument("--out", type=Path, default=Path("runs/learning_curves"), help="runs are kept there")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/learning_curves.json"))
    parser.add_argument("--card", type=Path, help="a policy folder whose card shows the curves too")
    options = parser.parse_args(arguments)
    names = [] if options.also else options.run or list(RUNS)
    for name in names:
        architecture, _, seed = name.rpartition("-")
        if architecture not in ARCHITECTURES or not seed.isdigit():
            parser.error(f"--run: {name!r} is no architecture ({', '.join(ARCHITECTURES)}) and seed, such as mlp-0")
    if not 0 < options.warm_up < options.minutes:
        parser.error(f"--warm-up: {options.warm_up:g} is not above 0 and below the {options.minutes:g} of --minutes")
    if min(options.episodes, options.at_once) < 1:
        parser.error("--episodes and --at-once must be 1 at least")
    if options.card and not (options.card / contracts.FILE).is_file():
        parser.error(f"--card: {options.card} is no policy folder, there is no {contracts.FILE} in it")
    if options.also and (options.run or not (options.also / CHECKPOINT).exists()):
        parser.error(f"--also: goes without --run, and {options.also} must have a {CHECKPOINT}")
    total = len(names) * options.minutes
    with tqdm(total=total, bar_format=f"{{l_bar}}{{bar}}| {{n:.0f}} of {total:.0f} min") as bar:
        past = [max(trained(options.out / n / stage)["seconds"] for stage in ("warm_up", "run")) for n in names]
        bar.update(sum(past) / 60)
        with ThreadPoolExecutor(options.at_once) as pool:
            results = list(pool.map(lambda name: run(name, options, bar), names))
    if options.also:
        kept = json.loads(options.json.read_text()) if options.json.exists() else []
        new = judge(options.also.name, options.also / "stage_1", options.also, options.episodes)
        results = [*(r for r in kept if r["name"] != new["name"]), new]
    write_atomically(options.json, json.dumps(results, indent=1) + "\n")
    print(table(results))
    if options.card:
        write_atomically(options.card / SCRATCH, json.dumps(results) + "\n")
        write_card(options.card)


if __name__ == "__main__":
    main()
