"""Node that watches both arms and stops both when anything is wrong with either.

Subscribes  /<arm>/joint_states, /<arm>/sent_joint_states, /<arm>/state
Publishes   /stop (String), ~/heartbeat (Header; arms stop without it), /diagnostics
"""

import sys
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.arm_driver import ArmSnapshot, Phase
from horseshoe.hardware.guard import Guard, GuardLimits
from horseshoe.ros_ws.base_node import (
    ARMS,
    ERROR,
    EVENT,
    GOING,
    LATCHED,
    OK,
    WORLD,
    Inbox,
    diagnostics,
    joints_of,
    parameter,
    run,
    seconds,
    speeds_of,
    stamp,
)
from horseshoe.sim.assembly import cell as cells

BEGINS = ("streaming", *GOING)
MOVING = (*BEGINS, "stopping")


class GuardNode(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("guard")
        d = GuardLimits()
        rate = parameter(self, "rate", 100.0, "Checks per second [Hz].", 10.0, 250.0)
        cell = cells.load(parameter(self, "cell", "", "Where the arms are; empty for the shipped cell.") or None)
        limits = GuardLimits(
            arm_clearance=parameter(self, "arm_clearance", d.arm_clearance, "Between the arms [m].", -0.05, 0.5),
            table_clearance=parameter(self, "table_clearance", d.table_clearance, "Above the table [m].", -0.05, 0.5),
            table_height=cell.table.height,
            staleness=parameter(self, "staleness", d.staleness, "Oldest accepted measurement [s].", 0.02, 3600.0),
            tracking_error=parameter(self, "tracking_error", d.tracking_error, "Sent to measured [rad].", 0.01, 1.0),
            skew=parameter(self, "skew", d.skew, "Between the arms' measurements [s].", 0.01, 3600.0),
        )
        self.guard = Guard({arm.name: cell.base_poses[i] for i, arm in enumerate(cell.arms)}, limits)
        self._measured: dict[str, JointState] = {}
        self._sent: dict[str, JointState] = {}
        self._state: dict[str, str] = {}
        self.fault = ""
        self._inboxes = [
            (known, arm, Inbox(self, JointState, f"/{arm}/{topic}"))
            for arm in ARMS
            for known, topic in ((self._measured, "joint_states"), (self._sent, "sent_joint_states"))
        ]
        for arm in ARMS:
            self.create_subscription(String, f"/{arm}/state", lambda m, a=arm: self._on_state(a, m.data), LATCHED)
        self._stop = self.create_publisher(String, "/stop", EVENT)
        self._heartbeat = self.create_publisher(Header, "~/heartbeat", EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self.create_timer(1 / rate, self._check)
        self.create_timer(1.0, self._diagnose)

    def _on_state(self, arm: str, state: str) -> None:
        self._state[arm] = state
        if state == "streaming":
            self._listen()
            self._sent.pop(arm, None)  # what was sent before the last stop says nothing
        if state in BEGINS:
            self.fault = ""  # what was said before must be said again
        self._check()

    def _listen(self) -> None:
        for known, arm, inbox in self._inboxes:
            if (message := inbox.newest()) is not None:
                known[arm] = message

    def _check(self) -> None:
        now = time.time()
        self._heartbeat.publish(Header(stamp=stamp(now), frame_id=WORLD))
        if not any(state.startswith(MOVING) for state in self._state.values()):
            return
        self._listen()
        unknown = [arm for arm in ARMS if arm not in self._measured]
        try:
            if unknown:
                raise HorseshoeError(f"nothing is known of the {' and '.join(unknown)} arm")
            fault = self.guard.check({arm: self._snapshot(arm) for arm in ARMS}, now)
        except HorseshoeError as error:
            fault = str(error)
        if fault and fault != self.fault:
            self._stop.publish(String(data=f"stopped by the guard: {fault}"))
            self.get_logger().error(f"guard: both arms stopped: {fault}")
            self.fault = fault
            self._diagnose()

    def _snapshot(self, arm: str) -> ArmSnapshot:
        measured, state = self._measured[arm], self._state.get(arm, "")
        told = self._sent.get(arm, measured)
        joints, velocities = joints_of(measured, arm), speeds_of(measured, arm)
        sent, speeds = joints_of(told, arm)[:6], speeds_of(told, arm)
        phase, _, fault = state.partition(": ")
        known = {p.value: p for p in Phase}
        return ArmSnapshot(
            time=seconds(measured.header.stamp),
            joints=joints[:6],
            velocities=velocities,
            sent_time=seconds(told.header.stamp),
            sent=sent,
            sent_velocities=speeds,
            opening=None if np.isnan(joints[6]) else float(joints[6]),
            phase=known.get(phase, Phase.IDLE),
            holding=False,
            fault=fault if phase in (Phase.STOPPING.value, Phase.STOPPED.value) else "",
        )

    def _diagnose(self) -> None:
        level, text = (ERROR, self.fault) if self.fault else (OK, "watching")
        self._diagnostics.publish(diagnostics("guard", level, text))


def main() -> int:
    """Entry point."""
    return run(GuardNode, prompt=True)


if __name__ == "__main__":
    sys.exit(main())
