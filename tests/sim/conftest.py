"""Small cells that the tests of this room share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from horseshoe.sim.assembly import blueprint, cell
from horseshoe.sim.assembly.config import AssemblyConfig
from horseshoe.sim.assembly.env import AssemblyVectorEnv
from horseshoe.sim.assembly.perception import NoiseConfig
from horseshoe.sim.assembly.starts import HOME
from horseshoe.sim.assembly.task import TaskConfig
from horseshoe.sim.assembly.world import BatchWorld

SMALL: dict[str, Any] = {"n_threads": 1, "pool": 2, "start_batch": 8}  # environments that are made fast
FAR_BLOCK = np.array([0.0, -0.5, 0.02])


def park(world: BatchWorld, position: Any, yaw: Any = 0.0, model: Any = 0, opening: float = 0.085) -> None:
    """Both arms at home, well above the table, and blocks on it.

    Args:
        world: whose environments are reset, all of them.
        position: of the blocks [m], broadcast to (n, B, 3).
        yaw: of the blocks [rad], broadcast to (n, B).
        model: of the pool, broadcast to (n,).
        opening: of both hands [m].
    """
    n = world.n_envs
    position = np.broadcast_to(position, (n, world.n_blocks, 3)).copy()
    half = np.broadcast_to(yaw, (n, world.n_blocks)) / 2
    quaternion = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], -1)
    q = np.tile(HOME, (n, world.n_arms, 1))
    index = np.broadcast_to(model, n).astype(np.intp)
    world.reset(np.ones(n, dtype=bool), index, q, np.full((n, world.n_arms), opening), position, quaternion)


def quiet(n: int = 2, name: str = "connect", **task: Any) -> AssemblyVectorEnv:
    """Without noise, delay or randomisation."""
    config = AssemblyConfig(blueprint=name, noise=NoiseConfig.none(), task=TaskConfig(**task))
    return AssemblyVectorEnv(n, config, **SMALL)


def place(env: AssemblyVectorEnv, gap: float | list[float]) -> None:
    """Blocks of `connect` that far apart [m], arms well above them."""
    env.reset(seed=0)
    position = np.zeros((env.num_envs, 2, 3))
    position[..., 2] = 0.02
    position[:, 1, 1] = 0.06 + np.asarray(gap)
    park(env.world, position, opening=0.0425)
    state = env.world.state()
    env.path.reset(state.q, state.opening)


def hold(world: BatchWorld, ticks: int) -> np.ndarray:
    """Targets that keep the arms where they are."""
    state = world.state()
    targets = np.concatenate([state.q, state.opening[..., None]], -1)
    return np.repeat(targets[:, None], ticks, axis=1)


@pytest.fixture(scope="session")
def make_world() -> Callable[..., BatchWorld]:
    """A world with one physics thread; models are compiled once for the same arguments."""
    made: dict[Any, BatchWorld] = {}

    def make(n_envs: int = 1, name: str = "connect", **kwargs: Any) -> BatchWorld:
        key = (n_envs, name, repr(sorted(kwargs.items())))
        if key not in made:
            made[key] = BatchWorld(cell.load(), blueprint.load(name), n_envs, n_threads=1, **kwargs)
        return made[key]

    return make
