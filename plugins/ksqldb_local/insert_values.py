"""INSERT INTO ... VALUES: one record, written as the stream's format says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Message, Producer
from sqlglot import exp

from ksqldb_local.compiler import Compiler
from ksqldb_local.errors import KsqlError, StatementError
from ksqldb_local.formats import kafka_writer, value_writer
from ksqldb_local.formatting import masked_insert_text
from ksqldb_local.functions import JsonCache
from ksqldb_local.json_text import JsonError
from ksqldb_local.metastore import Metastore, Stream
from ksqldb_local.statements import InsertValues
from ksqldb_local.types import BIGINT, DOUBLE, INTEGER, Schema, SqlType, quoted

_WIDER = {"INTEGER": ("BIGINT", "DOUBLE"), "BIGINT": ("DOUBLE",), "DECIMAL": ("DOUBLE",)}
_LIMITS = {INTEGER: 2**31, BIGINT: 2**63}


@dataclass(frozen=True, slots=True)
class Insertion:
    """A record to write."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None


def plan(statement: InsertValues, metastore: Metastore) -> Insertion:
    """Work out the record of an INSERT INTO ... VALUES.

    Raises:
        StatementError: A column is not there or a value is not of its type. The error shows the
            statement without its values, as ksqlDB does.
    """
    try:
        return _plan(statement, metastore)
    except StatementError as error:
        raise StatementError(
            f"Failed to insert values into '{statement.name}'. {error.message}",
            statement=masked_insert_text(statement),
        ) from error


def _plan(statement: InsertValues, metastore: Metastore) -> Insertion:
    stream = metastore.streams.get(statement.name)
    if stream is None:
        raise StatementError(
            f"Cannot insert values into an unknown stream/table: {quoted(statement.name)}"
        )
    own = [c.name for c in stream.schema.columns if c.role != "HEADERS"]
    columns = list(statement.columns) or own
    for name in columns:
        if name not in (*own, "ROWTIME"):
            raise StatementError(f"Column name {quoted(name)} does not exist.")
        if columns.count(name) > 1:
            raise StatementError(f"Column name {quoted(name)} is named twice.")
    if len(columns) != len(statement.values):
        raise StatementError(
            f"Expected a value for each column. Expected Columns: {columns}. "
            f"Got {len(statement.values)} values"
        )
    compiler = Compiler(Schema(()), stream.name, JsonCache())
    given = {
        name: _value(compiler, node, name, _type(stream, name))
        for name, node in zip(columns, statement.values, strict=True)
    }
    timestamp = given.pop("ROWTIME", None)
    if timestamp is not None and timestamp < 0:
        raise StatementError(f"ROWTIME must not be negative: {timestamp}")
    key = next(iter(stream.schema.key), None)
    values = [c for c in stream.schema.value if c.role != "HEADERS"]
    try:
        write = value_writer(values, stream.value_format)
        return Insertion(
            stream.topic,
            None if key is None else kafka_writer(key.type)(given.get(key.name)),
            write({c.name: given.get(c.name) for c in values}),
            timestamp,
        )
    except (JsonError, UnicodeEncodeError) as error:
        raise StatementError(str(error)) from error


def _type(stream: Stream, name: str) -> SqlType:
    column = stream.schema.find(name)
    return BIGINT if column is None else column.type  # ROWTIME


def _value(compiler: Compiler, node: exp.Expression, name: str, wanted: SqlType) -> Any:
    kind = compiler.type_of(node)
    if kind is not None and kind != wanted and wanted.base not in _WIDER.get(kind.base, ()):
        raise StatementError(f"Expected type {wanted} for field {quoted(name)} but got {kind}")
    try:
        value = compiler.evaluator(node)((), 0, 0, 0)
    except Exception as error:
        raise StatementError(f"{quoted(name)}: {error}") from error
    if value is None:
        return None
    limit = _LIMITS.get(wanted)
    if limit is not None and not -limit <= value < limit:
        raise StatementError(f"{quoted(name)}: the value is out of the range of {wanted}")
    return float(value) if wanted == DOUBLE else value


def write(config: Mapping[str, Any], insertion: Insertion, statement: InsertValues) -> None:
    """Write the record and wait for the broker to have it.

    Raises:
        KsqlError: The broker does not take it, or not in time (then it may still arrive).
    """
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            **config,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.timeout.ms": 10_000,
        }
    )
    producer.produce(
        insertion.topic,
        key=insertion.key,
        value=insertion.value,
        timestamp=insertion.timestamp_ms or 0,
        on_delivery=delivered,
    )
    remaining = producer.flush(15)
    if failures or remaining:
        reason = failures[0].str() if failures else "the broker did not answer within 15 s"
        raise KsqlError(
            f"Failed to insert values into '{statement.name}': {reason}. The record is not there, "
            "or not known to be: look before you insert it again.",
            status=500,
            error_code=50000,
            statement=masked_insert_text(statement),
        )
