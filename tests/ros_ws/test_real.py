"""The nodes of robot:=real over the unmodified SDK: control boxes are emulated, a test is camera and operator."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("xarm")

from geometry_msgs.msg import PoseArray  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from horseshoe.hardware.arm_driver import ArmDriver, Phase  # noqa: E402
from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm, cannot_bind  # noqa: E402
from horseshoe.hardware.homing import HOME  # noqa: E402
from horseshoe.ros_ws.arm_node import ArmNode  # noqa: E402
from horseshoe.ros_ws.base_node import ARMS, EVENT, LATCHED, pose_array  # noqa: E402
from horseshoe.ros_ws.guard_node import GuardNode  # noqa: E402
from horseshoe.ros_ws.operator_node import OperatorNode  # noqa: E402
from horseshoe.ros_ws.policy_node import PolicyNode  # noqa: E402
from tests.conftest import NoteFault  # noqa: E402
from tests.ros_ws.harness import PATIENT, Nodes, held_after, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(bool(cannot_bind("127.1.0.1")), reason="no controller can be emulated here")

BLOCKS = np.array([[0.0, 0.0, 0.02], [-0.2, 0.2, 0.02], [0.2, -0.2, 0.02]])  # [m]
OTHER = {"left": "right", "right": "left"}


class RealCell(Nodes):
    """All nodes of robot:=real, and what stands for the hardware."""

    def __init__(self, domain: int, policy: Path, episodes: int) -> None:
        hosts = {"left": f"127.1.{domain}.1", "right": f"127.1.{domain}.2"}
        start = np.array(HOME) + [0.2, 0.0, 0.0, 0.0, 0.0, 0.3]
        self.servers = {
            arm: ControllerServer(Controller(KinematicArm(start)), host).start() for arm, host in hosts.items()
        }
        super().__init__(domain, {"policy": policy, **PATIENT, "simulated": False, "episodes": episodes})
        self.arms = {
            arm: self.add(ArmNode(lambda s, ip=host: ArmDriver(replace(s, ip=ip)), f"/{arm}"))
            for arm, host in hosts.items()
        }
        self.guard, self.policy = self.add(GuardNode()), self.add(PolicyNode())
        self.told: list[str] = []
        self.probe.create_subscription(String, "/operator/progress", lambda m: self.told.append(m.data), LATCHED)
        self._camera = self.probe.create_publisher(PoseArray, "/block_poses", EVENT)
        self.probe.create_timer(1 / 30, self._see)
        self.operator = self.add(OperatorNode())

    def _see(self) -> None:
        self._camera.publish(pose_array(time.time(), BLOCKS, np.tile([1.0, 0.0, 0.0, 0.0], (3, 1))))

    def call(self, service: str) -> Trigger.Response:
        """What a person would do with `ros2 service call`."""
        client = self.probe.create_client(Trigger, service)
        wait_until(client.service_is_ready)
        time.sleep(0.3)  # an answer to somebody whom the node does not know yet is lost
        future = client.call_async(Trigger.Request())
        wait_until(future.done)
        return future.result()

    def joints(self) -> np.ndarray:
        return np.array([self.servers[arm].controller.set_point.q for arm in ARMS])

    def phases(self) -> list[Phase]:
        return [self.arms[arm].driver.snapshot().phase for arm in ARMS]

    def waits(self, what: str, times: int = 1) -> bool:
        """Whether the operator node waits, for the so-manieth time for this."""
        told = list(self.told)  # another thread adds to it; what the node said comes a little later
        return self.operator._waiting and sum(what in line for line in told) == times and what in told[-1]

    def close(self) -> None:
        super().close()
        for server in self.servers.values():
            server.stop()


@pytest.fixture
def cell(domain: int, make_policy: Any) -> Iterator[RealCell]:
    """Three episodes at most, of a policy that moves for ever."""
    made = RealCell(domain, make_policy(restless=True, horizon=120.0), episodes=3)
    yield made
    made.close()


def test_a_stop_is_heard_while_an_arm_moves_home(cell: RealCell) -> None:
    wait_until(partial(cell.waits, "the arms go home"))
    cell.arms["left"].home_speed = 0.02  # ten seconds
    assert cell.call("/left/arm/home").success
    wait_until(lambda: cell.servers["left"].controller.set_point.moving)
    assert not cell.call("/left/arm/clear").success, "it is busy"
    assert cell.call("/left/arm/stop").success
    wait_until(lambda: cell.phases()[0] is Phase.STOPPED)
    held = cell.joints()
    time.sleep(0.3)
    np.testing.assert_array_equal(cell.joints(), held)
    assert np.abs(held[0] - HOME).max() > 0.05
    assert "stopped by the operator" in cell.arms["left"].driver.snapshot().fault


def test_a_silent_guard_stops_an_arm_that_moves_home(cell: RealCell) -> None:
    wait_until(partial(cell.waits, "the arms go home"))
    cell.arms["left"].home_speed, cell.arms["left"].guard_timeout = 0.02, 1.0
    wait_until(lambda: cell.call("/left/arm/home").success)
    wait_until(lambda: cell.servers["left"].controller.set_point.moving)
    cell.executor.remove_node(cell.guard)
    wait_until(lambda: cell.phases()[0] is Phase.STOPPED)
    assert "the guard has been silent" in cell.arms["left"].driver.snapshot().fault


def test_a_policy_that_is_shut_down_commands_no_more(cell: RealCell) -> None:
    wait_until(partial(cell.waits, "the arms go home"))
    assert cell.call("/operator/start").success
    wait_until(partial(cell.waits, "lay out the blocks"))
    assert cell.call("/operator/start").success
    wait_until(lambda: cell.policy._decisions > 2)
    cell.policy.trigger_shutdown()
    decided = cell.policy._decisions
    time.sleep(0.6)
    assert cell.policy._decisions == decided
    assert not cell.policy._active


def _collide(server: ControllerServer) -> None:
    server.run(lambda controller: controller.inject(31))


@pytest.mark.parametrize(
    ("name", "arm", "fault", "message"),
    [
        ("controller error C31", "left", _collide, "C31: abnormal motor current"),
        ("controller error C31", "right", _collide, "C31: abnormal motor current"),
        ("controller switched off", "left", ControllerServer.drop_clients, "connect"),
    ],
)
def test_arms_move_when_the_operator_says_so_and_a_fault_ends_the_episode_not_the_nodes(
    cell: RealCell, note_fault: NoteFault, name: str, arm: str, fault: Callable[[ControllerServer], None], message: str
) -> None:
    home, lay_out = partial(cell.waits, "the arms go home"), partial(cell.waits, "lay out the blocks")
    wait_until(home)
    before = cell.joints()
    time.sleep(0.3)
    np.testing.assert_array_equal(cell.joints(), before)
    assert not cell.call("/operator/end").success

    assert cell.call("/operator/start").success
    wait_until(lay_out)
    np.testing.assert_allclose(cell.joints(), np.tile(HOME, (2, 1)), atol=0.02)
    assert cell.phases() == [Phase.IDLE, Phase.IDLE]  # no command is taken while hands are in the cell
    assert cell.call("/operator/start").success
    wait_until(lambda: cell.policy._decisions > 2)
    assert not cell.call("/operator/start").success

    began = time.monotonic()
    fault(cell.servers[arm])
    if fault is ControllerServer.drop_clients:  # counts from when it is noticed: the SDK waits for an answer first
        wait_until(lambda: cell.arms[arm].driver.snapshot().fault, every=0.001)
        began = time.monotonic()
    wait_until(lambda: cell.phases() == [Phase.STOPPED, Phase.STOPPED])
    faults = {each: cell.arms[each].driver.snapshot().fault for each in ARMS}
    note_fault(name, f"{arm} arm, all nodes", faults[OTHER[arm]], held_after(cell.arms.values(), began))
    assert message in faults[arm] and f"{arm} arm: " in faults[OTHER[arm]]
    wait_until(lambda: home(2) and not any(server.controller.set_point.moving for server in cell.servers.values()))
    held = cell.joints()
    assert cell.call("/operator/start").success  # in vain: nobody cleared the arms
    wait_until(lambda: home(3))
    np.testing.assert_array_equal(cell.joints(), held)

    for each in ARMS:
        answer = cell.call(f"/{each}/arm/clear")
        assert answer.success, answer.message
    wait_until(lambda: [cell.operator._states[each] for each in ARMS] == ["idle", "idle"])
    assert cell.call("/operator/start").success
    wait_until(lambda: lay_out(2))
    decided = cell.policy._decisions
    assert cell.call("/operator/start").success
    wait_until(lambda: cell.policy._decisions > decided + 2)
    assert cell.call("/operator/end").success
    wait_until(lambda: cell.operator.exit_code is not None)
    assert cell.operator.exit_code == 0
    assert [outcome["name"] for outcome in cell.operator.outcomes] == ["fault", "ended by the operator"]
