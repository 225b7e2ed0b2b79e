"""What cameras and encoders would report of the true state: noise, bias, latency and drop-outs."""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import configuration
from horseshoe.sim.assembly.magnets import matrices, products
from horseshoe.sim.assembly.scene import Scene
from horseshoe.sim.assembly.world import TICK, BatchWorld, WorldState

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class NoiseConfig:
    """Perception and actuation noise; standard deviations unless said otherwise, ranges are drawn once an episode.

    Attributes:
        position: of a block's position, every decision [m].
        rotation: of a block's orientation, every decision [rad].
        position_bias: of a block's position, once an episode [m].
        rotation_bias: of a block's orientation, once an episode [rad].
        dropout: probability that a block is not seen in a decision (its last pose is kept).
        joint: of a joint reading [rad].
        block_latency: range of the age of block poses [s].
        joint_latency: range of the age of joint readings [s].
        action: of an action, every decision [1].
        delay: range of the transport delay from command to motion [s].
    """

    position: float = field(default=0.002, metadata={"range": (0.0, 0.05)})
    rotation: float = field(default=0.017, metadata={"range": (0.0, 0.5)})
    position_bias: float = field(default=0.0015, metadata={"range": (0.0, 0.05)})
    rotation_bias: float = field(default=0.012, metadata={"range": (0.0, 0.5)})
    dropout: float = field(default=0.05, metadata={"range": (0.0, 0.9)})
    joint: float = field(default=0.0005, metadata={"range": (0.0, 0.1)})
    block_latency: tuple[float, float] = field(default=(0.0, 0.16), metadata={"range": (0.0, 2.0)})
    joint_latency: tuple[float, float] = field(default=(0.0, 0.04), metadata={"range": (0.0, 2.0)})
    action: float = field(default=0.03, metadata={"range": (0.0, 1.0)})
    delay: tuple[float, float] = field(default=(0.0, 0.2), metadata={"range": (0.0, 2.0)})

    def __post_init__(self) -> None:
        configuration.check_ranges(self)

    @classmethod
    def none(cls) -> "NoiseConfig":
        """No noise and no delay."""
        zeros = {f.name: (0.0, 0.0) if isinstance(f.default, tuple) else 0.0 for f in fields(cls)}
        return cls(**zeros)  # type: ignore[arg-type]


class Perception:
    """Perceived scenes of a batch world.

    Args:
        config: how bad the sensors are.
        world: whose state is read.
        rng: source of all noise.
    """

    def __init__(self, config: NoiseConfig, world: BatchWorld, rng: np.random.Generator) -> None:
        self.config, self._world, self._rng = config, world, rng
        world.memory = round(max(config.block_latency[1], config.joint_latency[1]) / TICK)
        self.scale = 1.0  # of all noise and delay (curriculum)
        n, b = world.n_envs, world.n_blocks
        self._shift, self._turn = np.zeros((n, b, 3)), np.zeros((n, b, 3))
        self._lag = np.zeros((n, 2), dtype=np.intp)  # blocks, joints [ticks]
        self._last_position, self._last_rotation = np.zeros((n, b, 3)), np.zeros((n, b, 3, 3))
        self._fresh: Mask = np.ones(n, dtype=bool)

    def reset(self, mask: Mask) -> None:
        """Draw bias and latency of new episodes."""
        k, b, cfg, scale = int(mask.sum()), self._world.n_blocks, self.config, self.scale
        self._shift[mask] = self._rng.normal(0, 1, (k, b, 3)) * cfg.position_bias * scale
        self._turn[mask] = self._rng.normal(0, 1, (k, b, 3)) * cfg.rotation_bias * scale
        for column, latency in enumerate((cfg.block_latency, cfg.joint_latency)):
            self._lag[mask, column] = np.round(self._rng.uniform(*latency, k) * scale / TICK).astype(np.intp)
        self._fresh[mask] = True

    def perceive(self, target: Array, rows: Mask | slice = slice(None)) -> Scene:
        """The scene as sensors report it now; every look may lose a block.

        Args:
            target: commanded joints and opening, known exactly [rad, m], shape (n, R, 7).
            rows: environments that are looked at; all without it.
        """
        cfg, rng, scale = self.config, self._rng, self.scale
        blocks, arms = (self._world.state(lag, rows) for lag in self._lag.T)
        shape = blocks.position.shape
        position = blocks.position + self._shift[rows] + rng.normal(0, 1, shape) * cfg.position * scale
        turn = self._turn[rows] + rng.normal(0, 1, shape) * cfg.rotation * scale
        turned = Rotation.from_rotvec(turn.reshape(-1, 3)).as_matrix().reshape(*shape, 3)
        rotation = products(turned, matrices(blocks.quaternion))
        lost = (rng.random(shape[:2]) < cfg.dropout) & ~self._fresh[rows, None]
        position = np.where(lost[..., None], self._last_position[rows], position)
        rotation = np.where(lost[..., None, None], self._last_rotation[rows], rotation)
        self._last_position[rows], self._last_rotation[rows], self._fresh[rows] = position, rotation, False
        q = arms.q + rng.normal(0, 1, arms.q.shape) * cfg.joint
        return Scene(q, arms.opening, position, rotation, target[rows].copy())

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here."""
        return {
            "shift": self._shift.copy(),
            "turn": self._turn.copy(),
            "lag": self._lag.astype(np.float64),
            "position": self._last_position.copy(),
            "rotation": self._last_rotation.copy(),
            "fresh": self._fresh.astype(np.float64),
        }

    def restore(self, snapshot: dict[str, Array], rows: Index | slice = slice(None)) -> None:
        """Go back to a snapshot of the environments in rows."""
        self._shift[rows], self._turn[rows], self._lag[rows] = snapshot["shift"], snapshot["turn"], snapshot["lag"]
        self._last_position[rows], self._last_rotation[rows] = snapshot["position"], snapshot["rotation"]
        self._fresh[rows] = snapshot["fresh"]


def true_scene(state: WorldState, target: Array) -> Scene:
    """The scene without any sensor in between."""
    return Scene(state.q, state.opening, state.position, matrices(state.quaternion), target.copy())
