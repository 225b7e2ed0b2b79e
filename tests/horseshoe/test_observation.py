"""Observations are made of named fields, and refuse what does not fit."""

import numpy as np
import pytest

from horseshoe.errors import HorseshoeError
from horseshoe.observation import Field, FieldSet

FIELDS = FieldSet(
    [
        Field("joints", 2, "rad", "arm", (-1, 1)),
        Field("block", 3, "m", "block", (1, -1, 1)),
        Field("opening", 1, "m", "arm", (1,)),
    ]
)


def values(n: int = 4) -> dict[str, np.ndarray]:
    return {f.name: np.random.default_rng(0).normal(size=(n, f.size)) for f in FIELDS.fields}


def test_packing_puts_every_field_in_its_slice() -> None:
    given = values()
    packed = FIELDS.pack(given)
    assert packed.shape == (4, FIELDS.size) == (4, 6)
    for name, value in given.items():
        np.testing.assert_array_equal(packed[:, FIELDS.slices[name]], value)


def test_every_number_belongs_to_one_entity() -> None:
    assert FIELDS.tokens() == {"arm": [0, 1, 5], "block": [2, 3, 4]}


def test_signs_of_the_reflection_are_in_the_order_of_the_fields() -> None:
    np.testing.assert_array_equal(FIELDS.mirror, [-1, 1, 1, -1, 1, 1])


def test_a_missing_an_unknown_and_a_wrong_sized_field_are_refused_by_name() -> None:
    given = values()
    without = {k: v for k, v in given.items() if k != "block"}
    with pytest.raises(HorseshoeError, match=r"missing fields \['block'\], unknown fields \['camera'\]"):
        FIELDS.pack(without | {"camera": given["block"]})
    with pytest.raises(HorseshoeError, match=r"observation.block: 2 numbers, expected 3"):
        FIELDS.pack(given | {"block": np.zeros((4, 2))})


def test_a_field_without_a_sign_for_every_number_is_refused() -> None:
    with pytest.raises(ValueError, match="mirror: joints has 2 numbers but 1 signs"):
        Field("joints", 2, "rad", "arm", (1,))
