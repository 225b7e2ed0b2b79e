"""The kinematics agree with two other engines, one of which reads the vendor's own model."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from horseshoe.hardware import xarm6

TOLERANCE = 1e-4  # [m]


def poses(n: int = 50) -> np.ndarray:
    return np.random.default_rng(0).uniform(xarm6.JOINT_LOWER, xarm6.JOINT_UPPER, (n, 6))


def test_forward_kinematics_agree_with_mujoco() -> None:
    mujoco = pytest.importorskip("mujoco")
    from horseshoe.sim.assembly import blueprint, cell, mjcf

    work = cell.load()
    model = mujoco.MjModel.from_xml_string(mjcf.cell_xml(work, blueprint.load("connect")))
    data = mujoco.MjData(model)
    for q in poses():
        for arm, base in zip(work.arms, work.base_poses, strict=True):
            for i in range(6):
                data.joint(f"{arm.name}_joint{i + 1}").qpos[:] = q[i]
            mujoco.mj_kinematics(model, data)
            expected = base @ xarm6.forward_kinematics(q)
            site = data.site(f"{arm.name}_tool")
            assert np.linalg.norm(site.xpos - expected[:3, 3]) < TOLERANCE
            assert np.abs(site.xmat.reshape(3, 3) - expected[:3, :3]).max() < 1e-6


def test_every_link_agrees_with_the_vendors_model_in_pybullet() -> None:
    pybullet = pytest.importorskip("pybullet")
    import pybullet_data

    client = pybullet.connect(pybullet.DIRECT)
    try:
        urdf = Path(pybullet_data.getDataPath()) / "xarm/xarm6_robot.urdf"
        robot = pybullet.loadURDF(str(urdf), useFixedBase=True, physicsClientId=client)
        info = [pybullet.getJointInfo(robot, j, client) for j in range(pybullet.getNumJoints(robot, client))]
        joints = [i[0] for i in info if i[2] == pybullet.JOINT_REVOLUTE]
        assert len(joints) == 6
        for q in poses():
            for joint, angle in zip(joints, q, strict=True):
                pybullet.resetJointState(robot, joint, angle, physicsClientId=client)
            states = pybullet.getLinkStates(robot, joints, computeForwardKinematics=True, physicsClientId=client)
            ours = xarm6.link_frames(q)
            for state, frame in zip(states, ours, strict=True):
                assert np.linalg.norm(np.array(state[4]) - frame[:3, 3]) < TOLERANCE
                turned = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
                assert np.abs(turned - frame[:3, :3]).max() < 1e-4
    finally:
        pybullet.disconnect(client)


def test_inertias_and_efforts_are_those_of_the_vendors_model() -> None:
    pybullet = pytest.importorskip("pybullet")
    import pybullet_data

    client = pybullet.connect(pybullet.DIRECT)
    try:
        urdf = Path(pybullet_data.getDataPath()) / "xarm/xarm6_robot.urdf"
        robot = pybullet.loadURDF(str(urdf), useFixedBase=True, physicsClientId=client)
        info = [pybullet.getJointInfo(robot, j, client) for j in range(pybullet.getNumJoints(robot, client))]
        moving = [i for i in info if i[2] == pybullet.JOINT_REVOLUTE]
        for link, joint, effort in zip(xarm6.LINKS, moving, xarm6.MAX_JOINT_EFFORT, strict=True):
            assert pybullet.getDynamicsInfo(robot, joint[0], client)[0] == pytest.approx(link.mass)
            assert joint[10] == pytest.approx(effort)
            inertial = ElementTree.parse(urdf).find(f"link[@name='{joint[12].decode()}']/inertial")
            assert inertial is not None
            centre, inertia = inertial.find("origin"), inertial.find("inertia")
            assert centre is not None and inertia is not None
            assert [float(c) for c in centre.attrib["xyz"].split()] == pytest.approx(link.com)
            order = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
            assert [float(inertia.attrib[k]) for k in order] == pytest.approx(link.inertia)
    finally:
        pybullet.disconnect(client)


def test_the_jacobian_is_the_derivative_of_the_tool_pose() -> None:
    step = 1e-6
    for q in poses(20):
        here = xarm6.forward_kinematics(q)
        for j in range(6):
            there = xarm6.forward_kinematics(q + step * np.eye(6)[j])
            turn = there[:3, :3] @ here[:3, :3].T
            angular = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
            column = np.concatenate([there[:3, 3] - here[:3, 3], angular]) / step
            np.testing.assert_allclose(xarm6.jacobian(q)[:, j], column, atol=1e-5)


def test_kinematics_of_a_batch_are_those_of_its_members() -> None:
    batch = poses(6).reshape(2, 3, 6)
    assert xarm6.forward_kinematics(batch).shape == (2, 3, 4, 4)
    assert xarm6.jacobian(batch).shape == (2, 3, 6, 6)
    np.testing.assert_array_equal(xarm6.forward_kinematics(batch)[1, 2], xarm6.forward_kinematics(batch[1, 2]))


def test_the_simulated_arm_has_the_joint_and_effort_limits_of_the_real_one() -> None:
    mujoco = pytest.importorskip("mujoco")
    from horseshoe.sim.assembly import blueprint, cell, mjcf

    work = cell.load()
    model = mujoco.MjModel.from_xml_string(mjcf.cell_xml(work, blueprint.load("connect")))
    for arm in work.arms:
        for i in range(6):
            limits = model.joint(f"{arm.name}_joint{i + 1}").range
            np.testing.assert_allclose(limits, [xarm6.JOINT_LOWER[i], xarm6.JOINT_UPPER[i]], atol=1e-8)
            effort = xarm6.MAX_JOINT_EFFORT[i]
            np.testing.assert_allclose(model.actuator(f"{arm.name}_servo{i + 1}").forcerange, [-effort, effort])
            link = model.body(f"{arm.name}_link{i + 1}")
            assert link.mass[0] == pytest.approx(xarm6.LINKS[i].mass)
            np.testing.assert_allclose(link.ipos, xarm6.LINKS[i].com, atol=1e-6)
            ixx, ixy, ixz, iyy, iyz, izz = xarm6.LINKS[i].inertia
            moments = np.linalg.eigvalsh([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]])
            if moments[0] + moments[1] >= moments[2]:  # of a real body; MuJoCo keeps the trace of others only
                np.testing.assert_allclose(np.sort(link.inertia), moments, rtol=1e-4)
            assert link.inertia.sum() == pytest.approx(moments.sum(), rel=1e-4)
