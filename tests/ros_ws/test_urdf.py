"""The robot description."""

import xml.etree.ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from horseshoe.hardware import xarm6
from horseshoe.ros_ws.urdf import cell_urdf
from horseshoe.sim.assembly import cell as cells


def pose_of(robot: ET.Element, link: str, joints: dict[str, float]) -> np.ndarray:
    """World pose of a link, by the chain of joints that carries it."""
    carriers = {j.find("child").get("link"): j for j in robot.iter("joint")}  # type: ignore[union-attr]
    pose = np.eye(4)
    while link != "world":
        joint = carriers[link]
        origin = joint.find("origin")
        assert origin is not None
        step = np.eye(4)
        step[:3, 3] = np.array(origin.get("xyz", "").split(), dtype=float)
        step[:3, :3] = Rotation.from_euler("xyz", np.array(origin.get("rpy", "").split(), dtype=float)).as_matrix()
        if joint.get("type") == "revolute":
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_euler("z", joints[joint.get("name", "")]).as_matrix()
            step = step @ turn
        pose, link = step @ pose, joint.find("parent").get("link")  # type: ignore[union-attr, assignment]
    return pose


def test_its_kinematics_are_those_of_the_driver_and_the_simulator() -> None:
    cell = cells.load()
    robot = ET.fromstring(cell_urdf(cell))
    q = np.array([[0.3, -0.5, -0.8, 0.2, 1.1, -0.4], [-0.6, -0.2, -1.1, 0.5, 0.9, 1.0]])
    expected = cell.base_poses @ xarm6.forward_kinematics(q)
    for arm, joints, pose in zip(cell.arms, q, expected, strict=True):
        named = {f"{arm.name}_joint{i + 1}": value for i, value in enumerate(joints)}
        np.testing.assert_allclose(pose_of(robot, f"{arm.name}_tcp", named), pose, atol=1e-5)


def test_it_names_every_joint_that_the_arm_nodes_publish() -> None:
    robot = ET.fromstring(cell_urdf(cells.load()))
    published = [f"{arm}_joint{i}" for arm in ("left", "right") for i in range(1, 7)] + [
        "left_gripper",
        "right_gripper",
    ]
    assert set(published) <= {joint.get("name") for joint in robot.iter("joint")}
