"""Queries that answer instead of writing: push (what comes) and pull (what is there)."""

from __future__ import annotations

import base64
import logging
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from kafka_io import KafkaIoError, read_range
from ksqldb_local.compiler import Compiler
from ksqldb_local.errors import (
    SERVER_ERROR,
    DeserializationError,
    GenericError,
    StatementError,
    UnsupportedError,
)
from ksqldb_local.formats import SourceReader
from ksqldb_local.functions import JsonCache
from ksqldb_local.metastore import Metastore, Stream
from ksqldb_local.parser import parse
from ksqldb_local.program import resolve
from ksqldb_local.properties import check, offset_reset
from ksqldb_local.statements import Print, Query
from ksqldb_local.topics import BrokerTopics, Offsets
from ksqldb_local.types import Schema

log = logging.getLogger(__name__)

_POLL_S = 0.2
_PULL_TIMEOUT_S = 30.0
Row = list[Any]


def parse_query(text: str) -> Query:
    """Return the one query that a request's text holds.

    Raises:
        StatementError: It is something else, more than one statement, or cannot be read.
    """
    statements = parse(text)
    if len(statements) != 1:
        raise StatementError(
            f"Expected exactly one KSQL statement; found {len(statements)} instead", statement=text
        )
    statement = statements[0]
    if isinstance(statement, Print):
        raise _with_text(UnsupportedError("PRINT"), statement.text)
    if not isinstance(statement, Query):
        raise StatementError(
            f"Neither a query nor a print statement\nStatement: {statement.text}",
            statement=statement.text,
        )
    return statement


def _with_text(error: StatementError, text: str) -> StatementError:
    error.statement = text
    return error


class TransientQuery:
    """One query of `/query-stream`: its schema at once, its rows as they come.

    Reads committed records only, outside of any consumer group, so it changes nothing.

    Args:
        config: Client settings.
        topics: The broker's topics.
        statement: The query.
        source: The stream it reads.
        properties: ``properties`` of the request, checked.

    Raises:
        StatementError: A column is unknown or of the wrong type, or the clause is not supported.
        KafkaException: The broker does not answer.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: BrokerTopics,
        statement: Query,
        source: Stream,
        properties: Mapping[str, Any],
    ) -> None:
        select = statement.select
        if select.partition_by:
            raise UnsupportedError("PARTITION BY in a query that only answers")
        self.id = f"transient_{source.name}_{secrets.randbelow(2**63)}"
        self.text = statement.text
        self.push = select.emit_changes
        self.limit = select.limit
        self._config = config
        self._source = source
        self._closed = threading.Event()
        json = JsonCache()
        compiler = Compiler(source.schema, select.alias, json)
        projection = resolve(select, source, persistent=False)
        self.schema: Schema = projection.schema
        self._where = compiler.predicate(select.where) if select.where is not None else None
        self._columns = [compiler.evaluator(e) for e in projection.expressions.values()]
        self._reader = SourceReader(source.schema, source.key_format, source.value_format)
        partitions = topics.partitions(source.topic)
        if partitions is None:
            raise StatementError(
                f"Topic {source.topic} of {source.name} does not exist: create it again, or drop "
                "the stream"
            )
        where = offset_reset(properties) if self.push else "earliest"
        self._start = topics.offsets(source.topic, partitions, where=where)
        self._end: Offsets | None = (
            None if self.push else topics.high_watermarks(source.topic, partitions)
        )

    def close(self) -> None:
        """End the query: :meth:`batches` stops within its poll."""
        self._closed.set()

    def batches(self) -> Generator[list[Row]]:
        """Yield rows as they come, an empty list now and then, until the query is over.

        Close it: that ends the reading.

        Raises:
            KafkaException: The broker does not answer.
            GenericError: A pull query could not read to the end.
        """
        left = self.limit
        if left == 0:
            return
        for messages in self._pulled() if self._end is not None else self._followed():
            rows = [row for message in messages if (row := self._row(message)) is not None]
            if left is not None:
                rows = rows[:left]
                left -= len(rows)
            yield rows
            if left == 0 or self._closed.is_set():
                return

    def _followed(self) -> Iterator[list[Message]]:
        consumer = Consumer(
            {
                **self._config,
                "group.id": self.id,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        try:
            consumer.assign(
                [TopicPartition(self._source.topic, p, o) for p, o in self._start.items()]
            )
            while not self._closed.is_set():
                messages = consumer.consume(500, _POLL_S)
                for message in messages:
                    error = message.error()
                    if error is not None and not error.retriable():
                        raise KafkaException(error)
                yield [m for m in messages if m.error() is None]
        finally:
            consumer.close()

    def _pulled(self) -> Iterator[list[Message]]:
        topic = self._source.topic
        start = {(topic, p): o for p, o in self._start.items()}
        end = {(topic, p): o for p, o in (self._end or {}).items()}
        try:
            yield from read_range(self._config, start, end, timeout_s=_PULL_TIMEOUT_S)
        except KafkaIoError as error:
            raise GenericError(str(error), status=500, error_code=SERVER_ERROR) from error

    def _row(self, message: Message) -> Row | None:
        where = (0, message.partition() or 0, message.offset() or 0)
        try:
            row = self._reader.read(message.key(), message.value(), message.headers)
        except DeserializationError as error:
            log.warning("%s skips %s %s: %s", self.id, self._source.topic, where[1:], error.message)
            return None
        if row is None:
            return None
        coordinates = (message.timestamp()[1], *where[1:])
        values: Row = []
        try:
            if self._where is not None and not self._where(row, *coordinates):
                return None
        except Exception as error:
            log.warning("%s: filter of %s %s: %s", self.id, self._source.topic, where[1:], error)
            return None
        for evaluate in self._columns:
            try:
                values.append(_json(evaluate(row, *coordinates)))
            except Exception as error:  # as in a persistent query: the column is NULL
                log.warning(
                    "%s: column of %s %s: %s", self.id, self._source.topic, where[1:], error
                )
                values.append(None)
        return values


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return value


class TransientQueries:
    """The queries that are open.

    Args:
        config: Client settings.
        topics: The broker's topics.
        metastore: The streams that queries may read.
    """

    def __init__(
        self, config: Mapping[str, Any], topics: BrokerTopics, metastore: Callable[[], Metastore]
    ) -> None:
        self._config = config
        self._topics = topics
        self._metastore = metastore
        self._open: dict[str, TransientQuery] = {}

    def start(self, text: str, properties: Mapping[str, Any]) -> TransientQuery:
        """Open a query; :meth:`finish` must follow.

        Raises:
            KsqlError: As a ksqlDB server refuses it.
        """
        checked = check(properties, text)
        statement = parse_query(text)
        source = self._metastore().streams.get(statement.select.source)
        try:
            if source is None:
                raise StatementError(
                    "Exception while preparing statement: "
                    f"{statement.select.source} does not exist."
                )
            query = TransientQuery(self._config, self._topics, statement, source, checked)
        except StatementError as error:
            raise _with_text(error, error.statement or statement.text) from error
        except KafkaException as error:
            raise GenericError(
                f"The broker did not answer: {error.args[0].str()}",
                status=500,
                error_code=SERVER_ERROR,
            ) from error
        self._open[query.id] = query
        return query

    def finish(self, query: TransientQuery) -> None:
        """Forget a query that is over."""
        query.close()
        self._open.pop(query.id, None)

    def close(self, query_id: str) -> None:
        """End a query.

        Raises:
            GenericError: There is no such query.
        """
        query = self._open.get(query_id)
        if query is None:
            raise GenericError(f"No query with id {query_id}")
        query.close()

    def close_all(self) -> None:
        """End all of them, so that the server can stop."""
        for query in list(self._open.values()):
            query.close()

    def pushing(self) -> list[TransientQuery]:
        """Return the open push queries, which SHOW QUERIES lists."""
        return [q for q in list(self._open.values()) if q.push]
