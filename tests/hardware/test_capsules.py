"""The arms as capsules: one geometry for the guard that stops and for the action path that keeps apart."""

import numpy as np
import pytest

from horseshoe.hardware import capsules
from horseshoe.hardware.guard import Guard


def test_the_batched_gap_is_the_guards_and_its_gradient_is_how_it_changes() -> None:
    bases = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
    bases[:, 0, 3] = -0.5, 0.5
    rng = np.random.default_rng(0)
    q = np.array([0.0, 0.0, -0.9, 0.0, 1.25, 0.0]) + rng.uniform(-0.4, 0.4, (300, 2, 6))
    gaps, gradients = capsules.gaps_and_gradients(q, bases)
    assert (np.diff(gaps[np.isfinite(gaps[:, 0])], axis=1) >= 0).all(), "nearest first"
    gap, gradient = gaps[:, 0], gradients[:, 0]
    near = np.flatnonzero(np.isfinite(gap) & (gap < 0.15))
    assert len(near) > 50
    guard = Guard({"left": bases[0], "right": bases[1]})
    for i in near[:50]:
        expected, parts, *_ = guard.distances({"left": (q[i, 0], 0.085), "right": (q[i, 1], 0.085)})
        if not any(part in parts for part in ("base", "upper arm", "elbow")):
            assert gap[i] == pytest.approx(expected, abs=1e-6)
    step = rng.normal(0, 1e-6, q.shape)
    change = capsules.gaps_and_gradients(q + step, bases)[0][near, 0] - gap[near]
    error = np.abs(change - (gradient * step).sum((1, 2))[near])
    assert np.percentile(error, 95) < 1e-9, "but for a pair of parts that stops being the nearest"
