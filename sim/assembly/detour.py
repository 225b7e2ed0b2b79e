"""Shortest ways around a rectangle in the plane."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def shortest_way(start: Array, end: Array, half: Array) -> Array:
    """Length of the shortest way from points to points around a rectangle.

    It is straight, or bends at corners (as of any shortest way around a convex polygon). A start inside leaves the
    rectangle by its nearest side first.

    Args:
        start: in the frame of the rectangle, shape (..., 2) [m].
        end: likewise, outside or on the rim.
        half: half its sides, shape (..., 2) [m].

    Returns:
        Lengths [m], shape (...).
    """
    depth = (half - np.abs(start)).clip(0.0)
    inside = np.asarray((depth > 0.0).all(-1))
    out = np.where(depth == depth.min(-1, keepdims=True), depth, 0.0) * inside[..., None]
    start = start + np.where(start < 0.0, -out, out)
    sides = half[..., None, :]
    corners = sides * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    apart = np.abs(corners[..., :, None, :] - corners[..., None, :, :]).sum(-1)  # along the rim
    first, last = _open_way(start[..., None, :], corners, sides), _open_way(end[..., None, :], corners, sides)
    bent = (first[..., :, None] + apart + last[..., None, :]).min((-2, -1))
    straight = _open_way(start, end, half)
    return np.asarray(np.where(np.isfinite(straight), straight, bent) + out.max(-1))


def _open_way(a: Array, b: Array, half: Array) -> Array:
    """Distance of points, infinite where the rectangle lies between them (touching it does not count)."""
    way = np.broadcast_to(b - a, np.broadcast_shapes(a.shape, b.shape))
    tiny = np.where(np.abs(way) < 1e-9, 1e-9, way)
    inner = half - 1e-6
    edges = np.stack([(-inner - a) / tiny, (inner - a) / tiny])
    enter, leave = edges.min(0).max(-1).clip(0.0), edges.max(0).min(-1).clip(None, 1.0)
    length = np.linalg.norm(way, axis=-1)
    return np.asarray(np.where((leave - enter) * length > 1e-4, np.inf, length))
