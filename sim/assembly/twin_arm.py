"""An xArm6 in PyBullet: the vendor's links, inertias and collision meshes, its linkage gripper and a servo.

Differences from the vendor's URDF (`pybullet_data/xarm/xarm6_with_gripper.urdf`), all made when it is loaded:

- pictures are dropped, MuJoCo draws them;
- knuckles and fingers collide as boxes fitted to the vendor's meshes: the pads (29 by 38 mm) are flat, and the hull of
  a finger's 4,852 triangles takes seconds to build;
- the inner knuckles are dropped; a gear keeps each finger parallel instead, another couples left and right, as the one
  motor of the real gripper does;
- the inertia of links 2 and 3, which no real body can have, keeps its trace only, as in the MuJoCo model.
"""

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pybullet_data
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly.cell import Arm

Array = NDArray[np.float64]

# Boxes in their link's frame: (name of the link, centre [m], full size [m]). The left side; the right is its image.
_PAD = ("finger", (0.0, -0.0215, 0.041), (0.0295, 0.009, 0.0375))
_BOXES = (
    _PAD,
    ("finger", (0.0, -0.018, 0.034), (0.031, 0.012, 0.044)),
    ("finger", (0.0, -0.002, 0.003), (0.020, 0.016, 0.018)),
    ("outer_knuckle", (0.0, 0.018, 0.021), (0.012, 0.020, 0.052)),
)
_HAND = ((0.0, 0.0, 0.047), (0.074, 0.100, 0.106))

# The linkage: a finger's pivot turns about the outer knuckle's, so that half the opening is
# _OFFSET + _RADIUS * cos(angle + _PHASE).
_RADIUS, _PHASE = math.hypot(0.035465, 0.042039), math.atan2(0.042039, 0.035465)
_OFFSET = 0.035 - 0.026

FINGERS = ("left_finger", "right_finger")
POSITION_LOOP = 0.01  # [s], time constant of the position loop around the (stiff) velocity loop
GEAR_FORCE = 50.0  # [N m], far above what the motor gives
PAD_STIFFNESS, PAD_DAMPING = 1.0e5, 300.0  # [N/m], [N s/m] of a contact point; four make 3 mm of rubber


def drive_angle(opening: float) -> float:
    """Angle of the outer knuckles [rad] at a distance between the pads [m]."""
    return math.acos((opening / 2 - _OFFSET) / _RADIUS) - _PHASE


def half_opening(angle: float) -> float:
    """Distance of a pad from the middle of the gripper [m] at an angle of its knuckle [rad]."""
    return _OFFSET + _RADIUS * math.cos(angle + _PHASE)


def _lever(angle: float) -> float:
    """Travel of one pad per angle of its knuckle [m/rad]."""
    return _RADIUS * math.sin(angle + _PHASE)


def write_urdf(path: Path) -> None:
    """Write the arm as described above; needs the vendor's meshes, which come with PyBullet."""
    vendor = Path(pybullet_data.getDataPath()) / "xarm"
    tree = ET.parse(vendor / "xarm6_with_gripper.urdf")
    root = tree.getroot()
    for tag in ("gazebo", "transmission", "material"):
        for element in root.findall(tag):
            root.remove(element)
    for element in [*root.findall("link"), *root.findall("joint")]:
        if "inner_knuckle" in element.attrib["name"]:
            root.remove(element)
    for link in root.findall("link"):
        name = link.attrib["name"]
        for visual in link.findall("visual"):
            link.remove(visual)
        inertia = link.find("inertial/inertia")
        if inertia is not None:
            _balance(inertia)
        boxes = []
        if name == "xarm_gripper_base_link":
            boxes = [_HAND]
        for side, sign in (("left", 1.0), ("right", -1.0)):
            boxes += [((x, sign * y, z), size) for part, (x, y, z), size in _BOXES if name == f"{side}_{part}"]
        if boxes:
            for collision in link.findall("collision"):
                link.remove(collision)
            for centre, size in boxes:
                _add_box(link, centre, size)
        for mesh in link.iterfind("collision/geometry/mesh"):
            file = mesh.attrib["filename"].removeprefix("package://")
            if name == "link6":  # the vendor's entry names the picture's mesh
                file = "xarm_description/meshes/xarm6/collision/link6_vhacd.obj"
            mesh.set("filename", str(vendor / file))
    tree.write(path)


def _balance(inertia: ET.Element) -> None:
    matrix = np.zeros((3, 3))
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        matrix[i, j] = matrix[j, i] = float(inertia.attrib[f"i{'xyz'[i]}{'xyz'[j]}"])
    principal = np.linalg.eigvalsh(matrix)
    if principal[0] + principal[1] < principal[2]:
        for key in inertia.attrib:
            inertia.set(key, f"{principal.mean():.9g}" if key in ("ixx", "iyy", "izz") else "0")


def _add_box(link: ET.Element, centre: tuple[float, ...], size: tuple[float, ...]) -> None:
    collision = ET.SubElement(link, "collision")
    ET.SubElement(collision, "origin", xyz=" ".join(map(str, centre)), rpy="0 0 0")
    ET.SubElement(ET.SubElement(collision, "geometry"), "box", size=" ".join(map(str, size)))


class TwinArm:
    """One arm of a PyBullet client.

    The servo is a lag of first order in front of a stiff position controller that is limited by the vendor's efforts;
    it holds its weight without sagging. The gripper closes at its speed limit with limited force.

    Args:
        client: PyBullet, bound to one world.
        urdf: written by `write_urdf`.
        arm: where it stands.
        pad_friction: PyBullet multiplies it with the other body's.
        lag: time constant of the servo's lag [s].
        force: between pad and block at most [N].
        step: of the physics [s].

    Attributes:
        body: PyBullet's number.
        link: numbers of the links by the vendor's names.
        setpoint: what the position controllers follow, after the lag [rad], shape (6,).
    """

    def __init__(
        self, client: Any, urdf: Path, arm: Arm, pad_friction: float, lag: float, force: float, step: float
    ) -> None:
        self._client, self._force = client, force
        self._blend, self._stride = 1.0 - float(np.exp(-step / lag)), xarm6.GRIPPER_MAX_SPEED * step
        self.body = client.loadURDF(
            str(urdf),
            arm.position,
            Rotation.from_euler("z", arm.yaw).as_quat().tolist(),
            useFixedBase=True,
            flags=client.URDF_USE_INERTIA_FROM_FILE,
        )
        info = [client.getJointInfo(self.body, i) for i in range(client.getNumJoints(self.body))]
        joint = {i[1].decode(): i[0] for i in info}
        self.link = {i[12].decode(): i[0] for i in info}
        self.joints = [joint[name] for name in xarm6.JOINT_NAMES]
        # Order: left knuckle, right knuckle, left finger, right finger; all turn by the same angle.
        self.drives = [
            joint[n] for n in ("drive_joint", "right_outer_knuckle_joint", "left_finger_joint", "right_finger_joint")
        ]
        for follower in self.drives[1:]:
            leader = self.drives[1] if follower == self.drives[3] else self.drives[0]
            gear = client.createConstraint(
                self.body, leader, self.body, follower, client.JOINT_GEAR, [1, 0, 0], [0, 0, 0], [0, 0, 0]
            )
            client.changeConstraint(gear, gearRatio=-1, maxForce=GEAR_FORCE, erp=0.2)
        # PyBullet brakes every joint with a motor until told otherwise.
        client.setJointMotorControlArray(
            self.body, self.drives[1:], client.VELOCITY_CONTROL, forces=[0.0] * len(self.drives[1:])
        )
        for finger in FINGERS:
            client.changeDynamics(
                self.body,
                self.link[finger],
                lateralFriction=pad_friction,
                contactStiffness=PAD_STIFFNESS,
                contactDamping=PAD_DAMPING,
            )
        self._efforts = xarm6.MAX_JOINT_EFFORT.tolist()
        self._gain = step / POSITION_LOOP
        self.setpoint = np.zeros(xarm6.N_JOINTS)
        self._opening = xarm6.GRIPPER_STROKE

    def place(self, q: Array, opening: float) -> None:
        """Put the arm at joints [rad], shape (6,), and an opening [m], at rest."""
        for joint, angle in zip(self.joints, q, strict=True):
            self._client.resetJointState(self.body, joint, float(angle), 0.0)
        for joint in self.drives:
            self._client.resetJointState(self.body, joint, drive_angle(opening), 0.0)
        self.setpoint, self._opening = q.copy(), float(opening)

    def servo(self, target: Array) -> None:
        """Command one step of the physics towards joints [rad] and opening [m], shape (7,)."""
        self.setpoint += self._blend * (target[:6] - self.setpoint)
        self._opening += min(max(float(target[6]) - self._opening, -self._stride), self._stride)
        client, angle = self._client, drive_angle(self._opening)
        client.setJointMotorControlArray(
            self.body,
            self.joints,
            client.POSITION_CONTROL,
            targetPositions=self.setpoint.tolist(),
            forces=self._efforts,
            positionGains=[self._gain] * xarm6.N_JOINTS,
            velocityGains=[1.0] * xarm6.N_JOINTS,
        )
        client.setJointMotorControl2(
            self.body,
            self.drives[0],
            client.POSITION_CONTROL,
            targetPosition=angle,
            positionGain=self._gain,
            velocityGain=1.0,
            force=2 * self._force * _lever(angle),
        )

    def read(self) -> tuple[Array, Array, Array]:
        """Joints [rad] and their speeds [rad/s], shape (6,), and how far each pad is from the middle [m], (2,)."""
        states = self._client.getJointStates(self.body, self.joints + self.drives[:2])
        values = np.array([s[:2] for s in states])
        return values[:6, 0], values[:6, 1], np.array([half_opening(angle) for angle in values[6:, 0]])
