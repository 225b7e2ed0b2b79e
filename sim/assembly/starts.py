"""Start states: the wide task and the curriculum that leads to it.

Scenes are drawn first, then the arms' poses by inverse kinematics, all of it vectorised over the batch.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.hardware import capsules, homing, xarm6
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell
from horseshoe.sim.assembly.magnets import matrices
from horseshoe.sim.assembly.scene import GRASP_HEIGHT, REACH, Assignment, Scene, SceneObserver

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

HOME = np.array(homing.HOME)
ARM_GAP = 0.03  # between the arms at the start; the action path keeps them 2.5 cm apart [m]
NEAREST = 0.30  # closest an arm's tool gets to its own base with the tool down [m]
EASIER = "above", "holding", "joining", "joined"  # how an arm may start to have less left to do


@dataclass(frozen=True)
class StartConfig:
    """Where episodes start.

    Attributes:
        centre_x, centre_y: half-size of the area of the socket block's centre [m].
        yaw: half-range of the socket block's yaw [rad].
        spread: half-angle of the fan in front of an arm that blocks lie in [rad].
        block_yaw: half-range of the other blocks' yaw from the joined orientation [rad].
        above, holding, joining, joined: probability that an arm starts above its block, holding it, holding it near its
            place, or about it in its place (curriculum; all zero is the whole task).
        assisted: probability that an episode is drawn with the four probabilities above at all.
        assisted_horizon: length of such an episode [s]; short, so that easy states make up much of the experience.
        again: probability that an episode of the whole task goes on a few seconds before another one failed lately
            (curriculum).
    """

    centre_x: float = field(default=0.08, metadata={"range": (0.0, 0.12)})
    centre_y: float = field(default=0.15, metadata={"range": (0.0, 0.2)})
    yaw: float = field(default=np.pi, metadata={"range": (0.0, 3.15)})
    spread: float = field(default=0.9, metadata={"range": (0.05, 1.2)})
    block_yaw: float = field(default=np.pi, metadata={"range": (0.0, 3.15)})
    above: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    holding: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    joining: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    joined: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    assisted: float = field(default=0.0, metadata={"range": (0.0, 1.0)})
    assisted_horizon: float = field(default=4.0, metadata={"range": (0.2, 120.0)})
    again: float = field(default=0.0, metadata={"range": (0.0, 1.0)})

    def __post_init__(self) -> None:
        total = sum(getattr(self, how) for how in EASIER)
        if total > 1 + 1e-9:
            raise ValueError(f"{', '.join(EASIER)}: add up to {total:g}, which is more than 1")


@dataclass
class Starts:
    """A batch of start states.

    q (n, R, 6); opening (n, R); command: gripper opening commanded before the first decision (n, R);
    position (n, B, 3); quaternion (w, x, y, z) (n, B, 4); whole: True where nothing was made easier (n,).
    """

    q: Array
    opening: Array
    command: Array
    position: Array
    quaternion: Array
    whole: Mask

    def take(self, index: NDArray[np.intp] | Mask) -> "Starts":
        """A selection of the starts."""
        return Starts(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def joined(cls, parts: "list[Starts]") -> "Starts":
        """All of them, one after the other."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.q)


def inverse_kinematics(pose: Array, start: Array, iterations: int = 40) -> tuple[Array, Mask]:
    """Damped least squares inverse kinematics, batched.

    Args:
        pose: tool poses in the arm's base frame, shape (n, 4, 4).
        start: initial joints [rad], shape (n, 6).
        iterations: steps.

    Returns:
        Joints [rad], shape (n, 6), and where they are within 1 mm, 0.5 deg and the joint limits, shape (n,).
    """
    q = start.copy()
    error = np.zeros((len(q), 6))
    left = np.arange(len(q))  # those that have not arrived
    for _ in range(iterations):
        here, jacobian = xarm6.tool_pose_and_jacobian(q[left])
        error[left, :3] = pose[left, :3, 3] - here[:, :3, 3]
        error[left, 3:] = _rotation_vector(pose[left, :3, :3] @ np.swapaxes(here[:, :3, :3], -1, -2))
        transposed = np.swapaxes(jacobian, -1, -2)
        step = transposed @ np.linalg.solve(jacobian @ transposed + 1e-4 * np.eye(6), error[left, :, None])
        q[left] += np.clip(step[..., 0], -0.3, 0.3)
        left = left[np.abs(error[left]).max(1) > 1e-12]
        if not left.size:
            break
    q[:, [0, 3, 5]] = (q[:, [0, 3, 5]] + np.pi) % (2 * np.pi) - np.pi
    inside = ((q > xarm6.JOINT_LOWER + 0.02) & (q < xarm6.JOINT_UPPER - 0.02)).all(1)
    close = (np.linalg.norm(error[:, :3], axis=1) < 1e-3) & (np.linalg.norm(error[:, 3:], axis=1) < 0.009)
    return q, inside & close & (np.abs(q[:, 3]) < 1.7)


def _rotation_vector(rotation: Array) -> Array:
    """Rotation vectors [rad], (n, 3), of matrices (n, 3, 3); scipy's checks take longer than all else here."""
    twice = rotation - np.swapaxes(rotation, -1, -2)
    axis = np.stack([twice[:, 2, 1], twice[:, 0, 2], twice[:, 1, 0]], axis=-1) / 2
    sine = np.sqrt((axis**2).sum(-1))
    angle = np.arctan2(sine, (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2)
    return axis * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 1.0)[:, None]


class StartSampler:
    """Draws start states.

    Args:
        cell: where the arms are.
        blueprint: the blocks; the first one is the socket block that the others are joined to.
    """

    def __init__(self, cell: Cell, blueprint: Blueprint) -> None:
        self.cell, self.blueprint = cell, blueprint
        self.observer = SceneObserver(cell, blueprint)

    def sample(self, rng: np.random.Generator, n: int, config: StartConfig) -> Starts:
        """N start states."""
        kept: list[Starts] = []
        while sum(map(len, kept)) < n:
            batch, ok = self._draw(rng, max(n // 4, 64), config)
            kept.append(batch.take(np.flatnonzero(ok)))
        return Starts.joined(kept).take(np.arange(n))

    def _draw(self, rng: np.random.Generator, n: int, config: StartConfig) -> tuple[Starts, Mask]:
        arms = len(self.cell.arms)
        position, yaw, ok = self._blocks(rng, n, config)
        q, reached = self._free_arms(rng, n)
        ok &= reached
        quaternion = _yaw_quaternion(yaw)
        opening = rng.uniform(0.03, xarm6.GRIPPER_STROKE, (n, arms))
        command = opening.copy()
        scene = Scene(q, opening, position, matrices(quaternion), np.concatenate([q, opening[..., None]], -1))
        assignment = self.observer.assign(scene)
        assisted = rng.random(n) < config.assisted
        kind = rng.random((n, arms))
        for r in range(arms):
            serves = assisted & (assignment.pair[:, r] >= 0)
            end = 0.0
            for how in EASIER:
                start, end = end, end + getattr(config, how)
                mask = serves & (start <= kind[:, r]) & (kind[:, r] < end)
                self._help(rng, mask, how, r, q, opening, command, position, quaternion, assignment)
        ok &= self._apart(q, position, quaternion)
        return Starts(q, opening, command, position, quaternion, ~assisted), ok

    def _blocks(self, rng: np.random.Generator, n: int, config: StartConfig) -> tuple[Array, Array, Mask]:
        """Blocks on the table: positions (n, B, 3), yaws (n, B), and where all of them found room."""
        bp = self.blueprint
        height = np.array([b.size[2] / 2 for b in bp.blocks]) + self.cell.table.height
        radius = np.array([np.hypot(*b.size[:2]) / 2 for b in bp.blocks])
        position = np.zeros((n, len(bp.blocks), 3))
        position[..., 2] = height
        yaw = rng.uniform(-config.yaw, config.yaw, (n, len(bp.blocks)))
        position[:, 0, 0] = rng.uniform(-config.centre_x, config.centre_x, n)
        position[:, 0, 1] = rng.uniform(-config.centre_y, config.centre_y, n)
        yaw[:, 1:] = yaw[:, :1] + rng.uniform(-config.block_yaw, config.block_yaw, (n, len(bp.blocks) - 1))
        # Every arm gets at least one block in its reach; which block is chance.
        order = rng.permuted(np.tile(np.arange(1, len(bp.blocks)), (n, 1)), axis=1)
        first_arm = rng.integers(len(self.cell.arms), size=n)
        ok = np.ones(n, dtype=bool)
        placed = [np.zeros(n, dtype=np.intp)]
        for k in range(order.shape[1]):
            arm = (first_arm + k) % len(self.cell.arms)
            block = order[:, k]
            distance = np.sqrt(rng.uniform(NEAREST**2, (REACH - 0.02) ** 2, (n, 24)))
            angle = rng.uniform(-config.spread, config.spread, (n, 24))
            base = np.array([a.position[:2] for a in self.cell.arms])[arm]
            direction = np.array([a.yaw for a in self.cell.arms])[arm][:, None] + angle
            spot = base[:, None] + distance[..., None] * np.stack([np.cos(direction), np.sin(direction)], -1)
            free = np.ones(spot.shape[:2], dtype=bool)
            for other in placed:
                place = position[np.arange(n), other, None, :2]
                room = radius[block] + radius[other] + 0.01
                free &= np.linalg.norm(spot - place, axis=-1) > room[:, None]
            pick = free.argmax(1)
            ok &= free[np.arange(n), pick]
            position[np.arange(n), block, :2] = spot[np.arange(n), pick]
            placed.append(block)
        return position, yaw, ok

    def _free_arms(self, rng: np.random.Generator, n: int) -> tuple[Array, Mask]:
        """Random arm poses above the table: joints (n, R, 6), and where they were reached."""
        q, ok = np.empty((n, len(self.cell.arms), 6)), np.ones(n, dtype=bool)
        for r in range(len(self.cell.arms)):
            angle, distance = rng.uniform(-0.7, 0.7, n), rng.uniform(0.3, 0.45, n)
            place = np.stack([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.12, 0.32, n)], -1)
            q[:, r], reached = self._reach(rng, place, rng.uniform(-np.pi / 2, np.pi / 2, n), tilt=0.35)
            ok &= reached
        return q, ok

    def _reach(
        self, rng: np.random.Generator, place: Array, yaw: Array, tilt: float, iterations: int = 40
    ) -> tuple[Array, Mask]:
        """Joints for a tool at `place` (n, 3) in the arm's frame, closing direction at `yaw` (n,), about upright."""
        pose = np.tile(np.eye(4), (len(place), 1, 1))
        lean = Rotation.from_rotvec(rng.uniform(-tilt, tilt, (len(place), 3)) * [1, 1, 0])
        pose[:, :3, :3] = (lean * Rotation.from_euler("z", yaw[:, None]) * Rotation.from_euler("x", np.pi)).as_matrix()
        pose[:, :3, 3] = place
        start = np.tile(HOME, (len(place), 1))
        start[:, 0] = np.arctan2(place[:, 1], place[:, 0])
        start[:, 5] = start[:, 0] - yaw
        return inverse_kinematics(pose, start, iterations)

    def _help(
        self,
        rng: np.random.Generator,
        mask: Mask,
        how: str,
        r: int,
        q: Array,
        opening: Array,
        command: Array,
        position: Array,
        quaternion: Array,
        assignment: Assignment,
    ) -> None:
        """Move arm r of the masked starts (and the block it serves) to an easier state, in place."""
        index = np.flatnonzero(mask)
        if not index.size:
            return
        bp = self.blueprint
        pair = assignment.pair[index, r]
        block = bp.magnet_block[bp.pairs[pair, 2]]
        centre, turn = position[index, block].copy(), quaternion[index, block].copy()
        if how in ("joining", "joined"):
            socket = bp.magnet_block[bp.pairs[pair, 1]]
            base = matrices(quaternion[index, socket])
            outward = bp.magnet_axis[bp.pairs[pair, 1]]
            gap = (0.02, 0.08) if how == "joining" else (0.0025, 0.004)
            away = bp.goal_position[pair] + outward * rng.uniform(*gap, (len(index), 1))
            sideways = rng.uniform(-0.03, 0.03, (len(index), 3)) * [1, 1, 0] * (how == "joining")
            centre = position[index, socket] + (base @ (away + sideways)[..., None])[..., 0]
            joined = Rotation.from_matrix(base @ bp.goal_rotation[pair])
            # Half of them nearly straight, half of them anyhow: a turned block beside its socket has to go back first.
            most = np.where(rng.random((len(index), 1)) < 0.5, 0.4, np.pi / 2)
            wobble = Rotation.from_euler("z", rng.uniform(-most, most) * (how == "joining"))
            turn = (wobble * joined).as_quat(scalar_first=True)
        if how in ("holding", "joining"):
            centre[:, 2] += np.where(rng.random(len(index)) < 0.5, 0.0, rng.uniform(0.0, 0.1, len(index)))
        base_pose = np.linalg.inv(self.cell.base_poses[r])
        lift = GRASP_HEIGHT + (
            rng.uniform(0.03, 0.15, len(index)) if how == "above" else rng.uniform(-0.004, 0.008, len(index))
        )
        aside = rng.uniform(-0.03, 0.03, (len(index), 2)) if how == "above" else np.zeros((len(index), 2))
        tool = centre + np.concatenate([aside, lift[:, None]], 1)
        place = tool @ base_pose[:3, :3].T + base_pose[:3, 3]
        # The fingers close across the block's x axis; either way round.
        heading = Rotation.from_quat(turn, scalar_first=True).as_euler("ZYX")[:, 0] - self.cell.arms[r].yaw + np.pi / 2
        wide = rng.uniform(-0.3, 0.3, len(index)) if how == "above" else 0.0
        yaw = (heading + wide + np.pi / 2) % np.pi - np.pi / 2
        joints, reached = self._reach(rng, place, yaw, tilt=0.1)
        index, reached = index[reached], reached
        q[index, r] = joints[reached]
        if how == "above":
            opening[index, r] = command[index, r] = xarm6.GRIPPER_STROKE
        else:
            position[index, block[reached]], quaternion[index, block[reached]] = centre[reached], turn[reached]
            opening[index, r] = np.array([b.size[0] for b in bp.blocks])[block[reached]] + 0.001
            command[index, r] = opening[index, r] - 0.02
        if how == "joined":  # the hand holds it or has just let go
            let_go = index[rng.random(len(index)) < 0.5]
            opening[let_go, r] = command[let_go, r] = 0.07

    def _apart(self, q: Array, position: Array, quaternion: Array) -> Mask:
        """Where arms are apart and blocks do not overlap, shape (n,)."""
        tool = self.observer.tool_poses(q)
        ok = capsules.gaps_and_gradients(q, self.cell.base_poses)[0][:, 0] > ARM_GAP
        half = np.array([b.size for b in self.blueprint.blocks]) / 2
        rotation = matrices(quaternion)
        for i in range(len(half)):
            for j in range(i):
                ok &= _boxes_apart(position[:, i], rotation[:, i], half[i], position[:, j], rotation[:, j], half[j])
        # No free hand starts inside a block.
        tip = tool[..., :3, 3]
        for r in range(q.shape[1]):
            for b in range(len(half)):
                local = (np.swapaxes(rotation[:, b], -1, -2) @ (tip[:, r] - position[:, b])[..., None])[..., 0]
                off = np.abs(local) - half[b]
                held = np.linalg.norm(tip[:, r] - position[:, b], axis=-1) < 0.015
                ok &= held | (off.max(-1) > 0.012)
        return ok


def _boxes_apart(pa: Array, ra: Array, ha: Array, pb: Array, rb: Array, hb: Array) -> Mask:
    """Separating axis test in the plane for boxes that stand upright, shape (n,); vertical gaps count too."""
    d = pb - pa
    apart = np.abs(d[:, 2]) > ha[2] + hb[2]
    for rotation in (ra, rb):
        for axis in range(2):
            n = rotation[:, :, axis]
            reach_a = sum(ha[k] * np.abs((ra[:, :, k] * n).sum(-1)) for k in range(2))
            reach_b = sum(hb[k] * np.abs((rb[:, :, k] * n).sum(-1)) for k in range(2))
            apart |= np.abs((d * n).sum(-1)) > reach_a + reach_b + 0.002
    return apart


def _yaw_quaternion(yaw: Array) -> Array:
    return np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], axis=-1)
