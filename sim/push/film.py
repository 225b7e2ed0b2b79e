"""Films and pictures of recorded episodes: robots, object, goal and how much of it is covered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.arena import Track, load_track
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.shapes import SUCCESS

Array = NDArray[np.float64]

SIZE = 720  # [pixels]
HOLD = 1.2  # [s] for which the end of an episode stands
TRAIL = 25  # decisions that the robots' trails show
BACK, FLOOR, WALL, GOAL, BODY, INK = "#10151c", "#1b2430", "#3a4757", "#4fb286", "#f2a541", "#e8edf2"
COLOURS = ("#5aa9e6", "#ff6392", "#b388eb", "#7fc8f8", "#f9f871", "#ff9b71",
           "#9ad1d4", "#e0aaff", "#c5e384", "#ffc6d9", "#8ecae6", "#f4d35e")  # fmt: skip


class _Stage:
    """One figure whose artists move from frame to frame."""

    def __init__(self, track: Track, config: PushConfig) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure
        from matplotlib.patches import Circle, FancyArrow, Rectangle

        self.track, robots = track, track.robots.shape[1]
        self.figure = Figure(figsize=(SIZE / 100, SIZE / 100), dpi=100, facecolor=BACK)
        FigureCanvasAgg(self.figure)
        axes: Any = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0.0, config.side), ylim=(0.0, config.side), aspect="equal")
        axes.axis("off")
        width = config.high - config.low
        axes.add_patch(Rectangle((config.low, config.low), width, width, facecolor=FLOOR, edgecolor=WALL, lw=2))
        axes.scatter(*track.goal.T, s=70, color=GOAL, alpha=0.35, linewidths=0)
        self._trails: list[Any] = [LineCollection([], colors=COLOURS[k], linewidths=2) for k in range(robots)]
        for trail in self._trails:
            axes.add_collection(trail)
        self._body = axes.scatter(*track.particles[0].T, s=34, color=BODY, linewidths=0)
        self._discs, self._noses = [], []
        for k in range(robots):
            self._discs.append(Circle((0.0, 0.0), config.robot_radius, facecolor=COLOURS[k], edgecolor=BACK, lw=1.5))
            axes.add_patch(self._discs[-1])
            (nose,) = axes.plot([], [], color=BACK, lw=3, solid_capstyle="round")
            self._noses.append(nose)
        self._radius = config.robot_radius
        self._width, low, height = width, 0.025, 0.012
        axes.add_patch(Rectangle((config.low, low), width, height, color=WALL))
        self._bar = Rectangle((config.low, low), 0.0, height, color=GOAL)
        axes.add_patch(self._bar)
        mark = config.low + SUCCESS * width
        axes.plot([mark, mark], [low - 0.006, low + height + 0.006], color=INK, lw=1.5)
        text: dict[str, Any] = {"color": INK, "va": "center", "fontsize": 13}
        self._caption = axes.text(config.low, config.side - 0.03, "", **text)
        self._score = axes.text(config.high, config.side - 0.03, "", ha="right", **text)
        self._arrow: Any = None
        speed = float(np.linalg.norm(track.shove))
        self._shoved_at = (len(track.score) - 1) // 2 if speed else len(track.score) + 1
        if speed:
            way = 0.22 * track.shove / speed
            start = track.particles[self._shoved_at].mean(0) - 1.4 * way
            self._arrow = FancyArrow(*start, *way, width=0.018, head_width=0.055, color=INK, zorder=9)
            axes.add_patch(self._arrow)

    def draw(self, t: int) -> NDArray[np.uint8]:
        """Picture of decision t, shape (SIZE, SIZE, 3)."""
        track = self.track
        self._body.set_offsets(track.particles[t])
        for k, (x, y, heading) in enumerate(track.robots[t]):
            self._discs[k].center = (x, y)
            c, s = np.cos(heading), np.sin(heading)
            reach = np.array([0.25, 0.8]) * self._radius
            self._noses[k].set_data(x + reach * c, y + reach * s)
            path = track.robots[max(t - TRAIL, 0) : t + 1, k, :2]
            if len(path) > 1:
                self._trails[k].set_segments(np.stack([path[:-1], path[1:]], axis=1))
                self._trails[k].set_alpha(np.linspace(0.0, 0.7, len(path) - 1))
        shoved = 0 <= t - self._shoved_at < 12
        if self._arrow is not None:
            self._arrow.set_visible(shoved)
        self._bar.set_width(self._width * float(track.score[t]))
        reached = track.score[t] > SUCCESS
        said = "   shoved!" if shoved else "   reached" if reached and t == len(track.score) - 1 else ""
        self._caption.set_text(f"{track.robots.shape[1]} robots, {track.scene}{said}")
        self._score.set_text(f"{track.period * t:4.1f} s    {track.score[t]:4.0%} of the way")
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def _tracks(episodes: Sequence[Path]) -> list[Track]:
    if not episodes:
        raise HorseshoeError("no episode was recorded")
    return [load_track(episode) for episode in episodes]


def save_strip(path: Path, episodes: Sequence[Path], pictures: int = 4, config: PushConfig | None = None) -> None:
    """Write a picture with one row per recorded episode: its beginning, some moments on the way, its end.

    Args:
        path: to write (.png).
        episodes: files of `arena.save_track`.
        pictures: per episode.
        config: the world they come from.

    Raises:
        HorseshoeError: a file is no recorded episode, or there are none.
    """
    import imageio.v2 as imageio

    rows = []
    for track in _tracks(episodes):
        stage = _Stage(track, config or PushConfig())
        moments = np.linspace(0, len(track.score) - 1, pictures).round().astype(int)
        rows.append(np.concatenate([stage.draw(int(t))[::2, ::2] for t in moments], axis=1))
    imageio.imwrite(path, np.concatenate(rows))


def save_film(path: Path, episodes: Sequence[Path], config: PushConfig | None = None) -> None:
    """Write recorded episodes as one MP4, in the time in which they happened.

    Args:
        path: to write.
        episodes: files of `arena.save_track`.
        config: the world they come from.

    Raises:
        HorseshoeError: a file is no recorded episode, or there are none.
    """
    import imageio.v2 as imageio

    tracks = _tracks(episodes)
    rate = round(1.0 / tracks[0].period)
    temporary = path.with_name(f".{path.name}")
    writer: Any
    with imageio.get_writer(temporary, format="MP4", fps=rate, macro_block_size=8) as writer:
        for track in tracks:
            stage = _Stage(track, config or PushConfig())
            for t in range(len(track.score)):
                frame = stage.draw(t)
                writer.append_data(frame)
            for _ in range(round(HOLD * rate)):
                writer.append_data(frame)
    temporary.replace(path)
