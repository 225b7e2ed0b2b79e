"""What the policy node decides, without ROS."""

from pathlib import Path

import numpy as np
import pytest

from horseshoe import action_path
from horseshoe.errors import HorseshoeError
from horseshoe.hardware import capsules, xarm6
from horseshoe.ros_ws.decision import Decider, Seen
from horseshoe.sim.assembly import scene


@pytest.fixture
def seen() -> Seen:
    q = np.array([[0.1, -0.35, -0.9, 0.0, 1.25, 0.0], [-0.2, -0.3, -0.9, 0.1, 1.25, 0.3]])
    position = np.array([[0.0, 0.05, 0.02], [-0.1, -0.15, 0.02], [0.12, -0.1, 0.02]])
    return Seen(q, np.array([0.05, 0.06]), position, np.tile([1.0, 0.0, 0.0, 0.0], (3, 1)))


def test_it_decides_what_the_training_environment_would(policy: Path, seen: Seen) -> None:
    """The same observer, network and action path as in the simulator, for two decisions in a row."""
    from horseshoe.action_path import ActionPath
    from horseshoe.policies.runtime import OnnxPolicy
    from horseshoe.sim.assembly import blueprint, cell
    from horseshoe.sim.assembly.magnets import matrices
    from horseshoe.sim.assembly.scene import Scene, SceneObserver

    decider, onnx = Decider(str(policy), "u_shape", 100.0), OnnxPolicy(policy)
    decider.start(seen)
    observer = SceneObserver(cell.load(), blueprint.load("u_shape"))
    path = ActionPath(onnx.contract.action, 1, 2, xarm6.tool_pose_and_jacobian)
    path.reset(seen.q[None], seen.opening[None])
    assignment = None
    for _ in range(2):
        parts = (seen.q[None], seen.opening[None], seen.position[None], seen.quaternion[None])
        now = Scene(*parts[:3], matrices(parts[3]), path.target)
        assignment = assignment or observer.assign(now)
        action = onnx.act(observer.observe(now, assignment).astype(np.float32))
        expected = path.decision(observer.unmirror(action.astype(np.float64), assignment), seen.q[None])[0]
        ticks = decider.decide(seen)
        np.testing.assert_allclose(ticks, expected, atol=1e-12)
        seen = Seen(ticks[-1, :, :6], ticks[-1, :, 6], seen.position, seen.quaternion)
    assert np.abs(ticks[..., 0] - [0.1, -0.2]).max() > 0.05  # it moved


def test_nothing_is_compiled_any_more_once_it_is_made(policy: Path, seen: Seen) -> None:
    compiled = (
        xarm6._place_links, xarm6._jacobians, capsules._measure, action_path._lowest, action_path._advance,
        scene._goal_errors,
    )  # fmt: skip
    decider = Decider(str(policy), "u_shape", 100.0)
    before = [len(function.signatures) for function in compiled]
    joints = np.concatenate([seen.q, seen.opening[:, None]], axis=1)  # as the policy node hands them over
    decider.start(Seen(joints[:, :6], joints[:, 6], seen.position, seen.quaternion))
    for _ in range(2):
        decider.decide(Seen(joints[:, :6], joints[:, 6], seen.position, seen.quaternion))
    assert [len(function.signatures) for function in compiled] == before


def test_commands_begin_at_the_measured_joints(policy: Path, seen: Seen) -> None:
    decider = Decider(str(policy), "u_shape", 100.0)
    decider.start(seen)
    assert np.abs(decider.decide(seen)[0, :, :6] - seen.q).max() < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blueprint": "connect"}, "blueprint: is connect, this cell assembles u_shape"),
        ({"robots": 1}, "robots: is 1, this cell has 2 arms"),
        ({"version": 99}, "version: is 99"),
        ({"weights_sha256": "0"}, "weights_sha256"),
        ({"observation": [{"name": "joint_position", "size": 6, "unit": "deg"}]}, r"observation\[0\]"),
        ({"speed": 1}, "speed: unknown key"),
    ],
)
def test_a_contract_that_does_not_match_is_refused_by_field(make_policy, changes: dict, message: str) -> None:  # type: ignore[no-untyped-def, type-arg]
    with pytest.raises(HorseshoeError, match=message):
        Decider(str(make_policy(**changes)), "u_shape", 100.0)


def test_another_servo_rate_is_refused_by_field(policy: Path) -> None:
    with pytest.raises(HorseshoeError, match=r"action.tick_rate: is 100.0 Hz, the arms stream at 250"):
        Decider(str(policy), "u_shape", 250.0)


def test_nan_is_refused_wherever_it_comes_from(make_policy, policy: Path, seen: Seen) -> None:  # type: ignore[no-untyped-def]
    decider = Decider(str(make_policy(nan=True)), "u_shape", 100.0)
    decider.start(seen)
    with pytest.raises(HorseshoeError, match="answered with NaN"):
        decider.decide(seen)
    decider = Decider(str(policy), "u_shape", 100.0)
    decider.start(seen)
    with pytest.raises(HorseshoeError, match="position: contains NaN"):
        decider.decide(Seen(seen.q, seen.opening, seen.position * np.nan, seen.quaternion))


def test_the_delay_range_adds_servo_lag_to_transport(policy: Path) -> None:
    assert Decider(str(policy), "u_shape", 100.0).delay_range == pytest.approx((0.01, 0.28))
