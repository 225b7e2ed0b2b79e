"""What all nodes share: how they run and end, their parameters, qualities of service and conversions of messages."""

import faulthandler
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.priority import be_prompt

Array = NDArray[np.float64]
T = TypeVar("T")

# Streams: a late message is worth nothing, the newest wins. Reliable, because both ends are on one computer or wire.
STREAM = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# What the recorder must not miss.
RECORD = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
# Commands and events: none may be lost.
EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
# States that whoever comes later must know too.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

STOP_PATIENCE = Duration(seconds=1)  # for everybody to have heard a stop
FAREWELL = 10.0  # [s] that a closed node may take to leave ROS
WORLD = "world"  # frame of everything that is not a joint (REP-103; config/cell.yaml says where it is)
ARMS = ("left", "right")
GOING = ("moving home", "pulling back")  # what an arm says while the controller's planner moves it
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class _NoCallbacks(CallbackGroup):
    """Keeps its subscriptions out of the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Inbox:
    """Messages of a topic, fetched by whoever needs them, from any one thread.

    Every callback wakes rclpy's executor, which costs half a millisecond: streams of 100 Hz fill the computer with it.
    Fetching costs a few microseconds.

    Args:
        node: that subscribes.
        kind: type of message.
        topic: name.
        quality: how many are kept, and how.
        raw: messages are left as bytes.
    """

    def __init__(self, node: Node, kind: Any, topic: str, quality: QoSProfile = STREAM, raw: bool = False) -> None:
        group = _NoCallbacks()
        self._subscription = node.create_subscription(
            kind, topic, lambda _: None, quality, callback_group=group, raw=raw
        )

    def fetch(self) -> Iterator[tuple[Any, int]]:
        """Everything that came since the last time: messages and when they were received [ns since the epoch]."""
        s = self._subscription
        while True:
            with s.handle:
                taken = s.handle.take_message(s.msg_type, s.raw)
            if taken is None:
                return
            yield taken[0], taken[1]["received_timestamp"]

    def newest(self) -> Any:
        """The newest message that came since the last time, or None."""
        last = deque(self.fetch(), maxlen=1)
        return last[0][0] if last else None


def run(make: Callable[[], Any], args: list[str] | None = None, prompt: bool = False) -> int:
    """Run one node until SIGINT or SIGTERM, then close it while ROS is still up.

    A node may have a `close()`, called last, an `exit_code` that is not None once it wants to end, and `hosted` nodes
    that run in the same process.

    Args:
        make: makes the node.
        args: of the command line, `sys.argv` without it.
        prompt: whether arms depend on it that the node never waits for the processor.

    Returns:
        Exit code: the node's own, 0 when it was asked to end.
    """
    said = be_prompt() if prompt else ""
    # rclpy's own handlers shut ROS down first, and then nobody could say a last word.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    nodes: list[Any] = []
    executor = SingleThreadedExecutor()
    try:
        node = make()
        nodes = [node, *getattr(node, "hosted", [])]
        if said:
            node.get_logger().info(said)
        for each in nodes:
            executor.add_node(each)
        while not ended and getattr(node, "exit_code", None) is None:
            executor.spin_once(timeout_sec=0.02)  # a signal is seen after it at the latest
        return int(getattr(node, "exit_code", None) or 0)
    except (HorseshoeError, ParameterException) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        for each in reversed(nodes):
            if hasattr(each, "close"):
                each.close()
        # All is said and written. What is left may wait for ever: Fast DDS was seen to hang where it deletes a writer.
        faulthandler.dump_traceback_later(FAREWELL, exit=True)
        for each in reversed(nodes):
            executor.remove_node(each)
            each.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
        faulthandler.cancel_dump_traceback_later()


def parameter(node: Node, name: str, default: T, description: str, low: float = 0.0, high: float = 0.0) -> T:
    """Declare a read-only parameter, with a range if `low` < `high`, and return its value."""
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if low < high and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    elif low < high and isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    value: Any = node.declare_parameter(name, default, descriptor).value
    return type(default)(value)  # type: ignore[call-arg]  # arrays come as array.array


def stamp(seconds: float) -> Time:
    """A time of the system clock [s] as message."""
    return Time(sec=int(seconds), nanosec=int((seconds % 1.0) * 1e9))


def seconds(time: Time) -> float:
    """A message's time [s]."""
    return float(time.sec + 1e-9 * time.nanosec)


def system_time(monotonic: float) -> float:
    """A moment of the monotonic clock on the system clock [s]."""
    return time.time() - time.monotonic() + monotonic


def joint_names(arm: str) -> list[str]:
    """Joints of an arm as in the URDF; the last one is the gripper's opening [m]."""
    return [f"{arm}_joint{i}" for i in range(1, 7)] + [f"{arm}_gripper"]


def joint_state(arm: str, when: float, position: Array, velocity: Array, opening: float | None) -> JointState:
    """Joints [rad] (6,), [rad/s] (6,) and gripper opening [m], NaN if unknown, at system time `when` [s]."""
    return JointState(
        header=Header(stamp=stamp(when)),
        name=joint_names(arm),
        position=[*position.tolist(), float("nan") if opening is None else float(opening)],
        velocity=[*velocity.tolist(), 0.0],
    )


def joints_of(message: JointState, arm: str) -> Array:
    """Joints [rad] and gripper opening [m] of a message, shape (7,).

    Raises:
        HorseshoeError: other joints than those of the arm, or not as many numbers.
    """
    if list(message.name) != joint_names(arm) or len(message.position) != 7:
        raise HorseshoeError(
            f"{arm} arm: joint states with {len(message.position)} positions of {list(message.name)}, expected "
            f"{joint_names(arm)}"
        )
    return np.array(message.position)


def speeds_of(message: JointState, arm: str) -> Array:
    """Velocities of the joints of a message [rad/s], shape (6,).

    Raises:
        HorseshoeError: not as many numbers as joints.
    """
    if len(message.velocity) != 7:
        raise HorseshoeError(f"{arm} arm: joint states with {len(message.velocity)} velocities, expected 7")
    return np.array(message.velocity)[:6]


def pose_array(when: float, position: Array, quaternion: Array) -> PoseArray:
    """Poses in the world frame at system time `when` [s]; position (n, 3) [m], quaternion (w, x, y, z) (n, 4)."""
    poses = [
        Pose(position=Point(x=p[0], y=p[1], z=p[2]), orientation=Quaternion(w=q[0], x=q[1], y=q[2], z=q[3]))
        for p, q in zip(position.tolist(), quaternion.tolist(), strict=True)
    ]
    return PoseArray(header=Header(stamp=stamp(when), frame_id=WORLD), poses=poses)


def poses_of(message: PoseArray) -> tuple[Array, Array]:
    """Position (n, 3) [m] and quaternion (w, x, y, z) (n, 4) of a message.

    Raises:
        HorseshoeError: an orientation is no unit quaternion.
    """
    position = np.array([[p.position.x, p.position.y, p.position.z] for p in message.poses]).reshape(-1, 3)
    turns = [[p.orientation.w, p.orientation.x, p.orientation.y, p.orientation.z] for p in message.poses]
    quaternion = np.array(turns).reshape(-1, 4)
    if not (np.abs(np.linalg.norm(quaternion, axis=-1) - 1.0) < 0.01).all():
        raise HorseshoeError("block poses: an orientation is no unit quaternion")
    return position, quaternion


def diagnostics(name: str, level: bytes, message: str, values: dict[str, Any] | None = None) -> DiagnosticArray:
    """One status for /diagnostics."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in (values or {}).items()]
    status = DiagnosticStatus(name=name, level=level, message=message, values=pairs, hardware_id=name.split("/")[0])
    return DiagnosticArray(header=Header(stamp=stamp(time.time())), status=[status])
