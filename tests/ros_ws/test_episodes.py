"""Many simulated episodes: what is kept, what a fault costs. Processes are scripted; real ones are in test_up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws import episodes


class Scripted:
    """A graph that does what the next entry of a script says: outcomes of its episodes, then how it ends."""

    def __init__(self, script: list[list[str]], table: list[Any], log: Path, patience: float) -> None:
        (self.operator,) = (spec for spec in table if spec.name == "operator")
        self.log, self.todo = log, script.pop(0)

    def __enter__(self) -> "Scripted":
        self.log.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, look: Callable[[], None]) -> tuple[str, int]:
        said = ["[operator]: ready"]
        for number, name in enumerate(self.todo, start=self.operator.parameters["first_episode"]):
            if name == "start fails":
                said += ["[operator]: stopped: measurements are 0.2 s apart"]
                break
            said += ["[operator]: episode 1 running"]
            if name == "fault":
                said += ["[operator]: stopped: left arm: C31"]
                break
            with open(self.operator.parameters["results"], "a") as results:
                results.write(json.dumps({"episode": number, "name": name, "seconds": 5.0}) + "\n")
        (self.log / "operator.log").write_text("\n".join(said) + "\n")
        look()
        return "/operator", int(said[-1].startswith("[operator]: stopped"))


def run(monkeypatch: pytest.MonkeyPatch, policy: Path, folder: Path, count: int, script: list[list[str]]) -> list[str]:
    """What is told of the episodes."""
    told: list[str] = []
    monkeypatch.setattr(episodes, "Supervisor", lambda *arguments: Scripted(script, *arguments))
    for _ in episodes.run({"policy": str(policy)}, count, folder, lambda outcome: told.append(outcome["name"]), 3):
        pass
    return told


def test_a_fault_costs_one_episode_and_a_start_that_fails_costs_none(
    monkeypatch: pytest.MonkeyPatch, policy: Path, tmp_path: Path
) -> None:
    script = [
        ["start fails"],
        ["start fails"],
        ["success", "dropped", "success"],
        ["fault"],
        ["start fails"],
        ["success"],
    ]
    assert run(monkeypatch, policy, tmp_path, 5, script) == ["success", "dropped", "success", "fault", "success"]
    summary = episodes.summary(episodes.read(tmp_path).values())
    assert (summary["successes"], summary["episodes"]) == (3, 5)
    assert summary["failures"] == {"dropped": 1, "fault": 1}
    assert list(summary["faults"]) == ["/operator ended with 1; stopped: left arm: C31"]


def test_what_was_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch, policy: Path, tmp_path: Path) -> None:
    assert run(monkeypatch, policy, tmp_path, 2, [["success", "success"]]) == ["success", "success"]
    assert run(monkeypatch, policy, tmp_path, 3, [["dropped"]]) == ["dropped"]
    assert list(episodes.read(tmp_path)) == [1, 2, 3]


def test_a_graph_that_does_not_start_three_times_in_a_row_is_given_up(
    monkeypatch: pytest.MonkeyPatch, policy: Path, tmp_path: Path
) -> None:
    with pytest.raises(HorseshoeError, match=r"the graph does not run: /operator ended with 1; .* 0.2 s apart"):
        run(monkeypatch, policy, tmp_path, 1, [["start fails"]] * 3)
