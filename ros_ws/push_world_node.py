"""Node of the pushing world: a soft object and differential-drive robots, stepped by the clock, episode by episode.

Subscribes  /robot_k/cmd_vel (Twist)
Publishes   /robot_k/odom (Odometry), /object, /goal (PointCloud2, points in the same order), ~/outcome (String, JSON),
            /diagnostics
Services    ~/next_episode (Trigger)

A decision is due every 50 ms over `pace`. It waits for the Twist of every robot, up to `answer_timeout`, so a busy
machine makes time run slower instead of making the robots late; every outcome tells the real-time factor. A robot that
did not answer in time is not waited for until it speaks again. Stamps are simulated time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import EVENT, LATCHED, OK, STREAM, WARN, diagnostics, parameter, run
from horseshoe.ros_ws.push_base_node import cloud_message, drive_parameters, odometry_message
from horseshoe.ros_ws.push_decision import Odometry
from horseshoe.sim.push.arena import DECISIONS, PushArena, save_track

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
BETWEEN = 2.0  # [s] of simulated time between two episodes, by which everybody can tell them apart
SETTLE = 0.2  # [s] of real time before an episode, in which the last Twists of the one before it arrive


class PushWorldNode(LifecycleNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("world")
        self._robots = parameter(self, "robots", 6, "How many.", 1, 12)
        self._goals = parameter(self, "goals", "wide", "Goal set, by name or file.")
        self._seed = parameter(self, "seed", 0, "Of scenes, headings and shoves.", 0, 100000)
        self._horizon = parameter(self, "decisions", DECISIONS, "Of an episode.", 1, 100000)
        self._pace = parameter(self, "pace", 1.0, "Real-time factor to keep; 0: as fast as robots answer.", 0.0, 100.0)
        self._answer_timeout = parameter(
            self, "answer_timeout", 0.5, "How long a decision waits for the robots' commands [s].", 0.0, 3600.0
        )
        shove = parameter(self, "shove", False, "Push the object half-way.")
        speed = parameter(self, "shove_speed", 0.7, "What that gives to the object [m/s].", 0.0, 2.0)
        self._shove = speed if shove else 0.0
        self._record = parameter(self, "record", "", "Folder for every episode's states; empty for none.")
        self._drive = drive_parameters(self)
        self.arena: PushArena | None = None
        self._names = [f"robot_{k + 1}" for k in range(self._robots)]
        self._odometry = [self.create_publisher(OdometryMessage, f"/{name}/odom", EVENT) for name in self._names]
        self._object = self.create_publisher(PointCloud2, "/object", STREAM)
        self._goal = self.create_publisher(PointCloud2, "/goal", LATCHED)
        self._outcome = self.create_publisher(String, "~/outcome", EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        for k, name in enumerate(self._names):
            self.create_subscription(Twist, f"/{name}/cmd_vel", lambda m, k=k: self._on_command(k, m), EVENT)
        self.create_service(Trigger, "~/next_episode", self._on_next)
        self._timers: list[Any] = []
        self._running = self._shown = False  # whether an episode runs, and has been seen by anybody
        self._answered = np.zeros(self._robots, dtype=bool)
        self._silent = np.zeros(self._robots, dtype=bool)
        self._time = time.time()  # simulated
        self._begun = self._published = self._due = 0.0  # real times
        self._missing = 0

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make the world; compiles its kernels the first time."""
        try:
            self.arena = PushArena(self._robots, self._goals, self._seed, self._horizon, self._shove, self._drive)
            if self._record:
                Path(self._record).mkdir(parents=True, exist_ok=True)
                if any(Path(self._record).glob("episode_*.npz")):
                    raise HorseshoeError(f"record: {self._record} holds episodes already; name a new folder")
        except (HorseshoeError, ModuleNotFoundError, OSError) as error:
            self.get_logger().error(f"world: {error}")
            return FAILURE
        self.get_logger().info(f"world ready: {self._robots} robots, goals {self._goals}")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Wait for ~/next_episode."""
        self._timers = [self.create_timer(0.005, self._advance), self.create_timer(1.0, self._diagnose)]
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let time stand still; the episode is lost."""
        self._running = False
        for timer in self._timers:
            self.destroy_timer(timer)
        self._timers = []
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let time stand still for good."""
        return self.on_deactivate(state) if self._timers else SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the world."""
        self.arena = None
        return SUCCESS

    # --- episodes -----------------------------------------------------------------------------------------------------

    def _on_next(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.arena is None or not self._timers:
            response.message = "the world is not active"
            return response
        try:
            self.arena.next_episode()
        except HorseshoeError as error:
            response.message = str(error)
            return response
        self._time += BETWEEN
        self._goal.publish(cloud_message(self._time, self.arena.scene.goal))
        self._answered[:], self._missing = True, 0
        self._begun = self._published = time.monotonic()
        self._due = self._begun + SETTLE
        self._running, self._shown = True, False
        response.success, response.message = True, f"episode {self.arena.episode}: {self.arena.scene.name}"
        return response

    def _on_command(self, robot: int, message: Twist) -> None:
        if not self._running or not self._shown or self.arena is None:
            return
        self._answered[robot], self._silent[robot] = True, False
        try:
            self.arena.command(robot, message.linear.x, message.angular.z)
        except HorseshoeError as error:
            self.get_logger().error(str(error), throttle_duration_sec=1.0)

    def _advance(self) -> None:
        """Take a decision that is due and answered."""
        now = time.monotonic()
        if not self._running or self.arena is None or now < self._due:
            return
        owing = ~self._answered & ~self._silent
        if owing.any():
            if now - self._published < self._answer_timeout:
                return
            self._missing += int(owing.sum())
            self._silent |= owing
            late = ", ".join(name for name, k in zip(self._names, owing, strict=True) if k)
            self.get_logger().warning(f"no command of {late} within {self._answer_timeout:g} s")
        if not self._shown:
            self._begun = now
        else:
            self.arena.step()
            self._time += self.arena.config.control_period
        period = self.arena.config.control_period / self._pace if self._pace else 0.0
        self._due = max(self._due + period, now)
        self._published, self._shown = time.monotonic(), True
        if self.arena.over:
            self._judge()
        else:
            self._answered[:] = False
            self._publish()

    def _publish(self) -> None:
        assert self.arena is not None
        m = self.arena.motion
        for k, name in enumerate(self._names):
            seen = Odometry(self._time, m.position[k], float(m.heading[k]), m.velocity[k], float(m.angular[k]))
            self._odometry[k].publish(odometry_message(name, seen))
        self._object.publish(cloud_message(self._time, self.arena.particles))

    def _judge(self) -> None:
        assert self.arena is not None
        arena, self._running = self.arena, False
        simulated = arena.decisions * arena.config.control_period
        outcome = {
            "episode": arena.episode,
            "name": "exploded" if arena.exploded else "success" if arena.success else "failure",
            "scene": arena.scene.name,
            "incremental_iou": round(arena.score, 3),
            "seconds": round(simulated, 2),
            "real_time_factor": round(simulated / (time.monotonic() - self._begun), 2),
            "late_commands": self._missing,
        }
        if self._record:
            try:
                save_track(Path(self._record) / f"episode_{arena.episode:04d}.npz", arena.track())
            except OSError as error:
                self.get_logger().error(f"record: {error}")
        self._outcome.publish(String(data=json.dumps(outcome)))

    def _diagnose(self) -> None:
        factor, decisions = 1.0, 0
        if self._running and self.arena is not None and (decisions := self.arena.decisions):
            factor = decisions * self.arena.config.control_period / (time.monotonic() - self._begun)
        values = {"real-time factor": f"{factor:.2f}", "decision": decisions, "late commands": self._missing}
        slow = self._pace and factor < 0.9 * self._pace and decisions > 20
        level, text = (WARN, "slower than asked") if slow else (OK, "running" if self._running else "waiting")
        self._diagnostics.publish(diagnostics("world", level, text, values))


def main() -> int:
    """Entry point."""
    return run(PushWorldNode)


if __name__ == "__main__":
    sys.exit(main())
