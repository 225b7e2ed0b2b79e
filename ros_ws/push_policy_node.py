"""Node of one pushing robot: what it sees and hears in, its Twist out.

Subscribes  odom, /object, /goal, /robot_k/odom of all others (their radio messages)
Publishes   cmd_vel (Twist), ~/state (String), /diagnostics

A decision is taken when a picture of the object and the robot's own odometry of the same time are there. Any doubt
(nothing comes, odometry or object too old, other frames, NaN) is a Twist of zero, said in ~/state and on /diagnostics;
when it is over the robot goes on.
"""

import math
import sys
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import (
    ERROR,
    EVENT,
    LATCHED,
    OK,
    STOP_PATIENCE,
    STREAM,
    diagnostics,
    parameter,
    run,
    seconds,
)
from horseshoe.ros_ws.push_base_node import drive_parameters, odometry_of, points_of, twist_message
from horseshoe.ros_ws.push_decision import Odometry, PushDecider

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PushPolicyNode(LifecycleNode):
    """See the module.

    Args:
        namespace: of the node, if it is not given on the command line.
        robot: which one this is (from 1), if no parameter says so.
    """

    def __init__(self, namespace: str = "", robot: int = 1) -> None:
        super().__init__("policy", namespace=namespace)
        self._policy = parameter(self, "policy", "push", "Name of a shipped policy, or a folder.")
        self._robot = parameter(self, "robot", robot, "Which of the robots this is.", 1, 12)
        self._robots = parameter(self, "robots", 6, "How many there are.", 1, 12)
        self._radio = parameter(
            self, "radio_delay", [0.0, 0.5], "Least and largest delay of a simulated radio [s]; a real one: [0.0, 0.0]."
        )
        self._seed = parameter(self, "seed", 0, "Of these delays.", 0, 100000)
        self._max_age = parameter(
            self, "max_age", 0.2, "Between odometry and object that stops the robot, in their stamps [s].", 0.05, 3600.0
        )
        gap = parameter(
            self,
            "episode_gap",
            1.0,
            "Time without a picture, in their stamps, after which the scene is a new one with a goal of its own [s]; "
            "0: never, as with real cameras, which may fail for a while.",
            0.0,
            3600.0,
        )
        self._gap = gap or math.inf
        self._silence = parameter(
            self, "max_silence", 1.0, "Time without a decision that stops the robot [s].", 0.05, 3600.0
        )
        self._drive = drive_parameters(self)
        self.decider: PushDecider | None = None
        self.decisions = 0
        self._name = f"robot_{self._robot}"
        self._goal: PointCloud2 | None = None
        self._active, self._told = False, ""
        self._begin()
        self._alive = 0.0  # real time of the newest decision
        self._warned = 0.0
        self._cmd_vel = self.create_publisher(Twist, "cmd_vel", EVENT)
        self._state = self.create_publisher(String, "~/state", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self.create_subscription(OdometryMessage, "odom", self._on_own, STREAM)
        self.create_subscription(PointCloud2, "/object", self._on_object, STREAM)
        self.create_subscription(PointCloud2, "/goal", self._on_goal, LATCHED)
        for k in range(self._robots):
            if k != self._robot - 1:
                topic = f"/robot_{k + 1}/odom"
                self.create_subscription(OdometryMessage, topic, lambda m, k=k: self._on_other(k, m), EVENT)
        self._timer: Any = None

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy; one that cannot answer is refused here."""
        try:
            low, high = (float(d) for d in self._radio)
            self.decider = PushDecider(
                self._policy, self._robot - 1, self._robots, (low, high), self._seed, self._drive
            )
            points = np.linspace(0.5, 0.7, 2 * self.decider.policy.particles).reshape(-1, 2)
            self.decider.decide(Odometry(0.0, np.array([0.3, 0.3]), 0.0, np.zeros(2), 0.0), points, points)
        except (HorseshoeError, ModuleNotFoundError, ValueError) as error:
            return self._refuse(str(error))
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to decide when something is seen."""
        if (n := self.count_publishers(self._cmd_vel.topic_name)) > 1:
            return self._refuse(f"{n} nodes want to command {self._name}; end all but one")
        self._begin()
        self._active, self._alive = True, time.monotonic()
        self._timer = self.create_timer(0.1, self._watch)
        self._say("waiting for the object")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot."""
        self._active = False
        self.destroy_timer(self._timer)
        self._cmd_vel.publish(twist_message(0.0, 0.0))
        self._say("inactive")
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot for good."""
        return self.on_deactivate(state) if self._active else SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        self.decider = None
        return SUCCESS

    def close(self) -> None:
        """Stop the robot before the process ends."""
        if self._active:
            self._cmd_vel.publish(twist_message(0.0, 0.0))
            self._cmd_vel.wait_for_all_acked(STOP_PATIENCE)  # what is not delivered when the process ends is lost

    def _begin(self) -> None:
        """Forget what was seen; the goal, which is latched, holds."""
        self._own: Odometry | None = None
        self._frame = ""  # of the odometry
        self._object: PointCloud2 | None = None
        self._begun, self._decided = -math.inf, -math.inf  # stamps of the first and the newest picture decided on

    def _refuse(self, why: str) -> TransitionCallbackReturn:
        self.get_logger().error(f"{self._name}: {why}")
        self._say(f"refused: {self._name}: {why}")
        self._diagnostics.publish(diagnostics(f"{self._name}/policy", ERROR, f"refused: {why}"))
        return FAILURE

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _on_own(self, message: OdometryMessage) -> None:
        try:
            self._own, self._frame = odometry_of(message), message.header.frame_id
        except HorseshoeError as error:
            self._own = None
            if self._active:
                self._halt(str(error))
        self._consider()

    def _on_other(self, robot: int, message: OdometryMessage) -> None:
        try:
            heard = odometry_of(message)
        except HorseshoeError as error:
            self.get_logger().warning(f"robot_{robot + 1} is not heard: {error}", throttle_duration_sec=1.0)
            return
        here = self._frame in ("", message.header.frame_id)
        if self.decider is not None and here and heard.when >= self._begun:
            self.decider.hear(robot, heard)

    def _on_goal(self, message: PointCloud2) -> None:
        self._goal = message
        self._consider()

    def _on_object(self, message: PointCloud2) -> None:
        when = seconds(message.header.stamp)
        if self._object is not None and when - seconds(self._object.header.stamp) > self._gap:
            self._begun = when - 1e-6
            if self.decider is not None:
                self.decider.forget(self._begun)
        self._object = message
        self._consider()

    # --- decisions ----------------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Decide if a new picture and what belongs to it are there."""
        if not self._active or self.decider is None or self._object is None:
            return
        when = seconds(self._object.header.stamp)
        if self._own is None:
            return
        own = self._own.when
        late = f"the object was last seen {own - when:.2f} s ago (limit {self._max_age:g} s)"
        if when <= self._decided:
            if self._decided - when > self._max_age:
                self._halt(f"the object's stamps went back by {self._decided - when:.2f} s; activate this node anew")
            elif self._max_age < own - when < self._gap:  # later, and a new scene begins
                self._halt(late)
            return
        if abs(when - own) > self._max_age:
            self._decided = when
            self._halt(late if own > when else f"odometry is {when - own:.2f} s old (limit {self._max_age:g} s)")
            return
        if when - own > 0.5 * self.decider.period or self._goal is None:
            return  # it is on its way
        if seconds(self._goal.header.stamp) < self._begun:
            return  # still the goal of the scene before
        self._decided = when
        frames = {self._frame, self._object.header.frame_id, self._goal.header.frame_id}
        if len(frames) > 1:
            self._halt(f"odometry, object and goal must be in one frame, they are in {', '.join(sorted(frames))}")
            return
        try:
            linear, angular = self.decider.decide(self._own, points_of(self._object), points_of(self._goal))
        except HorseshoeError as error:
            self._halt(str(error))
            return
        self._cmd_vel.publish(twist_message(linear, angular))
        self._alive = time.monotonic()
        self.decisions += 1
        self._say("driving")
        if self.decisions % 20 == 0:
            ages = {f"robot_{k + 1} heard [s]": f"{age:.2f}" for k, age in self.decider.ages.items()}
            self._diagnostics.publish(diagnostics(f"{self._name}/policy", OK, f"decision {self.decisions}", ages))

    def _watch(self) -> None:
        """Nothing comes any more: no callback but this one would notice."""
        silence = time.monotonic() - self._alive
        if silence > self._silence and self._told == "driving":
            self._halt(f"no decision for {silence:.1f} s: nothing comes on odom or /object")

    def _halt(self, why: str) -> None:
        self._cmd_vel.publish(twist_message(0.0, 0.0))
        self._say(f"stopped: {why}")
        if time.monotonic() - self._warned > 1.0:
            self._warned = time.monotonic()
            self.get_logger().warning(f"{self._name}: {why}; it stands still")
            self._diagnostics.publish(diagnostics(f"{self._name}/policy", ERROR, why))

    def _say(self, state: str) -> None:
        kind = state.split(":")[0]
        if state != self._told and not (kind == "stopped" and self._told.startswith(kind)):
            self._told = state
            self._state.publish(String(data=state))


def main() -> int:
    """Entry point."""
    return run(PushPolicyNode)


if __name__ == "__main__":
    sys.exit(main())
