"""Loops over a batch, compiled by Numba: a tenth of what the same costs in NumPy, and several threads at a time.

A compiled function takes numbers of other modules as arguments and calls none of their functions: what is kept on disk
is made anew only when the function's own file has changed. Constants of that file are compiled in.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at its first call, and keep the result on disk for later processes if there is a place."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        made: Any = numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # neither beside the source nor in the user's home, as of a service
        made = numba.njit(**options)(function)
    return made


class Shares:
    """Threads that share out the environments of a batch.

    Args:
        n: environments.
        n_threads: threads, no more of which are used than there are environments.
        size: most environments of a share; as many as a thread's part without it.

    Attributes:
        rows: environments of each share; whichever thread is free takes the next one.
    """

    def __init__(self, n: int, n_threads: int, size: int | None = None) -> None:
        threads, ends = min(max(n_threads, 1), n), [0]
        part = -(-n // threads)
        while left := n - ends[-1]:
            share = min(part, size) if size else part
            if size and threads > 1:  # the last shares are small, so that all threads are done at about the same time
                share = min(share, max(left // (2 * threads), size // 4, 1))
            ends.append(ends[-1] + min(share, left))
        self.rows = [slice(*pair) for pair in pairwise(ends)]
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, work: Callable[..., None], *more: Iterable[Any]) -> None:
        """Call `work(rows, *more)` for the rows of every share, with what `more` has for it, and wait for all."""
        calls = zip(self.rows, *more, strict=True)
        if self._threads is None:
            for arguments in calls:
                work(*arguments)
            return
        running = [self._threads.submit(work, *arguments) for arguments in calls]
        wait(running)
        for share in running:
            share.result()
