"""What came of a file: rows read, sent, put into the contract's words, refused."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from rich.table import Table

FIRST_REFUSED = 10
"""How many refused rows a report names; `refused.py` writes all of them."""


class RefusedRow(BaseModel):
    """A row that was refused: line (None in Parquet) and row, both from 1, and why."""

    model_config = ConfigDict(frozen=True)
    line: int | None
    row: int
    reason: str


class Normalised(BaseModel):
    """How many values one rule changed; `written` is the synonym, '' for accents, case, blanks."""

    model_config = ConfigDict(frozen=True)
    field: str
    written: str
    word: str
    values: int


class SourceReport(BaseModel):
    """What a file holds and what came of it.

    Attributes:
        path: The file as it was given.
        format: json, jsonl, csv or parquet.
        sha256: Of its bytes as stored, hexadecimal.
        encoding: Python's name of the text's encoding; None for Parquet.
        delimiter: What separates a CSV's cells; None for the other formats.
        rows: How many rows it has.
        alerts: How many of them are alerts and are sent, 1 or more.
        refused: How many of them are not.
        first_refused: The first FIRST_REFUSED of these.
        damaged_bytes: Bytes of UTF-8 text that are none; only the rows with such are refused.
        normalised: What was put into the contract's words.
        unknown: Values of each field that are no word of the contract and were left as they are.
        unreadable_dates: Alerts whose fecha is no date with a time; theirs pass unchanged.
        unreadable_coordinates: Latitudes and longitudes that are no degrees; they are left out.
        omitted_columns: Columns that are left out, sorted; not all where there are many.
    """

    model_config = ConfigDict(frozen=True)
    path: str
    format: str
    sha256: str
    encoding: str | None = None
    delimiter: str | None = None
    rows: int = 0
    alerts: int = 0
    refused: int = 0
    first_refused: tuple[RefusedRow, ...] = ()
    damaged_bytes: int = 0
    normalised: tuple[Normalised, ...] = ()
    unknown: dict[str, int] = {}
    unreadable_dates: int = 0
    unreadable_coordinates: int = 0
    omitted_columns: tuple[str, ...] = ()

    @property
    def how_read(self) -> str:
        """What was found out about the file, for example 'csv, cp1252, delimiter ;'."""
        parts = [self.format, self.encoding or "binary"]
        if self.delimiter is not None:
            parts.append(f"delimiter {'tab' if self.delimiter == chr(9) else self.delimiter!r}")
        return ", ".join(parts)


def report_table(report: SourceReport) -> Table:
    """Return the report as one table: what, how many, which."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rows")
    table.add_column("number", justify="right")
    table.add_column("which", overflow="fold")
    table.add_row("read", f"{report.rows:,}")
    table.add_row("alerts", f"{report.alerts:,}")
    table.add_row("refused", f"{report.refused:,}")
    for row in report.first_refused:
        where = f"row {row.row}" if row.line is None else f"line {row.line}"
        table.add_row("", "", escape(f"{where}: {row.reason}"))
    if report.refused > len(report.first_refused):
        table.add_row("", "", f"… and {report.refused - len(report.first_refused):,} more")
    changed = sum(rule.values for rule in report.normalised)
    table.add_row("values normalised", f"{changed:,}")
    for rule in report.normalised:
        why = f"synonym {rule.written!r}" if rule.written else "accents, case or blanks"
        table.add_row("", f"{rule.values:,}", escape(f"{rule.field}: {why} → {rule.word}"))
    for field, number in report.unknown.items():
        table.add_row("values unknown", f"{number:,}", f"{field}: sent on as they are")
    for what, number in (
        ("dates unreadable", report.unreadable_dates),
        ("coordinates unreadable", report.unreadable_coordinates),
        ("bytes damaged", report.damaged_bytes),
    ):
        if number:
            table.add_row(what, f"{number:,}")
    if report.omitted_columns:
        names = ", ".join(report.omitted_columns)
        table.add_row("columns left out", f"{len(report.omitted_columns):,}", escape(names))
    return table


def render_report(report: SourceReport) -> str:
    """Return the report as text for a log."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=110, color_system=None).print(report_table(report))
    return f"{report.path}: {report.how_read}\n{text.getvalue().rstrip()}"
