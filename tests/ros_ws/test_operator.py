"""What operators and all nodes share, with real rclpy: answers that are lost on the way, farewells that never end."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")

from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import MultiThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402

from horseshoe.ros_ws import base_operator_node  # noqa: E402
from horseshoe.ros_ws.base_operator_node import ACTIVATE, CONFIGURE, DONE, FAULT, BaseOperator  # noqa: E402
from tests.ros_ws import harness  # noqa: E402


class Mute(Node):
    """A node whose answers to `change_state` never arrive.

    Args:
        obeys: whether it does as it is told all the same.
    """

    def __init__(self, obeys: bool) -> None:
        super().__init__("mute")
        self.asked: list[int] = []
        self.ending = threading.Event()
        self.obeys, self._state = obeys, State.PRIMARY_STATE_UNCONFIGURED
        group = ReentrantCallbackGroup()
        self.create_service(ChangeState, "~/change_state", self._change, callback_group=group)
        self.create_service(GetState, "~/get_state", self._tell, callback_group=group)

    def _change(self, request: Any, response: Any) -> Any:
        self.asked.append(request.transition.id)
        if self.obeys:
            configuring = request.transition.id == Transition.TRANSITION_CONFIGURE
            self._state = State.PRIMARY_STATE_INACTIVE if configuring else State.PRIMARY_STATE_ACTIVE
        self.ending.wait()
        return response

    def _tell(self, _: Any, response: Any) -> Any:
        response.current_state.id = self._state
        return response


class Starter(BaseOperator):
    """Brings the mute node up."""

    def __init__(self) -> None:
        super().__init__()
        self._thread.start()

    def _steps(self) -> None:
        for transition in (CONFIGURE, ACTIVATE):
            self._change("/mute", transition)


@pytest.fixture(params=[True, False], ids=["obeys", "disobeys"])
def mute(request: pytest.FixtureRequest, domain: int) -> Iterator[tuple[Mute, harness.Nodes]]:
    nodes = harness.Nodes(domain, {"patience": 300.0 if request.param else 3.0})
    node, executor = Mute(request.param), MultiThreadedExecutor(4)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    yield node, nodes
    node.ending.set()
    executor.shutdown()
    spinning.join()
    node.destroy_node()
    nodes.close()


def test_a_node_whose_answer_is_lost_is_asked_for_its_state(
    mute: tuple[Mute, harness.Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_operator_node, "LATE", 0.5)
    node, nodes = mute
    operator = nodes.add(Starter())
    harness.wait_until(lambda: operator.exit_code is not None, timeout=150.0)
    assert operator.exit_code == (DONE if node.obeys else FAULT)
    assert node.asked == ([CONFIGURE, ACTIVATE] if node.obeys else [CONFIGURE])  # and is not asked to do it twice


def test_a_node_that_is_closed_ends_even_if_it_cannot_leave_ros() -> None:
    code = """
import sys, time
from horseshoe.ros_ws import base_node
base_node.FAREWELL = 0.5
class Hanging(base_node.Node):
    exit_code = 0
    def close(self):
        print("closed", flush=True)
    def destroy_node(self):
        time.sleep(1000)
sys.exit(base_node.run(lambda: Hanging("hanging")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "closed\n"
    assert done.returncode == 1
    assert "destroy_node" in done.stderr
