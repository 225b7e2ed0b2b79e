"""Observations as named fields: one description for training, evaluation, contract and robot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Field:
    """A named part of an observation.

    Attributes:
        name: what it is.
        size: how many numbers.
        unit: SI unit, "1" for none.
        token: entity it describes; attention policies see one token per entity.
        mirror: sign of each number after a reflection in the robot's own x-z plane.
    """

    name: str
    size: int
    unit: str
    token: str
    mirror: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mirror) != self.size:
            raise ValueError(f"mirror: {self.name} has {self.size} numbers but {len(self.mirror)} signs")


class FieldSet:
    """An ordered set of fields that together make an observation vector."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.size = sum(f.size for f in fields)
        self.mirror = np.concatenate([np.array(f.mirror, dtype=np.float64) for f in fields])
        ends = np.cumsum([f.size for f in fields])
        self.slices = {f.name: slice(int(e) - f.size, int(e)) for f, e in zip(fields, ends, strict=True)}

    def tokens(self) -> dict[str, list[int]]:
        """Indices into the observation of every entity's numbers, in the order entities first appear."""
        tokens: dict[str, list[int]] = {}
        for f in self.fields:
            s = self.slices[f.name]
            tokens.setdefault(f.token, []).extend(range(s.start, s.stop))
        return tokens

    def pack(self, values: Mapping[str, Array]) -> Array:
        """Concatenate named values, shape (..., size of field), into observations, shape (..., size).

        Raises:
            HorseshoeError: a field is missing, unknown or of the wrong size.
        """
        names = set(self.slices)
        if set(values) != names:
            missing, extra = sorted(names - set(values)), sorted(set(values) - names)
            raise HorseshoeError(f"observation: missing fields {missing}, unknown fields {extra}")
        for f in self.fields:
            if values[f.name].shape[-1] != f.size:
                raise HorseshoeError(f"observation.{f.name}: {values[f.name].shape[-1]} numbers, expected {f.size}")
        return np.concatenate([values[f.name] for f in self.fields], axis=-1)
