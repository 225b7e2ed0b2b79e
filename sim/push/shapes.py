"""Objects and target shapes as particles, and how well one covers the other."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.config import PushConfig

Array = NDArray[np.float64]

# Unions of rectangles (x low, y low, x high, y high) [m] in the object's frame.
SHAPES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "box": ((0.0, 0.0, 0.24, 0.16),),
    "rope": ((0.0, 0.0, 0.50, 0.05),),
    "L": ((0.0, 0.0, 0.24, 0.09), (0.0, 0.09, 0.09, 0.24)),
    "T": ((0.0, 0.15, 0.26, 0.24), (0.085, 0.0, 0.175, 0.15)),
    "U": ((0.0, 0.0, 0.26, 0.08), (0.0, 0.08, 0.08, 0.22), (0.18, 0.08, 0.26, 0.22)),
    "Z": ((0.0, 0.0, 0.16, 0.08), (0.08, 0.08, 0.24, 0.16)),
    "plus": ((0.08, 0.0, 0.16, 0.24), (0.0, 0.08, 0.08, 0.16), (0.16, 0.08, 0.24, 0.16)),
    "disc": (),
}
DISC_RADIUS = 0.11  # [m]
SUCCESS = 0.75  # incremental IoU above which a goal counts as reached


def area(shape: str) -> float:
    """Area of a shape [m^2]."""
    if shape == "disc":
        return float(np.pi * DISC_RADIUS**2)
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in _rectangles(shape))


def _rectangles(shape: str) -> tuple[tuple[float, float, float, float], ...]:
    if shape not in SHAPES:
        raise HorseshoeError(f"shape '{shape}' is unknown; the shapes are {', '.join(SHAPES)}")
    return SHAPES[shape]


@lru_cache(maxsize=64)
def particles(shape: str, count: int) -> Array:
    """Spread particles evenly over a shape.

    Args:
        shape: name in `SHAPES`.
        count: number of particles.

    Returns:
        Positions about the shape's centre of area [m], shape (count, 2); always the same for the same arguments.

    Raises:
        HorseshoeError: unknown shape.
    """
    rng = np.random.default_rng(0)
    rectangles = np.array(_rectangles(shape) or ((-DISC_RADIUS, -DISC_RADIUS, DISC_RADIUS, DISC_RADIUS),))
    size = rectangles[:, 2:] - rectangles[:, :2]
    share = size.prod(1) / size.prod(1).sum()
    dense = []
    for rectangle, extent, part in zip(rectangles, size, share, strict=True):
        dense.append(rectangle[:2] + extent * rng.random((int(part * 60 * count) + 1, 2)))
    cloud = np.concatenate(dense)
    if shape == "disc":
        cloud = cloud[np.linalg.norm(cloud, axis=1) < DISC_RADIUS]
    points = spread(cloud, count)
    points.flags.writeable = False  # it is cached
    return points


def spread(cloud: Array, count: int) -> Array:
    """Even sample of a dense cloud, centred on the cloud's mean: parts of equal share, then Lloyd's algorithm."""
    points = _parts(cloud, count)
    for _ in range(8):
        owner = cKDTree(points).query(cloud)[1]
        owned = np.bincount(owner, minlength=count)[:, None]
        total = np.stack([np.bincount(owner, cloud[:, k], minlength=count) for k in range(2)], axis=1)
        points = np.where(owned > 0, total / np.maximum(owned, 1), points)
    return points - points.mean(0)


def _parts(cloud: Array, count: int) -> Array:
    """Cut a cloud into `count` parts of equal share, across the longer side first; the parts' means."""
    if count == 1:
        return cloud.mean(0, keepdims=True)
    order = np.argsort(cloud[:, np.argmax(np.ptp(cloud, axis=0))], kind="stable")
    half = count // 2
    cut = round(len(cloud) * half / count)
    return np.concatenate([_parts(cloud[order[:cut]], half), _parts(cloud[order[cut:]], count - half)])


def from_image(path: str | Path, count: int, config: PushConfig) -> tuple[Array, float]:
    """Read a target shape drawn over the whole grid square: dark pixels are the goal.

    Args:
        path: an image that matplotlib reads (PNG); transparent pixels are background.
        count: number of particles.
        config: the world, for its size.

    Returns:
        Positions [m], shape (count, 2), and the area covered [m^2].

    Raises:
        HorseshoeError: unreadable or empty image.
    """
    import matplotlib.image

    try:
        image = matplotlib.image.imread(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise HorseshoeError(f"goal image {path}: cannot be read ({error})") from error
    image = image / 255.0 if image.dtype == np.uint8 else image
    grey = image if image.ndim == 2 else image[..., : min(3, image.shape[2])].mean(-1)
    dark = grey < 0.5
    if image.ndim == 3 and image.shape[2] in (2, 4):
        dark &= image[..., -1] > 0.5
    if not dark.any():
        raise HorseshoeError(f"goal image {path}: no dark pixel, so there is no goal")
    if dark.all():
        raise HorseshoeError(f"goal image {path}: every pixel is dark, so the goal is the whole arena")
    rows, columns = np.nonzero(dark)
    pixel = config.side / np.array([image.shape[1], image.shape[0]])
    corner = np.stack([columns, image.shape[0] - 1 - rows], axis=1)
    rng = np.random.default_rng(0)
    repeats = max(1, 60 * count // len(corner))
    cloud = (np.repeat(corner, repeats, axis=0) + rng.random((repeats * len(corner), 2))) * pixel
    return spread(cloud, count) + cloud.mean(0), float(dark.sum() * pixel.prod())


def bend(points: Array, angle: float) -> Array:
    """Bend a shape whose long side is x into an arc.

    Args:
        points: positions about the centre [m], shape (n, 2).
        angle: turn from one end to the other [rad]; positive bends the ends upwards.
    """
    if abs(angle) < 1e-6:
        return points.copy()
    length = np.ptp(points[:, 0])
    radius = length / angle
    turn = points[:, 0] / radius
    reach = radius - points[:, 1]
    arc = np.stack([reach * np.sin(turn), radius - reach * np.cos(turn)], axis=1)
    return arc - arc.mean(0)


def place(points: Array, centre: ArrayLike, angle: float) -> Array:
    """Turn points about the origin by an angle [rad], then move them to a centre [m]."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + np.asarray(centre)


def occupancy(points: ArrayLike, area: float, config: PushConfig) -> Array:
    """Share of every grid cell that is covered, from quadratic splines of the particles.

    Args:
        points: positions [m], shape (..., n, 2).
        area: area of the object [m^2].
        config: the world.

    Returns:
        Values in [0, 1], shape (..., cells, cells).
    """
    points = np.asarray(points, dtype=np.float64)
    batch, n, cells = points.shape[:-2], points.shape[-2], config.cells
    scaled = points.reshape(-1, n, 2) / config.dx
    base = np.clip((scaled - 0.5).astype(int), 0, cells - 3)
    f = scaled - base
    w = np.stack([0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2])
    out = np.zeros(len(scaled) * cells * cells)
    first = np.arange(len(scaled))[:, None] * cells * cells
    for i in range(3):
        for j in range(3):
            where = first + (base[..., 0] + i) * cells + base[..., 1] + j
            out += np.bincount(where.ravel(), (w[i, ..., 0] * w[j, ..., 1]).ravel(), minlength=len(out))
    return np.minimum(out * (area / n / config.dx**2), 1.0).reshape(*batch, cells, cells)


def iou(a: Array, b: Array) -> Array:
    """Soft intersection over union of occupancies, shape (..., cells, cells) -> (...)."""
    both = (a * b).sum((-2, -1))
    return np.asarray(both / np.maximum((a + b).sum((-2, -1)) - both, 1e-12))


def incremental_iou(final: Array, start: Array, goal: Array) -> Array:
    """Share of the way from the start's overlap with the goal to a perfect one, in [0, 1].

    Args:
        final: occupancy reached, shape (..., cells, cells).
        start: occupancy at the start, same shape.
        goal: occupancy wanted, same shape.
    """
    first, best = iou(start, goal), iou(goal, goal)
    return np.asarray(np.clip((iou(final, goal) - first) / np.maximum(best - first, 1e-9), 0.0, 1.0))
