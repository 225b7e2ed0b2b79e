"""Robots that push together, with real rclpy: one policy node alone, the whole graph in one process, real processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("warp")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import Quaternion, Twist  # noqa: E402
from nav_msgs.msg import Odometry as OdometryMessage  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402

from horseshoe.errors import HorseshoeError  # noqa: E402
from horseshoe.ros_ws import push_demo, push_table  # noqa: E402
from horseshoe.ros_ws.base_node import LATCHED  # noqa: E402
from horseshoe.ros_ws.push_base_node import cloud_message, odometry_message, odometry_of, points_of  # noqa: E402
from horseshoe.ros_ws.push_decision import Odometry, PushDecider  # noqa: E402
from horseshoe.ros_ws.push_operator_node import PushOperatorNode  # noqa: E402
from horseshoe.ros_ws.push_policy_node import PushPolicyNode  # noqa: E402
from horseshoe.ros_ws.push_world_node import PushWorldNode  # noqa: E402
from horseshoe.sim.push.arena import PushArena  # noqa: E402
from tests.ros_ws import harness  # noqa: E402
from tests.ros_ws.constant_policy import PERIOD, write_policy  # noqa: E402

wait_until = partial(harness.wait_until, timeout=150.0)
CENTRE = np.array([0.7, 0.6])  # of the object in tests without a world [m]


class Graph(harness.Nodes):
    """Some nodes, and what their probe hears."""

    def __init__(self, domain: int, **parameters: Any) -> None:
        super().__init__(domain, parameters)

    def listen(self, kind: Any, topic: str, quality: Any = 100) -> list[Any]:
        """All messages of a topic from now on."""
        heard: list[Any] = []
        self.probe.create_subscription(kind, topic, heard.append, quality)
        return heard


@pytest.fixture
def graph(domain: int) -> Iterator[Callable[..., Graph]]:
    """Make a graph; it is closed after the test."""
    made: list[Graph] = []

    def make(**parameters: Any) -> Graph:
        made.append(Graph(domain, **parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- without ROS ------------------------------------------------------------------------------------------------------


def test_messages_carry_poses_velocities_and_points_there_and_back() -> None:
    said = Odometry(1000.25, np.array([0.3, 0.9]), -2.5, np.array([0.1, -0.2]), 1.5)
    message = odometry_message("robot_2", said)
    assert (message.header.frame_id, message.child_frame_id) == ("world", "robot_2/base_link")
    ahead = np.array([np.cos(-2.5), np.sin(-2.5)])
    assert message.twist.twist.linear.x == pytest.approx(ahead @ said.velocity)  # REP-103: in its own frame
    heard = odometry_of(message)
    for name, value in vars(said).items():
        np.testing.assert_allclose(getattr(heard, name), value, atol=1e-6)
    points = np.random.default_rng(0).uniform(0, 1, (256, 2))
    cloud = cloud_message(3.0, points)
    np.testing.assert_allclose(points_of(cloud), points, atol=1e-6)
    cloud.width = 300
    with pytest.raises(HorseshoeError, match="300 points need"):
        points_of(cloud)
    cloud.width, cloud.point_step = 256, 4
    with pytest.raises(HorseshoeError, match="x and y at 0 and 4 of points of 4 bytes"):
        points_of(cloud)


def test_every_robot_has_a_policy_node_of_its_own(ahead: Path) -> None:
    arguments = push_table.parse([f"policy:={ahead}", "robots:=3", "shove:=true"])
    table = {spec.full_name: spec for spec in push_table.nodes(arguments)}
    assert list(table) == ["/world", "/robot_1/policy", "/robot_2/policy", "/robot_3/policy", "/operator"]
    assert table["/robot_3/policy"].parameters["robot"] == 3
    assert table["/world"].parameters["shove"] is True
    written = yaml.safe_load(push_table.parameter_file().read_text())
    assert set(written) <= {"/**", "/**/policy", "/world", "/operator"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["robots:=13"], r"robots: 13 is outside \[1, 12\]"),
        (["arms:=2"], "no launch argument 'arms'"),
        (["policy:=u_shape"], "env: is horseshoe/UShape-v0; pushing robots need"),
    ],
)
def test_a_wrong_argument_is_named(ahead: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(HorseshoeError, match=message):
        push_table.nodes(
            push_table.parse([f"policy:={ahead}", *arguments] if "policy" not in arguments[0] else arguments)
        )


def test_it_pushes_in_one_process_too_without_torch_or_ros(ahead: Path) -> None:
    deciders = [PushDecider(str(ahead), k, 2) for k in range(2)]
    outcome = push_demo.run_episode(PushArena(2, "near", 0), deciders)
    assert outcome["scene"] == "near-1000000"
    assert "near-1000000" in push_demo.table([outcome])
    code = "import sys, horseshoe.ros_ws.push_demo; print({'torch', 'rclpy', 'mujoco'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


# --- one policy node --------------------------------------------------------------------------------------------------


class Scene:
    """A policy node of robot 1 of 2, active, and what it needs to decide, sent by hand."""

    def __init__(self, g: Graph) -> None:
        self.graph, self.node = g, g.add(PushPolicyNode("/robot_1"))
        self.twists: list[Twist] = g.listen(Twist, "/robot_1/cmd_vel")
        self.diagnostics: list[DiagnosticArray] = g.listen(DiagnosticArray, "/diagnostics")
        self.odom = g.probe.create_publisher(OdometryMessage, "/robot_1/odom", 10)
        self.object = g.probe.create_publisher(PointCloud2, "/object", 10)
        self.goal = g.probe.create_publisher(PointCloud2, "/goal", LATCHED)
        assert self.node.trigger_configure() == self.node.trigger_activate()
        topics = [self.odom, self.object, self.goal]
        wait_until(lambda: all(p.get_subscription_count() for p in topics))
        wait_until(lambda: self.node._cmd_vel.get_subscription_count())
        self.time = 100.0
        self.body = CENTRE + np.random.default_rng(0).uniform(-0.1, 0.1, (64, 2))
        self.goal.publish(cloud_message(self.time, self.body + 0.1))
        wait_until(lambda: self.node._goal is not None)

    def see(self, odometry: bool = True, age: float = 0.0, body: Any = None) -> None:
        """One decision later, with odometry `age` [s] older than the picture."""
        self.time += PERIOD
        if odometry:
            own = Odometry(self.time - age, np.array([0.3, 0.3]), 0.2, np.zeros(2), 0.0)
            self.odom.publish(odometry_message("robot_1", own))
        self.object.publish(cloud_message(self.time, self.body if body is None else body))

    def drive(self) -> Twist:
        """Let it decide once, and return its Twist."""
        before = len(self.twists)
        self.see()
        wait_until(lambda: len(self.twists) > before)
        return self.twists[-1]

    def errors(self) -> list[str]:
        return [s.message for m in self.diagnostics for s in m.status if s.level == DiagnosticStatus.ERROR]


def stands(twist: Twist) -> bool:
    return bool(twist.linear.x == 0.0 and twist.angular.z == 0.0)


def _late_odometry(s: Scene) -> None:
    s.see(age=1.0)


def _late_object(s: Scene) -> None:
    s.see(age=-1.0)


def _other_frame(s: Scene) -> None:
    s.time += PERIOD
    message = odometry_message("robot_1", Odometry(s.time, np.array([0.3, 0.3]), 0.2, np.zeros(2), 0.0))
    message.header.frame_id = "odom"
    s.odom.publish(message)
    s.object.publish(cloud_message(s.time, s.body))


def _no_orientation(s: Scene) -> None:
    message = odometry_message("robot_1", Odometry(s.time + PERIOD, np.array([0.3, 0.3]), 0.2, np.zeros(2), 0.0))
    message.pose.pose.orientation = Quaternion(w=0.0)
    s.odom.publish(message)


def _no_odometry(s: Scene) -> None:
    for _ in range(6):
        s.see(odometry=False)


def _nan_object(s: Scene) -> None:
    s.see(body=np.full((64, 2), np.nan))


def _other_goal(s: Scene) -> None:
    s.see(body=s.body[:40])


def _no_object(s: Scene) -> None:
    s.time += 0.5
    s.odom.publish(odometry_message("robot_1", Odometry(s.time, np.array([0.3, 0.3]), 0.2, np.zeros(2), 0.0)))


def _nothing(s: Scene) -> None:
    s.node._silence = 0.3


@pytest.mark.parametrize(
    ("doubt", "message"),
    [
        (_late_odometry, "odometry is 1.00 s old"),
        (_late_object, "the object was last seen 1.00 s ago"),
        (_other_frame, "in one frame, they are in odom, world"),
        (_no_orientation, "orientation (0, 0, 0, 0) is no unit quaternion"),
        (_no_odometry, "s old (limit 0.2 s)"),
        (_no_object, "the object was last seen 0.50 s ago"),
        (_nan_object, "object: contains NaN"),
        (_other_goal, "40 and 64 points"),
        (_nothing, "nothing comes on odom or /object"),
    ],
    ids=[
        "late odometry",
        "late object",
        "another frame",
        "no orientation",
        "no odometry",
        "no object",
        "NaN in the object",
        "another goal",
        "nothing comes",
    ],
)
def test_a_robot_in_doubt_stands_still_says_why_and_goes_on_when_it_is_over(
    graph: Callable[..., Graph], ahead: Path, doubt: Callable[[Scene], None], message: str
) -> None:
    s = Scene(graph(policy=ahead, robots=2, max_silence=300.0))
    wait_until(lambda: not stands(s.drive()))
    doubt(s)
    wait_until(lambda: stands(s.twists[-1]))
    wait_until(lambda: any(message in text for text in s.errors()))
    s.node._silence = 300.0
    wait_until(lambda: not stands(s.drive()))  # a Twist of the doubt may still be on its way
    wait_until(lambda: s.node._told == "driving")


def test_a_camera_whose_clock_was_set_back_stops_the_robot_until_its_node_begins_anew(
    graph: Callable[..., Graph], ahead: Path
) -> None:
    s = Scene(graph(policy=ahead, robots=2, max_silence=300.0))
    wait_until(lambda: not stands(s.drive()))
    s.time -= 60.0
    s.see()
    wait_until(lambda: stands(s.twists[-1]))
    wait_until(lambda: any("stamps went back by 59.95 s" in text for text in s.errors()))
    assert s.node.trigger_deactivate() == s.node.trigger_activate()
    wait_until(lambda: not stands(s.drive()))


def test_a_node_that_is_shut_down_leaves_its_robot_standing(graph: Callable[..., Graph], ahead: Path) -> None:
    s = Scene(graph(policy=ahead, robots=2, max_silence=300.0))
    wait_until(lambda: not stands(s.drive()))
    s.node.trigger_shutdown()
    wait_until(lambda: stands(s.twists[-1]))
    assert s.node._told == "inactive"
    said = len(s.twists)
    for _ in range(5):
        s.see()
    time.sleep(0.2)
    assert len(s.twists) == said


def test_a_new_episode_waits_for_its_own_goal(graph: Callable[..., Graph], ahead: Path) -> None:
    s = Scene(graph(policy=ahead, robots=2, max_silence=300.0))
    s.drive()
    decided, s.time = s.node.decisions, s.time + 2.0
    s.see()
    wait_until(lambda: s.node._begun > 101.0)
    time.sleep(0.2)
    assert s.node.decisions == decided  # the goal is still that of the scene before
    s.goal.publish(cloud_message(s.time, s.body))
    wait_until(lambda: s.node.decisions == decided + 1)


def test_a_camera_that_failed_for_a_while_is_no_new_episode(graph: Callable[..., Graph], ahead: Path) -> None:
    s = Scene(graph(policy=ahead, robots=2, max_silence=300.0, episode_gap=0.0))
    s.drive()
    s.time += 2.0
    s.odom.publish(odometry_message("robot_1", Odometry(s.time, np.array([0.3, 0.3]), 0.2, np.zeros(2), 0.0)))
    wait_until(lambda: stands(s.twists[-1]))
    wait_until(lambda: any("the object was last seen 2.00 s ago" in text for text in s.errors()))
    wait_until(lambda: not stands(s.drive()))  # with the goal that it had


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": (np.nan, 0.0)}, "answered with NaN"),
        ({"robots": "six"}, "robots: expected"),
        ({"observation": []}, "observation: has 0 fields, expected 4"),
        ({"rate": 10.0}, "action.decision_rate: is 10 Hz, here it is 20 Hz"),
    ],
    ids=["NaN", "a broken contract", "other tokens", "another rate"],
)
def test_a_policy_that_cannot_be_run_is_refused_before_anything_moves(
    graph: Callable[..., Graph], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    g = graph(policy=write_policy(tmp_path / "bad", **changes), robots=2)
    node = g.add(PushPolicyNode("/robot_1"))
    node.trigger_configure()
    assert node._state_machine.current_state[1] == "unconfigured"
    assert node._told.startswith("refused: robot_1:") and message in node._told


# --- the whole graph --------------------------------------------------------------------------------------------------


def test_episodes_run_from_unconfigured_nodes_to_a_summary(
    graph: Callable[..., Graph], ahead: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    g = graph(policy=ahead, robots=2, episodes=2, decisions=12, pace=0.0, record=record, film=False,
              answer_timeout=300.0, max_silence=300.0, patience=300.0, episode_time=600.0)  # fmt: skip
    world = g.add(PushWorldNode())
    robots = [g.add(PushPolicyNode(f"/robot_{k}", k)) for k in (1, 2)]
    twists, odometry = g.listen(Twist, "/robot_2/cmd_vel"), g.listen(OdometryMessage, "/robot_2/odom")
    operator = g.add(PushOperatorNode())
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == 0, operator._states
    assert [o["scene"] for o in operator.outcomes] == ["wide-1000000", "wide-1000001"]
    assert all(o["seconds"] == 0.6 and o["late_commands"] == 0 for o in operator.outcomes)
    assert [node.decisions for node in robots] == [24, 24]  # every picture was answered, once
    assert len(twists) >= 24 and len(odometry) >= 24
    assert {node._state_machine.current_state[1] for node in [world, *robots]} == {"inactive"}
    track = np.load(record / "episode_0002.npz")
    distance = np.linalg.norm(track["robots"][..., :2] - track["particles"].mean(1)[:, None], axis=-1)
    assert (distance[-1] < distance[0]).all()  # this policy drives to the object
    summary = json.loads((record / "summary.json").read_text())
    assert summary["episodes"] == 2
    assert 0.0 <= summary["ci95"][0] <= summary["success_rate"] <= summary["ci95"][1] <= 1.0


def test_the_world_does_not_wait_for_a_robot_that_fell_silent(graph: Callable[..., Graph], ahead: Path) -> None:
    g = graph(policy=ahead, robots=2, episodes=1, decisions=10, pace=0.0, answer_timeout=0.3, patience=300.0,
              episode_time=600.0, max_silence=300.0)  # fmt: skip
    g.add(PushWorldNode())
    robots = [g.add(PushPolicyNode(f"/robot_{k}", k)) for k in (1, 2)]
    robots[1]._consider = lambda: None
    operator = g.add(PushOperatorNode())
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == 0
    assert operator.outcomes[0]["late_commands"] >= 1
    assert robots[0].decisions > 5


def test_the_demo_is_the_graph_and_leaves_numbers_a_picture_and_a_film(
    domain: int, ahead: Path, tmp_path: Path
) -> None:
    # In a domain of their own: nodes that this process has ended may still be announced in the other one.
    command = [sys.executable, "-m", "horseshoe", "demo", "--push", "--episodes", "1", "--policy", str(ahead)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "demo")], text=True, capture_output=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(domain + 100)},
    )  # fmt: skip
    logs = "\n".join(f.read_text() for f in (tmp_path / "demo/graph_log").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "episode 1/1: " in done.stdout and "unseen-1000000" in done.stdout
    assert "real-time factor" in done.stdout
    assert done.stderr == ""
    assert "terminate called" not in logs
    summary = json.loads((tmp_path / "demo/graph/summary.json").read_text())
    assert (summary["robots"], summary["shove"], summary["episodes"]) == (6, True, 1)
    assert (tmp_path / "demo/demo.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "demo/graph/film.mp4").stat().st_size > 10_000
