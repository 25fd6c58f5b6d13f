"""How the rows of a query are sent: the forms that `Accept` may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ksqldb_local.json_text import dump_object
from ksqldb_local.transient import TransientQuery
from ksqldb_local.types import quoted


class RowFormat:
    """Delimited, the default: one JSON value a line, first the header, then a list per row."""

    media_type = "application/vnd.ksqlapi.delimited.v1"

    def __init__(self, query: TransientQuery) -> None:
        self._query = query

    def _header(self) -> bytes:
        columns = self._query.schema.columns
        return orjson.dumps(
            {
                "queryId": self._query.id,
                "columnNames": [c.name for c in columns],
                "columnTypes": [c.type.text(quote_all=True) for c in columns],
            }
        )

    def head(self) -> bytes:
        """Return what comes before the rows."""
        return self._header() + b"\n"

    def body(self, rows: Sequence[list[Any]]) -> bytes:
        """Return some rows, at least one."""
        return b"".join(dump_object(row) + b"\n" for row in rows)

    def tail(self) -> bytes:
        """Return what comes after the rows."""
        return b""


class JsonArray(RowFormat):
    """One JSON array: the header, then a list per row."""

    media_type = "application/json"

    def head(self) -> bytes:
        """Return what comes before the rows."""
        return b"[" + self._header()

    def body(self, rows: Sequence[list[Any]]) -> bytes:
        """Return some rows, at least one."""
        return b"".join(b",\n" + dump_object(row) for row in rows)

    def tail(self) -> bytes:
        """Return what comes after the rows."""
        return b"]"


class KsqlV1(RowFormat):
    """One JSON array of objects: header, rows, and why it ended."""

    media_type = "application/vnd.ksql.v1+json"

    def head(self) -> bytes:
        """Return what comes before the rows."""
        # A query that only answers has its key among the values.
        schema = ", ".join(
            f"{quoted(c.name)} {c.type.text(quote_all=True)}" for c in self._query.schema.columns
        )
        return b"[" + orjson.dumps({"header": {"queryId": self._query.id, "schema": schema}})

    def body(self, rows: Sequence[list[Any]]) -> bytes:
        """Return some rows, at least one."""
        return b"".join(b",\n" + dump_object({"row": {"columns": row}}) for row in rows)

    def tail(self) -> bytes:
        """Return what comes after the rows."""
        why = "Limit Reached" if self._query.limit is not None else "Query Completed"
        return b",\n" + orjson.dumps({"finalMessage": why}) + b"]"


FORMATS: Mapping[str, type[RowFormat]] = {
    "*/*": RowFormat,
    "application/*": RowFormat,
    RowFormat.media_type: RowFormat,
    JsonArray.media_type: JsonArray,
    KsqlV1.media_type: KsqlV1,
}
