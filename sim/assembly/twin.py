"""The twin: the same cell in PyBullet, a world that no training ever saw.

It shares with the batch world what the task is (cell, blueprint, magnets, when a servo target comes) and nothing of how
it behaves: arms are the vendor's URDF with a linkage gripper and stiff servos (`twin_arm`), contacts are Bullet's
sequential impulses at 500 Hz with compliant pads, friction coefficients multiply, latches are fixed constraints. No
number here was fitted to MuJoCo or to a policy. Cells advance one after the other: for evaluation, not for training.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import magnets, mjcf
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell
from horseshoe.sim.assembly.twin_arm import TwinArm, write_urdf
from horseshoe.sim.assembly.world import TICK, BatchWorld, PhysicsRange, size_lag_strength

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEP = 0.002  # [s] of Bullet; five in a servo tick
ITERATIONS = 100  # of its solver
BLOCK_FRICTION = 0.6  # times that of pad or table gives the coefficient wanted; block on block has 0.36
GLIDE = 0.06  # [s] in which a captured block moves into its place
LATCH_FORCE = 2.0  # a latch pulls no harder than this many times its break-away force
LOAD_FILTER = 0.02  # [s], smoothing of the load on a latch: a knock does not open it
TWIN_PHYSICS = PhysicsRange(
    mass=(0.8, 1.25),
    size=(0.99, 1.01),
    pad_friction=(0.8, 1.2),
    table_friction=(0.3, 0.5),
    servo_lag=(0.01, 0.04),
    finger_force=(22.0, 34.0),
    magnet=(0.9, 1.1),
)


class _Client:
    """The functions and constants of PyBullet for one world of its own; `pybullet_utils` has one that prints."""

    def __init__(self) -> None:
        import pybullet

        self._pybullet, self._number = pybullet, pybullet.connect(pybullet.DIRECT)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._pybullet, name)
        if callable(value):
            value = functools.partial(value, physicsClientId=self._number)
        setattr(self, name, value)
        return value

    def __del__(self) -> None:
        self._pybullet.disconnect(self._number)


class _Latch:
    """A fixed constraint between two blocks that starts where they are and glides to where they belong."""

    def __init__(self, client: Any, blocks: tuple[int, int], socket: Array, turn: Array, accepted: Array) -> None:
        self._client, self._age = client, 0.0
        (pa, qa), (pb, qb) = (client.getBasePositionAndOrientation(b) for b in blocks)
        ra, rb = Rotation.from_quat(qa), Rotation.from_quat(qb)
        wanted = Rotation.from_matrix(turn)
        # The frame of the constraint in the socket's block is fixed; in the accepted block it moves.
        self._pivot = rb.inv().apply(ra.apply(socket) + pa - np.array(pb)), accepted
        self._turn = (rb.inv() * ra * wanted).as_rotvec()
        self._id = client.createConstraint(
            blocks[0], -1, blocks[1], -1, client.JOINT_FIXED, [0, 0, 0], socket.tolist(), self._pivot[0].tolist(),
            wanted.as_quat().tolist(), Rotation.from_rotvec(self._turn).as_quat().tolist(),
        )  # fmt: skip
        self.load = np.zeros(6)

    def step(self, max_force: float) -> None:
        """Before a step of the physics."""
        self._age += STEP
        part = min(self._age / GLIDE, 1.0)
        pivot = (1 - part) * self._pivot[0] + part * self._pivot[1]
        turn = Rotation.from_rotvec((1 - part) * self._turn)
        self._client.changeConstraint(
            self._id,
            jointChildPivot=pivot.tolist(),
            jointChildFrameOrientation=turn.as_quat().tolist(),
            maxForce=max_force,
        )

    def measure(self) -> None:
        """After a step of the physics."""
        self.load += STEP / LOAD_FILTER * (np.array(self._client.getConstraintState(self._id)) - self.load)

    def remove(self) -> None:
        self._client.removeConstraint(self._id)


class _TwinCell:
    """One PyBullet client with one cell."""

    def __init__(self, cell: Cell, blueprint: Blueprint, urdf: Path) -> None:
        self._cell, self._blueprint, self._urdf = cell, blueprint, urdf
        self.client: Any = _Client()
        self.latches: dict[int, _Latch] = {}
        self.wrench = np.zeros((len(blueprint.blocks), 6))
        self.physics = mjcf.Physics()
        self.arms: list[TwinArm] = []
        self.blocks: list[int] = []

    def build(self, physics: mjcf.Physics) -> None:
        """Start from an empty world, so that nothing is left of the last episode, not even a warm start."""
        client, self.physics, self.latches = self.client, physics, {}
        client.resetSimulation()
        client.setGravity(0, 0, -9.81)
        client.setPhysicsEngineParameter(
            fixedTimeStep=STEP, numSolverIterations=ITERATIONS, deterministicOverlappingPairs=1
        )
        table = self._cell.table
        half = [table.size[0] / 2, table.size[1] / 2, 0.05]
        shape = client.createCollisionShape(client.GEOM_BOX, halfExtents=half)
        self.table = client.createMultiBody(0, shape, -1, [0, 0, table.height - half[2]])
        client.changeDynamics(self.table, -1, lateralFriction=physics.table_friction / BLOCK_FRICTION)
        friction = physics.pad_friction / BLOCK_FRICTION
        self.arms = [
            TwinArm(client, self._urdf, arm, friction, physics.servo_lag, physics.finger_force, STEP)
            for arm in self._cell.arms
        ]
        for arm in self.arms:  # its foot stands on the table
            client.setCollisionFilterPair(arm.body, self.table, arm.link["link_base"], -1, 0)
        self.blocks = []
        for block in self._blueprint.blocks:
            shape = client.createCollisionShape(
                client.GEOM_BOX, halfExtents=(np.array(block.size) / 2 * physics.size).tolist()
            )
            body = client.createMultiBody(block.mass * physics.mass, shape)
            client.changeDynamics(body, -1, lateralFriction=BLOCK_FRICTION, linearDamping=0.0, angularDamping=0.0)
            self.blocks.append(body)

    def place(self, q: Array, opening: Array, position: Array, quaternion: Array) -> None:
        for arm, joints, width in zip(self.arms, q, opening, strict=True):
            arm.place(joints, float(width))
        for body, place, turn in zip(self.blocks, position, quaternion, strict=True):
            self.client.resetBasePositionAndOrientation(body, place.tolist(), [*turn[1:], turn[0]])

    def turn(self, quaternion: Array) -> None:
        """Turn blocks about their centres, to (w, x, y, z), (B, 4); they keep their speed."""
        for body, turn in zip(self.blocks, quaternion, strict=True):
            velocity = self.client.getBaseVelocity(body)
            centre, _ = self.client.getBasePositionAndOrientation(body)
            self.client.resetBasePositionAndOrientation(body, centre, [*turn[1:], turn[0]])
            self.client.resetBaseVelocity(body, *velocity)

    def latch(self, wanted: Mask) -> None:
        """Make and remove constraints so that they are those of the pairs wanted, shape (P,)."""
        bp, size = self._blueprint, self.physics.size
        for p in [p for p in self.latches if not wanted[p]]:
            self.latches.pop(p).remove()
        for p in np.flatnonzero(wanted).tolist():
            if int(p) not in self.latches:
                _, s, a = bp.pairs[p]
                blocks = self.blocks[bp.magnet_block[s]], self.blocks[bp.magnet_block[a]]
                self.latches[int(p)] = _Latch(
                    self.client, blocks, bp.magnet_position[s] * size, bp.goal_rotation[p], bp.magnet_position[a] * size
                )

    def load(self) -> tuple[Array, Array]:
        """What pulls at every pair: tension or shear [N], and torque [N m], each (P,)."""
        bp = self._blueprint
        force, torque = np.zeros(len(bp.pairs)), np.zeros(len(bp.pairs))
        for p, latch in self.latches.items():
            s = bp.pairs[p, 1]
            _, turn = self.client.getBasePositionAndOrientation(self.blocks[bp.magnet_block[s]])
            axis = Rotation.from_quat(turn).apply(bp.magnet_axis[s])
            along = float(latch.load[:3] @ axis)
            shear = latch.load[:3] - along * axis
            # Blocks that are pressed together do not come apart.
            force[p] = np.hypot(max(along, 0.0), np.linalg.norm(shear))
            torque[p] = np.linalg.norm(latch.load[3:])
        return force, torque

    def tick(self, targets: Array) -> Array:
        """Advance by one servo tick towards (R, 7); returns mean forces: between the arms, each arm on the table."""
        client, steps = self.client, round(TICK / STEP)
        pull = LATCH_FORCE * magnets.BREAK_FORCE * self.physics.magnet**2
        impulse = np.zeros((1 + len(self.arms), 3))
        for _ in range(steps):
            for arm, target in zip(self.arms, targets, strict=True):
                arm.servo(target)
            for latch in self.latches.values():
                latch.step(pull)
            for body, wrench in zip(self.blocks, self.wrench, strict=True):
                if wrench.any():
                    centre, _ = client.getBasePositionAndOrientation(body)
                    client.applyExternalForce(body, -1, wrench[:3].tolist(), centre, client.WORLD_FRAME)
                    client.applyExternalTorque(body, -1, wrench[3:].tolist(), client.WORLD_FRAME)
            client.stepSimulation()
            for latch in self.latches.values():
                latch.measure()
            impulse[0] += self._contact(self.arms[0].body, self.arms[1].body)
            for r, arm in enumerate(self.arms):
                impulse[1 + r] += self._contact(arm.body, self.table)
        return np.linalg.norm(impulse, axis=1) / steps

    def _contact(self, first: int, second: int) -> Array:
        points = self.client.getContactPoints(first, second)
        return np.sum([np.array(p[7]) * p[9] for p in points], axis=0) if points else np.zeros(3)

    def read(self, state: Array, n_arm: int, n_qpos: int) -> None:
        """Write arms and blocks into qpos, qvel and act of a state vector (without its time)."""
        client, per_arm, n_blocks = self.client, n_arm // len(self.arms), len(self.blocks)
        velocity = n_qpos
        act = velocity + n_arm + 6 * n_blocks
        for r, arm in enumerate(self.arms):
            q, qd, half = arm.read()
            slides = (xarm6.GRIPPER_STROKE / 2 - half) / np.cos(mjcf.FINGER_TILT)
            state[r * per_arm : (r + 1) * per_arm] = np.concatenate([q, slides])
            state[velocity + r * per_arm : velocity + r * per_arm + 6] = qd
            state[act + 6 * r : act + 6 * (r + 1)] = arm.setpoint
        for b, body in enumerate(self.blocks):
            centre, turn = client.getBasePositionAndOrientation(body)
            linear, angular = client.getBaseVelocity(body)
            state[n_arm + 7 * b : n_arm + 7 * b + 3] = centre
            state[n_arm + 7 * b + 3 : n_arm + 7 * (b + 1)] = turn[3], *turn[:3]
            at = velocity + n_arm + 6 * b
            state[at : at + 3] = linear
            state[at + 3 : at + 6] = angular @ np.reshape(client.getMatrixFromQuaternion(turn), (3, 3))


class TwinWorld(BatchWorld):
    """n_envs cells in PyBullet behind the interface of the batch world; state vectors are laid out as MuJoCo's.

    Args:
        cell: where arms and table are.
        blueprint: the blocks.
        n_envs: number of cells, one PyBullet client each.
        physics: ranges of what differs between episodes; `servo_stiffness`, `servo_damping` and `joint_friction` have
            no counterpart here.
        pool: number of draws from them.
        seed: of the draws.
    """

    def __init__(
        self,
        cell: Cell,
        blueprint: Blueprint,
        n_envs: int,
        physics: PhysicsRange | None = None,
        pool: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(cell, blueprint, n_envs, pool=1, n_threads=1)  # one nominal model, which only draws
        rng = np.random.default_rng([seed, 0x7477696E])
        self.physics = [(physics or TWIN_PHYSICS).sample(rng) for _ in range(pool)]
        self.models = [self.models[0]] * pool
        self._pool = np.array(self.models, dtype=object)
        self._sizes, self._lags, self._strengths = size_lag_strength(self.physics)
        self._folder = tempfile.TemporaryDirectory(prefix="horseshoe-twin-")
        urdf = Path(self._folder.name) / "xarm6.urdf"
        write_urdf(urdf)
        self.cells = [_TwinCell(cell, blueprint, urdf) for _ in range(n_envs)]
        self._n_arm = self._nq - 7 * self.n_blocks
        self._assign(np.zeros(n_envs, dtype=np.intp))

    def reset(
        self, mask: Mask, model_index: NDArray[np.intp], q: Array, opening: Array, position: Array, quaternion: Array
    ) -> None:
        """As `BatchWorld.reset`."""
        super().reset(mask, model_index, q, opening, position, quaternion)
        for k, i in enumerate(np.flatnonzero(mask)):
            self.cells[i].build(self.physics[self.model_index[i]])
            self.cells[i].place(q[k], opening[k], position[k], quaternion[k])

    def advance(self, targets: Array) -> None:
        """As `BatchWorld.advance`; contact forces are means over a tick, as there."""
        n_ticks = targets.shape[1]
        self._force[:] = 0.0
        self.trace.begin(n_ticks, self.memory)
        for tick in range(n_ticks):
            blocks = self._blocks(self._state)
            position, rotation = blocks[..., :3], magnets.matrices(blocks[..., 3:])
            load = np.array([cell.load() for cell in self.cells])
            self.magnets.update(*self.magnets.gaps(position, rotation), load[:, 0], load[:, 1], TICK)
            wrench = self.magnets.wrenches(position, rotation)
            for i in np.flatnonzero(~self.diverged):
                cell = self.cells[i]
                cell.latch(self.magnets.latched[i])
                cell.wrench = wrench[i]
                self._force[i] = np.maximum(self._force[i], cell.tick(targets[i, tick]))
                self._read(int(i))
            self.trace.keep(tick + 1, self._state)
        for i in self._name_sides():
            self.cells[i].turn(self._blocks(self._state)[i, :, 3:])

    def snapshot(self) -> dict[str, Array]:
        """Not offered.

        Raises:
            HorseshoeError: always; Bullet keeps constraints and contacts that cannot be read out.
        """
        raise HorseshoeError("engine: pybullet cannot save its state; train and resume with engine mujoco")

    def restore(self, snapshot: dict[str, Array], rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """Not offered; see `snapshot`."""
        raise HorseshoeError("engine: pybullet cannot restore a state; train and resume with engine mujoco")

    def _read(self, i: int) -> None:
        """Copy a cell out of Bullet unless it exploded; then it stays as it was."""
        state = self._state[i].copy()
        state[0] += TICK
        self.cells[i].read(state[1:], self._n_arm, self._nq)
        if np.isfinite(state).all() and np.abs(state[1 : 1 + self._nq + self._nv]).max() < 1e3:
            self._state[i] = state
        else:
            self.diverged[i] = True
