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
    assert (gaps[:, 1:] >= gaps[:, :-1]).all(), "nearest first"
    gap, gradient = gaps[:, 0], gradients[:, 0]
    near = np.flatnonzero(np.isfinite(gap) & (gap < 0.15))
    assert len(near) > 50
    guard = Guard({"left": bases[0], "right": bases[1]})
    for i in near[:50]:
        expected, parts, *_ = guard.distances({"left": (q[i, 0], 0.085), "right": (q[i, 1], 0.085)})
        alone = min(capsules.self_clearance(arm, 0.085) for arm in q[i]) < 0.06
        if not alone and not any(part in parts for part in ("base", "upper arm", "elbow")):
            assert gap[i] == pytest.approx(expected, abs=1e-6)
    step = rng.normal(0, 1e-6, q.shape)
    change = capsules.gaps_and_gradients(q + step, bases)[0][near, 0] - gap[near]
    error = np.abs(change - (gradient * step).sum((1, 2))[near])
    assert np.percentile(error, 95) < 1e-9, "but for a pair of parts that stops being the nearest"


def test_the_batched_gap_sees_an_arm_that_meets_itself() -> None:
    bases = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
    bases[:, 0, 3] = -5.0, 5.0  # far from the other one
    rng = np.random.default_rng(1)
    q = np.array([0.0, -1.9, -0.1, 0.0, 1.0, 0.0]) + rng.uniform(-0.8, 0.0, (300, 2, 6)) * [1, 0.15, 1, 1, -1, 1]
    gaps, gradients = capsules.gaps_and_gradients(q, bases)
    expected = np.array([min(capsules.self_clearance(arm, 0.085) for arm in pair) for pair in q])
    seen = expected < 0.06
    assert 50 < seen.sum() < 300
    np.testing.assert_allclose(gaps[seen, 0], expected[seen], atol=1e-9)
    assert np.isinf(gaps[~seen]).all()
    step = rng.normal(0, 1e-6, q.shape)
    change = capsules.gaps_and_gradients(q + step, bases)[0][seen, 0] - gaps[seen, 0]
    error = np.abs(change - (gradients[seen, 0] * step[seen]).sum((1, 2)))
    assert np.percentile(error, 95) < 1e-9, "but for a pair of parts that stops being the nearest"
