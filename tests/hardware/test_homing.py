"""The way home: two arms that do not meet on it."""

import numpy as np
import pytest

from horseshoe.errors import HorseshoeError
from horseshoe.hardware import capsules
from horseshoe.hardware.homing import CLEARANCE, HOME, pulled_back, way_home

BASES = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
BASES[:, 0, 3] = -0.5, 0.5
HOMES = np.array([HOME, HOME])
# At the end of an episode in the twin; both at once, they met on the way and stayed so.
AFTER = np.array([[0.21, 0.39, -0.97, -0.59, 0.29, 0.16], [0.19, 0.42, -1.08, -0.02, 0.71, -0.02]])


def nearest(ways: list[np.ndarray]) -> float:
    return float(capsules.gaps_and_gradients(np.concatenate(ways), BASES)[0][:, 0].min())


def test_arms_that_would_meet_go_home_one_after_the_other_and_stay_apart() -> None:
    share = np.linspace(0, 1, 200)[:, None, None]
    assert nearest([AFTER + share * (HOMES - AFTER)]) < 0.0, "both at once they meet"
    now, ways = AFTER.copy(), []
    for arm, what in way_home(AFTER, HOMES, BASES):
        goal = now.copy()
        goal[arm] = HOMES[arm] if what == "home" else pulled_back(now[arm], HOMES[arm])
        ways.append(now + share * (goal - now))
        now = goal
    np.testing.assert_array_equal(now, HOMES)
    assert nearest(ways) > CLEARANCE - 0.002


def test_arms_that_are_tangled_are_the_operators_task() -> None:
    tangled = np.array([[0.0, 1.0, -1.2, 0.0, 0.2, 0.0], [0.0, 1.0, -1.2, 0.0, 0.2, 0.0]])
    with pytest.raises(HorseshoeError, match="move them apart by hand"):
        way_home(tangled, HOMES, BASES)
