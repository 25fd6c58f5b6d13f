"""Records to rows and rows to records: the KAFKA and JSON formats."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ksqldb_local.compiler import java_double
from ksqldb_local.errors import DeserializationError, UnsupportedError
from ksqldb_local.json_text import (
    MISSING,
    JsonError,
    dump_object,
    parse_bytes,
    parse_bytes_exact,
    varchar,
)
from ksqldb_local.types import Column, Schema, SqlType

Headers = Sequence[tuple[str, Any]] | Mapping[str, Any]

FORMATS = ("KAFKA", "JSON")
_RANGES = {"INTEGER": range(-(2**31), 2**31), "BIGINT": range(-(2**63), 2**63)}
_STRUCTS = {"INTEGER": ">i", "BIGINT": ">q", "DOUBLE": ">d"}


class SourceReader:
    """Reads the records of one stream into rows: all columns, in the order of its schema.

    Raises:
        UnsupportedError: A format or a type of a column is not one that this engine reads.
    """

    def __init__(self, schema: Schema, key_format: str, value_format: str) -> None:
        self.schema = schema
        self._key = tuple(c for c in schema.columns if c.role == "KEY")
        self._headers = any(c.role == "HEADERS" for c in schema.columns)
        self._values = tuple(c for c in schema.columns if c.role == "VALUE")
        self._order = [
            (*self._key, *self._values, *(c for c in schema.columns if c.role == "HEADERS")).index(
                c
            )
            for c in schema.columns
        ]
        if self._key and (key_format != "KAFKA" or len(self._key) > 1):
            raise UnsupportedError(f"A key of format {key_format} with {len(self._key)} columns")
        if value_format not in FORMATS:
            raise UnsupportedError(f"VALUE_FORMAT {value_format}")
        if value_format == "KAFKA" and len(self._values) > 1:
            raise UnsupportedError("VALUE_FORMAT KAFKA with more than one column")
        self._key_reader = kafka_reader(self._key[0], "key") if self._key else None
        self._single = value_format == "KAFKA"
        self._value_reader = (
            kafka_reader(self._values[0], "value") if self._single and self._values else None
        )
        self._coercions = [
            (c.name, _coercion(c.type), c.type.base == "STRING") for c in self._values
        ]
        # A record that this engine or a server wrote has just these names, in this order.
        self._names = tuple(c.name for c in self._values)
        self._exact_types = tuple(_exact_types(c.type) for c in self._values)
        self._ranges = tuple(
            (i, _RANGES[c.type.base]) for i, c in enumerate(self._values) if c.type.base in _RANGES
        )
        self._uncoerced: dict[tuple[type, ...], bool] = {}
        self._plain_order = self._order == list(range(len(self._order)))

    def read(
        self, key: bytes | None, value: bytes | None, headers: Callable[[], Headers | None]
    ) -> tuple[Any, ...] | None:
        """Return the row of a record; None for a tombstone. ``headers`` is called if needed.

        Raises:
            DeserializationError: The key or the value is not of the declared format.
        """
        if value is None:
            return None
        row: list[Any] = [] if self._key_reader is None else [self._key_reader(key)]
        if self._single:
            if self._value_reader is not None:
                row.append(self._value_reader(value))
        else:
            self._read_json(value, row)
        if self._headers:
            given = headers() or ()
            pairs = given.items() if isinstance(given, Mapping) else given
            row.append([{"KEY": name, "VALUE": content} for name, content in pairs])
        return tuple(row) if self._plain_order else tuple(row[i] for i in self._order)

    def read_key(self, key: bytes | None) -> Any:
        """Return the key column's value; None when the stream has none.

        Raises:
            DeserializationError: The key is not of the declared type.
        """
        return self._key_reader(key) if self._key_reader else None

    def _read_json(self, raw: bytes, row: list[Any]) -> None:
        try:
            document = parse_bytes(raw)
            if type(document) is not dict:
                if document is MISSING:
                    raise JsonError("No content to map due to end-of-input")
                raise JsonError(f"Expected JSON object, got {_kind(document)}")
        except JsonError as error:
            raise DeserializationError("value", str(error)) from error
        if tuple(document) == self._names and self._needs_no_coercion(document):
            row += document.values()
            return
        upper: dict[str, Any] | None = None
        exact: dict[str, Any] | None = None
        for name, coerce, text in self._coercions:
            value = document.get(name, MISSING)
            if value is MISSING:
                if upper is None:
                    upper = {k.upper(): k for k in document}
                found = upper.get(name)
                value = document[found] if found is not None else None
            else:
                found = name
            if value is None or (text and type(value) is str):
                row.append(value)
                continue
            if text and type(value) is not bool and type(value) is not int:
                # A fraction keeps its digits, and those within objects and arrays too.
                if exact is None:
                    exact = parse_bytes_exact(raw)
                value = exact[str(found)]
            try:
                row.append(coerce(value))
            except (ValueError, OverflowError) as error:
                raise DeserializationError(
                    "value", f"Can't convert type. path: $.{name}, value: {value!r}: {error}"
                ) from error

    def _needs_no_coercion(self, document: dict[str, Any]) -> bool:
        values = list(document.values())
        types = tuple(map(type, values))
        known = self._uncoerced.get(types)
        if known is None:
            known = all(t in wanted for t, wanted in zip(types, self._exact_types, strict=True))
            if len(self._uncoerced) < 10_000:
                self._uncoerced[types] = known
        return known and all(
            values[i] is None or values[i] in allowed for i, allowed in self._ranges
        )


def _exact_types(kind: SqlType) -> frozenset[type]:
    own = {"STRING": str, "BOOLEAN": bool, "INTEGER": int, "BIGINT": int}.get(kind.base)
    return frozenset() if own is None else frozenset({own, type(None)})


def _kind(document: Any) -> str:
    if document is None:
        return "null"
    return {list: "an array", str: "a text", bool: "a boolean"}.get(type(document), "a number")


def kafka_reader(column: Column, target: str) -> Callable[[bytes | None], Any]:
    """Return the function that reads a single value in the KAFKA format.

    Raises:
        UnsupportedError: The format cannot hold the column's type.
    """
    base = column.type.base
    if base == "STRING":
        return lambda raw: None if raw is None else raw.decode("utf-8", "replace")
    if base == "BYTES":
        return lambda raw: raw
    code = _STRUCTS.get(base)
    if code is None:
        raise UnsupportedError(f"{base} in the KAFKA format")
    size = struct.calcsize(code)

    def read(raw: bytes | None) -> Any:
        if raw is None:
            return None
        if len(raw) != size:
            raise DeserializationError(target, f"Size of data received is not {size}")
        return struct.unpack(code, raw)[0]

    return read


def kafka_writer(kind: SqlType) -> Callable[[Any], bytes | None]:
    """Return the function that writes a single value in the KAFKA format.

    Raises:
        UnsupportedError: The format cannot hold the type.
    """
    if kind.base == "STRING":
        return lambda value: None if value is None else value.encode()
    if kind.base == "BYTES":
        return lambda value: value
    code = _STRUCTS.get(kind.base)
    if code is None:
        raise UnsupportedError(f"{kind} in the KAFKA format")
    return lambda value: None if value is None else struct.pack(code, value)


def value_writer(
    columns: Sequence[Column], value_format: str
) -> Callable[[dict[str, Any]], bytes | None]:
    """Return the function that writes a row (name to value, in order) as a record's value.

    Raises:
        UnsupportedError: The format cannot hold the columns.
    """
    if value_format == "KAFKA":
        if len(columns) != 1:
            raise UnsupportedError("VALUE_FORMAT KAFKA with other than one column")
        name, write = columns[0].name, kafka_writer(columns[0].type)
        return lambda row: write(row[name])
    if value_format != "JSON":
        raise UnsupportedError(f"VALUE_FORMAT {value_format}")
    if all(c.type.base in ("STRING", "INTEGER", "BIGINT", "BOOLEAN") for c in columns):
        return dump_object
    return lambda row: dump_object({name: _json_value(value) for name, value in row.items()})


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        text = java_double(value)
        return orjson.Fragment(text) if text[-1].isdigit() else text
    if isinstance(value, dict):
        return {k: _json_value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json_value(v) for v in value]
    return value


def _coercion(kind: SqlType) -> Callable[[Any], Any]:
    """Return the function that brings a non-null JSON value to the type (ValueError: it cannot)."""
    base = kind.base
    if base == "STRING":
        return varchar
    if base in ("INTEGER", "BIGINT"):
        bits = 32 if base == "INTEGER" else 64

        def integer(value: Any) -> int:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError(f"not {base}")
            number = int(value)
            if isinstance(value, str) and not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
                raise ValueError("out of range")
            half = 1 << (bits - 1)
            return (number + half) % (2 * half) - half

        return integer
    if base == "DOUBLE":

        def double(value: Any) -> float:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError("not DOUBLE")
            return float(value)

        return double
    if base == "BOOLEAN":

        def boolean(value: Any) -> bool:
            if not isinstance(value, bool):
                raise ValueError("not BOOLEAN")
            return value

        return boolean
    if base == "BYTES":

        def raw(value: Any) -> bytes:
            if not isinstance(value, str):
                raise ValueError("not BYTES")
            return base64.b64decode(value, validate=True)

        return raw
    if base in ("ARRAY", "MAP") and kind.element is not None:
        inner = _coercion(kind.element)
        if base == "ARRAY":

            def array(value: Any) -> list[Any]:
                if not isinstance(value, list):
                    raise ValueError("not an array")
                return [None if v is None else inner(v) for v in value]

            return array

        def mapping(value: Any) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise ValueError("not an object")
            return {k: None if v is None else inner(v) for k, v in value.items()}

        return mapping
    if base == "STRUCT":
        fields = [(name, _coercion(t)) for name, t in kind.fields]

        def structure(value: Any) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise ValueError("not an object")
            upper = {k.upper(): v for k, v in value.items()}
            found = ((n, value.get(n, upper.get(n)), c) for n, c in fields)
            return {n: None if v is None else c(v) for n, v, c in found}

        return structure
    raise UnsupportedError(f"A column of type {kind}")
