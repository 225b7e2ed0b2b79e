"""Compiled loops: they work wherever they are installed, and threads that share out a batch leave nothing half done."""

import subprocess
import sys
import time

import pytest

from horseshoe.compiled import Shares


def test_where_nothing_can_be_kept_on_disk_functions_are_compiled_all_the_same() -> None:
    code = """
import tempfile
def deny(*args, **kwargs):
    raise PermissionError("read-only")
tempfile.TemporaryFile = deny
import numpy as np
from horseshoe.hardware import xarm6
print(xarm6.link_frames(np.zeros(6)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(6, 4, 4)"


@pytest.mark.parametrize(
    ("n", "threads", "size", "expected"),
    [
        (5, 2, None, [3, 2]),
        (2, 8, None, [1, 1]),
        (3, 0, None, [3]),
        (40, 2, 8, [8, 8, 6, 4, 3, 2, 2, 2, 2, 2, 1]),
        (3, 2, 8, [2, 1]),
    ],
)
def test_every_environment_belongs_to_one_share_and_the_last_shares_are_small(
    n: int, threads: int, size: int | None, expected: list[int]
) -> None:
    rows = Shares(n, threads, size).rows
    assert [r.stop - r.start for r in rows] == expected
    assert [k for r in rows for k in range(n)[r]] == list(range(n))


def test_an_error_comes_after_all_threads_have_ended() -> None:
    done = []

    def work(rows: slice, slow: bool) -> None:
        if not slow:
            raise ValueError("this share failed")
        time.sleep(0.05)
        done.append(rows)

    with pytest.raises(ValueError, match="this share failed"):
        Shares(4, 2).run(work, [False, True])
    assert done == [slice(2, 4)]
