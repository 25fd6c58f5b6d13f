"""The words of an alert: types, bodies and degrees, as `include/data/` lists them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

DATA_FOLDER = Path(__file__).resolve().parents[2] / "include" / "data"


class DataFileError(ValueError):
    """A file of `include/data/` does not say what it must; the message names file and line."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Row:
    """One data line of a CSV file, which knows where it comes from."""

    path: Path
    line: int
    cells: dict[str, str]

    def error(self, column: str, allowed: str) -> DataFileError:
        """Return the error that says what is wrong with `column` and what may stand there."""
        return DataFileError(
            f"{self.path}, line {self.line}: {column} is {self.cells[column]!r}; "
            f"it must be {allowed}"
        )

    def text(self, column: str) -> str:
        """Return the text of a cell that must not be empty."""
        if not self.cells[column]:
            raise self.error(column, "a text")
        return self.cells[column]

    def names(self, column: str) -> tuple[str, ...]:
        """Return the names of a cell that holds any number of them, separated by `|`."""
        return tuple(name.strip() for name in self.cells[column].split("|") if name.strip())

    def flag(self, column: str) -> bool:
        """Return a `si`/`no` cell as a boolean."""
        if self.cells[column] not in ("si", "no"):
            raise self.error(column, "si or no")
        return self.cells[column] == "si"

    def whole(self, column: str) -> int:
        """Return a cell that counts something: a whole number above 0."""
        if not self.cells[column].isdecimal() or int(self.cells[column]) == 0:
            raise self.error(column, "a whole number above 0")
        return int(self.cells[column])

    def number(self, column: str, lowest: float, highest: float) -> float:
        """Return a cell as a number within the two limits (both allowed)."""
        try:
            value = float(self.cells[column])
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise self.error(column, f"a number from {lowest:g} to {highest:g}")
        return value


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of one of our CSV files.

    Args:
        path: The file: UTF-8, commas, a header line.
        columns: The columns that it must have, and no others.

    Raises:
        DataFileError: The file is missing or empty, or its header or one of its lines does not fit.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} cannot be read: {error}") from error
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if sorted(header) != sorted(columns):
            raise DataFileError(f"{path}: the columns are {header}; they must be {list(columns)}")
        line = 0
        for cells in reader:
            line = reader.line_num
            if len(cells) != len(header):
                raise DataFileError(
                    f"{path}, line {line}: {len(cells)} cells; the header has {len(header)} columns"
                )
            yield Row(
                path, line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            )
    except csv.Error as error:
        raise DataFileError(f"{path}, line {reader.line_num}: {error}") from error
    if not line:
        raise DataFileError(f"{path} has no rows below its header")


@dataclass(frozen=True, slots=True)
class Body:
    """A body that can be sent.

    Attributes:
        name: As alerts write it, for example 'Guardia Costera'.
        always_urgent: It is never asked for below the urgent degrees.
        always_medical: An alert that asks for it always needs a doctor.
        coast_only: It works where there is sea.
        forest_only: It works where there are mountains or forests.
    """

    name: str
    always_urgent: bool
    always_medical: bool
    coast_only: bool
    forest_only: bool


@dataclass(frozen=True, slots=True)
class Degree:
    """How urgent an alert is."""

    name: str
    urgent: bool


@dataclass(frozen=True, slots=True)
class EmergencyType:
    """What a call is about.

    Attributes:
        name: As alerts write it, for example 'Incendios'.
        is_incident: False for calls that open no incident (hollow, misdialled, malicious or asking
            for information): they are never urgent.
    """

    name: str
    is_incident: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All the words, in the order of their files."""

    types: tuple[EmergencyType, ...]
    bodies: tuple[Body, ...]
    degrees: tuple[Degree, ...]


@lru_cache(maxsize=8)
def load_vocabulary(folder: Path = DATA_FOLDER) -> Vocabulary:
    """Read `tipos.csv`, `cuerpos.csv` and `grados.csv`; once a process and folder.

    Raises:
        DataFileError: A file or line does not fit; the message says what may stand there.
    """
    return Vocabulary(
        types=_once(
            "tipo_emergencia",
            (
                (row, EmergencyType(row.text("tipo_emergencia"), row.flag("incidente")))
                for row in read_rows(folder / "tipos.csv", ("tipo_emergencia", "incidente"))
            ),
        ),
        bodies=_once(
            "cuerpo",
            (
                (row, Body(row.text("cuerpo"), *(row.flag(column) for column in _BODY_FLAGS)))
                for row in read_rows(folder / "cuerpos.csv", ("cuerpo", *_BODY_FLAGS))
            ),
        ),
        degrees=_load_degrees(folder / "grados.csv"),
    )


_BODY_FLAGS = ("siempre_urgente", "siempre_medico", "solo_costa", "solo_monte")

_Word = TypeVar("_Word", Body, Degree, EmergencyType)


def _once(column: str, words: Iterable[tuple[Row, _Word]]) -> tuple[_Word, ...]:
    by_name: dict[str, _Word] = {}
    for row, word in words:
        if word.name in by_name:
            raise row.error(column, "there only once")
        by_name[word.name] = word
    return tuple(by_name.values())


def _load_degrees(path: Path) -> tuple[Degree, ...]:
    degrees = _once(
        "grado",
        (
            (row, Degree(row.text("grado"), row.flag("urgente")))
            for row in read_rows(path, ("grado", "urgente"))
        ),
    )
    for urgent in (True, False):
        if not any(degree.urgent is urgent for degree in degrees):
            word = "urgent" if urgent else "not urgent"
            raise DataFileError(f"{path}: no degree is {word}; at least one must be")
    return degrees
