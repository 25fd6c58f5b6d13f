"""The alerts of a file, and the report of what came of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import orjson

from emergencias.model import ORIGINAL_FIELDS
from emergencias.sources import encoding
from emergencias.sources.binding import Binding, Payload, bind
from emergencias.sources.csv_rows import csv_rows, find_delimiter
from emergencias.sources.encoding import Encoding
from emergencias.sources.errors import shorten
from emergencias.sources.formats import is_parquet, text_format
from emergencias.sources.json_rows import as_text, line_rows, list_rows
from emergencias.sources.mapping import Mapping, identity
from emergencias.sources.names import fold
from emergencias.sources.normaliser import Normaliser
from emergencias.sources.parquet_rows import parquet_rows
from emergencias.sources.report import (
    FIRST_REFUSED,
    Normalised,
    RefusedRow,
    SourceReport,
)
from emergencias.sources.rows import Refused, Row, Rows
from emergencias.sources.stored import PathLike, StoredFile, sha256
from emergencias.words import Words

MAX_ALERT_BYTES = 900_000
"""Largest alert accepted: Kafka usually takes 1 MB a record and would refuse it half-way."""

_MAX_OMITTED = 100
_PROGRESS = 10_000

OnRefused = Callable[[Refused], None]


def inspect(
    path: PathLike,
    *,
    mapping: Mapping | None = None,
    words: Words | None = None,
    on_refused: OnRefused | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> SourceReport:
    """Read a file wholly and say what it holds.

    Args:
        path: A local path or any URI that fsspec knows.
        mapping: How its columns become an alert's fields; by default they have the fields' names.
        words: The contract's words (`emergencias.words`); by default values stay as they are.
        on_refused: Called with each row that is refused, in order.
        on_progress: Called after every 10,000 alerts with their number so far.

    Raises:
        SourceError: The file cannot be taken in as a whole, or no row of it is an alert. Nothing
            has been produced yet.
    """
    digest = sha256(path)
    source = _Source(path, mapping)
    tally = _Tally(source.wanted, Normaliser(words or {}), on_refused)
    alerts = 0
    for alerts, _ in enumerate(_payloads(source, tally), 1):
        if on_progress is not None and alerts % _PROGRESS == 0:
            on_progress(alerts)
    if not alerts:
        first = tally.first_refused[0] if tally.first_refused else None
        why = (
            "; it must hold 1 or more"
            if first is None
            else f": all {tally.refused:,} rows are refused, the first "
            f"({'row' if first.line is None else 'line'} {first.line or first.row}) because of: "
            f"{first.reason}"
        )
        raise source.file.error(f"holds no alerts{why}")
    if source.columns:
        tally.omitted = set(bind(source.mapping, source.columns).omitted)
    else:  # each row of JSON has names of its own
        source.check_names(sorted(tally.found | tally.omitted))
    if sha256(path) != digest:
        raise source.file.error("changed while it was read; try again once it is complete")
    return SourceReport(
        path=source.file.name,
        format=source.format,
        sha256=digest,
        encoding=None if source.encoding is None else source.encoding.name,
        delimiter=source.delimiter,
        rows=alerts + tally.refused,
        alerts=alerts,
        refused=tally.refused,
        first_refused=tuple(tally.first_refused),
        damaged_bytes=0 if source.encoding is None else source.encoding.damaged,
        normalised=tuple(
            Normalised(**rule._asdict(), values=values)
            for rule, values in sorted(tally.normaliser.changed.items())
        ),
        unknown=dict(sorted(tally.normaliser.unknown.items())),
        unreadable_dates=tally.unread_dates,
        unreadable_coordinates=tally.unread_coordinates,
        omitted_columns=tuple(sorted(shorten(name) for name in tally.omitted)),
    )


def read(
    path: PathLike, *, mapping: Mapping | None = None, words: Words | None = None
) -> Iterator[Payload]:
    """Yield the alerts of a file in its order, as `inspect` has seen them.

    Each is a dict that orjson can write: the seven original fields, in their order, then the
    others that the file has. Without a mapping names match in any case and with any accents, so
    that an export with upper-case names can be replayed. Values are unchanged but for:

    - fecha without offset gains it and keeps its local date and time (`moments.with_offset`).
    - latitud and longitud are numbers (a text is read, also with a decimal comma) or null.
    - What a word of the contract is meant by is that word, if `words` are given.
    - An empty CSV cell and a number that is not one (NaN) are null.
    - Whole numbers beyond 64 bits and numbers beyond a float's range become text, their digits.

    A caller that has a report compares its sha256 with `sha256(path)` first: the file may have
    changed since.

    Args:
        path: As for `inspect`.
        mapping: As for `inspect`.
        words: As for `inspect`.

    Raises:
        SourceError: The file cannot be read (on).
    """
    source = _Source(path, mapping)
    return _payloads(source, _Tally(source.wanted, Normaliser(words or {}), None))


class _Source:
    """A file, the mapping that it is read by, and how to read it."""

    def __init__(self, path: PathLike, mapping: Mapping | None) -> None:
        self.file = StoredFile(path)
        self.mapping = mapping or identity()
        self._is_identity = mapping is None
        rules = self.mapping.fields.values()
        self.wanted = {fold(column) for rule in rules for column in rule.columns_read}
        self.encoding: Encoding | None = None
        self.delimiter: str | None = None
        self.columns: Sequence[str] = ()
        if is_parquet(self.file):
            self.format = "parquet"
            return
        self.encoding = encoding.detect(self.file, self.mapping.encoding)
        self.format = text_format(
            self.file, self.encoding, self.wanted, header=not self.mapping.columns
        )
        if self.format == "csv":
            self.delimiter = self.mapping.delimiter or find_delimiter(
                self.file, self.encoding, self.wanted, self.mapping.columns
            )

    def check_names(self, names: Sequence[str]) -> None:
        """Raise SourceError unless the columns of a whole file are those that are needed."""
        try:
            found = bind(self.mapping, names).found
        except ValueError as error:
            raise self.file.error(str(error)) from error
        self.columns = names
        needed = (
            {name: name for name in ORIGINAL_FIELDS}
            if self._is_identity
            else {
                fold(column): column
                for rule in self.mapping.fields.values()
                for column in rule.columns_read
            }
        )
        missing = [column for name, column in needed.items() if name not in found]
        if missing:
            there = ", ".join(shorten(name) for name in sorted(names)[:20]) or "no names"
            raise self.file.error(
                f"lacks {', '.join(missing)}; it has {there}. Needed, in any case and order: "
                f"{', '.join(needed.values())}"
                + ("; columns with other names need a mapping" if self._is_identity else "")
            )

    def rows(self) -> Rows:
        if self.encoding is None:
            return parquet_rows(self.file, self.wanted, self.check_names)
        if self.format == "json":
            return list_rows(self.file, self.encoding)
        if self.format == "jsonl":
            return line_rows(self.file, self.encoding)
        return csv_rows(
            self.file,
            self.encoding,
            cast(str, self.delimiter),
            self.check_names,
            self.mapping.columns,
        )


@dataclass
class _Tally:
    """What is learnt from the rows while they pass."""

    wanted: set[str]
    normaliser: Normaliser
    on_refused: OnRefused | None
    found: set[str] = field(default_factory=set)
    omitted: set[str] = field(default_factory=set)
    refused: int = 0
    first_refused: list[RefusedRow] = field(default_factory=list)
    unread_dates: int = 0
    unread_coordinates: int = 0

    def note(self, binding: Binding) -> None:
        self.found |= binding.found
        if len(self.omitted) < _MAX_OMITTED:  # names may be data, a new one in each row
            self.omitted |= binding.omitted

    def refuse(self, row: Refused) -> None:
        self.refused += 1
        if len(self.first_refused) < FIRST_REFUSED:
            self.first_refused.append(
                RefusedRow(line=row.place.line, row=row.place.row, reason=row.reason)
            )
        if self.on_refused is not None:
            self.on_refused(row)


def _payloads(source: _Source, tally: _Tally) -> Iterator[Payload]:
    @lru_cache(maxsize=256)  # one for a file, but for JSON, where each row has names of its own
    def binding_of(names: tuple[str, ...]) -> Binding:
        return bind(source.mapping, names)

    for row in source.rows():
        if isinstance(row, Refused):
            tally.refuse(row)
            continue
        try:
            binding = binding_of(row.names)
        except ValueError as error:
            tally.refuse(_refused(row, str(error)))
            continue
        payload, is_date, unread_coordinates = binding.payload(row.values)
        flaw = _flaw(payload)
        if flaw is not None:
            tally.refuse(_refused(row, flaw))
            continue
        tally.normaliser.apply(payload)
        tally.note(binding)
        tally.unread_dates += not is_date
        tally.unread_coordinates += unread_coordinates
        yield payload


def _refused(row: Row, reason: str) -> Refused:
    return Refused(row.place, reason, as_text(dict(zip(row.names, row.values, strict=True))))


def _flaw(payload: dict[str, Any]) -> str | None:
    """Say why an alert cannot be sent, or None."""
    try:
        size = len(orjson.dumps(payload))
    except orjson.JSONEncodeError as error:
        return f"cannot be written as JSON in UTF-8: {error}"
    if size > MAX_ALERT_BYTES:
        return f"an alert of {size:,} bytes as JSON; {MAX_ALERT_BYTES:,} are allowed"
    return None
