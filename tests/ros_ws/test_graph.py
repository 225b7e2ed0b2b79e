"""The whole graph with real rclpy, in one process: the simulated world hosts the arms, all other nodes beside it.

What concerns processes (signals, kills, exit codes) and the SDK is in test_up.py.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseArray  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from horseshoe.hardware.arm_driver import Phase  # noqa: E402
from horseshoe.hardware.homing import HOME as HOMING  # noqa: E402
from horseshoe.ros_ws.bag import read  # noqa: E402
from horseshoe.ros_ws.base_node import ARMS, EVENT, LATCHED, joint_state  # noqa: E402
from horseshoe.ros_ws.guard_node import GuardNode  # noqa: E402
from horseshoe.ros_ws.operator_node import FAULT, REFUSED, OperatorNode  # noqa: E402
from horseshoe.ros_ws.policy_node import PolicyNode  # noqa: E402
from horseshoe.ros_ws.recorder_node import RecorderNode  # noqa: E402
from horseshoe.ros_ws.world_node import WorldNode  # noqa: E402
from tests.conftest import NoteFault  # noqa: E402
from tests.ros_ws.harness import PATIENT, Nodes, held_after, wait_until  # noqa: E402

HOME = np.array(HOMING)


class Graph(Nodes):
    """All nodes of robot:=sim."""

    def __init__(self, domain: int, policy: Path, **parameters: Any) -> None:
        super().__init__(domain, {"policy": policy, **PATIENT, **parameters})
        self.world = WorldNode()
        self.left, self.right = self.world.hosted
        self.guard, self.policy = GuardNode(), PolicyNode()
        self.began = 0.0  # when the fault of a test did [s]
        self.said: list[tuple[float, str]] = []  # what came on /stop, and when
        self.probe.create_subscription(String, "/stop", lambda m: self.said.append((time.monotonic(), m.data)), 10)
        for node in (self.world, self.left, self.right, self.guard, self.policy):
            self.add(node)

    def operate(self) -> OperatorNode:
        """Start the operator node, which brings everything up and runs the episodes."""
        operator: OperatorNode = self.add(OperatorNode())
        return operator

    def moving(self) -> bool:
        return bool(self.policy._decisions > 2)

    def held(self) -> bool:
        """Whether both arms are stopped and stand still."""
        arms = [node.driver.snapshot() for node in (self.left, self.right)]
        return all(arm.phase is Phase.STOPPED and np.abs(arm.velocities).max() < 0.005 for arm in arms)

    def held_after(self, when: float) -> float:
        """Time from a moment until both arms were told nothing new any more [s]."""
        return held_after((self.left, self.right), when)


@pytest.fixture
def graph(domain: int) -> Iterator[Callable[..., Graph]]:
    """Make a graph; it is closed after the test."""
    made: list[Graph] = []

    def make(policy: Path, **parameters: Any) -> Graph:
        made.append(Graph(domain, policy, **parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _make_stale(g: Graph) -> None:
    """The camera goes on to publish what it saw long ago."""
    _, *seen = g.world.cell.look()
    g.world.cell.look = lambda: (time.monotonic() - 1000.0, *seen)  # type: ignore[method-assign, assignment, return-value]


def _freeze(g: Graph) -> None:
    """The camera goes on to publish one picture as new."""
    _, *seen = g.world.cell.look()
    g.policy._max_frozen = 0.5
    g.world.cell.look = lambda: (time.monotonic(), *seen)  # type: ignore[method-assign, assignment, return-value]


def state_of(node: Any) -> str:
    return str(node._state_machine.current_state[1])


def test_episodes_run_from_unconfigured_nodes_to_their_outcomes(graph: Callable[..., Graph], make_policy: Any) -> None:
    g = graph(make_policy(rest=0.5, horizon=4.0), episodes=2)
    told: list[str] = []
    g.probe.create_subscription(String, "/left/state", lambda m: told.append(m.data), LATCHED)
    assert {state_of(n) for n in (g.left, g.right, g.policy)} == {"unconfigured"}
    counts = dict.fromkeys(("/left/joint_states", "/right/joint_states", "/block_poses", "/left/command"), 0)

    def count(topic: str) -> Callable[[Any], None]:
        return lambda _: counts.__setitem__(topic, counts[topic] + 1)

    kinds = (JointState, JointState, PoseArray, JointTrajectory)
    for topic, kind in zip(counts, kinds, strict=True):
        g.probe.create_subscription(kind, topic, count(topic), 100)
    operator = g.operate()
    wait_until(g.moving)
    assert {state_of(n) for n in (g.left, g.right, g.policy)} == {"active"}
    for topic in counts:
        counts[topic] = 0
    begin, before = time.monotonic(), g.left.driver.log.measurements
    wait_until(lambda: operator.exit_code is not None or bool(operator.outcomes))
    elapsed, came, measured = time.monotonic() - begin, dict(counts), g.left.driver.log.measurements - before
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == 0, operator._states
    assert [o["name"] for o in operator.outcomes] == ["no_grasp"] * 2  # this policy only turns joint 1
    # The guard watches arms that say that they move: nothing else is said on the way.
    ways = [(told[i], told[i + 1]) for i in range(len(told) - 1) if told[i] in ("pulling back", "moving home")]
    assert ways == [("pulling back", "pulled back"), ("moving home", "at home")] * 2
    assert abs(g.left.driver._arm.measured().joints[0]) > 0.05
    wait_until(g.held)
    # This machine may be busy, but everything comes, and nothing faster than it should.
    for topic, rate in zip(came, (100.0, 100.0, 30.0, 5.0), strict=True):
        assert 0 < came[topic] / elapsed < 1.3 * rate, topic
    assert came["/left/joint_states"] > 0.5 * measured  # half of those that this machine had the time to take


def _command(arm: str) -> Callable[[Graph], Any]:
    """A forgotten program sends commands too."""
    return lambda g: g.probe.create_publisher(JointTrajectory, f"/{arm}/command", 10)


def _second_policy(g: Graph) -> Any:
    second = g.add(PolicyNode())
    create = second.create_publisher

    def create_publisher(*args: Any, **kwargs: Any) -> Any:
        g.began = time.monotonic()  # once it can send commands, not while it loads its policy
        return create(*args, **kwargs)

    second.create_publisher = create_publisher
    second.trigger_configure()
    return second


def _stop_driver(arm: str) -> Callable[[Graph], Any]:
    return lambda g: getattr(g, arm).driver.stop("e-stop pressed")


def _call_stop(g: Graph) -> Any:
    g.probe.create_publisher(String, "/stop", 10).publish(String(data="somebody calls stop"))


def _answer_nan(g: Graph) -> Any:
    def act(_: np.ndarray) -> np.ndarray:
        g.began = time.monotonic()  # of the decision, not of this test's change to the policy
        return np.full((1, 2, 7), np.nan)

    g.policy.decider.policy.act = act


@pytest.mark.parametrize(
    ("name", "where", "fault", "message"),
    [
        ("another node commands an arm", "left arm", _command("left"), "nodes send commands"),
        ("another node commands an arm", "right arm", _command("right"), "nodes send commands"),
        ("two policy nodes", "graph", _second_policy, "nodes send commands"),
        ("a driver stops", "left arm", _stop_driver("left"), "e-stop pressed"),
        ("a driver stops", "right arm", _stop_driver("right"), "e-stop pressed"),
        ("a call on /stop", "graph", _call_stop, "somebody"),
        ("the policy answers NaN", "policy", _answer_nan, "NaN"),
    ],
)
def test_any_fault_stops_both_arms(
    graph: Callable[..., Graph],
    make_policy: Any,
    note_fault: NoteFault,
    name: str,
    where: str,
    fault: Callable[[Graph], Any],
    message: str,
) -> None:
    g = graph(make_policy(rest=2.0, horizon=60.0))
    operator = g.operate()
    wait_until(g.moving)
    g.began = time.monotonic()
    kept = fault(g)  # noqa: F841  keeps a publisher alive
    wait_until(g.held)
    faults = [node.driver.snapshot().fault for node in (g.left, g.right)]
    note_fault(name, where, next((f for f in faults if message in f), ""), g.held_after(g.began))
    assert any(message in each for each in faults)
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == FAULT
    wait_until(lambda: {state_of(n) for n in (g.left, g.right, g.policy)} == {"inactive"})
    where_held = [node.driver.snapshot().joints for node in (g.left, g.right)]
    time.sleep(0.5)  # in which nothing may happen
    np.testing.assert_allclose([n.driver.snapshot().joints for n in (g.left, g.right)], where_held, atol=0.01)


def _fill_disk(g: Graph) -> None:
    """The disk has less space left than is asked for."""
    g.recorder._min_free = 1e9


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("block poses are old", _make_stale, "old"),
        ("the camera is frozen", _freeze, "camera is frozen"),
        ("the disk is full", _fill_disk, "MB left on the disk"),
    ],
)
def test_what_cannot_be_trusted_stops_the_arms_and_the_record_is_whole(
    graph: Callable[..., Graph],
    make_policy: Any,
    note_fault: NoteFault,
    tmp_path: Path,
    name: str,
    change: Callable[[Graph], Any],
    message: str,
) -> None:
    g = graph(make_policy(rest=2.0, horizon=60.0), folder=tmp_path / "bag")
    g.recorder = g.add(RecorderNode())
    g.operate()
    wait_until(lambda: g.policy._decisions > 5)
    change(g)
    wait_until(lambda: g.held() and any(message in text for _, text in g.said))
    since, said = next((when, text) for when, text in g.said if message in text)
    note_fault(name, "graph", said, g.held_after(since))
    closed = g.executor.create_task(g.recorder.close)  # in the thread that also writes
    wait_until(closed.done)
    run = read(tmp_path / "bag")
    assert min(len(run.commands[arm]) for arm in ("left", "right")) > 2
    assert "blueprint: u_shape" in run.contract


def test_who_joins_what_is_decided_from_pictures_of_the_blocks_as_they_are_laid_out(
    graph: Callable[..., Graph], make_policy: Any
) -> None:
    g = graph(make_policy(rest=0.5, horizon=60.0))
    operator = g.operate()
    cell, look, lay_out = g.world.cell, g.world.cell.look, g.world.cell.next_episode

    def lay_out_behind_a_slow_camera() -> int:
        before, begin = look(), time.monotonic()
        cell.look = lambda: before if time.monotonic() < begin + 1.0 else look()  # type: ignore[method-assign]
        return lay_out()

    cell.next_episode = lay_out_behind_a_slow_camera  # type: ignore[method-assign]
    wait_until(lambda: g.policy.decider is not None)
    seen, start = [], g.policy.decider.start
    g.policy.decider.start = lambda what: (seen.append(what.position), start(what))  # type: ignore[method-assign]
    wait_until(g.moving)
    assert operator.exit_code is None
    assert np.abs(seen[0] - cell.truth()[0]).max() > 0.05  # at activation: the empty table
    np.testing.assert_allclose(seen[-1], cell.truth()[0], atol=0.02)


def test_a_policy_that_answers_nan_is_refused_before_anything_moves(
    graph: Callable[..., Graph], make_policy: Any, note_fault: NoteFault
) -> None:
    g = graph(make_policy(nan=True))
    operator = g.operate()
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == REFUSED
    assert "answered with NaN" in operator._states["policy"]
    note_fault("a policy that answers NaN from the start", "policy", operator._states["policy"], 0.0)
    assert g.policy._decisions == 0


def test_a_contract_that_does_not_match_is_refused_and_nothing_connects(
    graph: Callable[..., Graph], make_policy: Any, note_fault: NoteFault
) -> None:
    g = graph(make_policy(robots=3))
    operator = g.operate()
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == REFUSED
    assert "robots: is 3, this cell has 2 arms" in operator._states["policy"]
    note_fault("a contract that does not match", "policy", operator._states["policy"], 0.0)
    assert g.left.driver.snapshot().phase is Phase.DISCONNECTED


def test_a_silent_guard_stops_the_arms(graph: Callable[..., Graph], make_policy: Any, note_fault: NoteFault) -> None:
    g = graph(make_policy(rest=2.0, horizon=60.0))
    g.operate()
    wait_until(g.moving)
    g.executor.remove_node(g.guard)
    g.left.guard_timeout = g.right.guard_timeout = 1.0
    noticed = (Phase.STOPPING, Phase.STOPPED)
    wait_until(lambda: any(node.driver.snapshot().phase in noticed for node in (g.left, g.right)))
    since = time.monotonic()
    wait_until(g.held)
    fault = g.left.driver.snapshot().fault
    assert "the guard has been silent" in fault
    note_fault("the guard is silent", "guard", fault, g.held_after(since))


REACHING = np.array([0.0, 0.0, -1.4, 0.0, 1.4, 0.0])  # either hand half-way to the other arm: both meet


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ((REACHING, 0.0, REACHING), (REACHING, 0.0, REACHING), "of each other"),
        ((HOME + [0, 0.9, 0, 0, 0, 0], 0.0, HOME + [0, 0.9, 0, 0, 0, 0]), (HOME, 0.0, HOME), "of the table"),
        ((HOME, 0.0, HOME), (HOME, 0.0, HOME + 0.5), "away from its target"),
        ((HOME, 900.0, HOME), (HOME, 900.0, HOME), "old"),
        ((HOME, 100.0, HOME), (HOME, 0.0, HOME), "apart"),
        ((HOME[:5], 0.0, HOME), (HOME, 0.0, HOME), "left arm: joint states with 6 positions"),
    ],
)
def test_the_guard_node_stops_what_it_must_not_see(domain: int, left: Any, right: Any, message: str) -> None:
    nodes = Nodes(domain, {"staleness": 600.0, "skew": 60.0, "tracking_error": 0.25})
    try:
        guard, said = nodes.add(GuardNode()), []
        nodes.probe.create_subscription(String, "/stop", lambda m: said.append(m.data), 10)
        topics = {
            (arm, name): nodes.probe.create_publisher(JointState, f"/{arm}/{name}", EVENT)
            for arm in ARMS
            for name in ("joint_states", "sent_joint_states")
        }
        states = [nodes.probe.create_publisher(String, f"/{arm}/state", LATCHED) for arm in ARMS]

        def see(*arms: tuple[np.ndarray, float, np.ndarray]) -> None:
            """Publish measured joints [rad], their age [s] and sent joints [rad] of both arms."""
            for arm, (joints, age, sent) in zip(ARMS, arms, strict=True):
                for name, values, old in (("joint_states", joints, age), ("sent_joint_states", sent, 0.0)):
                    topics[arm, name].publish(joint_state(arm, time.time() - old, values, np.zeros(6), 0.08))

        fine = HOME, 0.0, HOME
        wait_until(lambda: see(fine, fine) or guard._listen() or set(guard._measured) & set(guard._sent) == set(ARMS))
        for state in states:
            state.publish(String(data="streaming"))
        wait_until(lambda: set(guard._state) == set(ARMS))
        assert said == [] and guard.fault == ""
        wait_until(lambda: see(left, right) or said)
        assert message in said[0]
    finally:
        nodes.close()


def test_an_arm_does_not_start_without_a_guard(graph: Callable[..., Graph], policy: Path) -> None:
    g = graph(policy)
    wait_until(lambda: min(arm._guard_seen for arm in (g.left, g.right)) > 0)
    g.executor.remove_node(g.guard)
    g.left.guard_timeout = g.right.guard_timeout = 0.5
    wait_until(lambda: time.monotonic() - max(arm._guard_seen for arm in (g.left, g.right)) > 1.0)
    assert g.left.trigger_configure() is TransitionCallbackReturn.SUCCESS
    answer = g.left._serve(g.left._home, Trigger.Response())
    assert not answer.success and "no guard is running" in answer.message
    assert g.left.trigger_activate() is TransitionCallbackReturn.FAILURE
    assert "no guard is running" in g.left._phase_told


def test_a_delay_out_of_the_contract_is_refused_by_name(graph: Callable[..., Graph], policy: Path) -> None:
    g = graph(policy, needs_delay=True)
    g.policy._delays.update(left=0.5, right=0.05)
    operator = g.operate()
    wait_until(lambda: operator.exit_code is not None)
    assert operator.exit_code == REFUSED
    assert (
        "left arm: 500 ms from a servo target to its motion; the contract's delay says 10 to 280 ms"
        in operator._states["policy"]
    )
    assert g.policy._decisions == 0


def test_an_arm_that_cannot_move_refuses_to_go_home(graph: Callable[..., Graph], policy: Path) -> None:
    g = graph(policy)
    told: list[str] = []
    g.probe.create_subscription(String, "/left/state", lambda m: told.append(m.data), LATCHED)
    answer = g.left._serve(g.left._home, Trigger.Response())
    assert not answer.success
    assert "left arm: not moving home while disconnected" in answer.message
    wait_until(lambda: told)
    assert "moving home" not in told
