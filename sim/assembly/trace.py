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

    def keep(self, tick: int, state: Array, rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """Note the state of the environments in rows after `tick` ticks of the decision."""
        if tick % CHUNK == 0 or tick == self._ticks:
            self.last[(tick - 1) // CHUNK, rows] = state

    def snapshot(self) -> Array:
        """Everything `restore` needs, environments first."""
        return self.states.swapaxes(0, 1).copy()

    def restore(self, snapshot: Array, rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """Go back to a snapshot of the environments in rows; of all of them if it goes back further than this does."""
        states = snapshot.swapaxes(0, 1)
        if len(states) == len(self.states):
            self.states[:, rows] = states
        else:
            self.states = states.copy()

    def ago(self, lag: NDArray[np.intp], rows: NDArray[np.bool_] | slice = slice(None)) -> Array:
        """The states of the environments in rows nearest to so many ticks ago, (n, size), lag: (n_envs,)."""
        decisions, chunks = np.divmod(np.arange(len(self.states))[::-1], self._chunks)
        age = decisions * self._ticks
        age += np.where(chunks > 0, self._ticks - (self._chunks - chunks) * CHUNK, 0)
        moment = np.abs(age - lag[rows, None]).argmin(1)
        return np.asarray(self.states[moment, np.arange(self.states.shape[1])[rows]])
