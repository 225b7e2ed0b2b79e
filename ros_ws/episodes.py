"""Simulated episodes through the whole graph: what was done is kept, a fault costs one episode."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from scipy.stats import binomtest

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws import node_table
from horseshoe.ros_ws.supervisor import Supervisor, last_words

RESULTS = "results.jsonl"
REFUSED = 2  # exit code of the operator node
STARTS = 3  # of the graph that may come to nothing one after the other
Outcome = dict[str, Any]


def read(folder: Path) -> dict[int, Outcome]:
    """Outcomes in a folder of results, by number of the episode."""
    file = folder / RESULTS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {row["episode"]: row for row in map(_row, lines) if row}


def _row(line: str) -> Outcome:
    """A line of results; nothing where it was cut off."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def note(folder: Path, outcome: Outcome) -> None:
    """Keep an outcome."""
    with open(folder / RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(outcome) + "\n")


def run(
    arguments: dict[str, str], episodes: int, folder: Path, tell: Callable[[Outcome], None], at_once: int = 25
) -> Iterator[Path]:
    """Run what is missing of episodes 1 to `episodes`, starting the graph anew after a fault.

    A fault in an episode is its outcome. A start that comes to nothing, before any episode began, is tried again.

    Args:
        arguments: of the graph, such as robot, engine, policy and seed; `record` is a folder within `folder`.
        episodes: how many there shall be in the end.
        folder: for results and logs; what it holds already is kept.
        tell: called with every new outcome.
        at_once: episodes of one graph at most.

    Yields:
        Folder of the logs of every graph that was started, and of its bag if one was asked for.

    Raises:
        HorseshoeError: the graph refuses to start, or does not `STARTS` times in a row, or was interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = read(folder), 0
    told = set(done)

    def look() -> None:
        for number, row in read(folder).items():
            if number not in told:
                told.add(number)
                tell(row)

    while missing := [number for number in range(1, episodes + 1) if number not in done]:
        first = missing[0]
        count = next((k for k in range(1, at_once) if first + k not in missing), at_once)
        log = _new_folder(folder / f"from_{first}")
        given = {**arguments, "episodes": str(count), "first_episode": str(first), "results": str(folder / RESULTS)}
        if "record" in arguments:
            given["record"] = str(log / arguments["record"])
        settings = node_table.parse(given)
        with Supervisor(node_table.nodes(settings), log, settings.patience) as graph:
            node, code = graph.wait(look)
        look()
        done = read(folder)
        yield log
        if not node:
            raise HorseshoeError(f"interrupted after {len(done)} episodes; they are kept in {folder / RESULTS}")
        why = f"{node} ended with {code}"
        if first not in done and "episode 1 running" not in _text(log / "operator.log"):
            failed += 1
            if code == REFUSED or failed == STARTS:
                raise HorseshoeError(f"the graph does not run: {why}; {_last_words(log)} Logs: {log}")
            continue
        failed = 0
        if first not in done:
            note(folder, {"episode": first, "name": "fault", "reason": f"{why}; {_last_words(log)}"})
            look()
            done = read(folder)


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Success with its 95 % Wilson interval, time to success and what failed, as JSON types."""
    rows = list(outcomes)
    names = [row["name"] for row in rows]
    interval = binomtest(names.count("success"), len(rows)).proportion_ci(0.95, method="wilson")
    times = [row["seconds"] for row in rows if row["name"] == "success"]
    failures = Counter(name for name in names if name != "success")
    return {
        "episodes": len(rows),
        "successes": names.count("success"),
        "success_rate": round(names.count("success") / len(rows), 4),
        "ci95": [round(interval.low, 4), round(interval.high, 4)],
        "time_to_success_median": round(median(times), 2) if times else None,
        "failures": dict(failures.most_common()),
        "faults": dict(Counter(row["reason"] for row in rows if row["name"] == "fault").most_common()),
        "behind_the_clock": sum(bool(row.get("slow")) for row in rows),
    }


def table(outcomes: Iterable[Outcome]) -> str:
    """The summary for people."""
    s = summary(outcomes)
    (low, high), time = s["ci95"], s["time_to_success_median"]
    lines = [f"success      {s['success_rate']:7.1%}   [{low:.1%}, {high:.1%}] of {s['episodes']} episodes"]
    lines += [f"time         {time:7.1f} s median"] if time is not None else []
    lines += [f"{name:<12} {count:7d}" for name, count in s["failures"].items()]
    lines += [f"  {count} x {reason}" for reason, count in s["faults"].items()]
    if s["behind_the_clock"]:
        lines.append(f"in {s['behind_the_clock']} episodes the world was slower than real time: they say little")
    return "\n".join(lines)


def _new_folder(path: Path) -> Path:
    """The path, or it with the first number that is free."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _last_words(log: Path) -> str:
    """The last line of the node that said most about the end."""
    said = (last_words(log / f"{name}.log") for name in ("operator", "world"))
    return next(filter(None, said), "no node said anything.")
