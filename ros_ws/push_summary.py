"""What a number of pushing episodes came to."""

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest


def summarise(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Success with its 95 % Wilson interval, and means, as JSON types.

    Args:
        outcomes: each with name, scene and incremental_iou; those of a graph with real_time_factor and late_commands.
    """
    n, good = len(outcomes), sum(o["name"] == "success" for o in outcomes)
    low, high = binomtest(good, n).proportion_ci(0.95, method="wilson") if n else (0.0, 1.0)
    summary = {
        "episodes": n,
        "success_rate": round(good / n, 4) if n else 0.0,
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "incremental_iou": round(sum(o["incremental_iou"] for o in outcomes) / n, 4) if n else 0.0,
    }
    if n and "real_time_factor" in outcomes[0]:
        summary["real_time_factor"] = round(sum(o["real_time_factor"] for o in outcomes) / n, 3)
        summary["late_commands"] = sum(o["late_commands"] for o in outcomes)
    return {**summary, "outcomes": list(outcomes)}
