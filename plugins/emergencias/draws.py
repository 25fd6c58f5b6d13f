"""Random numbers that are the same on every machine, for columns of alerts."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


class Draws:
    """Columns of random numbers, each its own stream named by a key and the column's name.

    The bits are SHAKE-256's, which FIPS 202 defines; only operations that IEEE 754 rounds in one
    way make numbers of them. No Python or numpy version, processor or maths library has a say, as
    it would with their generators' distributions. A longer column begins with the shorter one.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def unit(self, column: str, size: int) -> Floats:
        """Return numbers from 0 (included) to 1 in steps of 2^-32."""
        bits = np.frombuffer(self._bytes(column, 4 * size), "<u4")
        return bits * 2.0**-32

    def whole(self, column: str, size: int, below: int | Ints) -> Ints:
        """Return whole numbers from 0 to before `below` (one limit, or one for each number).

        Made from 53 bits: below 2^40 no number is preferred by more than one part in 8,000.
        """
        bits = np.frombuffer(self._bytes(column, 8 * size), "<u8") >> np.uint64(11)
        return np.minimum((bits * 2.0**-53 * below).astype(np.int64), np.subtract(below, 1))

    def hex16(self, column: str, size: int) -> npt.NDArray[np.bytes_]:
        """Return texts of 16 hexadecimal digits."""
        return np.frombuffer(self._bytes(column, 8 * size).hex().encode(), "S16")

    def _bytes(self, column: str, size: int) -> bytes:
        return hashlib.shake_256(f"{self._key} {column}".encode()).digest(size)


def pick(ceilings: Floats, shares: Floats) -> Ints:
    """Return for each share (0 to 1) the index of the weight it falls on.

    Args:
        ceilings: The running sums of the weights.
        shares: Where in their total, as a share of it.
    """
    found: Ints = np.searchsorted(ceilings, shares * ceilings[-1], side="right")
    return found
