"""Real nodes in one process; import it only where rclpy is there."""

import json
import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from tests import conftest


def held_after(arms: Iterable[Any], when: float) -> float:
    """Time from a moment until the arms of some arm nodes were told nothing new any more [s]."""
    last = when
    for node in arms:
        log = node.driver.log.read()
        moved = log.time[1:][np.any(np.diff(log.sent, axis=0) != 0, axis=1)]
        last = max(last, float(moved[-1]))
    return last - when


# A loaded machine may not run a thread for seconds. Tests of one of these times set it themselves.
PATIENT: dict[str, Any] = {
    "direct": True,
    "measure_delay": False,
    "needs_delay": False,
    "home_speed": 1.5,
    "guard_timeout": 300.0,
    "hold_after": 300.0,
    "stop_after": 301.0,
    "stale_command": 300.0,
    "staleness": 300.0,
    "skew": 300.0,
    "max_block_age": 300.0,
    "max_joint_age": 300.0,
    "max_frozen": 0.0,
    "tracking_error": 1.0,
    "patience": 300.0,
    "episode_time": 600.0,
    "episodes": 1,
}


class Nodes:
    """Nodes in this process, spun by one thread.

    Args:
        domain: ROS domain.
        parameters: of all nodes.
    """

    def __init__(self, domain: int, parameters: dict[str, Any]) -> None:
        arguments = ["--ros-args"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={json.dumps(value) if isinstance(value, list | bool) else value}"]
        rclpy.init(args=arguments, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.nodes: list[Any] = []
        self.executor = SingleThreadedExecutor()
        self.probe = self.add(rclpy.create_node("probe"))
        self._alive, self._thread = True, threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._alive:
            self.executor.spin_once(timeout_sec=0.05)

    def add(self, node: Any) -> Any:
        """Spin one more node."""
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def close(self) -> None:
        """End all of them, the last one first."""
        self._alive = False
        self._thread.join()
        for node in reversed(self.nodes):
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown()


# A loaded machine may not run a thread for seconds.
wait_until = partial(conftest.wait_until, timeout=300.0, every=0.01)
