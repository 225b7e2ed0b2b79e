"""Time of one decision of a pushing policy for all robots of a scene: tokens and network, one thread."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from horseshoe import tokens as seeing
from horseshoe.policies.runtime import TokenPolicy


def run(policy: str = "push", seconds: float = 2.0, robots: tuple[int, ...] = (2, 6, 12)) -> dict[str, Any]:
    """Median and 99th percentile of the CPU time [ms], by number of robots."""
    loaded = TokenPolicy(policy)
    return {str(count): measure(decision(loaded, count), seconds) for count in robots}


def decision(policy: TokenPolicy, robots: int) -> Callable[[], None]:
    """One decision of every robot of a scene."""
    rng = np.random.default_rng(0)
    body, goal = rng.random((2, 1, policy.particles, 2))
    places, ages = rng.random((1, robots, 2)), rng.integers(0, seeing.MAX_DELAY, (1, robots, robots))
    still, middle = np.zeros((1, robots, 2)), np.full(2, 0.64)
    messages = np.concatenate([np.repeat(places[:, None], robots, 1), np.zeros((1, robots, robots, 2))], axis=-1)

    def decide() -> None:
        seen = seeing.tokens(places, still, messages, ages, body, goal, middle, policy.neighbours)
        policy.act({name: value[0] for name, value in seen.items()})

    return decide


def measure(decide: Callable[[], None], seconds: float) -> dict[str, float]:
    """Call it for so many seconds of the clock."""
    decide()
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 20:
        cpu = time.process_time()
        decide()
        times.append(1000 * (time.process_time() - cpu))
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.percentile(times, 99))}


if __name__ == "__main__":
    print(run())
