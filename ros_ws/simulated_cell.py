"""The cell in real time: a simulated world stepped by the clock, arms to drive, cameras to read. No ROS here."""

import json
import logging
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError
from horseshoe.hardware.emulator import ArmState
from horseshoe.sim.assembly import blueprint as blueprints
from horseshoe.sim.assembly import cell as cells

Array = NDArray[np.float64]
logger = logging.getLogger(__name__)

MEMORY = 0.6  # [s] of states that cameras can look back on
MOVED = 0.01  # [rad] of motion that starts an episode's clock
MAX_BEHIND = 0.2  # [s] the world may lag behind the clock before it gives up catching up
LET_OTHERS = 2e-4  # [s] between two steps at least: who waits for the lock gets it, also where time is short
ENGINES = ("mujoco", "pybullet")


@dataclass(frozen=True)
class Outcome:
    """How an episode ended. seconds: since the arms first moved; slow: by how much the world lagged behind [s]."""

    episode: int
    name: str
    seconds: float
    slow: float

    def to_json(self) -> str:
        """For a message."""
        return json.dumps(asdict(self))


class WorldArm:
    """One arm of the world, as an emulated controller (or a direct driver) sees it; see `emulator.ArmModel`.

    References are replaced whole, so no lock is needed between the controller's thread and the world's.
    """

    def __init__(self, state: ArmState) -> None:
        self.state = state
        self.target = np.append(state.joints, state.opening)

    def command(self, joints: Array, opening: float) -> None:
        """Take the servo targets of this tick."""
        self.target = np.append(joints, opening)

    def measured(self) -> ArmState:
        """The present state."""
        return self.state

    def step(self, dt: float) -> None:
        """The world has a clock of its own."""


class SimulatedCell:
    """A world stepped in real time by a thread of its own.

    Args:
        engine: "mujoco" or "pybullet".
        blueprint: name or file.
        environment: of a contract (noise, physics, task); its defaults for what is missing.
        home: joints of all arms at the start [rad], shape (n_arms, 6).
        noise: scale of the perception noise, 0 for none.
        seed: of scenes, physics and noise; with the number of an episode it says all of that episode.
        cell: file, or None for the shipped one.
        first: number of the first episode.

    Attributes:
        arms: one `WorldArm` per arm.
        outcome: of the last finished episode, or None.
        episode: number of the running episode, `first` - 1 before the first.
        behind: how far the world lagged behind the clock in this episode [s].
    """

    def __init__(
        self,
        engine: str,
        blueprint: str,
        environment: dict[str, Any],
        home: Array,
        noise: float = 1.0,
        seed: int = 0,
        cell: str | None = None,
        first: int = 1,
    ) -> None:
        from horseshoe.sim.assembly.perception import NoiseConfig
        from horseshoe.sim.assembly.scene import SceneObserver
        from horseshoe.sim.assembly.starts import StartConfig, StartSampler
        from horseshoe.sim.assembly.task import Task, TaskConfig
        from horseshoe.sim.assembly.world import TICK, PhysicsRange

        environment = contracts.whole_task(environment)
        self.cell, self.blueprint = cells.load(cell), blueprints.load(blueprint)
        self.noise = configuration.load(NoiseConfig, environment.get("noise", {}))
        self.noise_scale = noise
        task = configuration.load(TaskConfig, environment.get("task", {}))
        physics = configuration.load(PhysicsRange, environment.get("physics", {}))
        self._starts = configuration.load(StartConfig, environment.get("starts", {}))
        self._seed, self._rng = seed, np.random.default_rng(seed)
        self._world = _make_world(engine, self.cell, self.blueprint, physics, seed)
        self._sampler, self._tick = StartSampler(self.cell, self.blueprint), TICK
        self._observer = SceneObserver(self.cell, self.blueprint)
        rate = float(environment.get("decision_rate", 5.0))
        self._task, self._horizon = Task(task, self._observer, self._world.magnets, rate), task.horizon
        self._judge_every = round(1 / rate / TICK)
        self._lock = threading.Lock()
        self._history: deque[tuple[float, Any]] = deque(maxlen=round(MEMORY / TICK))
        self._last_seen: tuple[Array, Array] | None = None
        self.outcome: Outcome | None = None
        self.episode, self.behind = first - 1, 0.0
        self._running, self._ticks, self._begun_at = False, 0, 0
        q = np.asarray(home, dtype=np.float64)[None]
        self._put(self._parked(), q, np.full((1, len(q[0])), 0.085))
        state = self._world.state()
        self.arms = [WorldArm(s) for s in _arm_states(state)]
        self._draw_camera()
        self._alive = True
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)

    def start(self) -> None:
        """Let time run."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._alive = False
        if self._thread.is_alive():
            self._thread.join()

    # --- what an operator does by hand --------------------------------------------------------------------------------

    def clear_table(self) -> None:
        """Take the blocks off to the edge of the table; arms stay where they are."""
        with self._lock:
            self._running = False
            state = self._world.state()
            self._put(self._parked(), state.q, state.opening)

    def next_episode(self) -> int:
        """Lay the blocks out for the next, unseen episode; its clock starts when an arm moves.

        Returns:
            Number of the episode, from 1 on.
        """
        with self._lock:
            self.episode += 1
            # Not drawn from one stream: how often a camera looks depends on the clock, scenes must not.
            self._rng = np.random.default_rng((self._seed, self.episode))
            starts = self._sampler.sample(self._rng, 1, self._starts)
            state = self._world.state()
            self._put((starts.position, starts.quaternion), state.q, state.opening)
            self._draw_camera()
            self._assignment = self._observer.assign(_scene(self._world.state(), self._targets()))
            self._task.reset(np.ones(1, dtype=bool))
            self._begun_at, self._start_targets = 0, self._targets()[..., :6]
            self.outcome, self._running, self.behind = None, True, 0.0
            return self.episode

    def _parked(self) -> tuple[Array, Array]:
        n = len(self.blueprint.blocks)
        position = np.zeros((1, n, 3))
        position[0, :, 0] = 0.25 * (np.arange(n) - (n - 1) / 2)
        position[0, :, 1] = 0.5 * self.cell.table.size[1] - 0.05
        position[0, :, 2] = [self.cell.table.height + b.size[2] / 2 for b in self.blueprint.blocks]
        return position, np.tile([1.0, 0, 0, 0], (1, n, 1))

    def _put(self, blocks: tuple[Array, Array], q: Array, opening: Array) -> None:
        model = self._rng.integers(len(getattr(self._world, "models", [0])), size=1)
        self._world.reset(np.ones(1, dtype=bool), model, q, opening, *blocks)

    # --- cameras ------------------------------------------------------------------------------------------------------

    def truth(self) -> tuple[Array, Array]:
        """True block positions (B, 3) [m] and quaternions (w, x, y, z) (B, 4)."""
        state = self._history[-1][1] if self._history else self._world.state()
        return state.position[0], state.quaternion[0]

    def look(self) -> tuple[float, Array, Array]:
        """What a camera reports now, with the noise, bias, latency and drop-outs of `NoiseConfig`.

        Returns:
            When it was seen [s, monotonic], positions (B, 3) [m], quaternions (w, x, y, z) (B, 4).
        """
        cfg, rng, scale = self.noise, self._rng, self.noise_scale
        index = max(len(self._history) - 1 - round(self._latency / self._tick), 0)
        when, state = self._history[index] if self._history else (time.monotonic(), self._world.state())
        n = len(self.blueprint.blocks)
        position = state.position[0] + self._shift + rng.normal(0, cfg.position * scale, (n, 3))
        turn = Rotation.from_rotvec(self._turn + rng.normal(0, 1, (n, 3)) * cfg.rotation * scale)
        quaternion = (turn * Rotation.from_quat(state.quaternion[0], scalar_first=True)).as_quat(scalar_first=True)
        if self._last_seen is not None:
            lost = rng.random(n)[:, None] < cfg.dropout * scale
            position = np.where(lost, self._last_seen[0], position)
            quaternion = np.where(lost, self._last_seen[1], quaternion)
        self._last_seen = position, quaternion
        return when, position, quaternion

    def _draw_camera(self) -> None:
        n, cfg, scale = len(self.blueprint.blocks), self.noise, self.noise_scale
        self._shift = self._rng.normal(0, 1, (n, 3)) * cfg.position_bias * scale
        self._turn = self._rng.normal(0, 1, (n, 3)) * cfg.rotation_bias * scale
        self._latency = float(self._rng.uniform(*cfg.block_latency)) * scale
        self._last_seen = None
        self._history.clear()

    # --- time ---------------------------------------------------------------------------------------------------------

    def _targets(self) -> Array:
        return np.stack([arm.target for arm in self.arms])[None]

    def _run(self) -> None:
        start, tick = time.monotonic(), 0
        while self._alive:
            tick += 1
            time.sleep(max(LET_OTHERS, start + tick * self._tick - time.monotonic()))
            late = time.monotonic() - start - tick * self._tick
            if late > MAX_BEHIND:  # time stands still for the rest
                start += late
                self.behind += late
            self.step()

    def step(self) -> None:
        """Advance by one tick; called by the thread, or by hand where no clock shall run."""
        with self._lock:
            self._step()

    def _step(self) -> None:
        targets = self._targets()
        self._world.advance(targets[:, None])
        state = self._world.state()
        for arm, measured in zip(self.arms, _arm_states(state), strict=True):
            arm.state = measured
        self._history.append((time.monotonic(), state))
        self._ticks += 1
        if not self._running:
            return
        if not self._begun_at and np.abs(targets[..., :6] - self._start_targets).max() > MOVED:
            self._begun_at = self._ticks
        if self._begun_at and (self._ticks - self._begun_at) % self._judge_every == 0:
            self._judge(state, targets)

    def _judge(self, state: Any, targets: Array) -> None:
        from horseshoe.sim.assembly.task import OUTCOMES

        elapsed = (self._ticks - self._begun_at) * self._tick
        late = np.array([elapsed >= self._horizon])
        no_action, not_blocked = np.zeros_like(targets), np.zeros(targets.shape[:2])
        self._assignment = self._observer.reconsider(_scene(state, targets), self._assignment)
        told = targets, no_action, not_blocked
        _, outcome = self._task.judge(state, *told, self._assignment, self._world.diverged, late)
        if outcome[0]:
            self._running = False
            self.outcome = Outcome(self.episode, OUTCOMES[outcome[0]], round(elapsed, 2), round(self.behind, 2))


def _make_world(engine: str, cell: Any, blueprint: Any, physics: Any, seed: int) -> Any:
    if engine == "mujoco":
        from horseshoe.sim.assembly.world import BatchWorld

        return BatchWorld(cell, blueprint, 1, physics, pool=16, seed=seed, n_threads=1)
    if engine == "pybullet":
        from horseshoe.sim.assembly.twin import TwinWorld

        return TwinWorld(cell, blueprint, 1, seed=seed)
    raise HorseshoeError(f"engine: {engine!r} is not one of {', '.join(ENGINES)}")


def _arm_states(state: Any) -> list[ArmState]:
    return [
        ArmState(q, qd, float(opening))
        for q, qd, opening in zip(state.q[0], state.qd[0], state.opening[0], strict=True)
    ]


def _scene(state: Any, targets: Array) -> Any:
    from horseshoe.sim.assembly.perception import true_scene

    return true_scene(state, targets)
