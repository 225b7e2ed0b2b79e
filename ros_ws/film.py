"""A video of a recorded run, drawn from measured joints and block poses, for every engine and for real arms."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.bag import ARMS, Run, Series

RATE = 12.5  # frames per second; drawing them is what a report takes longest for
OPEN = 0.085  # [m], if the gripper never told its opening


def save_film(run: Run, path: Path, cell: Path | None = None) -> None:
    """Write the run as MP4.

    Args:
        run: what was recorded.
        path: the file.
        cell: where the arms stood; the shipped cell without it.

    Raises:
        HorseshoeError: the bag holds no joints, no block poses or no contract.
    """
    import imageio.v2 as imageio

    from horseshoe.sim.assembly import blueprint as blueprints
    from horseshoe.sim.assembly import cell as cells
    from horseshoe.sim.assembly.render import renderer
    from horseshoe.sim.assembly.world import BatchWorld

    blocks = run.truth if len(run.truth.time) else run.blocks
    if not run.contract or not len(blocks.time) or not all(len(run.measured[arm].time) for arm in ARMS):
        raise HorseshoeError("video: the bag needs joint states of both arms, block poses and a contract")
    blueprint = blueprints.load(yaml.safe_load(run.contract)["blueprint"])
    world = BatchWorld(cells.load(cell), blueprint, 1, n_threads=1)
    draw = renderer(world)
    everybody = [blocks, *(run.measured[arm] for arm in ARMS)]
    begin, end = max(s.time[0] for s in everybody), min(s.time[-1] for s in everybody)
    temporary = path.with_name(f".{path.name}")
    writer: Any
    with imageio.get_writer(temporary, format="MP4", fps=RATE, macro_block_size=8) as writer:
        for when in np.arange(begin, end, 1 / RATE):
            arms = np.stack([_at(run.measured[arm], when) for arm in ARMS])
            poses = _at(blocks, when).reshape(1, -1, 7)
            opening = np.nan_to_num(arms[None, :, 6], nan=OPEN)
            mask, model = np.ones(1, dtype=bool), np.zeros(1, dtype=np.intp)
            world.reset(mask, model, arms[None, :, :6], opening, poses[..., :3], poses[..., 3:])
            writer.append_data(draw(world.trace.states[-1][0], 0))
    temporary.replace(path)


def _at(series: Series, when: float) -> np.ndarray:
    """The newest row at a time [s]."""
    return np.asarray(series.values[max(int(np.searchsorted(series.time, when, side="right")) - 1, 0)])
