"""URDF of the cell: two arms as in `hardware.xarm6`, drawn with the guard's capsules, and the table."""

from xml.sax.saxutils import quoteattr

import numpy as np
from scipy.spatial.transform import Rotation

from horseshoe.hardware import capsules, xarm6
from horseshoe.sim.assembly.cell import Cell

_WHITE, _DARK, _WOOD = "0.92 0.92 0.94 1", "0.2 0.2 0.22 1", "0.78 0.72 0.62 1"
_NAMES = {_WHITE: "white", _DARK: "dark", _WOOD: "wood"}
FINGER = (0.02, 0.012, 0.05)  # [m]


def _vec(values: object) -> str:
    return " ".join(f"{v:.6g}" for v in np.asarray(values, dtype=np.float64).ravel())


def _shape(kind: str, xyz: object, rpy: object, colour: str) -> str:
    origin = f'<origin xyz="{_vec(xyz)}" rpy="{_vec(rpy)}"/>'
    material = f'<material name="{_NAMES[colour]}"><color rgba="{colour}"/></material>'
    geometry = f"<geometry>{kind}</geometry>"
    return f"<visual>{origin}{geometry}{material}</visual><collision>{origin}{geometry}</collision>"


def _capsules(link: int) -> str:
    """Cylinders and spheres of the guard's capsules on a link; 0 is the base."""
    shapes = ""
    for name, carrier, first, second, radius in capsules._SHAPES:
        if carrier != link or "finger" in name:
            continue
        a, b = np.array(first), np.array(second)
        length = float(np.linalg.norm(b - a))
        turn = Rotation.align_vectors([(b - a) / length], [[0, 0, 1]])[0].as_euler("xyz")
        shapes += _shape(f'<cylinder radius="{radius}" length="{length:.6g}"/>', (a + b) / 2, turn, _WHITE)
        for end in (a, b):
            shapes += _shape(f'<sphere radius="{radius}"/>', end, (0, 0, 0), _WHITE)
    return shapes


def _link(name: str, link: xarm6.Link, index: int) -> str:
    ixx, ixy, ixz, iyy, iyz, izz = link.inertia
    inertia = f'ixx="{ixx}" ixy="{ixy}" ixz="{ixz}" iyy="{iyy}" iyz="{iyz}" izz="{izz}"'
    inertial = f'<inertial><origin xyz="{_vec(link.com)}"/><mass value="{link.mass}"/><inertia {inertia}/></inertial>'
    return f"<link name={quoteattr(name)}>{inertial}{_capsules(index)}</link>\n"


def _joint(name: str, kind: str, parent: str, child: str, xyz: object, rpy: object, rest: str = "") -> str:
    links = f"<parent link={quoteattr(parent)}/><child link={quoteattr(child)}/>"
    return (
        f'<joint name={quoteattr(name)} type="{kind}">{links}'
        f'<origin xyz="{_vec(xyz)}" rpy="{_vec(rpy)}"/>{rest}</joint>\n'
    )


def _arm(arm: str, position: object, yaw: float) -> str:
    text = _link(f"{arm}_{xarm6.BASE.name}", xarm6.BASE, 0)
    text += _joint(f"{arm}_mount", "fixed", "world", f"{arm}_{xarm6.BASE.name}", position, (0, 0, yaw))
    parent = f"{arm}_{xarm6.BASE.name}"
    for i, link in enumerate(xarm6.LINKS):
        name = f"{arm}_{link.name}"
        limit = (
            f'<limit lower="{xarm6.JOINT_LOWER[i]:.6g}" upper="{xarm6.JOINT_UPPER[i]:.6g}" '
            f'effort="{xarm6.MAX_JOINT_EFFORT[i]:.6g}" velocity="{xarm6.MAX_JOINT_SPEED:.6g}"/>'
        )
        text += _link(name, link, i + 1)
        text += _joint(
            f"{arm}_joint{i + 1}", "revolute", parent, name, link.xyz, link.rpy, f'<axis xyz="0 0 1"/>{limit}'
        )
        parent = name
    # The tool centre point; z out of the gripper, y the closing direction.
    text += f'<link name="{arm}_tcp"/>\n'
    text += _joint(f"{arm}_tool", "fixed", parent, f"{arm}_tcp", (0, 0, xarm6.TOOL_OFFSET), (0, 0, 0))
    # The value of <arm>_gripper is the opening between the pads; each finger moves by half of it.
    stroke = xarm6.GRIPPER_STROKE
    limit = (
        f'<limit lower="0" upper="{stroke}" effort="{xarm6.GRIPPER_MAX_FORCE}" velocity="{xarm6.GRIPPER_MAX_SPEED}"/>'
    )
    text += f'<link name="{arm}_opening"/>\n'
    text += _joint(
        f"{arm}_gripper",
        "prismatic",
        f"{arm}_tcp",
        f"{arm}_opening",
        (0, 0, 0),
        (0, 0, 0),
        f'<axis xyz="0 1 0"/>{limit}',
    )
    for side, sign in (("left", 1), ("right", -1)):
        finger = f"{arm}_{side}_finger"
        box = f'<box size="{_vec(FINGER)}"/>'
        shape = _shape(box, (0, sign * FINGER[1] / 2, -FINGER[2] / 2), (0, 0, 0), _DARK)
        text += f"<link name={quoteattr(finger)}>{shape}</link>\n"
        rest = f'<axis xyz="0 {sign} 0"/>{limit}<mimic joint="{arm}_gripper" multiplier="0.5"/>'
        text += _joint(f"{finger}_slide", "prismatic", f"{arm}_tcp", finger, (0, 0, 0), (0, 0, 0), rest)
    return text


def cell_urdf(cell: Cell) -> str:
    """URDF of a cell. Links and joints carry their arm's name: `left_joint1`; the root link is `world`."""
    size = (*cell.table.size, 0.02)
    table = _shape(f'<box size="{_vec(size)}"/>', (0, 0, cell.table.height - 0.01), (0, 0, 0), _WOOD)
    arms = "".join(_arm(arm.name, arm.position, arm.yaw) for arm in cell.arms)
    return f'<?xml version="1.0"?>\n<robot name="horseshoe_cell">\n<link name="world">{table}</link>\n{arms}</robot>\n'
