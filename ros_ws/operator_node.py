"""Node that does what an operator would do by hand with `ros2 lifecycle set` and `ros2 service call`.

Brings the graph up step by step, lays out and judges episodes in simulation, and ends it in order. With real arms it
waits for `~/start` before the arms go home and once more, with both at rest, before the policy begins; an episode
lasts until `~/end` is called or its time is over. A fault then ends the episode, not the nodes: once both arms were
cleared, `~/start` goes on.

Subscribes  /<arm>/state, /<arm>/joint_states, /world/outcome
Publishes   ~/progress (String: one line per step or episode), /stop
Services    ~/start, ~/end (Trigger)
"""

import json
import sys
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.homing import HOME, way_home
from horseshoe.ros_ws.base_node import ARMS, EVENT, LATCHED, STOP_PATIENCE, Inbox, parameter, run
from horseshoe.ros_ws.base_operator_node import ACTIVATE, CONFIGURE, DEACTIVATE, DONE, FAULT, REFUSED, BaseOperator
from horseshoe.sim.assembly import cell as cells

__all__ = ["DONE", "FAULT", "REFUSED", "OperatorNode"]

# What arms say when something stopped them: on their way home, where the other one may rest, and in an episode.
FAULT_AT_HOME, FAULT_IN_EPISODE = ("stopped: ", "stopping: "), ("stopped", "stopping", "disconnected")
SETTLE = 1.2  # [s] after which an arm that began to stream has its full speed limits


class OperatorNode(BaseOperator):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._episodes = parameter(self, "episodes", 1, "How many episodes to run; 0: until interrupted.", 0, 100000)
        self._simulated = parameter(self, "simulated", True, "Whether a world node lays out and judges episodes.")
        self._delays = parameter(self, "measure_delay", True, "Measure every arm's delay before the first episode.")
        self._horizon = parameter(self, "episode_time", 60.0, "Longest episode [s].", 1.0, 1e5)
        self._first = parameter(self, "first_episode", 1, "Number of the first episode in the results.", 1, 10**6)
        self._home = parameter(self, "home", list(HOME), "Where the arms' ~/home goes [rad], six joints.")
        if len(self._home) != 6:
            raise HorseshoeError(f"home: {len(self._home)} numbers, expected six")
        cell = cells.load(parameter(self, "cell", "", "Where the arms are; empty for the shipped cell.") or None)
        self._bases = cell.base_poses
        self._joints = {arm: Inbox(self, JointState, f"/{arm}/joint_states") for arm in ARMS}
        self._at: dict[str, np.ndarray] = {}
        self._results = parameter(self, "results", "", "File to which episodes add a line of JSON; empty for none.")
        self._running = 0  # number of the episode in which the policy moves the arms, else 0
        self._measured_delays: dict[str, float] = {}
        self._outcome: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._waiting = False  # for ~/start
        self._faults: tuple[str, ...] = ()  # how a state begins that ends the episode
        self._stop = self.create_publisher(String, "/stop", EVENT)
        for arm in ARMS:
            self.create_subscription(
                String, f"/{arm}/state", lambda m, a=arm: self._states.update({a: m.data}), LATCHED
            )
            self.create_subscription(
                Float64, f"/{arm}/delay", lambda m, a=arm: self._measured_delays.update({a: m.data}), LATCHED
            )
        self.create_subscription(String, "/policy/state", lambda m: self._states.update(policy=m.data), LATCHED)
        self.create_subscription(String, "/world/outcome", self._on_outcome, EVENT)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/end", self._on_end)
        self._thread.start()

    def close(self) -> None:
        """Leave the arms stopped."""
        self._closing.set()
        if rclpy.ok():
            self._stop.publish(String(data="the operator node ended"))
            self._stop.wait_for_all_acked(STOP_PATIENCE)  # what is not delivered when the process ends is lost
        super().close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _steps(self) -> None:
        self._bring_up()
        number = 0
        while not self._closing.is_set() and (self._episodes == 0 or number < self._episodes):
            number += 1
            try:
                self._episode(number)
            except HorseshoeError as error:
                if self._simulated or number == self._episodes:
                    raise
                self._survive(error)
        self._stop.publish(String(data="finished"))
        good = sum(o["name"] == "success" for o in self.outcomes)
        self._say(f"finished: {good} of {len(self.outcomes)} episodes successful")

    def _fail(self, error: HorseshoeError) -> None:
        self._stop.publish(String(data=f"the operator node: {error}"))
        if self._running:
            self._note({"episode": self._running, "name": "fault", "reason": str(error)})
            self._running = 0

    def _note(self, outcome: dict[str, Any]) -> None:
        """Keep an outcome, in the file of results at once: whatever happens later, it is there."""
        self.outcomes.append(outcome)
        if self._results:
            with open(self._results, "a") as file:
                file.write(json.dumps({**outcome, "delays": self._measured_delays}) + "\n")

    def _bring_up(self) -> None:
        if self._simulated:
            self._call("/world/clear_table")  # the world must be there before the arms can connect
        self._change("/policy", CONFIGURE)
        for arm in ARMS:
            self._change(f"/{arm}/arm", CONFIGURE)
        for arm in ARMS:  # on a busy computer the guard may be up last
            self._until(partial(self._is, arm, "idle"), self._patience, f"the {arm} arm to be idle and hear the guard")
        self._say("ready: policy loaded, both arms connected and prepared")

    def _survive(self, error: HorseshoeError) -> None:
        """End an episode with real arms in a fault; the nodes wait for the operator."""
        self._fail(error)
        self._faults, self._waiting = (), False
        for node, said in self._states.items():
            if said.startswith("refused"):
                self._states[node] = ""  # it is heard now
        self._say(f"stopped: {error}. To do: remove the cause, call ~/clear of both arms, then start", bad=True)

    def _wait_for_start(self, what: str) -> None:
        self._waiting = True
        self._say(f"waiting for: ros2 service call /operator/start std_srvs/srv/Trigger ({what})")
        self._until(lambda: not self._waiting, None, "")

    def _episode(self, number: int) -> None:
        if self._simulated:
            self._call("/world/clear_table")
        else:
            self._wait_for_start("keep clear: the arms go home")
        self._go_home()
        if not self._simulated:  # arms that are not active take no commands while hands are in the cell
            self._wait_for_start("lay out the blocks, then keep clear: the policy begins")
        for arm in ARMS:
            self._change(f"/{arm}/arm", ACTIVATE)
        self._sleep(SETTLE)
        self._faults = FAULT_IN_EPISODE
        if self._delays:
            for arm in sorted(set(ARMS) - self._measured_delays.keys()):  # one at a time, so that nothing else moves
                self._call(f"/{arm}/arm/measure_delay")
                self._until(
                    partial(self._measured_delays.__contains__, arm), self._patience, f"the delay of the {arm} arm"
                )
        if self._simulated:
            self._call("/world/next_episode")
        self._outcome = None
        self._ended.clear()
        begin = time.monotonic()
        self._change("/policy", ACTIVATE)
        self._running = self._first + number - 1
        self._say(f"episode {number} running")
        self._until(lambda: self._over(begin), None, "")
        self._faults = ()
        outcome: dict[str, Any] = self._outcome or {
            "name": "ended by the operator" if self._ended.is_set() else "its time is over"
        }
        outcome = {"episode": self._running, "seconds": round(time.monotonic() - begin, 1), **outcome}
        self._running = 0
        self._note(outcome)
        self._change("/policy", DEACTIVATE)
        for arm in ARMS:
            self._change(f"/{arm}/arm", DEACTIVATE)
        total = f"/{self._episodes}" if self._episodes else ""
        good = sum(o["name"] == "success" for o in self.outcomes)
        slow = f", world {outcome['slow']:.1f} s behind" if outcome.get("slow") else ""
        self._say(f"episode {number}{total}: {outcome['name']}, {outcome['seconds']:.1f} s{slow}  ({good} successful)")

    def _go_home(self) -> None:
        """One arm after the other, in an order in which they do not meet."""
        self._faults = FAULT_AT_HOME
        for arm, inbox in self._joints.items():
            self._until(partial(self._hear, arm, inbox), self._patience, f"joint states of the {arm} arm")
        joints = np.array([self._at[arm] for arm in ARMS])
        for r, what in way_home(joints, np.array([self._home, self._home]), self._bases):
            arm, there = ARMS[r], "at home" if what == "home" else "pulled back"
            self._states[arm] = ""  # it may say from before that it is there
            self._call(f"/{arm}/arm/{what}")
            self._until(partial(self._is, arm, there), self._patience, f"the {arm} arm to be {there}")
        self._faults = ()

    def _hear(self, arm: str, inbox: Inbox) -> bool:
        """Whether the arm's joints are known as they are now."""
        if (message := inbox.newest()) is not None:
            self._at[arm] = np.array(message.position)[:6]
        return message is not None

    def _over(self, begin: float) -> bool:
        late = time.monotonic() - begin > self._horizon
        if late and self._simulated:
            raise HorseshoeError(f"the world did not judge the episode within {self._horizon:.0f} s")
        return self._outcome is not None or self._ended.is_set() or late

    def _check(self) -> None:
        super()._check()
        fault = next((s for s in self._states.values() if self._faults and s.startswith(self._faults)), "")
        if fault:
            raise HorseshoeError(fault)

    def _is(self, arm: str, state: str) -> bool:
        return self._states.get(arm) == state

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._waiting
        response.message = "" if self._waiting else "nothing waits for a start"
        self._waiting = False
        return response

    def _on_end(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = bool(self._running)
        response.message = "" if self._running else "no episode is running"
        if self._running:
            self._ended.set()
        return response

    def _on_outcome(self, message: String) -> None:
        self._outcome = json.loads(message.data)


def main() -> int:
    """Entry point."""
    return run(OperatorNode)


if __name__ == "__main__":
    sys.exit(main())
