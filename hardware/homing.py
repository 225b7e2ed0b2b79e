"""The way home: which of two arms moves when, so that they do not meet on straight ways through joint space."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import capsules
from horseshoe.hardware.xarm6 import Array

Step = tuple[int, Literal["pull_back", "home"]]  # arm, and what it does

HOME = (0.0, -0.35, -0.9, 0.0, 1.25, 0.0)  # tool down, 25 cm above the table [rad]
CLEARANCE = 0.015  # between parts of the arms on the way; the guard stops them at 1 cm [m]
_PULLED = (1, 2, 4)  # joints that lift a hand and bring it back
_SAMPLES = 40  # of a way
_ORDERS: tuple[tuple[Step, ...], ...] = tuple(
    order
    for a, b in ((0, 1), (1, 0))
    for order in (
        ((a, "pull_back"), (b, "pull_back"), (a, "home"), (b, "home")),
        ((a, "pull_back"), (a, "home"), (b, "pull_back"), (b, "home")),
    )
)


def pulled_back(joints: Array, home: Array) -> Array:
    """Half of the way home: the hand lifted and brought back, the arm not yet swung round; all [rad], (6,)."""
    goal = joints.copy()
    goal[list(_PULLED)] = home[list(_PULLED)]
    return goal


def way_home(joints: ArrayLike, home: ArrayLike, bases: Array) -> tuple[Step, ...]:
    """The order in which two arms go home one after the other and keep furthest apart.

    Args:
        joints: where they are [rad], shape (2, 6).
        home: where they go [rad], shape (2, 6).
        bases: world poses of the arms' bases [m], shape (2, 4, 4).

    Raises:
        HorseshoeError: in every order they would come too close.
    """
    start, end = np.array(joints, dtype=np.float64), np.array(home, dtype=np.float64)
    gaps = [_nearest_on(order, start, end, bases) for order in _ORDERS]
    best = int(np.argmax(gaps))
    if gaps[best] < CLEARANCE:
        raise HorseshoeError(
            f"the arms would come within {1000 * gaps[best]:.0f} mm of each other on their way home "
            f"(limit {1000 * CLEARANCE:.0f} mm). To do: move them apart by hand in manual mode"
        )
    return _ORDERS[best]


def _nearest_on(order: tuple[Step, ...], joints: Array, home: Array, bases: Array) -> float:
    now, ways = joints.copy(), []
    for arm, what in order:
        goal = home[arm] if what == "home" else pulled_back(now[arm], home[arm])
        way = np.repeat(now[None], _SAMPLES, axis=0)
        way[:, arm] += np.linspace(0.0, 1.0, _SAMPLES)[:, None] * (goal - now[arm])
        now[arm] = goal
        ways.append(way)
    return float(capsules.gaps_and_gradients(np.concatenate(ways), bases)[0][:, 0].min())
