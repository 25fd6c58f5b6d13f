"""A query compiled: what it makes of one record of its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from ksqldb_local import processing_log
from ksqldb_local.compiler import Compiler, Evaluator
from ksqldb_local.errors import StatementError
from ksqldb_local.formats import SourceReader, kafka_writer, value_writer
from ksqldb_local.formatting import expression_text
from ksqldb_local.functions import JsonCache
from ksqldb_local.metastore import Stream
from ksqldb_local.statements import Select
from ksqldb_local.types import PSEUDO_COLUMNS, STRING, Column, Schema, identifier


def column(name: str) -> exp.Column:
    """Return a reference to a column."""
    return exp.Column(this=exp.Identifier(this=name, quoted=True))


@dataclass(frozen=True, slots=True)
class Projection:
    """A SELECT list resolved: the schema it gives, and the expression of each column."""

    schema: Schema
    expressions: dict[str, exp.Expression]


def resolve(select: Select, source: Stream, *, persistent: bool, sink: str = "") -> Projection:
    """Work out the columns of a SELECT.

    Args:
        select: The statement.
        source: The stream it reads.
        persistent: It is written to a topic, so it must carry the key and may not be called
        ROWTIME.
        sink: Name of the stream it makes, for messages.

    Raises:
        StatementError: A column is unknown, of the wrong type, named twice, or the key is missing.
    """
    compiler = Compiler(source.schema, select.alias, JsonCache())
    expressions: dict[str, exp.Expression] = {}
    kinds: dict[str, Any] = {}
    for item in select.items:
        if item.expression is None:
            pairs: list[tuple[str, exp.Expression]] = [
                (c.name, column(c.name)) for c in source.schema.columns
            ]
        else:
            pairs = [(str(item.alias), item.expression)]
        for name, expression in pairs:
            try:
                kind = compiler.type_of(expression)
            except StatementError as error:
                if "cannot be resolved" not in error.message:
                    raise
                raise StatementError(
                    f"Line: {item.line}, Col: {item.column}: SELECT column "
                    f"{error.message.removeprefix('Column ')}"
                ) from error
            if name in expressions:
                raise StatementError(f"The projection contains a repeated column: `{name}`.")
            if persistent and name in PSEUDO_COLUMNS:
                raise StatementError(
                    f"Reserved column name in select: `{name}`. Please remove or alias the column."
                )
            if kind is None:
                raise StatementError(f"The type of column `{name}` is not known: it is NULL.")
            if kind.base == "DECIMAL":
                raise StatementError(
                    f"Column `{name}` is DECIMAL, which ksqldb_local does not write: CAST it "
                    "to DOUBLE."
                )
            expressions[name] = expression
            kinds[name] = kind
    if select.where is not None:
        try:
            compiler.predicate(select.where)
        except StatementError as error:
            raise StatementError(f"Error in WHERE expression: {error.message}") from error
    key_name = _key_name(select, source, expressions, persistent=persistent, sink=sink)
    columns = tuple(
        Column(name, kinds[name], "KEY" if name == key_name else "VALUE") for name in expressions
    )
    if select.partition_by and key_name is not None:  # the new key comes first
        columns = tuple(sorted(columns, key=lambda c: c.role != "KEY"))
        expressions = {c.name: expressions[c.name] for c in columns}
    return Projection(Schema(columns), expressions)


def _key_name(
    select: Select,
    source: Stream,
    expressions: dict[str, exp.Expression],
    *,
    persistent: bool,
    sink: str,
) -> str | None:
    if len(select.partition_by) > 1:
        raise StatementError("PARTITION BY more than one column needs a ksqlDB server.")
    if select.partition_by:
        if isinstance(select.partition_by[0], exp.Null):
            return None
        wanted = expression_text(select.partition_by[0])
        shown = wanted
    else:
        keys = source.schema.key
        if not keys:
            return None
        wanted = shown = identifier(keys[0].name)
    found = [name for name, e in expressions.items() if expression_text(e) == wanted]
    if not found and persistent:
        raise StatementError(
            "Key missing from projection (ie, SELECT). \n"
            f"The query used to build `{sink}` must include the key column {shown} in its "
            f"projection (eg, SELECT {shown}...)."
        )
    if len(found) > 1 and persistent:
        raise StatementError(
            f"The projection contains a key column ({shown}) more than once: {', '.join(found)}."
        )
    return found[0] if found else None


Emitted = tuple[bytes | None, bytes | None]
"""Key and value of a record to write."""

NOTHING: tuple[Emitted | None, list[bytes]] = (None, [])


class Program:
    """A persistent query's work on one record: filter, projection, serialization.

    Args:
        query_id: For the processing log.
        select: The query.
        source: The stream it reads.
        sink: The stream it writes.
        json: The JSON cache of the thread that runs it.
    """

    def __init__(
        self, query_id: str, select: Select, source: Stream, sink: Stream, json: JsonCache
    ) -> None:
        self.query_id = query_id
        self.select = select
        self.sink_topic = sink.topic
        self._sink_name = sink.name
        compiler = Compiler(source.schema, select.alias, json)
        projection = resolve(select, source, persistent=True, sink=sink.name)
        self._where = compiler.predicate(select.where) if select.where is not None else None
        keys = projection.schema.key
        values = {c.name: projection.expressions[c.name] for c in projection.schema.value}
        self.value_expressions = values
        self.key_expression = projection.expressions[keys[0].name] if keys else None
        self.writes_text_key = bool(keys) and keys[0].type == STRING
        self._row = compiler.row(values)
        self._columns: list[tuple[str, Evaluator]] = [
            (name, compiler.evaluator(e)) for name, e in values.items()
        ]
        self._key: Evaluator | None = None
        self._repartitions = bool(select.partition_by)
        if keys:
            self._key = compiler.evaluator(projection.expressions[keys[0].name])
            self.write_key = kafka_writer(keys[0].type)
        self.write_value: Callable[[dict[str, Any]], bytes | None] = value_writer(
            projection.schema.value, sink.value_format
        )

    def tombstone(self, reader: SourceReader, key: bytes | None) -> Emitted | None:
        """Return what a record without value gives: None for a filter, else a copy of it."""
        if self._where is not None or self._repartitions:
            return None
        if self._key is None:
            return (None, None)
        return (self.write_key(reader.read_key(key)), None)

    def run(
        self, row: tuple[Any, ...], timestamp: int, partition: int, offset: int
    ) -> tuple[Emitted | None, list[bytes]]:
        """Return the record to write (None: filtered out) and entries for the processing log."""
        if self._where is not None:
            try:
                if not self._where(row, timestamp, partition, offset):
                    return NOTHING
            except Exception as error:
                return None, [self._failure("WhereFilter", "Error evaluating filter", error)]
        entries: list[bytes] = []
        try:
            values = self._row(row, timestamp, partition, offset)
        except Exception:
            values = {}
            for index, (name, evaluate) in enumerate(self._columns):
                try:
                    values[name] = evaluate(row, timestamp, partition, offset)
                except Exception as error:
                    values[name] = None
                    what = f"Error computing expression for column {name} with index {index}"
                    entries.append(self._failure("Project", what, error))
        try:
            key = None
            if self._key is not None:
                key = self.write_key(self._key(row, timestamp, partition, offset))
            return (key, self.write_value(values)), entries
        except Exception as error:
            entries.append(
                processing_log.serialization_error(
                    self.query_id, self._sink_name, self.sink_topic, str(error)
                )
            )
            return None, entries

    def _failure(self, step: str, what: str, error: Exception) -> bytes:
        return processing_log.processing_error(
            self.query_id, step, f"{what}: {error}", f"{type(error).__name__}: {error}"
        )
