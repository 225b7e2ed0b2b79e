"""MJCF of the cell: two xArm6 with parallel grippers, a table and the blocks of a blueprint.

The gripper of the real arm is a parallelogram linkage: its fingers stay parallel and advance 12 mm along the tool
while they close from 85 to 40 mm. Each finger is a slide along the chord of that arc; the two are coupled as by the
one motor of the real gripper.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

import numpy as np
from scipy.spatial.transform import Rotation

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell

TIME_STEP = 0.01  # [s]; a sparse Jacobian is faster, but one cell in eight explodes with it (MuJoCo 4.0.0)
FINGER_TILT = math.atan2(0.0117, 0.0225)  # chord of the linkage between 85 and 40 mm of opening [rad]
FINGER_TRAVEL = xarm6.GRIPPER_STROKE / 2 / math.cos(FINGER_TILT)  # of one slide, open to closed [m]
# Joint stiffness [N m/rad] and rotor inertia [kg m^2]; the xArm's servos are stiff and geared (100:1).
STIFFNESS = np.array([5000.0, 5000.0, 3500.0, 1500.0, 1500.0, 1000.0])
ARMATURE = np.array([0.4, 0.4, 0.3, 0.15, 0.15, 0.1])
_INERTIA = ARMATURE + np.array([0.8, 0.8, 0.3, 0.03, 0.03, 0.005])  # with what a joint carries, about [kg m^2]
DAMPING = 1.4 * np.sqrt(STIFFNESS * _INERTIA)  # [N m s/rad], of a ratio of 0.7
FINGER_STIFFNESS = 4000.0  # [N/m]

# Collision bits. Arms collide with the other arm, the table and the blocks, never with themselves.
_TABLE, _BLOCK, _PAD, _LEFT, _RIGHT = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class Physics:
    """What differs between one cell and the next; the defaults are the nominal one.

    Scales multiply the nominal value: block mass and size, sliding friction of pads and of table against blocks, servo
    stiffness and damping, magnet moment. servo_lag: time constant of a joint servo [s]; joint_friction: Coulomb
    friction of the joints [N m].
    """

    mass: float = 1.0
    size: float = 1.0
    pad_friction: float = 1.0
    table_friction: float = 0.4
    servo_stiffness: float = 1.0
    servo_damping: float = 1.0
    servo_lag: float = 0.03
    joint_friction: float = 0.0
    finger_force: float = field(default=xarm6.GRIPPER_MAX_FORCE)
    magnet: float = 1.0


def _vec(values: Iterable[float]) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def _inertial(link: xarm6.Link) -> str:
    ixx, ixy, ixz, iyy, iyz, izz = link.inertia
    return f'<inertial pos="{_vec(link.com)}" mass="{link.mass}" fullinertia="{_vec((ixx, iyy, izz, ixy, ixz, iyz))}"/>'


# Collision (and picture) of each link: (type, size, from-to or position), fitted to the vendor's meshes.
_SHAPES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "link_base": (("cylinder", "0.06", "0 0 0 0 0 0.15"),),
    "link1": (("capsule", "0.048", "0 0 -0.08 0 0 0"), ("capsule", "0.048", "0 -0.02 0 0 0.04 0")),
    "link2": (
        ("capsule", "0.048", "0 0 0.01 0 0 0.09"),
        ("capsule", "0.046", "0 0 0.075 0.0535 -0.2845 0.075"),
        ("capsule", "0.044", "0.0535 -0.2845 0 0.0535 -0.2845 0.075"),
    ),
    "link3": (
        ("capsule", "0.042", "0 0 0.06 0.0775 0.02 0.06"),
        ("capsule", "0.042", "0.0775 0.02 0.06 0.0775 0.13 0"),
    ),
    "link4": (("capsule", "0.042", "0 0 -0.13 0 0.02 0"), ("capsule", "0.04", "0 0 0 0 0.045 0")),
    "link5": (("capsule", "0.037", "0 0 0 0 0.02 0.01"), ("capsule", "0.037", "0.02 0.03 0 0.076 0.03 0")),
    "link6": (("cylinder", "0.037", "0 0 -0.026 0 0 0"),),
}
_COLLIDING = ("link4", "link5")  # what can reach the table, a block or the other arm's forearm in this cell


def _shape(kind: str, size: str, fromto: str, extra: str) -> str:
    return f'<geom type="{kind}" size="{size}" fromto="{fromto}" mass="0" {extra}/>'


def _gripper(arm: str, physics: Physics, bits: str) -> str:
    tilt_y, tilt_z = math.cos(FINGER_TILT), math.sin(FINGER_TILT)
    # Geared fingers: at full force they move at the gripper's own speed, whatever the force of this cell.
    damping = physics.finger_force * tilt_y**2 / (xarm6.GRIPPER_MAX_SPEED / 2)
    fingers = ""
    for side, sign in (("l", 1), ("r", -1)):
        fingers += f"""
        <body name="{arm}_finger_{side}" pos="0 {sign * xarm6.GRIPPER_STROKE / 2:.6g} 0.162">
          <inertial pos="0 {sign * 0.01} -0.02" mass="0.08" diaginertia="3e-5 3e-5 1e-5"/>
          <joint name="{arm}_slide_{side}" type="slide" axis="0 {-sign * tilt_y:.6g} {tilt_z:.6g}"
            range="0 {FINGER_TRAVEL:.6g}" armature="0.3" damping="{damping:.6g}"/>
          <geom name="{arm}_pad_{side}" type="box" size="0.013 0.006 0.016" pos="0 {sign * 0.006} -0.016" mass="0"
            class="pad" friction="{physics.pad_friction:.6g} 0.02 0.0001"
            contype="{_PAD}" conaffinity="{_PAD | _BLOCK | _TABLE}"/>
          <geom type="box" size="0.012 0.007 0.018" pos="0 {sign * 0.014} -0.05" mass="0" {bits}/>
        </body>"""
    return f"""
      <body name="{arm}_hand">
        <inertial pos="0 0 0.048" mass="0.6" diaginertia="6e-4 5e-4 4e-4"/>
        <geom type="box" size="0.035 0.05 0.048" pos="0 0 0.05" mass="0" {bits}/>
        <site name="{arm}_tool" pos="0 0 {xarm6.TOOL_OFFSET}" size="0.004" rgba="0 0 0 0"/>{fingers}
      </body>"""


def _arm(name: str, position: Iterable[float], yaw: float, physics: Physics, bit: int, other: int) -> str:
    bits = f'contype="{bit}" conaffinity="{other | _TABLE | _BLOCK}" rgba="0.92 0.92 0.94 1"'
    ghost = 'contype="0" conaffinity="0" rgba="0.92 0.92 0.94 1"'
    body = close = ""
    for i, link in enumerate(xarm6.LINKS):
        quat = Rotation.from_euler("xyz", link.rpy).as_quat(scalar_first=True)
        low, high = xarm6.JOINT_LOWER[i], xarm6.JOINT_UPPER[i]
        body += f"""
    <body name="{name}_{link.name}" pos="{_vec(link.xyz)}" quat="{_vec(quat)}" gravcomp="1">
      {_inertial(link)}
      <joint name="{name}_joint{i + 1}" axis="0 0 1" range="{low:.9g} {high:.9g}" armature="{ARMATURE[i]}"
        damping="1" frictionloss="{physics.joint_friction:.6g}" solimpfriction="0.999 0.999 0.001"/>"""
        body += "".join(_shape(*s, bits if link.name in _COLLIDING else ghost) for s in _SHAPES[link.name])
        close += "</body>"
    base = "".join(_shape(*s, ghost) for s in _SHAPES["link_base"])
    quat = Rotation.from_euler("z", yaw).as_quat(scalar_first=True)
    return f"""
  <body name="{name}_base" pos="{_vec(position)}" quat="{_vec(quat)}">{base}{body}
  {_gripper(name, physics, bits).replace("<body ", '<body gravcomp="1" ')}{close}
  </body>"""


def _actuators(arm: str, physics: Physics) -> str:
    lines = []
    for i in range(xarm6.N_JOINTS):
        kp = STIFFNESS[i] * physics.servo_stiffness
        # The damping belongs to the servo: on the joint it would fight the motor's limited torque and cap the speed.
        kv = DAMPING[i] * physics.servo_damping
        force = xarm6.MAX_JOINT_EFFORT[i]
        lines.append(
            f'<position name="{arm}_servo{i + 1}" joint="{arm}_joint{i + 1}" kp="{kp:.6g}" kv="{kv:.6g}" '
            f'timeconst="{physics.servo_lag:.6g}" forcerange="{-force} {force}"/>'
        )
    # The command is the opening between the pads [m]: length of the tendon is stroke - opening.
    lines.append(
        f'<position name="{arm}_gripper" tendon="{arm}_closing" kp="{FINGER_STIFFNESS}" '
        f'forcerange="{-physics.finger_force:.6g} {physics.finger_force:.6g}"/>'
    )
    return "\n    ".join(lines)


def cell_xml(cell: Cell, blueprint: Blueprint, physics: Physics | None = None) -> str:
    """MJCF of a cell.

    qpos: per arm six joints and two slides, then seven numbers per block; ctrl: per arm six joint targets [rad] and the
    closing [m] (stroke minus opening); one weld per latchable magnet pair, inactive, in the order of
    `blueprint.pairs`.
    """
    physics = physics or Physics()
    arms = actuators = couplings = tendons = sensors = ""
    for arm, bit in zip(cell.arms, (_LEFT, _RIGHT), strict=True):
        arms += _arm(arm.name, arm.position, arm.yaw, physics, bit, _LEFT + _RIGHT - bit)
        actuators += _actuators(arm.name, physics) + "\n    "
        couplings += (
            f'<joint joint1="{arm.name}_slide_l" joint2="{arm.name}_slide_r" '
            'polycoef="0 1 0 0 0" solref="0.01 1"/>\n    '
        )
        scale = math.cos(FINGER_TILT)
        tendons += (
            f'<fixed name="{arm.name}_closing"><joint joint="{arm.name}_slide_l" coef="{scale:.6g}"/>'
            f'<joint joint="{arm.name}_slide_r" coef="{scale:.6g}"/></fixed>\n    '
        )
    blocks = ""
    for b in blueprint.blocks:
        half = np.array(b.size) / 2 * physics.size
        mass = b.mass * physics.mass
        blocks += f"""
  <body name={quoteattr(b.name)} pos="0 0 {cell.table.height + half[2]:.6g}">
    <freejoint/>
    <geom name={quoteattr(b.name)} type="box" size="{_vec(half)}" mass="{mass:.6g}" rgba="{_vec(b.colour)} 1"
      friction="{physics.table_friction:.6g} 0.005 0.0001" contype="{_BLOCK}" conaffinity="{_BLOCK | _TABLE}"/>"""
        for m in blueprint.magnets:
            if m.block == b.name:
                inside = np.array(m.position) * physics.size - 0.0015 * np.array(m.axis)
                quat = Rotation.align_vectors([m.axis], [[0, 0, 1]])[0].as_quat(scalar_first=True)
                colour = "0.8 0.1 0.1 1" if m.polarity == "north" else "0.1 0.2 0.8 1"
                blocks += f"""
    <geom type="cylinder" size="0.006 0.002" pos="{_vec(inside)}" quat="{_vec(quat)}" rgba="{colour}" mass="0"
      contype="0" conaffinity="0"/>"""
        blocks += "\n  </body>"
    welds = ""
    for (_, s, a), rotation in zip(blueprint.pairs, blueprint.goal_rotation, strict=True):
        quat = Rotation.from_matrix(rotation).as_quat(scalar_first=True)
        first, second = (blueprint.blocks[blueprint.magnet_block[m]].name for m in (s, a))
        # With an anchor (a point of body 2), the position in relpose is where that point belongs in body 1.
        socket, anchor = (blueprint.magnet_position[m] * physics.size for m in (s, a))
        welds += (
            f'<weld body1={quoteattr(first)} body2={quoteattr(second)} relpose="{_vec(socket)} {_vec(quat)}" '
            f'anchor="{_vec(anchor)}" active="false" solref="0.02 1" solimp="0.95 0.95 0.001"/>\n    '
        )
    left, right = (arm.name for arm in cell.arms)
    # Net contact forces that behaviour constraints look at: arm against arm, each arm against the table.
    force = 'data="force" reduce="netforce" num="1"'
    sensors += f'<contact name="arms" subtree1="{left}_base" subtree2="{right}_base" {force}/>\n    '
    for side in (left, right):
        sensors += f'<contact name="{side}_table" subtree1="{side}_base" geom2="table" {force}/>\n    '
    half_x, half_y = cell.table.size[0] / 2, cell.table.size[1] / 2
    return f"""<mujoco model="horseshoe_{blueprint.name}">
  <compiler angle="radian" autolimits="true" balanceinertia="true"/>
  <option timestep="{TIME_STEP}" integrator="implicitfast" solver="Newton" iterations="50" cone="elliptic"
    impratio="10">
    <flag eulerdamp="disable"/>
  </option>
  <size memory="4M"/>
  <visual><global offwidth="1280" offheight="960"/><headlight ambient="0.35 0.35 0.35" diffuse="0.5 0.5 0.5"/>
    <quality offsamples="0" shadowsize="1024" numslices="16" numstacks="8"/><map znear="0.01"/></visual>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.95 0.96 0.98" rgb2="0.7 0.75 0.82" width="64" height="64"/>
  </asset>
  <default>
    <default class="pad">
      <geom rgba="0.15 0.15 0.17 1" solref="0.02 1" solimp="0.98 0.995 0.001" condim="3"/>
    </default>
  </default>
  <worldbody>
    <light pos="0.3 -0.6 1.8" dir="-0.15 0.3 -1" castshadow="true"/>
    <geom name="table" type="plane" size="{half_x} {half_y} 0.1" pos="0 0 {cell.table.height}" rgba="0.78 0.72 0.62 1"
      contype="{_TABLE}" conaffinity="{_TABLE}" friction="{physics.table_friction:.6g} 0.005 0.0001"/>{arms}{blocks}
  </worldbody>
  <tendon>
    {tendons}</tendon>
  <actuator>
    {actuators}</actuator>
  <equality>
    {couplings}{welds}</equality>
  <sensor>
    {sensors}</sensor>
</mujoco>
"""
