"""CSV of any delimiter, with a header or without."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TextIO

from emergencias.sources import encoding
from emergencias.sources.encoding import Encoding
from emergencias.sources.errors import shorten
from emergencias.sources.names import fold
from emergencias.sources.rows import MAX_ROW_CHARS, CheckNames, Place, Refused, Row, Rows
from emergencias.sources.stored import HEAD, StoredFile

USUAL = ",;\t|"
"""The delimiters that are tried first; any other sign of the first line comes after them."""

_SAMPLE_ROWS = 100


def find_delimiter(
    file: StoredFile, enc: Encoding, wanted: Collection[str], columns: tuple[str, ...]
) -> str:
    """Return the delimiter under which the file looks most like what is expected.

    With a header, that is the one which finds most of its names, else the one under which the
    fewest rows are refused.

    Args:
        file: The CSV.
        enc: Its encoding.
        wanted: Names that its header should have, folded.
        columns: The names of all its columns if it has no header, else nothing.
    """
    with encoding.text(file, enc) as text:
        head = text.read(HEAD)
    first_line = head.lstrip("\r\n").splitlines()[0] if head.strip("\r\n") else ""
    others = Counter(
        sign for sign in first_line if not (sign.isalnum() or sign in USUAL or sign in '"_')
    )

    def likeness(delimiter: str) -> tuple[int, int]:
        text = io.StringIO(head, newline="")
        if columns:
            rows = list(islice(_rows(*_reader(text, delimiter), columns, ""), _SAMPLE_ROWS))
            return -sum(isinstance(row, Refused) for row in rows), len(rows)
        try:
            header = _header(csv.reader(text, delimiter=delimiter))
        except csv.Error:
            return 0, 0
        return len({fold(name) for name in header} & set(wanted)), len(header)

    candidates: list[str] = [*USUAL, *(sign for sign, _ in others.most_common())]
    return max(candidates, key=likeness)


def csv_rows(
    file: StoredFile,
    enc: Encoding,
    delimiter: str,
    check_names: CheckNames,
    columns: tuple[str, ...] = (),
) -> Rows:
    """Read a CSV; an empty cell is null, a blank line is no row.

    What is no row (another number of cells, a quote that is not closed) is refused line by line:
    reading goes on with the line after its first, so that one stray quote costs one row.

    Args:
        file: The CSV.
        enc: Its encoding.
        delimiter: What separates the cells.
        check_names: Called with the names of its columns before the first row.
        columns: Those names if the file has no header.

    Raises:
        SourceError: The header is not CSV.
    """
    with encoding.text(file, enc) as text:
        lines, reader = _reader(text, delimiter)
        try:
            names = columns or _header(reader)
        except csv.Error as error:
            raise file.error_at("header", f"not CSV: {error}") from error
        check_names(names)
        there = "the mapping names" if columns else "the header has"
        yield from _rows(lines, reader, names, f"{there} {len(names)} columns")


def _reader(text: TextIO, delimiter: str) -> tuple[_Lines, Iterator[list[str]]]:
    lines = _Lines(text)
    return lines, csv.reader(lines, delimiter=delimiter, strict=True)


def _header(reader: Iterator[list[str]]) -> tuple[str, ...]:
    return tuple(next((cells for cells in reader if cells), []))


def _rows(lines: _Lines, reader: Iterator[list[str]], names: tuple[str, ...], wanted: str) -> Rows:
    """Read what is left of `lines` by the `reader` over them."""
    row = 0
    while True:
        lines.begin()
        try:
            cells = next(reader, None)
            flaw = None
        except csv.Error as error:
            cells, flaw = [], f"not CSV: {error}"
        if cells is None:
            return
        if flaw is None and not cells:
            continue
        row += 1
        if flaw is None and lines.have_nul:
            flaw = "there is a NUL byte, which is no text"
        elif flaw is None and len(cells) != len(names):
            flaw = f"{len(cells)} cells, but {wanted}: {shorten(cells)}"
        if flaw is None:
            yield Row(Place(lines.first, row), names, [cell or None for cell in cells])
        else:
            yield Refused(Place(lines.first, row), flaw, lines.refuse_first())


class _Lines:
    """The lines of a text for a reader that may have to go back to one of them."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._back: list[str] = []  # given back, the next one last
        self._taken: list[str] = []
        self.first = 1
        """The line with which the present row begins."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.pop() if self._back else self._text.readline(MAX_ROW_CHARS)
        if not line:
            raise StopIteration
        if len(line) == MAX_ROW_CHARS and not line.endswith("\n"):
            self._skip_line()  # its begin has a cell that is too long already
        self._taken.append(line)
        return line

    def _skip_line(self) -> None:
        while (more := self._text.readline(MAX_ROW_CHARS)) and not more.endswith(("\n", "\r")):
            pass

    @property
    def have_nul(self) -> bool:
        """Whether the present row has a NUL byte, which csv lets pass."""
        return any("\0" in line for line in self._taken)

    def begin(self) -> None:
        """Begin a row with the line that comes next."""
        self.first += len(self._taken)
        self._taken.clear()

    def refuse_first(self) -> str:
        """Give back all lines of the present row but its first, which is returned."""
        first, *rest = self._taken
        self._back.extend(reversed(rest))
        self._taken = [first]
        return first
