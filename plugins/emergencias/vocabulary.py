"""The words of an alert: types, bodies and degrees, as `include/data/` lists them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

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
    """

    name: str
    always_urgent: bool
    always_medical: bool
    coast_only: bool


@dataclass(frozen=True, slots=True)
class Degree:
    """How urgent an alert is, and how often (probability from 0 to 1)."""

    name: str
    probability: float
    urgent: bool


@dataclass(frozen=True, slots=True)
class EmergencyType:
    """A type of emergency and the bodies that it may ask for, with whole-number weights."""

    name: str
    bodies: tuple[tuple[Body, int], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All the words, in the order of their files (a seed's alerts depend on that order)."""

    types: tuple[EmergencyType, ...]
    bodies: tuple[Body, ...]
    degrees: tuple[Degree, ...]


@lru_cache(maxsize=8)
def load_vocabulary(folder: Path = DATA_FOLDER) -> Vocabulary:
    """Read `tipos_cuerpos.csv`, `cuerpos.csv` and `grados.csv`; once a process and folder.

    Raises:
        DataFileError: A file or line does not fit; the message says what may stand there.
    """
    bodies: dict[str, Body] = {}
    for row in read_rows(
        folder / "cuerpos.csv", ("cuerpo", "siempre_urgente", "siempre_medico", "solo_costa")
    ):
        body = Body(
            row.text("cuerpo"),
            row.flag("siempre_urgente"),
            row.flag("siempre_medico"),
            row.flag("solo_costa"),
        )
        if body.name in bodies:
            raise row.error("cuerpo", "there only once")
        bodies[body.name] = body
    return Vocabulary(
        types=_load_types(folder / "tipos_cuerpos.csv", bodies),
        bodies=tuple(bodies.values()),
        degrees=_load_degrees(folder / "grados.csv"),
    )


def _load_types(path: Path, bodies: dict[str, Body]) -> tuple[EmergencyType, ...]:
    by_type: dict[str, dict[str, tuple[Body, int]]] = {}
    for row in read_rows(path, ("tipo_emergencia", "cuerpo", "peso")):
        weights = by_type.setdefault(row.text("tipo_emergencia"), {})
        name = row.text("cuerpo")
        if name not in bodies:
            raise row.error("cuerpo", f"one of {sorted(bodies)} (cuerpos.csv)")
        if name in weights:
            raise row.error("cuerpo", "there only once for its type")
        weights[name] = (bodies[name], row.whole("peso"))
    return tuple(EmergencyType(name, tuple(weights.values())) for name, weights in by_type.items())


def _load_degrees(path: Path) -> tuple[Degree, ...]:
    degrees: dict[str, Degree] = {}
    for row in read_rows(path, ("grado", "probabilidad", "urgente")):
        degree = Degree(row.text("grado"), row.number("probabilidad", 0, 1), row.flag("urgente"))
        if degree.name in degrees:
            raise row.error("grado", "there only once")
        degrees[degree.name] = degree
    total = math.fsum(degree.probability for degree in degrees.values())
    if not math.isclose(total, 1, abs_tol=1e-9):
        raise DataFileError(f"{path}: the probabilities add up to {total:g}; it must be 1")
    if not any(degree.urgent for degree in degrees.values()):
        raise DataFileError(f"{path}: no degree is urgent; at least one must be")
    return tuple(degrees.values())
