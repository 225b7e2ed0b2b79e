"""Messages that are fetched instead of delivered, with real rclpy."""

import time
from collections.abc import Iterator

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from horseshoe.ros_ws.base_node import EVENT, STREAM, Inbox  # noqa: E402


@pytest.fixture
def node(domain: int) -> Iterator[object]:
    rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("inbox")
    yield node
    node.destroy_node()
    rclpy.shutdown()


def publish(node: rclpy.node.Node, topic: str, *texts: str) -> None:
    """Send messages and wait until they were received."""
    publisher = node.create_publisher(String, topic, EVENT)
    end = time.monotonic() + 60
    while publisher.get_subscription_count() == 0:
        assert time.monotonic() < end, "nobody listens"
        time.sleep(0.01)
    for text in texts:
        publisher.publish(String(data=text))
    assert publisher.wait_for_all_acked(Duration(seconds=60))


def test_everything_that_came_is_fetched_once_in_order_with_its_time(node: rclpy.node.Node) -> None:
    inbox, begin = Inbox(node, String, "said", EVENT), time.time_ns()
    publish(node, "said", "one", "two", "three")
    fetched = list(inbox.fetch())
    assert [message.data for message, _ in fetched] == ["one", "two", "three"]
    assert all(begin <= when <= time.time_ns() for _, when in fetched)
    assert list(inbox.fetch()) == []


def test_of_a_stream_only_the_newest_message_is_kept(node: rclpy.node.Node) -> None:
    inbox = Inbox(node, String, "stream", STREAM)
    assert inbox.newest() is None
    publish(node, "stream", "old", "new")
    assert inbox.newest().data == "new"
    assert inbox.newest() is None


def test_an_executor_leaves_an_inbox_alone(node: rclpy.node.Node) -> None:
    inbox, executor = Inbox(node, String, "said", EVENT), SingleThreadedExecutor()
    executor.add_node(node)
    publish(node, "said", "hello")
    for _ in range(5):
        executor.spin_once(timeout_sec=0.01)
    assert inbox.newest().data == "hello"
    executor.shutdown()
