"""Pictures and animations of scenes and plans."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.config import PushConfig

if TYPE_CHECKING:
    from horseshoe.sim.push.planner import Plan
    from horseshoe.sim.push.scenes import Scene

Array = NDArray[np.float64]


def _axes(config: PushConfig) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, config.side), ylim=(0.0, config.side), aspect="equal")
    axes.axis("off")
    side = config.high - config.low
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((config.low, config.low), side, side, fill=False, color="0.3", lw=2))
    return figure, axes


def _scene(axes: Any, body: Array, goal: Array, robots: Array, config: PushConfig) -> None:
    from matplotlib.patches import Circle

    axes.scatter(*goal.T, s=14, color="#8fd19e", alpha=0.5, linewidths=0)
    axes.scatter(*body.T, s=9, color="#d9822b", linewidths=0)
    for k, robot in enumerate(robots):
        axes.add_patch(Circle(tuple(robot), config.robot_radius, color="#2f5d8a"))
        axes.text(*robot, str(k + 1), color="white", ha="center", va="center", fontsize=8)


def draw(body: Array, goal: Array, robots: Array, config: PushConfig) -> NDArray[np.uint8]:
    """Picture of one scene: body and goal (n, 2), robots (r, 2) [m] -> (480, 480, 3)."""
    figure, axes = _axes(config)
    _scene(axes, body, goal, robots, config)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def picture(path: Path, plan: "Plan", scene: "Scene", config: PushConfig) -> None:
    """Write a plan as a picture: the object at the start and in the end, and the ways of the robots."""
    figure, axes = _axes(config)
    axes.scatter(*scene.start.T, s=9, color="0.8", linewidths=0)
    _scene(axes, plan.particles[-1], scene.goal, plan.robots[-1], config)
    for track in plan.robots.swapaxes(0, 1):
        axes.plot(*track.T, color="#2f5d8a", lw=1, alpha=0.7)
    axes.text(0.02, 0.98, f"{scene.name}  incremental IoU {plan.score:.2f}", transform=axes.transAxes, va="top")
    figure.savefig(path)


def animation(path: Path, plan: "Plan", scene: "Scene", config: PushConfig) -> None:
    """Write a plan as an animation (.gif, or .mp4 where ffmpeg is installed).

    Raises:
        HorseshoeError: another suffix.
    """
    import imageio.v2 as imageio

    if path.suffix not in (".gif", ".mp4"):
        raise HorseshoeError(f"animation {path}: the suffix must be .gif or .mp4")
    frames: list[Any] = [draw(x, scene.goal, r, config) for x, r in zip(plan.particles, plan.robots, strict=True)]
    rate = 1.0 / config.control_period
    if path.suffix == ".gif":
        imageio.mimsave(path, frames, duration=1000.0 / rate, loop=0)
    else:
        imageio.mimsave(path, frames, fps=rate, macro_block_size=None)
