"""Node that writes everything to a bag (MCAP in rosbag2's layout), byte by byte as it came.

Without a record nothing shall move: when the disk is nearly full or a write fails, the node closes the bag whole, says
so on /stop and ends with exit code 1.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import (
    ARMS,
    EVENT,
    LATCHED,
    OK,
    RECORD,
    STOP_PATIENCE,
    Inbox,
    diagnostics,
    parameter,
    run,
)

PERIOD = 0.05  # [s] between two looks at what came; far less than the queues hold
# Of what is latched every state counts, not the last one of a period.
STATES = QoSProfile(depth=RECORD.depth, reliability=LATCHED.reliability, durability=LATCHED.durability)
TOPICS: dict[str, tuple[Any, Any]] = {
    "/block_poses": (PoseArray, RECORD),
    "/world/true_block_poses": (PoseArray, RECORD),
    "/world/outcome": (String, RECORD),
    "/operator/progress": (String, STATES),
    "/policy/contract": (String, STATES),
    "/policy/state": (String, STATES),
    "/policy/timing": (Float64MultiArray, RECORD),
    "/stop": (String, RECORD),
    "/diagnostics": (DiagnosticArray, RECORD),
}
for _arm in ARMS:
    TOPICS[f"/{_arm}/command"] = (JointTrajectory, RECORD)
    TOPICS[f"/{_arm}/joint_states"] = (JointState, RECORD)
    TOPICS[f"/{_arm}/sent_joint_states"] = (JointState, RECORD)
    TOPICS[f"/{_arm}/state"] = (String, STATES)
    TOPICS[f"/{_arm}/delay"] = (Float64, STATES)


class RecorderNode(Node):
    """See the module."""

    def __init__(self) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        super().__init__("recorder")
        self.folder = Path(parameter(self, "folder", "", "Where to write the bag; must not exist.")).absolute()
        self._min_free = parameter(self, "min_free", 200.0, "Free disk space at which recording ends [MB].", 0.0, 1e6)
        self.exit_code: int | None = None
        if self.folder.exists():
            raise HorseshoeError(f"folder: {self.folder} exists already; name a new one")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer: Any = Writer(self.folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = get_typestore(Stores.ROS2_KILTED)
        self.count = 0
        self._inboxes: list[tuple[Any, Inbox]] = []
        self._stop = self.create_publisher(String, "/stop", EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        for topic, (kind, quality) in TOPICS.items():
            package, name = kind.__module__.split(".")[0], kind.__name__
            connection = self._writer.add_connection(topic, f"{package}/msg/{name}", typestore=store)
            self._inboxes.append((connection, Inbox(self, kind, topic, quality, raw=True)))
        self.create_timer(PERIOD, self._write)
        self.create_timer(1.0, self._look_after_disk)
        self.get_logger().info(f"recording to {self.folder}")

    def close(self) -> None:
        """Finish the bag; a bag that is not closed has no index."""
        if self.exit_code is None:
            self._write()  # the last words
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self.get_logger().info(f"wrote {self.count} messages to {self.folder}")

    def _write(self) -> None:
        for connection, inbox in self._inboxes:
            for data, when in inbox.fetch():
                if self._writer is None:
                    return
                try:
                    self._writer.write(connection, when, data)
                    self.count += 1
                except OSError as error:
                    self._end(f"cannot write to {self.folder} ({error.strerror})")

    def _look_after_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free / 1e6
        self._diagnostics.publish(
            diagnostics("recorder", OK, "recording", {"messages": self.count, "free disk [MB]": f"{free:.0f}"})
        )
        if free < self._min_free:
            self._end(f"only {free:.0f} MB left on the disk of {self.folder} (limit {self._min_free:.0f} MB)")

    def _end(self, why: str) -> None:
        self._stop.publish(String(data=f"recorder: {why}"))
        self.exit_code = 1
        bag = ""
        try:
            self.close()
        except OSError as error:
            bag = f"; the bag has no index ({error.strerror}), `mcap recover` repairs it"
        # The process ends next, and what it has not delivered by then is lost.
        self._stop.wait_for_all_acked(STOP_PATIENCE)
        self.get_logger().error(f"recorder: {why}; the arms are stopped{bag}")


def main() -> int:
    """Entry point."""
    return run(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
