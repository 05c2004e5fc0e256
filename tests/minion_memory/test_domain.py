"""The rules that need no database."""

import math
from array import array

import pytest
from minion_memory.memories.domain import key_of, measurable, vector_fault


def test_key_is_that_of_the_same_words() -> None:
    assert key_of("Likes  Tea\n") == key_of("likes tea")
    assert key_of("ﬁne") == key_of("fine")
    assert key_of("likes tea") != key_of("likes coffee")
    assert len(key_of("x")) == 32


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([1.0, 0.0], "must have 3 numbers, has 2"),
        ([1.0, 0.0, math.nan], "must hold finite numbers alone"),
        ([1.0, 0.0, -math.inf], "must hold finite numbers alone"),
        ([0.0, 0.0, 0.0], "must not be all zeros: it would point nowhere"),
        ([1.0, 0.0, 0.0], None),
    ],
)
def test_vector_fault_is_named(values: list[float], fault: str | None) -> None:
    assert vector_fault(values, 3) == fault


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-9, 1e-4, 2e4, 1e6, 1e18, 1e30])
def test_extreme_vectors_keep_their_direction(scale: float) -> None:
    scaled = measurable(array("f", [3 * scale, 4 * scale]))
    assert list(scaled) == pytest.approx([0.6, 0.8], rel=1e-6)


def test_common_vectors_are_left_alone() -> None:
    values = array("f", [3.0, 4.0])
    assert measurable(values) is values
