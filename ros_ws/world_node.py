"""Node of the simulated cell: physics in real time, two emulated controllers, cameras.

Publishes   /block_poses (PoseArray, what a camera reports), ~/true_block_poses (PoseArray), ~/outcome (String, JSON)
Services    ~/clear_table, ~/next_episode (Trigger)

With robot:=emulated the arms are driven over TCP by anybody who speaks the xArm protocol; with robot:=sim the node
hosts both arm nodes itself and drives the arms directly.
"""

import sys
import time
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from horseshoe import contract as contracts
from horseshoe.hardware.emulator import Controller, ControllerServer
from horseshoe.hardware.homing import HOME
from horseshoe.hardware.timing_log import TimingLog
from horseshoe.policies import runtime
from horseshoe.ros_ws.arm_node import ArmNode
from horseshoe.ros_ws.base_node import ARMS, EVENT, OK, WARN, diagnostics, parameter, pose_array, run, system_time
from horseshoe.ros_ws.direct_arm import DirectArm
from horseshoe.ros_ws.simulated_cell import SimulatedCell


class WorldNode(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("world")
        engine = parameter(self, "engine", "mujoco", "Physics: mujoco or pybullet.")
        blueprint = parameter(self, "blueprint", "u_shape", "Name or file of what is assembled.")
        policy = parameter(
            self, "policy", "", "Whose noise and physics to use, those it was trained with; may be empty."
        )
        noise = parameter(self, "noise", 1.0, "Scale of the camera's noise and latency.", 0.0, 5.0)
        seed = parameter(self, "seed", 1, "Of scenes, physics and noise.", 0, 2**31)
        first = parameter(
            self, "first_episode", 1, "Number of the first episode; it and the seed are its scene.", 1, 10**6
        )
        rate = parameter(self, "camera_rate", 30.0, "Block poses per second [Hz].", 1, 100)
        hosts = parameter(self, "controllers", ["127.0.0.1", "127.0.0.2"], "Where the emulated controllers answer.")
        direct = parameter(self, "direct", False, "Host both arm nodes instead of emulated controllers.")
        cell = parameter(self, "cell", "", "File that says where the arms are; empty for the shipped one.")
        self._timing = parameter(self, "timing", "", "Folder for what the controllers executed when; empty for none.")
        environment = {}
        if policy:
            contract = contracts.load(runtime.find(policy))
            environment = contract.environment | {"decision_rate": contract.action.decision_rate}
        home = np.array([HOME, HOME])
        self.cell = SimulatedCell(engine, blueprint, environment, home, noise, seed, cell or None, first)
        self._servers: list[ControllerServer] = []
        self.hosted: list[ArmNode] = []
        self._logs: dict[str, TimingLog] = {}
        for name, arm, host in zip(ARMS, self.cell.arms, hosts, strict=True):
            if direct:
                self.hosted.append(ArmNode(lambda settings, arm=arm: DirectArm(settings, arm), f"/{name}"))  # type: ignore[misc]
            else:
                controller, log = Controller(arm), self._logs.setdefault(name, TimingLog())
                controller.on_execute = lambda q, log=log: log.add_sent(time.monotonic(), q, 0)
                self._servers.append(ControllerServer(controller, host, seed))
        self._poses = self.create_publisher(PoseArray, "/block_poses", EVENT)
        self._truth = self.create_publisher(PoseArray, "~/true_block_poses", EVENT)
        self._outcome = self.create_publisher(String, "~/outcome", EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self.create_service(Trigger, "~/clear_table", self._on_clear)
        self.create_service(Trigger, "~/next_episode", self._on_next)
        self.create_timer(1 / rate, self._see)
        self.create_timer(1.0, self._diagnose)
        self._told = 0
        self.cell.start()
        for server in self._servers:
            server.start()
            self.get_logger().info(f"emulated controller at {server.host}")
        self.get_logger().info(f"world ready: {engine}, {blueprint}")

    def close(self) -> None:
        """End the controllers, then the world."""
        for server in self._servers:
            server.stop()
        self.cell.close()
        for name, log in self._logs.items():
            if self._timing:
                log.read().save(Path(self._timing) / f"{name}_executed.npz")

    def _on_clear(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.cell.clear_table()
        response.success = True
        return response

    def _on_next(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, f"episode {self.cell.next_episode()}"
        return response

    def _see(self) -> None:
        when, position, quaternion = self.cell.look()
        self._poses.publish(pose_array(system_time(when), position, quaternion))
        self._truth.publish(pose_array(time.time(), *self.cell.truth()))
        outcome = self.cell.outcome
        if outcome is not None and outcome.episode != self._told:
            self._told = outcome.episode
            self._outcome.publish(String(data=outcome.to_json()))

    def _diagnose(self) -> None:
        behind = self.cell.behind
        values = {"behind the clock [s]": f"{behind:.2f}", "episode": self.cell.episode}
        for server in self._servers:
            c = server.controller
            values[server.host] = f"mode {c.mode}, state {c.state}, error {c.error}, targets lost {c.lost}"
        level, text = (OK, "in real time") if behind == 0 else (WARN, "slower than real time")
        self._diagnostics.publish(diagnostics("world", level, text, values))


def main() -> int:
    """Entry point."""
    return run(WorldNode, prompt=True)


if __name__ == "__main__":
    sys.exit(main())
