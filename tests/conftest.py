"""What every test runs under; set before any library is imported, and inherited by the processes that tests start."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two torch threads on a busy two-core machine are ten times slower than one
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")  # no packet leaves this host
os.environ.setdefault("MPLBACKEND", "Agg")

NoteFault = Callable[..., None]


def wait_until(condition: Callable[[], object], timeout: float = 30.0, every: float = 0.005) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)


@pytest.fixture
def note_fault(record_property: Callable[[str, object], None]) -> NoteFault:
    """Keep a line of the fault table, which `benchmarks/faults.py` prints."""

    def note(fault: str, where: str, message: str, held: float | None = None) -> None:
        """`held` is from the fault until both arms stand still [s]."""
        record_property("fault", fault)
        record_property("where", where)
        record_property("message", message)
        if held is not None:
            record_property("held", round(held, 3))

    return note


def vendor_mesh(name: str) -> Any:
    """Vertices of a binary STL of the vendor's, which comes with PyBullet [m], shape (n, 3)."""
    import numpy as np

    folder = Path(pytest.importorskip("pybullet_data").getDataPath()) / "xarm"
    triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    return np.unique(np.fromfile(folder / name, triangle, offset=84)["corners"].reshape(-1, 3), axis=0)
