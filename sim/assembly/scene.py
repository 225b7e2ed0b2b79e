"""The scene as a policy sees it: who serves which connection, and the observation of every arm.

Each arm sees the scene from its own base, so that both arms are the same agent. A reflection in the arm's x-z plane
makes a structure's left socket its right one; arms that serve a right-hand socket see (and act in) the reflected scene,
so that all weights are shared between left and right too.
"""

from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from horseshoe.compiled import compiled
from horseshoe.hardware import xarm6
from horseshoe.observation import Field, FieldSet
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell
from horseshoe.sim.assembly.magnets import products, rotated, rotation_angle

Array = NDArray[np.float64]
Index = NDArray[np.intp]

MIRROR_JOINTS = (-1, 1, 1, -1, 1, -1)  # joints of the reflected arm
MIRROR_ACTION = np.array([*MIRROR_JOINTS, 1], dtype=np.float64)
_VECTOR = (1, -1, 1)


def _signs(frame: tuple[int, ...], turned: tuple[int, ...]) -> tuple[int, ...]:
    """Signs of the first two columns of a rotation after a reflection of its frame and of what it turns."""
    return tuple(frame[row] * turned[column] for row in range(3) for column in range(2))


# Tools are their own image in their x-z plane, blocks in their y-z plane.
_TOOL = _signs(_VECTOR, (1, -1, 1))
_BLOCK = _signs(_VECTOR, (-1, 1, 1))
_BLOCK_TO_BLOCK = _signs((-1, 1, 1), (-1, 1, 1))
REACH = 0.64  # furthest a tool that points down gets from the arm's base, over the table [m]
TURN_GAIN = np.radians(30.0)  # that it takes to change the end of a block that is joined
IN_PLACE = 0.01, np.radians(10.0)  # a block that is so close to a place is there [m, rad]
GRASP_HEIGHT = -0.006  # of the tool centre point above the centre of the block it holds [m]

FIELDS = FieldSet(
    [
        Field("joint_position", 6, "rad", "arm", MIRROR_JOINTS),
        Field("command_error", 6, "rad", "arm", MIRROR_JOINTS),
        Field("gripper_opening", 1, "m", "arm", (1,)),
        Field("gripper_command", 1, "m", "arm", (1,)),
        Field("tool_position", 3, "m", "arm", _VECTOR),
        Field("tool_rotation", 6, "1", "arm", _TOOL),
        Field("block_in_tool", 3, "m", "block", _VECTOR),
        Field("block_rotation_in_tool", 6, "1", "block", _BLOCK),
        Field("grasp_turn", 2, "1", "block", (-1, 1)),
        Field("block_position", 3, "m", "block", _VECTOR),
        Field("block_rotation", 6, "1", "block", _BLOCK),
        Field("goal_error", 3, "m", "goal", _VECTOR),
        Field("goal_error_in_tool", 3, "m", "goal", _VECTOR),
        Field("goal_rotation_error", 6, "1", "goal", _BLOCK_TO_BLOCK),
        Field("socket_block_from_tool", 3, "m", "goal", _VECTOR),
        Field("socket_block_rotation", 6, "1", "goal", _BLOCK),
        Field("serves", 1, "1", "goal", (1,)),
        Field("other_tool_from_tool", 3, "m", "other", _VECTOR),
        Field("other_tool_rotation", 6, "1", "other", _TOOL),
        Field("other_opening", 1, "m", "other", (1,)),
        Field("other_block_from_tool", 3, "m", "other", _VECTOR),
        Field("other_goal_error", 3, "m", "other", _VECTOR),
    ]
)


@dataclass
class Scene:
    """What is known of a batch of cells, world frame, SI units (R arms, B blocks).

    q (n, R, 6); opening (n, R); position (n, B, 3); rotation (n, B, 3, 3); target: commanded joints and opening
    (n, R, 7).
    """

    q: Array
    opening: Array
    position: Array
    rotation: Array
    target: Array


@dataclass
class Assignment:
    """Which pair (row of `blueprint.pairs`) every arm serves, -1 for none, shape (n, R)."""

    pair: Index


def _options(blueprint: Blueprint, n_arms: int) -> Index:
    """Every way to share the connections among the arms, one connection an arm: pair or -1, shape (K, n_arms)."""
    by_connection = [np.flatnonzero(blueprint.pairs[:, 0] == c) for c in range(len(blueprint.connections))]
    blocks = blueprint.magnet_block[blueprint.pairs[:, 2]]
    options = []
    served = min(n_arms, len(by_connection))
    for connections in permutations(range(len(by_connection)), served):
        for arms in permutations(range(n_arms), served):
            if list(arms) != sorted(arms):
                continue
            for pairs in product(*(by_connection[c] for c in connections)):
                if len({int(blocks[p]) for p in pairs}) == served:
                    row = np.full(n_arms, -1)
                    row[list(arms)] = pairs
                    options.append(row)
    return np.unique(np.array(options), axis=0)


def _other_ends(blueprint: Blueprint) -> Index:
    """The pair that joins another end of the same block to the same socket, -1 for none; (P + 1,), its last -1."""
    _, socket, accepted = blueprint.pairs.T
    block = blueprint.magnet_block[accepted]
    other = np.full(len(socket) + 1, -1)
    for p in range(len(socket)):
        same = np.flatnonzero((socket == socket[p]) & (block == block[p]) & (accepted != accepted[p]))
        if len(same) == 1:
            other[p] = same[0]
    return other


def _elsewhere(blueprint: Blueprint) -> Index:
    """The pairs that join the same block to another socket, -1 where there are fewer; (P + 1, K), its last row -1."""
    connection, block = blueprint.pairs[:, 0], blueprint.magnet_block[blueprint.pairs[:, 2]]
    rows = [np.flatnonzero((block == block[p]) & (connection != connection[p])) for p in range(len(block))]
    found = np.full((len(rows) + 1, max(map(len, rows))), -1)
    for p, row in enumerate(rows):
        found[p, : len(row)] = row
    return found


class SceneObserver:
    """Turns scenes into one observation per arm; vectorised, and used with n = 1 on the robot.

    Args:
        cell: where the arms are.
        blueprint: the blocks and wanted connections.
    """

    fields = FIELDS

    def __init__(self, cell: Cell, blueprint: Blueprint) -> None:
        self.cell, self.blueprint = cell, blueprint
        self._options = _options(blueprint, len(cell.arms))
        self._other_end, self._elsewhere = _other_ends(blueprint), _elsewhere(blueprint)
        self._base = cell.base_poses
        # An arm on a socket right of its block's middle sees the mirror image; only if the blueprint is its own image.
        socket_x = blueprint.magnet_position[blueprint.pairs[:, 1], 0]
        self._mirror_pair = np.append((socket_x > 1e-9) & _mirror_symmetric(blueprint), False)

    @property
    def base_positions(self) -> Array:
        """Of the arms, world frame [m], shape (R, 3)."""
        return self._base[:, :3, 3]

    def tool_poses(self, q: Array) -> Array:
        """World poses of the tool centre points, shape (n, R, 4, 4), of joints (n, R, 6)."""
        return self._base @ xarm6.forward_kinematics(q)

    def assign(self, scene: Scene) -> Assignment:
        """Share the connections: the arms together travel, turn and reach least, and nobody reaches too far."""
        bp, (n, arms) = self.blueprint, scene.q.shape[:2]
        tool = self.tool_poses(scene.q)[..., :3, 3]
        goal, off = self.goal_errors(scene, np.tile(np.arange(len(bp.pairs)), (n, 1)))
        block = scene.position[:, bp.magnet_block[bp.pairs[:, 2]]]
        turn = 0.1 * rotation_angle(off)
        cost = np.zeros((n, arms, len(bp.pairs) + 1))
        for r in range(arms):
            base = self._base[r, :2, 3]
            cost[:, r, :-1] = np.linalg.norm(block - tool[:, r, None], axis=-1) + np.linalg.norm(goal, axis=-1) + turn
            # Far places are hard to reach, and an arm whose goal is nearer to the other arm gets in its way.
            for place, weight in ((block, 1.0), (block + goal, 2.0)):
                away = np.linalg.norm(place[..., :2] - base, axis=-1)
                cost[:, r, :-1] += weight * away + 20.0 * np.maximum(away - REACH, 0.0)
        total = sum(cost[:, r, self._options[:, r]] for r in range(arms))
        return Assignment(self._options[np.asarray(total).argmin(1)])

    def reconsider(self, scene: Scene, assignment: Assignment) -> Assignment:
        """Follow what has happened.

        A block that turned round is joined by its other end. One that has come to be at another arm's socket stays
        there, and that arm takes the socket that is left.
        """
        now = self._as_they_are(scene, assignment.pair)
        pair, other = np.maximum(now, 0), self._other_end[now]
        _, off = self.goal_errors(scene, pair)
        _, off_other = self.goal_errors(scene, np.maximum(other, 0))
        better = (other >= 0) & (rotation_angle(off_other) < rotation_angle(off) - TURN_GAIN)
        return Assignment(np.where(better, other, now))

    def _as_they_are(self, scene: Scene, assigned: Index) -> Index:
        """Pairs (n, R), other ones where a block is at the socket of another arm."""
        found, block = self._elsewhere[assigned], self.blueprint.magnet_block[self.blueprint.pairs[:, 2]]
        if not found.size:
            return assigned
        goal, off = self.goal_errors(scene, np.maximum(found, 0).reshape(len(assigned), -1))
        there = (np.linalg.norm(goal, axis=-1) < IN_PLACE[0]) & (rotation_angle(off) < IN_PLACE[1])
        there = there.reshape(found.shape) & (found >= 0)
        for i, r, k in zip(*np.nonzero(there), strict=True):
            fits = self._options[:, r] == found[i, r, k]
            fits &= ((self._options >= 0) == (assigned[i] >= 0)).all(1)
            fits &= (block[self._options] == block[assigned[i]]).all(1)
            if fits.any():
                assigned = assigned.copy()
                assigned[i] = self._options[fits.argmax()]
        return assigned

    def goal_errors(self, scene: Scene, pair: Index) -> tuple[Array, Array]:
        """How far the accepted block of pairs (n, K) is from its place.

        Returns:
            Translation still to go, world [m], (n, K, 3); rotation still to go, in the block's joined frame,
            (n, K, 3, 3).
        """
        bp = self.blueprint
        to_go, turn = np.empty((*pair.shape, 3)), np.empty((*pair.shape, 3, 3))
        joined = bp.pairs, bp.magnet_block, bp.goal_position, bp.goal_rotation
        _goal_errors(scene.position, scene.rotation, pair, *joined, to_go, turn)
        return to_go, turn

    def mirrored(self, assignment: Assignment) -> NDArray[np.bool_]:
        """Which arms see the mirror image, shape (n, R)."""
        return self._mirror_pair[assignment.pair]

    def observe(self, scene: Scene, assignment: Assignment) -> Array:
        """Observation of every arm, shape (n, R, FIELDS.size)."""
        bp, (n, arms) = self.blueprint, scene.q.shape[:2]
        rows = np.arange(n)[:, None]
        # An arm that serves nothing looks at what the other one serves, and is told so.
        served = assignment.pair >= 0
        pair = np.where(served, assignment.pair, assignment.pair.max(1, keepdims=True))
        _, socket, accepted = np.moveaxis(bp.pairs[pair], -1, 0)
        first, second = bp.magnet_block[socket], bp.magnet_block[accepted]
        to_base = np.swapaxes(self._base[:, :3, :3], -1, -2)  # world -> arm
        rotate = partial(rotated, to_base)

        tool = self.tool_poses(scene.q)
        place, turned = tool[..., :3, 3], products(to_base, tool[..., :3, :3])
        to_tool = np.swapaxes(turned, -1, -2)
        block = scene.position[rows, second]
        lying = products(to_base, scene.rotation[rows, second])
        frame = products(lying, np.swapaxes(bp.goal_rotation[pair], -1, -2))
        goal, off = self.goal_errors(scene, pair)
        goal, from_tool = rotate(goal), rotate(block - place)
        other = np.roll(np.arange(arms), 1)  # the next arm; with one arm, itself
        values = {
            "joint_position": scene.q,
            "command_error": scene.target[..., :6] - scene.q,
            "gripper_opening": scene.opening[..., None],
            "gripper_command": scene.target[..., 6:],
            "tool_position": rotate(place - self._base[:, :3, 3]),
            "tool_rotation": _columns(turned),
            "block_in_tool": rotated(to_tool, from_tool),
            "block_rotation_in_tool": _columns(products(to_tool, frame)),
            "grasp_turn": _grasp_turn(products(to_tool, lying)),
            "block_position": rotate(block - self._base[:, :3, 3]),
            "block_rotation": _columns(frame),
            "goal_error": goal,
            "goal_error_in_tool": rotated(to_tool, goal),
            "goal_rotation_error": _columns(off),
            "socket_block_from_tool": rotate(scene.position[rows, first] - place),
            "socket_block_rotation": _columns(products(to_base, scene.rotation[rows, first])),
            "serves": served[..., None].astype(np.float64),
            "other_tool_from_tool": rotate(place[:, other] - place),
            "other_tool_rotation": _columns(products(to_base, tool[:, other, :3, :3])),
            "other_opening": scene.opening[:, other, None],
            "other_block_from_tool": rotate(block[:, other] - place),
            "other_goal_error": rotate(self.goal_errors(scene, pair[:, other])[0]),
        }
        packed = FIELDS.pack(values)
        return np.where(self.mirrored(assignment)[..., None], packed * FIELDS.mirror, packed)

    def unmirror(self, action: Array, assignment: Assignment) -> Array:
        """Actions of arms that see the mirror image, as the real joints must do them; (n, R, 7)."""
        return np.where(self.mirrored(assignment)[..., None], action * MIRROR_ACTION, action)


@compiled
def _goal_errors(
    position: Array, rotation: Array, pair: Index, pairs: Index, block: Index, place: Array, joined: Array,
    to_go: Array, turn: Array,
) -> None:  # fmt: skip
    """Fill in what `SceneObserver.goal_errors` returns.

    Args:
        position: of the blocks [m], (n, B, 3).
        rotation: of the blocks, (n, B, 3, 3).
        pair: rows of pairs, (n, K).
        pairs: connection, socket and accepted magnet, (P, 3).
        block: of each magnet, (M,).
        place: of the second block in the first one's frame when joined [m], (P, 3).
        joined: its rotation then, (P, 3, 3).
        to_go: to fill in, (n, K, 3).
        turn: to fill in, (n, K, 3, 3).
    """
    frame = np.empty((3, 3))
    for i in range(pair.shape[0]):
        for k in range(pair.shape[1]):
            p = pair[i, k]
            a, b = block[pairs[p, 1]], block[pairs[p, 2]]
            first, second = rotation[i, a], rotation[i, b]
            for x in range(3):
                to_go[i, k, x] = position[i, a, x] - position[i, b, x]
                for y in range(3):
                    to_go[i, k, x] += first[x, y] * place[p, y]
                    frame[x, y] = second[x, 0] * joined[p, y, 0]
                    frame[x, y] += second[x, 1] * joined[p, y, 1] + second[x, 2] * joined[p, y, 2]
            for x in range(3):
                for y in range(3):
                    turn[i, k, x, y] = frame[0, x] * first[0, y] + frame[1, x] * first[1, y] + frame[2, x] * first[2, y]


def _columns(rotation: Array) -> Array:
    """First two columns of rotation matrices, (..., 3, 3) -> (..., 6), row by row."""
    return rotation[..., :2].reshape(*rotation.shape[:-2], 6)


def _grasp_turn(rotation: Array) -> Array:
    """Sine and cosine of twice the angle in the palm from the fingers' closing direction to the block's x axis.

    A hand that has turned by half a turn grasps as well. Networks take long to find the product of a rotation's
    numbers that says which way it is shorter to turn; with it, turning is linear.

    Args:
        rotation: of blocks in the tool's frame, (..., 3, 3).

    Returns:
        (..., 2); both are smaller where the hand is not upright on the block.
    """
    across, along = rotation[..., 0, 0], rotation[..., 1, 0]
    return np.stack([2 * across * along, along**2 - across**2], axis=-1)


def _mirror_symmetric(blueprint: Blueprint) -> bool:
    """Whether every block, magnets included, is its own image under x -> -x."""
    flip = np.array([-1.0, 1.0, 1.0])
    described = {
        (m.block, m.polarity, *np.round(p, 6), *np.round(a, 6))
        for m, p, a in zip(blueprint.magnets, blueprint.magnet_position + 0.0, blueprint.magnet_axis + 0.0, strict=True)
    }
    image = {
        (m.block, m.polarity, *np.round(p * flip + 0.0, 6), *np.round(a * flip + 0.0, 6))
        for m, p, a in zip(blueprint.magnets, blueprint.magnet_position, blueprint.magnet_axis, strict=True)
    }
    return described == image
