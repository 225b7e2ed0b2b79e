"""Moments a few seconds before episodes failed, from which training may go on (a curriculum over start states)."""

import numpy as np
from numpy.typing import NDArray

Moment = dict[str, np.ndarray]  # arrays whose first axis is that of the environments
Mask = NDArray[np.bool_]

EVERY = 4  # decisions from one remembered moment to the next
REMEMBERED = 10  # moments: the last eight seconds at 5 decisions a second
KEPT = 256  # moments before the failures seen last


class Moments:
    """Where the running episodes were, and where some were that failed.

    A scene that failed is no harder than another when it is met again: what goes wrong is chance, in contact. A failure
    is common only from where one is about to happen, and that is where a policy learns most about it.
    """

    def __init__(self) -> None:
        self._past: list[Moment] = []  # newest first
        self._since = 0  # decisions since the newest
        self._failed: Moment | None = None

    def due(self) -> bool:
        """Count a decision; True when the moment after it is to be remembered."""
        self._since += 1
        return self._since >= EVERY or not self._past

    def remember(self, moment: Moment) -> None:
        """Remember where all environments are now."""
        self._past = [moment, *self._past[: REMEMBERED - 1]]
        self._since = 0

    def keep(self, failed: Mask, steps: NDArray[np.intp], rng: np.random.Generator) -> None:
        """Keep a moment of the episodes that failed now.

        Args:
            failed: shape (n_envs,).
            steps: decisions since the episodes began, shape (n_envs,).
            rng: draws how far back.
        """
        if not failed.any() or not self._past:
            return
        back = rng.integers(len(self._past))
        failed = failed & (self._since + EVERY * back < steps)
        new = {name: value[failed] for name, value in self._past[back].items()}
        if self._failed is not None:
            new = {name: np.concatenate([self._failed[name], value])[-KEPT:] for name, value in new.items()}
        self._failed = new

    def __len__(self) -> int:
        """Number of moments kept."""
        return 0 if self._failed is None else len(next(iter(self._failed.values())))

    def draw(self, count: int, rng: np.random.Generator) -> Moment:
        """So many of the kept moments, by chance."""
        assert self._failed is not None
        chosen = rng.integers(len(self), size=count)
        return {name: value[chosen] for name, value in self._failed.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything `restore` needs to go on exactly from here."""
        flat = {f"past.{i}.{name}": value for i, moment in enumerate(self._past) for name, value in moment.items()}
        flat |= {f"failed.{name}": value for name, value in (self._failed or {}).items()}
        return {**flat, "since": np.array(self._since)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Go back to a snapshot."""
        moments: dict[str, Moment] = {}
        for key, value in snapshot.items():
            if key != "since":
                when, _, name = key.removeprefix("past.").partition(".")
                moments.setdefault(when, {})[name] = value.copy()
        self._failed = moments.pop("failed", None)
        self._past = [moments[str(i)] for i in range(len(moments))]
        self._since = int(snapshot["since"].item())
