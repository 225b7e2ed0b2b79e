"""What a batch of cells lately came through: for sensors that are late, and for recordings."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHUNK = 4  # ticks between two states that are kept


class Trace:
    """States that a batch of cells came through in the last decisions, every `CHUNK` ticks and at their ends.

    Attributes:
        states: oldest first, (1 + decisions * chunks, n_envs, size).
    """

    def __init__(self, state: Array) -> None:
        self.states = state[None].copy()
        self._ticks = 1  # of a decision

    @property
    def last(self) -> Array:
        """What the last decision came through, its start apart, oldest first, (chunks, n_envs, size)."""
        return self.states[-self._chunks :]

    @property
    def _chunks(self) -> int:
        return -(-self._ticks // CHUNK)

    def begin(self, ticks: int, memory: int) -> None:
        """Make room for another decision of so many ticks, and let go of what is more than `memory` ticks ago."""
        self._ticks = ticks
        length = 1 + self._chunks * max(-(-memory // ticks), 1)
        if len(self.states) != length:
            self.states = np.repeat(self.states[-1:], length, axis=0)
        else:
            self.states[: -self._chunks] = self.states[self._chunks :]

    def keep(self, tick: int, state: Array, rows: slice = slice(None)) -> None:
        """Note the state of the environments in rows after `tick` ticks of the decision."""
        if tick % CHUNK == 0 or tick == self._ticks:
            self.last[(tick - 1) // CHUNK, rows] = state

    def ago(self, lag: NDArray[np.intp]) -> Array:
        """The states nearest to so many ticks ago, (n_envs, size), lag: (n_envs,)."""
        decisions, chunks = np.divmod(np.arange(len(self.states))[::-1], self._chunks)
        age = decisions * self._ticks
        age += np.where(chunks > 0, self._ticks - (self._chunks - chunks) * CHUNK, 0)
        moment = np.abs(age - lag[:, None]).argmin(1)
        return np.asarray(self.states[moment, np.arange(self.states.shape[1])])
