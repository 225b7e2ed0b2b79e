"""The shortest way around a rectangle."""

import numpy as np
import pytest

from horseshoe.sim.assembly.detour import shortest_way

HALF = np.array([1.0, 0.5])


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [
        ((-2.0, 1.0), (2.0, 1.0), 4.0),  # past it
        ((-2.0, 0.5), (2.0, 0.5), 4.0),  # along its side
        ((-2.0, 0.0), (2.0, 0.0), 2.0 + 2.0 * np.hypot(1.0, 0.5)),  # around both corners of a side
        ((0.0, -2.0), (0.0, 2.0), 1.0 + 2.0 * np.hypot(1.0, 1.5)),
        ((-1.0, 0.0), (1.0, 0.0), 3.0),  # from rim to rim
        ((-0.9, 0.0), (-3.0, 0.0), 2.1),  # out by the nearest side first
        ((1.5, -2.0), (0.0, 0.5), np.hypot(0.5, 2.5) + 1.0),  # around one corner
    ],
)
def test_a_way_is_straight_or_bends_at_corners(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> None:
    assert shortest_way(np.array(start), np.array(end), HALF) == pytest.approx(length, abs=1e-6)


def test_a_way_is_as_long_back_as_there_and_changes_little_with_its_start() -> None:
    rng = np.random.default_rng(0)
    start, end = (rng.uniform(-3.0, 3.0, (500, 2)) for _ in range(2))
    outside = (np.abs(start) > HALF).any(1) & (np.abs(end) > HALF).any(1)
    start, end = start[outside], end[outside]
    length = shortest_way(start, end, HALF)
    np.testing.assert_allclose(shortest_way(end, start, HALF), length)
    moved = start + rng.uniform(-1e-3, 1e-3, start.shape)
    outside = (np.abs(moved) > HALF).any(1)
    change = np.abs(shortest_way(moved, end, HALF) - length)[outside]
    assert (change <= np.linalg.norm(moved - start, axis=1)[outside] + 1e-4).all()
    assert (length >= np.linalg.norm(end - start, axis=1) - 1e-12).all()
