"""Pictures and videos of cells, without a screen.

MuJoCo renders through EGL or OSMesa; where neither is there, matplotlib draws the cell from above and from the side.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.hardware import xarm6
from horseshoe.sim.assembly.magnets import matrices
from horseshoe.sim.assembly.world import BatchWorld, WorldState

Image = NDArray[np.uint8]
log = logging.getLogger(__name__)

WIDTH, HEIGHT = 640, 400


class Recorder:
    """Keeps the states of a few environments, chunk by chunk, and makes a video of them.

    Args:
        world: whose states are kept.
        indices: which environments.
    """

    def __init__(self, world: BatchWorld, indices: NDArray[np.intp]) -> None:
        self._world, self.indices = world, np.asarray(indices)
        self._frames: list[list[NDArray[np.float64]]] = [[] for _ in self.indices]
        self.captions = [""] * len(self.indices)
        self._open = np.ones(len(self.indices), dtype=bool)

    def capture(self) -> None:
        """Keep what happened during the last decision."""
        for k in np.flatnonzero(self._open):
            self._frames[k] += [s[self.indices[k]].copy() for s in self._world.trace.last]

    def finish(self, index: int, caption: str) -> None:
        """The episode of an environment is over; later ones are not kept."""
        for k in np.flatnonzero((self.indices == index) & self._open):
            self.captions[k], self._open[k] = caption, False

    def save(self, path: Path, fps: float) -> None:
        """Write the episodes one after the other to a video file (MP4, or GIF by its suffix)."""
        import imageio.v2 as imageio

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        options: dict[str, Any] = {"fps": fps} if path.suffix == ".gif" else {"fps": fps, "macro_block_size": 8}
        writer: Any
        with imageio.get_writer(temporary, format=path.suffix[1:].upper(), **options) as writer:
            for frame in self.images():
                writer.append_data(frame)
        temporary.replace(path)

    def images(self) -> Iterator[Image]:
        """Every frame, captioned with its episode's outcome, the last one held for a second."""
        draw = renderer(self._world)
        for k, index in enumerate(self.indices):
            image = None
            for state in self._frames[k]:
                image = _caption(draw(state, int(index)), f"episode {k + 1}: {self.captions[k]}")
                yield image
            if image is not None:
                yield from [image] * 25


def renderer(world: BatchWorld) -> Any:
    """A function from (state vector, environment) to an image, by MuJoCo if it can draw here."""
    import mujoco

    try:
        if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
            # MuJoCo reads MUJOCO_GL when it is imported, which is long ago.
            from mujoco.egl import GLContext
            from mujoco.rendering.classic import gl_context

            gl_context.GLContext = GLContext
        view = mujoco.Renderer(world.models[0], HEIGHT, WIDTH)
    except Exception as error:  # GL stacks raise anything from ImportError to a bare RuntimeError
        log.warning("No EGL here (%s): drawing with matplotlib. For real pictures: apt install libegl1", error)
        return _Sketch(world)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.0, 0.0, 0.12)
    camera.distance, camera.azimuth, camera.elevation = 1.45, 90.0, -32.0
    data = mujoco.MjData(world.models[0])

    def draw(state: NDArray[np.float64], index: int) -> Image:
        model = world.models[world.model_index[index]]
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        view.update_scene(data, camera)
        return np.asarray(view.render())

    return draw


def _caption(image: Image, text: str) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    picture = Pillow.fromarray(image)
    ImageDraw.Draw(picture).text((10, 8), text, fill=(20, 20, 20), font_size=18)
    return np.asarray(picture)


class _Sketch:
    """Top and side view in matplotlib, for machines without GL."""

    def __init__(self, world: BatchWorld) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._world = world
        self._figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
        self._canvas = FigureCanvasAgg(self._figure)

    def __call__(self, state: NDArray[np.float64], index: int) -> Image:
        from matplotlib.patches import Polygon

        scene = self._world.read(state[None])
        self._figure.clear()
        for panel, (i, j, title) in enumerate(((0, 1, "from above"), (0, 2, "from the side"))):
            axes = self._figure.add_subplot(1, 2, panel + 1)
            axes.set(xlim=(-0.65, 0.65), ylim=((-0.6, 0.6), (-0.05, 0.9))[panel], title=title, aspect="equal")
            for arm, base in enumerate(self._world.cell.base_poses):
                frames = base @ xarm6.link_frames(scene.q[0, arm])
                tool = base @ xarm6.forward_kinematics(scene.q[0, arm])
                points = np.vstack([base[:3, 3], frames[:, :3, 3], tool[:3, 3]])
                axes.plot(points[:, i], points[:, j], "-o", color="0.6", linewidth=4, markersize=4)
            for b, block in enumerate(self._world.blueprint.blocks):
                axes.add_patch(Polygon(_outline(scene, b, block.size)[:, [i, j]], color=block.colour, alpha=0.8))
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def _outline(scene: WorldState, block: int, size: tuple[float, float, float]) -> NDArray[np.float64]:
    corners = np.array([(x, y, 0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * np.array(size) / 2
    return scene.position[0, block] + corners @ matrices(scene.quaternion[:, block])[0].T
