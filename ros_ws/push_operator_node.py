"""Node that brings the pushing robots up, has the world lay out and judge episodes, and sums up.

Subscribes  /world/outcome, /robot_k/policy/state
Publishes   ~/progress (String: one line per step or episode)

With `record` it leaves summary.json and film.mp4 beside the states that the world wrote there.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from std_msgs.msg import String

from horseshoe import configuration
from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import EVENT, LATCHED, parameter, run
from horseshoe.ros_ws.base_operator_node import ACTIVATE, CONFIGURE, DEACTIVATE, BaseOperator
from horseshoe.ros_ws.push_summary import summarise

EPISODES_SHOWN = 8  # by the film


class PushOperatorNode(BaseOperator):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._episodes = parameter(self, "episodes", 1, "How many to run; 0: until interrupted.", 0, 100000)
        robots = parameter(self, "robots", 6, "How many.", 1, 12)
        self._episode_time = parameter(self, "episode_time", 60.0, "Longest episode, in real time [s].", 1.0, 1e5)
        self._record = parameter(self, "record", "", "Folder for the summary and the film; empty for none.")
        self._film = parameter(self, "film", True, "Draw a film, if there is such a folder.")
        settings = parameter(self, "settings", "{}", "What was run, for the summary (JSON).")
        self._settings: dict[str, Any] = json.loads(settings)
        self._robots = [f"robot_{k + 1}" for k in range(robots)]
        self._outcome: dict[str, Any] | None = None
        for name in self._robots:
            self.create_subscription(String, f"/{name}/policy/state", partial(self._on_state, name), LATCHED)
        self.create_subscription(String, "/world/outcome", self._on_outcome, EVENT)
        self._thread.start()

    def _steps(self) -> None:
        nodes = [*(f"/{name}/policy" for name in self._robots), "/world"]
        for transition in (CONFIGURE, ACTIVATE):
            for node in nodes:
                self._change(node, transition)
        self._say(f"ready: world and {len(self._robots)} robots")
        while not self._closing.is_set() and (self._episodes == 0 or len(self.outcomes) < self._episodes):
            self._episode()
        for node in reversed(nodes):
            self._change(node, DEACTIVATE)
        summary = summarise(self.outcomes)
        low, high = summary["ci95"]
        self._say(
            f"finished: {summary['success_rate']:.1%} [{low:.1%}, {high:.1%}] of {summary['episodes']} episodes, "
            f"incremental IoU {summary['incremental_iou']:.2f}, "
            f"real-time factor {summary.get('real_time_factor', 0.0):.2f}"
        )
        if self._record:
            self._leave(Path(self._record))

    def _episode(self) -> None:
        self._outcome, begin = None, time.monotonic()
        self._call("/world/next_episode")
        self._until(lambda: self._outcome is not None, self._episode_time, "the end of the episode")
        outcome: dict[str, Any] = self._outcome or {}
        self.outcomes.append(outcome)
        good, total = sum(o["name"] == "success" for o in self.outcomes), f"/{self._episodes}" if self._episodes else ""
        late = f", {outcome['late_commands']} commands late" if outcome["late_commands"] else ""
        self._say(
            f"episode {len(self.outcomes)}{total}: {outcome['name']}, {outcome['scene']}, incremental IoU "
            f"{outcome['incremental_iou']:.2f}, {time.monotonic() - begin:.1f} s at real-time factor "
            f"{outcome['real_time_factor']:.2f}{late}  ({good} successful)"
        )
        if self._record:  # after every one: who knows whether there will be another
            summary = self._settings | summarise(self.outcomes)
            configuration.write_atomically(Path(self._record) / "summary.json", json.dumps(summary, indent=2) + "\n")

    def _leave(self, folder: Path) -> None:
        if self._film:
            self._say("drawing the film ...")
            self._draw(folder)
        self._say(
            f"wrote {', '.join(sorted(p.name for p in folder.iterdir() if p.suffix in ('.json', '.mp4')))} to {folder}"
        )

    def _draw(self, folder: Path) -> None:
        from horseshoe.sim.push.film import save_film

        try:
            save_film(folder / "film.mp4", sorted(folder.glob("episode_*.npz"))[:EPISODES_SHOWN])
        except (HorseshoeError, ModuleNotFoundError, OSError) as error:
            self._say(f"no film: {error}", bad=True)

    def _on_state(self, robot: str, message: String) -> None:
        before = self._states.get(robot, "")
        self._states[robot] = message.data
        if message.data.startswith("stopped"):
            self._say(f"{robot} {message.data}", bad=True)
        elif before.startswith("stopped"):
            self._say(f"{robot} goes on")

    def _on_outcome(self, message: String) -> None:
        self._outcome = json.loads(message.data)


def main() -> int:
    """Entry point."""
    return run(PushOperatorNode)


if __name__ == "__main__":
    sys.exit(main())
