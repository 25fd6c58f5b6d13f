"""What every format is read as: rows of named values, and what could not be read as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

MAX_ROW_CHARS = 16 * 2**20
"""Longest row read: beyond it a file is not a list of alerts, and memory stays bounded."""


class Place(NamedTuple):
    """Where a row stands: its line (None in Parquet) and its number, both from 1.

    In a CSV the header counts as a line and not as a row.
    """

    line: int | None
    row: int


class Row(NamedTuple):
    """One row: a value for each name, as the file has them."""

    place: Place
    names: tuple[str, ...]
    values: Sequence[Any]


class Refused(NamedTuple):
    """A row that is no alert: the rest of the file is taken in without it.

    Attributes:
        place: Where it stands.
        reason: What is wrong with it.
        text: The row as received, or its begin.
    """

    place: Place
    reason: str
    text: str


Rows: TypeAlias = Iterator[Row | Refused]
CheckNames: TypeAlias = Callable[[Sequence[str]], None]
"""Raises SourceError if a file with these columns cannot be taken in at all."""
