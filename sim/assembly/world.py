"""The batch world: many cells side by side in MuJoCo, advanced by `mujoco.rollout` in threads."""

from dataclasses import dataclass, field, fields
from functools import partial

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import configuration
from horseshoe.compiled import Shares, compiled
from horseshoe.hardware import xarm6
from horseshoe.sim.assembly import magnets, mjcf
from horseshoe.sim.assembly.blueprint import Blueprint
from horseshoe.sim.assembly.cell import Cell
from horseshoe.sim.assembly.trace import Trace

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

TICK = mjcf.TIME_STEP  # one servo tick is one physics step [s]
LOOK = 2  # ticks between two looks at the magnets: over twice that time they throw a block past its place
SHARE = 32  # environments a thread takes through a decision at a time: what they need stays in its core's cache
_SPEC = int(mujoco.mjtState.mjSTATE_CTRL | mujoco.mjtState.mjSTATE_XFRC_APPLIED | mujoco.mjtState.mjSTATE_EQ_ACTIVE)
_PER_ARM = xarm6.N_JOINTS + 2  # joints and slides


@dataclass(frozen=True)
class PhysicsRange:
    """Ranges [low, high] of the physics that differ between environments; fields as in `mjcf.Physics`."""

    mass: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.05, 20.0)})
    size: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.9, 1.1)})
    pad_friction: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.0, 10.0)})
    table_friction: tuple[float, float] = field(default=(0.4, 0.4), metadata={"range": (0.0, 2.0)})
    servo_stiffness: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.05, 10.0)})
    servo_damping: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.05, 10.0)})
    servo_lag: tuple[float, float] = field(default=(0.03, 0.03), metadata={"range": (0.001, 0.5)})
    joint_friction: tuple[float, float] = field(default=(0.0, 0.0), metadata={"range": (0.0, 20.0)})
    finger_force: tuple[float, float] = field(
        default=(xarm6.GRIPPER_MAX_FORCE, xarm6.GRIPPER_MAX_FORCE), metadata={"range": (1.0, 200.0)}
    )
    magnet: tuple[float, float] = field(default=(1.0, 1.0), metadata={"range": (0.0, 10.0)})

    def __post_init__(self) -> None:
        configuration.check_ranges(self)

    def sample(self, rng: np.random.Generator) -> mjcf.Physics:
        """Draw one cell's physics, uniformly."""
        return mjcf.Physics(**{f.name: float(rng.uniform(*getattr(self, f.name))) for f in fields(self)})


def size_lag_strength(pool: list[mjcf.Physics]) -> tuple[Array, Array, Array]:
    """Scale of the blocks, time constant of the servos [s] and scale of the magnets of every physics, each (k,)."""
    size, lag, strength = np.array([(p.size, p.servo_lag, p.magnet) for p in pool]).T
    return size, lag, strength


@dataclass
class WorldState:
    """What every engine reports of a batch of cells (R arms, B blocks); world frame, SI units.

    q, qd: (n, R, 6); opening: distance between the pads (n, R); position (n, B, 3); quaternion (w, x, y, z)
    (n, B, 4); velocity: linear (world) and angular (block) (n, B, 6); arm_contact: force between the arms [N] (n,);
    table_contact: force between an arm and the table [N] (n, R).
    """

    q: Array
    qd: Array
    opening: Array
    position: Array
    quaternion: Array
    velocity: Array
    arm_contact: Array
    table_contact: Array


class BatchWorld:
    """n_envs cells with physics of their own.

    Args:
        cell: where arms and table are.
        blueprint: the blocks.
        n_envs: number of cells.
        physics: range the cells' physics are drawn from. Models are compiled once into a pool; a reset moves a cell to
            another model of the pool.
        pool: number of models in the pool.
        seed: of the draw of the pool.
        n_threads: threads that the cells are shared out among; what happens does not depend on them.

    Attributes:
        magnets: latches and forces, shared by all engines.
        diverged: environments whose physics exploded during the last `advance`, shape (n_envs,); they stay frozen
            until reset.
        memory: how many ticks back `state` will be asked for; set before `advance`.
        trace: what the last decisions came through.
    """

    def __init__(
        self,
        cell: Cell,
        blueprint: Blueprint,
        n_envs: int,
        physics: PhysicsRange | None = None,
        pool: int = 256,
        seed: int = 0,
        n_threads: int = 2,
    ) -> None:
        self.cell, self.blueprint, self.n_envs = cell, blueprint, n_envs
        self.n_arms, self.n_blocks = len(cell.arms), len(blueprint.blocks)
        rng = np.random.default_rng([seed, 0x706F6F6C])
        physics = physics or PhysicsRange()
        same = all(low == high for low, high in (getattr(physics, f.name) for f in fields(physics)))
        self.physics = [physics.sample(rng) for _ in range(1 if same else pool)]
        self.models = [mujoco.MjModel.from_xml_string(mjcf.cell_xml(cell, blueprint, p)) for p in self.physics]
        self._pool = np.empty(len(self.models), dtype=object)
        self._pool[:] = self.models
        self._sizes, self._lags, self._strengths = size_lag_strength(self.physics)
        model = self.models[0]
        self._shares = Shares(n_envs, n_threads, SHARE)
        self._data = [mujoco.MjData(model) for _ in self._shares.rows]
        self._rollouts = [Rollout(nthread=0) for _ in self._shares.rows]
        self._nq, self._nv = model.nq, model.nv
        size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self._default = np.empty(size)
        mujoco.mj_getState(model, mujoco.MjData(model), self._default, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._state = np.tile(self._default, (n_envs, 1))
        self._states = np.empty((n_envs, LOOK, size))
        self._sensors = np.empty((n_envs, LOOK, model.nsensordata))
        self._control = np.zeros((n_envs, LOOK, mujoco.mj_stateSize(model, _SPEC)))
        # Where forces on blocks, which are the last bodies, and latches begin; couplings of fingers come before these.
        self._xfrc = model.nu + 6 * (model.nbody - self.n_blocks)
        self._eq = model.nu + 6 * model.nbody + self.n_arms
        self._control[..., self._eq - self.n_arms : self._eq] = 1.0
        self._compliance = np.stack([_weld_compliance(m, blueprint) for m in self.models])
        self.magnets = magnets.Magnets(blueprint, n_envs)
        self.model_index = np.zeros(n_envs, dtype=np.intp)
        self.diverged: Mask = np.zeros(n_envs, dtype=bool)
        self._force = np.zeros((n_envs, 1 + self.n_arms))
        self.memory, self.trace = 0, Trace(self._state)
        self._assign(np.zeros(n_envs, dtype=np.intp))

    def _assign(self, index: NDArray[np.intp]) -> None:
        self.model_index = index
        # A share has few models, so that they stay in the cache of a core.
        self._order = np.argsort(index, kind="stable")
        self.magnets.size, self.magnets.strength = self._sizes[index], self._strengths[index]

    def reset(
        self, mask: Mask, model_index: NDArray[np.intp], q: Array, opening: Array, position: Array, quaternion: Array
    ) -> None:
        """Put the environments of `mask` (n_envs,) into new states, at rest, all latches open.

        Args:
            mask: which environments, shape (n_envs,); k of them are True.
            model_index: model of the pool each one gets, shape (k,).
            q: [rad], shape (k, R, 6).
            opening: [m], shape (k, R).
            position: [m], shape (k, B, 3).
            quaternion: (w, x, y, z), shape (k, B, 4).
        """
        k = len(q)
        index = self.model_index.copy()
        index[mask] = model_index
        self._assign(index)
        state = np.tile(self._default, (k, 1))
        slide = ((xarm6.GRIPPER_STROKE - opening) / 2 / np.cos(mjcf.FINGER_TILT))[..., None]
        arms = np.concatenate([q, slide, slide], axis=-1).reshape(k, -1)
        blocks = np.concatenate([position, quaternion], axis=-1).reshape(k, -1)
        state[:, 1 : 1 + self._nq] = np.concatenate([arms, blocks], axis=1)
        act = 1 + self._nq + self._nv
        state[:, act : act + q[0].size] = q.reshape(k, -1)  # the servos' lag filters
        self._state[mask] = state
        self.trace.states[:, mask] = state
        self.magnets.reset(mask)
        self.diverged[mask] = False
        self._force[mask] = 0.0

    def advance(self, targets: Array) -> None:
        """Advance every environment by the servo ticks given.

        Args:
            targets: joint targets [rad] and gripper opening [m], shape (n_envs, n_ticks, R, 7).
        """
        n, n_ticks = targets.shape[:2]
        control = targets.reshape(n, n_ticks, -1)[self._order]
        for r in range(self.n_arms):
            control[..., 7 * r + 6] = xarm6.GRIPPER_STROKE - control[..., 7 * r + 6]
        self._force[:] = 0.0
        self.trace.begin(n_ticks, self.memory)
        self._shares.run(partial(self._advance, control), self._rollouts, self._data)
        self._name_sides()

    def _advance(self, control: Array, share: slice, rollout: Rollout, data: mujoco.MjData) -> None:
        """What `advance` does, for some of the environments; controls are in the order of `_order`."""
        rows, control, n_ticks = self._order[share], control[share], control.shape[1]
        state, force, diverged = self._state[rows], self._force[rows], self.diverged[rows]
        latches, blocks = self.magnets.take(rows), self._blocks(state)
        models = self._pool[self.model_index[rows]].tolist()
        # A weld is a spring of known stiffness at rest: how far it gives way tells the load.
        give = self._compliance[self.model_index[rows]]
        inputs, states, sensors = self._control[share], self._states[share], self._sensors[share]
        for start in range(0, n_ticks, LOOK):
            ticks = min(LOOK, n_ticks - start)
            if ticks < LOOK:
                inputs, states, sensors = inputs[:, :ticks].copy(), states[:, :ticks].copy(), sensors[:, :ticks].copy()
            wrenches = latches.look(blocks, give, ticks * TICK)
            _fill_in(inputs, control, start, wrenches, self._xfrc, latches.latched, self._eq)
            rollout.rollout(
                models,
                [data],
                state,
                inputs,
                control_spec=_SPEC,
                skip_checks=True,
                nstep=ticks,
                state=states,
                sensordata=sensors,
            )
            _take_over(states, sensors, TICK, state, diverged, force)
            self.trace.keep(start + ticks, state, rows)
        self._state[rows], self._force[rows], self.diverged[rows] = state, force, diverged
        self.magnets.put(rows, latches)

    def _name_sides(self) -> NDArray[np.intp]:
        """Call free blocks that rolled over by the side that is up now; their sides are alike, and nothing moves.

        Returns:
            Environments in which a block was renamed.
        """
        quaternions = self._blocks(self._state)[..., 3:]
        # Most lie as they should: z axes are 60 degrees from upright or more where x^2 + y^2 is beyond a quarter.
        tilted = np.flatnonzero(_tilted(quaternions))
        turns = np.zeros(quaternions.shape[:2], dtype=np.intp)
        turns[tilted] = self.blueprint.quarter_turns(quaternions[tilted])
        env, pair = np.nonzero(self.magnets.latched)
        for magnet in self.blueprint.pairs[pair, 1:].T:
            turns[env, self.blueprint.magnet_block[magnet]] = 0
        env, block = np.nonzero(turns)
        if not env.size:
            return env
        roll = self.blueprint.roll(block, turns[env, block])
        turned = Rotation.from_quat(quaternions[env, block], scalar_first=True) * roll
        quaternions[env, block] = turned.as_quat(scalar_first=True)
        # The angular velocity of a free joint is in the frame of its body.
        place = 1 + self._nq + self.n_arms * _PER_ARM + 6 * block[:, None] + np.arange(3, 6)
        self._state[env[:, None], place] = roll.inv().apply(self._state[env[:, None], place])
        self.trace.states[-1] = self._state
        return np.unique(env)

    def state(self, lag: NDArray[np.intp] | None = None, rows: Mask | slice = slice(None)) -> WorldState:
        """Read environments.

        Args:
            lag: how many ticks ago, at most `memory`, shape (n_envs,); now without it.
            rows: which environments; all without it.
        """
        return self.read(self._state[rows].copy() if lag is None else self.trace.ago(lag, rows), rows)

    def read(self, s: Array, rows: Mask | slice = slice(None)) -> WorldState:
        """State vectors (n, size) in words, as views; contact forces are those of the environments in rows now."""
        n, r = len(s), self.n_arms
        arms = s[:, 1 : 1 + r * _PER_ARM].reshape(n, r, _PER_ARM)
        speeds = s[:, 1 + self._nq : 1 + self._nq + r * _PER_ARM].reshape(n, r, _PER_ARM)
        blocks = s[:, 1 + r * _PER_ARM : 1 + self._nq].reshape(n, self.n_blocks, 7)
        velocity = s[:, 1 + self._nq + r * _PER_ARM : 1 + self._nq + self._nv].reshape(n, self.n_blocks, 6)
        opening = xarm6.GRIPPER_STROKE - arms[..., 6:].sum(-1) * np.cos(mjcf.FINGER_TILT)
        return WorldState(
            q=arms[..., :6],
            qd=speeds[..., :6],
            opening=opening,
            position=blocks[..., :3].copy(),
            quaternion=blocks[..., 3:],
            velocity=velocity,
            arm_contact=self._force[rows, 0].copy(),
            table_contact=self._force[rows, 1:].copy(),
        )

    @property
    def lag(self) -> Array:
        """Time constant of the servos of every environment [s], shape (n_envs,)."""
        return self._lags[self.model_index]

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here."""
        return {
            "state": self._state.copy(),
            "model_index": self.model_index.astype(np.float64),
            **self.magnets.snapshot(),
            "diverged": self.diverged.astype(np.float64),
            "force": self._force.copy(),
            "trace": self.trace.snapshot(),
        }

    def restore(self, snapshot: dict[str, Array], rows: Index | slice = slice(None)) -> None:
        """Go back to a snapshot of the environments in rows, of a world built with the same arguments."""
        index = self.model_index.copy()
        index[rows] = snapshot["model_index"]
        self._assign(index)
        self.magnets.restore(snapshot, rows)
        self._state[rows], self._force[rows] = snapshot["state"], snapshot["force"]
        self.diverged[rows] = snapshot["diverged"]
        self.trace.restore(snapshot["trace"], rows)

    def _blocks(self, state: Array) -> Array:
        """Position and quaternion of every block, a view of states (n, size), shape (n, B, 7)."""
        return state[:, 1 + self.n_arms * _PER_ARM : 1 + self._nq].reshape(len(state), self.n_blocks, 7)


def _weld_compliance(model: mujoco.MjModel, blueprint: Blueprint) -> Array:
    """Give of every weld per load [m/N, rad/(N m)], shape (P, 2).

    At rest a soft constraint satisfies R f = -K d r with R = (1 - d) / d * A and K = 1 / (d T)^2 (MuJoCo documentation,
    "Constraint parameters"; A is the inverse weight of the two bodies, T the time constant, d the impedance).
    """
    compliance = np.empty((len(blueprint.pairs), 2))
    for p, eq in enumerate(range(model.neq - len(blueprint.pairs), model.neq)):
        d, time_constant = model.eq_solimp[eq, 0], model.eq_solref[eq, 0]
        weight = model.body_invweight0[[model.eq_obj1id[eq], model.eq_obj2id[eq]]].sum(0)
        compliance[p] = weight * (1 - d) / d**2 * (d * time_constant) ** 2
    return compliance


@compiled
def _tilted(quaternions: Array) -> Mask:
    """In which environments a block's z axis is about 60 degrees from upright or more, (n, B, 4) -> (n,)."""
    tilted = np.zeros(len(quaternions), dtype=np.bool_)
    for i in range(len(quaternions)):
        for b in range(quaternions.shape[1]):
            tilted[i] |= quaternions[i, b, 1] ** 2 + quaternions[i, b, 2] ** 2 > 0.24
    return tilted


@compiled
def _fill_in(inputs: Array, control: Array, first: int, wrenches: Array, xfrc: int, latched: Mask, eq: int) -> None:
    """Fill in what a rollout is given.

    Args:
        inputs: to fill in, (n, ticks, size).
        control: of the whole decision, (n, n_ticks, C).
        first: tick of the decision.
        wrenches: on the blocks [N, N m], (n, B, 6).
        xfrc: where these belong.
        latched: (n, P).
        eq: where these belong.
    """
    n, ticks, _ = inputs.shape
    for i in range(n):
        for tick in range(ticks):
            for j in range(control.shape[2]):
                inputs[i, tick, j] = control[i, first + tick, j]
            for block in range(wrenches.shape[1]):
                for k in range(6):
                    inputs[i, tick, xfrc + 6 * block + k] = wrenches[i, block, k]
            for p in range(latched.shape[1]):
                inputs[i, tick, eq + p] = latched[i, p]


@compiled
def _take_over(states: Array, sensors: Array, dt: float, state: Array, diverged: Mask, force: Array) -> None:
    """Take what a rollout came to, in place; what has diverged stays as it is.

    Args:
        states: after every tick, (n, ticks, size); the first number of a state is its time [s].
        sensors: contact forces in every tick [N], (n, ticks, 3 C).
        dt: of a tick [s].
        state: before the rollout, (n, size).
        diverged: (n,).
        force: largest contact forces so far [N], (n, C).
    """
    for i in range(len(states)):
        after = states[i, -1]
        # MuJoCo resets a state that explodes, time included; so does nothing else.
        sound = after[0] > state[i, 0] + (states.shape[1] - 0.5) * dt
        for j in range(1, len(after)):
            sound &= abs(after[j]) < 1e3
        diverged[i] |= not sound
        if diverged[i]:
            continue
        for j in range(len(after)):
            state[i, j] = after[j]
        for c in range(force.shape[1]):
            for tick in range(states.shape[1]):
                x, y, z = sensors[i, tick, 3 * c], sensors[i, tick, 3 * c + 1], sensors[i, tick, 3 * c + 2]
                force[i, c] = max(force[i, c], np.sqrt(x * x + y * y + z * z))
