"""Reading a recorded run into arrays."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.timing_log import Timing

Array = NDArray[np.float64]
ARMS = ("left", "right")


@dataclass
class Series:
    """Rows of numbers over time. time: [s] since the epoch, shape (n,); values: shape (n, k)."""

    time: Array = field(default_factory=lambda: np.zeros(0))
    values: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def between(self, begin: float, end: float) -> "Series":
        """The rows of a stretch of time [s]."""
        inside = (self.time >= begin) & (self.time <= end)
        return Series(self.time[inside], self.values[inside])


@dataclass
class Run:
    """A recorded run.

    Attributes:
        measured, sent: joints and opening of each arm at the time of measuring, of sending [rad, m], (n, 7).
        commands: (stamp of the decision, arrival in the bag) of each arm's commands [s].
        blocks, truth: perceived and true block poses, (n, 7 * blocks), each x y z, w x y z; may be empty.
        timing: ages and skew of every decision as in `policy_node.TIMING` [s], (n, 5).
        outcomes: of simulated episodes.
        lines: (time, topic, text) of progress, stops and states.
        contract: of the policy, as YAML text.
        delays: measured before the first episode [s], by arm.
    """

    measured: dict[str, Series] = field(default_factory=dict)
    sent: dict[str, Series] = field(default_factory=dict)
    commands: dict[str, Array] = field(default_factory=dict)
    blocks: Series = field(default_factory=Series)
    truth: Series = field(default_factory=Series)
    timing: Series = field(default_factory=Series)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    contract: str = ""
    delays: dict[str, float] = field(default_factory=dict)

    def timing_of(self, arm: str) -> Timing:
        """Sent and measured joints of an arm, for `hardware.timing_log.measure_delay`."""
        sent, measured = self.sent[arm], self.measured[arm]
        return Timing(sent.time, sent.values[:, :6], np.zeros(len(sent.time)), measured.time, measured.values[:, :6])


def read(folder: Path) -> Run:
    """Read a bag.

    Raises:
        HorseshoeError: no bag there, or it cannot be read.
    """
    from rosbags.rosbag2 import Reader
    from rosbags.rosbag2.errors import ReaderError
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    rows: dict[str, list[Any]] = {}
    run = Run()
    try:
        with Reader(folder) as reader:
            for connection, when, data in reader.messages():
                message = store.deserialize_cdr(data, connection.msgtype)
                _take(run, rows, connection.topic, 1e-9 * when, message)
    except (ReaderError, OSError) as error:
        raise HorseshoeError(f"{folder}: no bag that can be read ({error})") from error
    for arm in ARMS:
        run.measured[arm] = _series(rows.get(f"/{arm}/joint_states", []), 7)
        run.sent[arm] = _series(rows.get(f"/{arm}/sent_joint_states", []), 7)
        run.commands[arm] = np.array(rows.get(f"/{arm}/command", [])).reshape(-1, 2)
    run.blocks, run.truth = (_series(rows.get(t, []), 0) for t in ("/block_poses", "/world/true_block_poses"))
    run.timing = _series(rows.get("/policy/timing", []), 5)
    return run


def _take(run: Run, rows: dict[str, list[Any]], topic: str, when: float, message: Any) -> None:
    kind = type(message).__name__
    if kind == "sensor_msgs__msg__JointState":
        rows.setdefault(topic, []).append((_stamp(message), message.position))
    elif kind == "geometry_msgs__msg__PoseArray":
        values = [
            v
            for p in message.poses
            for v in (p.position.x, p.position.y, p.position.z)
            + (p.orientation.w, p.orientation.x, p.orientation.y, p.orientation.z)
        ]
        rows.setdefault(topic, []).append((_stamp(message), values))
    elif kind == "trajectory_msgs__msg__JointTrajectory":
        rows.setdefault(topic, []).append((_stamp(message), when))
    elif kind == "std_msgs__msg__Float64MultiArray":
        rows.setdefault(topic, []).append((when, message.data))
    elif kind == "std_msgs__msg__Float64":
        run.delays[topic.split("/")[1]] = message.data
    elif topic == "/world/outcome":
        run.outcomes.append(json.loads(message.data))
    elif topic == "/policy/contract":
        run.contract = message.data
    elif kind == "std_msgs__msg__String":
        run.lines.append((when, topic, message.data))


def _stamp(message: Any) -> float:
    return float(message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)


def _series(rows: list[Any], width: int) -> Series:
    if not rows:
        return Series(np.zeros(0), np.zeros((0, width)))
    return Series(np.array([t for t, _ in rows]), np.array([v for _, v in rows], dtype=np.float64))
