"""Alerts from a file: JSON list, JSON Lines, CSV or Parquet with the original's seven fields.

A file is read wholly before anything is produced (`inspect`), so that half a replay of a broken
file cannot happen; reading holds one batch in memory, however large the file is.

What a value says is not judged here: a null, unknown or odd value passes unchanged, and routing
sends it to manual review, where a person sees it. Only a file that is no list of alerts is refused.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn, cast
from zoneinfo import ZoneInfo

import orjson
from upath import UPath

from emergencias.model import ORIGINAL_FIELDS
from emergencias.places import parse_degrees

FORMATS = ("json", "jsonl", "csv", "parquet")
KEPT_FIELDS = ("codigo_provincia", "latitud", "longitud")
"""What is kept beside the original fields where a file has it; other columns are left out."""

MADRID = ZoneInfo("Europe/Madrid")
DELIMITERS = ",;\t|"
MAX_ALERT_CHARS = 16 * 2**20
"""Longest JSON object read: beyond it a file is not a list of alerts, and memory stays bounded."""

MAX_ALERT_BYTES = 900_000
"""Largest alert accepted: Kafka usually takes 1 MB a record and would refuse it half-way."""

_FIELDS = frozenset((*ORIGINAL_FIELDS, *KEPT_FIELDS))
_DEGREE_LIMITS = {"latitud": 90, "longitud": 180}
_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}")
_BLANKS = re.compile(r"[ \t\n\r]*")
_CHUNK = 2**20
_HEAD = 2**16
_MAX_OMITTED = 100
_PARQUET_BATCH = 4096
_FORMAT_HELP = (
    "A file can be a JSON list, JSON Lines, CSV (header; comma, semicolon, tab or |) or Parquet, "
    "the text kinds also as .gz"
)

Payload = dict[str, Any]
PathLike = str | os.PathLike[str]


class SourceError(ValueError):
    """A file cannot be replayed; the message says where and why, and what is allowed."""

    retryable = False


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What a file holds.

    Attributes:
        path: The file as it was given.
        format: One of FORMATS.
        alerts: How many alerts it holds, 1 or more.
        sha256: Of its bytes as stored, hexadecimal.
        encoding: 'utf-8', or 'cp1252' for a CSV that is not UTF-8; None for Parquet.
        delimiter: What separates a CSV's cells; None for the other formats.
        fechas_sin_leer: Alerts whose fecha is not a date with a time; theirs pass unchanged.
        coordenadas_sin_leer: Latitudes and longitudes that are not degrees; they become null.
        columnas_omitidas: Columns that are left out, sorted; not all where there are many.
    """

    path: str
    format: str
    alerts: int
    sha256: str
    encoding: str | None
    delimiter: str | None
    fechas_sin_leer: int
    coordenadas_sin_leer: int
    columnas_omitidas: tuple[str, ...]


def inspect(path: PathLike, *, format: str | None = None) -> SourceSummary:
    """Read a file wholly and say what it holds.

    Args:
        path: A local path or any URI that fsspec knows.
        format: One of FORMATS; by default found from the content, then from the name's ending.

    Raises:
        SourceError: The file cannot be replayed as a whole. Nothing has been produced yet.
    """
    source = _open_source(path, format)
    digest = sha256(path)
    tally = _Tally()
    alerts = sum(1 for _ in _payloads(source, tally))
    if not alerts:
        raise source.error("holds no alerts; it must hold 1 or more")
    source.check_complete(tally.found, tally.found | tally.omitted)
    if sha256(path) != digest:
        raise source.error("changed while it was read; try again once it is complete")
    return SourceSummary(
        path=source.name,
        format=source.format,
        alerts=alerts,
        sha256=digest,
        encoding=source.encoding,
        delimiter=source.delimiter,
        fechas_sin_leer=tally.unread_dates,
        coordenadas_sin_leer=tally.unread_coordinates,
        columnas_omitidas=tuple(sorted(tally.omitted)),
    )


def read(path: PathLike, *, format: str | None = None) -> Iterator[Payload]:
    """Yield the alerts of a file in its order, as `inspect` has seen them.

    Each is a dict that orjson can write: the seven original fields, in their order, then those of
    KEPT_FIELDS that the file has. Names match in any case, so an export with upper-case names can
    be replayed. Values are unchanged but for:

    - fecha without offset is Europe/Madrid: it gains the offset and keeps its local date and time.
      The hour that comes twice in October is taken as its first (summer time), the one that does
      not exist in March as winter time. With an offset, or unreadable, it stays as it is.
    - latitud and longitud are numbers (a text is read, also with a decimal comma) or null.
    - An empty CSV cell and a number that is not one (NaN) are null.
    - Whole numbers beyond 64 bits and numbers beyond a float's range become text, their digits.

    A caller that has a summary compares its sha256 with `sha256(path)` first: the file may have
    changed since.

    Args:
        path: As for `inspect`.
        format: As for `inspect`.

    Raises:
        SourceError: The file cannot be read (on).
    """
    return _payloads(_open_source(path, format), _Tally())


def sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file's bytes as stored, hexadecimal.

    Raises:
        SourceError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with _opened(_Source(path)) as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass
class _Source:
    """A file and how to read it."""

    path: PathLike
    format: str = ""
    gzipped: bool = False
    encoding: str | None = None
    delimiter: str | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def error(self, what: str) -> SourceError:
        return SourceError(f"Input file {self.name} {what.rstrip('.')}.")

    def error_at(self, where: str, what: str) -> SourceError:
        return SourceError(f"Input file {self.name}, {where}: {what.rstrip('.')}.")

    def check_complete(self, found: Collection[str], names: Collection[str]) -> None:
        """Raise SourceError unless all original fields are found; `names` are all the columns."""
        if missing := [name for name in ORIGINAL_FIELDS if name not in found]:
            there = ", ".join(_shorten(name) for name in sorted(names)[:20]) or "no names"
            raise self.error(
                f"lacks {', '.join(missing)}; it has {there}. "
                f"Needed, in any case and order: {', '.join(ORIGINAL_FIELDS)}"
            )


@dataclass
class _Tally:
    """What is learnt from the rows while they pass."""

    found: set[str] = field(default_factory=set)
    omitted: set[str] = field(default_factory=set)
    unread_dates: int = 0
    unread_coordinates: int = 0

    def note(self, columns: _Columns) -> None:
        self.found |= columns.found
        if len(self.omitted) < _MAX_OMITTED:  # names may be data, a new one in each row
            self.omitted |= columns.omitted


@contextmanager
def _opened(source: _Source, *, unzip: bool = False) -> Iterator[BinaryIO]:
    """Open the file's bytes; what goes wrong on the way says which file it was.

    Other errors of the file system (a remote one that does not answer) stay what they are: they
    are no fault of the file, and a retry can help.
    """
    if not source.name.strip():
        raise SourceError(f"input_path is {source.name!r}; it must be the path of a file")
    try:
        path = UPath(source.path)
        if path.is_dir():
            raise source.error("is a directory; it must be a file")
        with path.open("rb") as stored:
            if unzip and source.gzipped:
                with gzip.GzipFile(fileobj=stored) as plain:
                    yield cast(BinaryIO, plain)
            else:
                yield stored
    except FileNotFoundError as error:
        raise source.error("does not exist") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise source.error(f"is damaged or cut off gzip data: {error}") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError, ImportError) as error:
        raise source.error(f"cannot be read: {error}") from error
    except SourceError:
        raise
    except ValueError as error:  # a path or a scheme that fsspec does not know
        raise source.error(f"cannot be read: {error}") from error


def _open_source(path: PathLike, format: str | None) -> _Source:
    """Find out how to read a file: format, compression, and a CSV's encoding and delimiter."""
    if format is not None and format not in FORMATS:
        raise SourceError(f"Unknown format {format!r}; allowed: {', '.join(FORMATS)}")
    source = _Source(path)
    with _opened(source) as file:
        source.gzipped = file.read(2) == b"\x1f\x8b"
    with _opened(source, unzip=True) as file:
        head = file.read(_HEAD)
    content = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not content:
        raise source.error("is empty; it must hold 1 alert or more")
    source.format = format or _detect_format(source, head, content)
    if source.format == "parquet":
        if source.gzipped:
            raise source.error("is gzipped Parquet; give the Parquet file itself")
        return source
    source.encoding = _encoding(source)
    if source.format == "csv":
        source.delimiter = _delimiter(source)
    return source


def _detect_format(source: _Source, head: bytes, content: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if content.startswith((b"[", b"{")):
        return "json" if content.startswith(b"[") else "jsonl"
    ending = source.name.lower().removesuffix(".gz").rpartition(".")[2]
    ending = {"ndjson": "jsonl", "tsv": "csv", "pq": "parquet"}.get(ending, ending)
    if ending in FORMATS:
        return ending
    header = re.split(rb"[\r\n]", content, maxsplit=1)[0].lower()
    if any(name.encode() in header for name in ORIGINAL_FIELDS):
        return "csv"
    raise source.error(
        f"has an unknown format: it begins with {_shorten(content[:20])}. {_FORMAT_HELP}"
    )


def _encoding(source: _Source) -> str:
    """Return the text's encoding; UTF-8 but for CSV files, which spreadsheets save otherwise."""
    flaw = _decoding_flaw(source, "utf-8")
    if flaw is None:
        return "utf-8"
    if source.format == "csv" and _decoding_flaw(source, "cp1252") is None:
        return "cp1252"
    raise source.error(f"{flaw}. {_FORMAT_HELP}; text must be in UTF-8")


def _decoding_flaw(source: _Source, encoding: str) -> str | None:
    """Return what and where the first byte is that is no text in this encoding, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, position = 1, 0
    with _opened(source, unzip=True) as file:
        while True:
            chunk = file.read(_CHUNK)
            nul = chunk.find(b"\0")
            text = chunk if nul < 0 else chunk[:nul]
            flaw = None if nul < 0 else (nul, 0)
            try:
                decoder.decode(text, final=not chunk)
            except UnicodeDecodeError as error:
                # The object begins with what was left of the chunk before: a character's begin.
                offset = error.start - (len(error.object) - len(text))
                flaw = (offset, error.object[error.start])
            if flaw is not None:
                offset, byte = flaw
                line += chunk.count(b"\n", 0, max(offset, 0))
                where = f"at {position + offset} (line {line})"
                return f"is not {encoding} text: byte 0x{byte:02x} {where}"
            if not chunk:
                return None
            line += chunk.count(b"\n")
            position += len(chunk)


def _delimiter(source: _Source) -> str:
    """Return the delimiter under which most of our names are in the header."""
    with _text(source) as file:
        head = file.read(_HEAD)

    def known(delimiter: str) -> tuple[int, int]:
        header = _header(source, csv.reader(io.StringIO(head, newline=""), delimiter=delimiter))
        return len({_fold(name) for name in header} & set(ORIGINAL_FIELDS)), len(header)

    return max(DELIMITERS, key=known)


def _header(source: _Source, reader: Iterator[list[str]]) -> list[str]:
    try:
        return next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise source.error_at("header", f"not CSV: {error}") from error


def _fold(name: str) -> str:
    return name.strip().casefold()


@contextmanager
def _text(source: _Source) -> Iterator[io.TextIOWrapper]:
    encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
    with (
        _opened(source, unzip=True) as file,
        io.TextIOWrapper(file, encoding=encoding, newline="") as text,
    ):
        yield text


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where our fields are among a row's values.

    Attributes:
        picks: Each field of the payload with its position; None where the row lacks it.
        found: The fields that the row has.
        omitted: The columns that are left out.
    """

    picks: tuple[tuple[str, int | None], ...]
    found: frozenset[str]
    omitted: frozenset[str]

    @classmethod
    def of(cls, names: Sequence[str]) -> _Columns:
        """Find our fields among the columns.

        Raises:
            ValueError: One of them is there twice.
        """
        positions: dict[str, int] = {}
        for position, name in enumerate(names):
            field_name = _fold(name)
            if field_name not in _FIELDS:
                continue
            if field_name in positions:
                both = f"{names[positions[field_name]]!r} and {name!r}"
                raise ValueError(f"has {field_name} twice ({both}); each may be there only once")
            positions[field_name] = position
        fields = (*ORIGINAL_FIELDS, *(name for name in KEPT_FIELDS if name in positions))
        return cls(
            picks=tuple((name, positions.get(name)) for name in fields),
            found=frozenset(positions),
            omitted=frozenset(name for name in names if _fold(name) not in _FIELDS),
        )


_Row = tuple[str, _Columns, Sequence[Any]]
"""Where it is (for messages), its columns, its values."""


def _payloads(source: _Source, tally: _Tally) -> Iterator[Payload]:
    rows: Callable[[_Source], Iterator[_Row]] = {
        "json": _json_rows,
        "jsonl": _json_rows,
        "csv": _csv_rows,
        "parquet": _parquet_rows,
    }[source.format]
    for where, columns, values in rows(source):
        tally.note(columns)
        payload: Payload = {
            name: None if position is None else values[position] for name, position in columns.picks
        }
        fecha = payload["fecha"]
        payload["fecha"], is_date = _with_offset(fecha)
        tally.unread_dates += not is_date
        for name, limit in _DEGREE_LIMITS.items():
            if payload.get(name) is not None:
                payload[name] = parse_degrees(payload[name], limit)
                tally.unread_coordinates += payload[name] is None
        try:
            size = len(orjson.dumps(payload))
        except orjson.JSONEncodeError as error:
            raise source.error_at(where, f"cannot be written as JSON in UTF-8: {error}") from error
        if size > MAX_ALERT_BYTES:
            raise source.error_at(
                where, f"an alert of {size:,} bytes as JSON; {MAX_ALERT_BYTES:,} are allowed"
            )
        yield payload


def _with_offset(fecha: Any) -> tuple[Any, bool]:
    """Return fecha with Madrid's offset if it has none, and whether it is a date with a time."""
    if not isinstance(fecha, str) or not _DATE_AND_TIME.match(fecha):
        return fecha, False
    try:
        moment = datetime.fromisoformat(fecha)
    except ValueError:
        return fecha, False
    if moment.tzinfo is not None:
        return fecha, True
    # The first of the two possible moments (fold 0) where clocks are turned back.
    local = moment.replace(tzinfo=MADRID)
    offset = local.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return fecha, False  # before 1901 Madrid's offset has seconds, which ISO 8601 cannot say
    return local.isoformat(), True


def _json_rows(source: _Source) -> Iterator[_Row]:
    """Read a JSON list or objects one after the other (JSON Lines), one object at a time.

    Not ijson: it silently turns a lone surrogate into '?', keeps the last of two equal names, and
    does not say where an error is.
    """
    columns_of = lru_cache(maxsize=256)(_Columns.of)
    is_list = source.format == "json"
    end = "]" if is_list else ""
    with _text(source) as file:
        json_text = _JsonText(source, file)
        if is_list:
            json_text.expect("[", "'[', the begin of a list of objects")
        count = 0
        while json_text.peek() not in ("", end):
            if is_list and count:
                json_text.expect(",", "',' or ']'")
            count += 1
            where = f"alert {count}"
            row = json_text.value(where)
            if not isinstance(row, dict):
                raise source.error_at(where, f"is {_shorten(row)}; it must be a JSON object")
            try:
                columns = columns_of(tuple(row))
            except ValueError as error:
                raise source.error_at(where, str(error)) from error
            yield where, columns, tuple(row.values())
        if is_list:
            json_text.expect("]", "',' or ']'")
            if json_text.peek():
                raise json_text.error("there is more after the list's end")


class _JsonText:
    """Reads JSON values from a text of any length; holds one chunk and one value at a time."""

    def __init__(self, source: _Source, file: io.TextIOWrapper) -> None:
        self._source = source
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters that have been dropped from the text's begin
        self._line = 1
        self._decode = json.JSONDecoder(
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_no_constant,
        ).raw_decode

    def peek(self) -> str:
        """Return the next character that is not blank, without taking it; '' at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def expect(self, sign: str, meaning: str) -> None:
        """Take the next character, which must be `sign`."""
        if self.peek() != sign:
            raise self.error(f"expected {meaning}")
        self._at += 1

    def value(self, where: str) -> Any:
        """Take and return the next value, that of the alert at `where`."""
        self.peek()
        while True:
            try:
                value, self._at = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # It may only be cut off by the end of what was read so far.
                too_long = len(self._text) - self._at > MAX_ALERT_CHARS
                if not too_long and self._read_on():
                    continue
                limit = f"; no whole object in {MAX_ALERT_CHARS:,} characters" if too_long else ""
                raise self.error(f"{where}: {error.msg}{limit}", error.pos) from error
            except RecursionError as error:
                raise self.error(f"{where}: nested too deeply") from error
            except ValueError as error:
                raise self.error(f"{where} {error}") from error
            else:
                return value

    def error(self, what: str, at: int | None = None) -> SourceError:
        """Return the error that says what is wrong at the present position (or at `at`)."""
        at = self._at if at is None else at
        line = self._line + self._text.count("\n", 0, at)
        there = self._text[at : at + 20]
        found = (
            f"there is {_TELEPHONE.sub('(number)', repr(there))}"
            if there.strip()
            else "the text ends: is it cut off?"
        )
        return self._source.error_at(
            f"line {line}, character {self._before + at + 1}", f"not valid JSON: {what}; {found}"
        )

    def _read_on(self) -> bool:
        chunk = self._file.read(_CHUNK)
        if not chunk:
            return False
        self._line += self._text.count("\n", 0, self._at)
        self._before += self._at
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice!r} twice; each name may be there only once")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"has {text}, which is no JSON; write null or a text")


def _whole(text: str) -> int | str:
    """Return a whole number; as text if it has more than the 64 bits that JSON writers handle."""
    if len(text) > 20:
        return text
    value = int(text)
    return value if -(2**63) <= value < 2**64 else text


def _real(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _csv_rows(source: _Source) -> Iterator[_Row]:
    with _text(source) as file:
        reader = csv.reader(file, delimiter=cast(str, source.delimiter), strict=True)
        names = _header(source, reader)
        columns = _file_columns(source, names)
        try:
            for cells in reader:
                if not cells:
                    continue
                where = f"line {reader.line_num}"
                if len(cells) != len(names):
                    raise source.error_at(
                        where,
                        f"{len(cells)} cells, but the header has {len(names)} columns: "
                        f"{_shorten(cells)}",
                    )
                yield where, columns, [cell or None for cell in cells]
        except csv.Error as error:
            raise source.error_at(f"line {reader.line_num}", f"not CSV: {error}") from error


def _parquet_rows(source: _Source) -> Iterator[_Row]:
    import pyarrow as pa  # heavy to import, and only needed for Parquet
    import pyarrow.parquet as pq

    with _opened(source) as file:
        row = 0
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            wanted = [name for name in names if _fold(name) in _FIELDS]
            columns = replace(
                _file_columns(source, wanted, names), omitted=_Columns.of(names).omitted
            )
            for batch in table.iter_batches(_PARQUET_BATCH, columns=wanted):
                for values in zip(*map(_arrow_values, batch.columns), strict=True):
                    row += 1
                    yield f"row {row}", columns, [_plain(value) for value in values]
        except UnicodeDecodeError as error:
            raise source.error_at(
                f"row {row}", f"bytes that are not UTF-8 text: {error}"
            ) from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the file system's; pyarrow's own about damaged data have no number
            raise source.error(f"is not readable Parquet: {error}") from error


def _arrow_values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's times end at microseconds.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return cast(list[Any], column.to_pylist())


def _plain(value: Any) -> Any:
    """Return a Parquet value as JSON knows it."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (float, Decimal)) and value != value:
        return None
    if isinstance(value, int):
        return _whole(str(value))
    if isinstance(value, (float, Decimal)):
        whole = isinstance(value, Decimal) and value == value.to_integral_value()
        return _whole(str(int(value))) if whole else _real(str(value))
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def _file_columns(
    source: _Source, names: Sequence[str], all_names: Sequence[str] | None = None
) -> _Columns:
    """Return the columns that hold for a whole file, which must have all the original fields."""
    try:
        columns = _Columns.of(names)
    except ValueError as error:
        raise source.error(str(error)) from error
    source.check_complete(columns.found, all_names or names)
    return columns


_TELEPHONE = re.compile(r"\+?\d(?:[ .-]?\d){8,}")


def _shorten(value: Any) -> str:
    """Return the value for a message: short, and without anybody's telephone number."""
    text = _TELEPHONE.sub("(number)", value if isinstance(value, str) else repr(value))
    return text if len(text) <= 60 else text[:60] + "..."
