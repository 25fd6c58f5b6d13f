from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergencias.draws import Draws, pick


def test_numbers_are_shake_256s_bits_whatever_makes_them():
    draws = Draws("key")
    bits = hashlib.shake_256(b"key column").digest(32)
    words = [int.from_bytes(bits[at : at + 4], "little") for at in range(0, 32, 4)]
    longs = [int.from_bytes(bits[at : at + 8], "little") for at in range(0, 32, 8)]

    assert draws.unit("column", 8).tolist() == [word / 2**32 for word in words]
    assert draws.whole("column", 4, 1000).tolist() == [
        int((word >> 11) / 2**53 * 1000) for word in longs
    ]
    assert b"".join(draws.hex16("column", 4).tolist()).decode() == bits.hex()


def test_columns_and_keys_have_numbers_of_their_own():
    columns = [Draws(key).unit(name, 50).tolist() for key in "ab" for name in "xy"]

    assert len({tuple(column) for column in columns}) == 4


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 50), st.integers(0, 50))
def test_a_longer_column_begins_with_the_shorter_one(column, size, more):
    draws = Draws("k")

    assert draws.unit(column, size + more)[:size].tolist() == draws.unit(column, size).tolist()
    assert (
        draws.whole(column, size + more, 7)[:size].tolist() == draws.whole(column, size, 7).tolist()
    )


@given(st.integers(1, 2**60))
def test_whole_numbers_stay_below_their_limit(below):
    found = Draws("k").whole("c", 100, below)

    assert found.min() >= 0
    assert found.max() < below


def test_each_number_may_have_a_limit_of_its_own():
    limits = np.arange(1, 1001)
    found = Draws("k").whole("c", 1000, limits)

    assert (found < limits).all()
    assert found.max() > 900


@pytest.mark.parametrize(
    ("weights", "share", "index"),
    [
        ([1, 1], 0.0, 0),
        ([1, 1], 0.4999, 0),
        ([1, 1], 0.5, 1),
        ([0, 3, 0], 0.0, 1),
        ([0, 3, 0], 1 - 2**-32, 1),
        ([0.1] * 10, 1 - 2**-32, 9),
    ],
)
def test_a_share_falls_on_its_weight_and_never_on_one_of_nothing(weights, share, index):
    ceilings = np.array([sum(weights[: n + 1]) for n in range(len(weights))])

    assert pick(ceilings, np.array([share])).tolist() == [index]
