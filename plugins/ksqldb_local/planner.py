"""What a statement would do, checked against the streams, queries and topics that exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksqldb_local.errors import (
    SCHEMA_REGISTRY,
    SERVER_ERROR,
    GenericError,
    KsqlError,
    StatementError,
    UnsupportedError,
)
from ksqldb_local.formats import FORMATS, SourceReader, kafka_writer, value_writer
from ksqldb_local.formatting import as_select_text, insert_text, source_text
from ksqldb_local.metastore import Metastore, PersistentQuery, Stream
from ksqldb_local.program import resolve
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    DropSource,
    InsertInto,
    Properties,
)
from ksqldb_local.topics import TopicInfo, Topics
from ksqldb_local.types import PSEUDO_COLUMNS, Schema, identifier, quoted

_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_OTHER_FORMATS = {"DELIMITED", "NONE"}
_REGISTRY_FORMATS = {"AVRO", "PROTOBUF", "PROTOBUF_NOSR", "JSON_SR"}
_SOURCE_PROPERTIES = {
    "KAFKA_TOPIC",
    "KEY_FORMAT",
    "VALUE_FORMAT",
    "FORMAT",
    "PARTITIONS",
    "REPLICAS",
    "RETENTION_MS",
    "CLEANUP_POLICY",
}


@dataclass(frozen=True, slots=True)
class Creation:
    """A stream to create: its canonical text, the topic it needs, the query it starts."""

    text: str
    stream: Stream
    new_topic: TopicInfo | None
    query: PersistentQuery | None = None
    replaces: PersistentQuery | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """IF NOT EXISTS of a stream that is there: nothing to do."""

    message: str


def check_name(name: str, *, line: int = 1, column: int = 1) -> None:
    """Refuse a stream's name that ksqlDB refuses.

    Raises:
        StatementError: It holds other characters than letters, digits, ``_`` and ``-``.
    """
    if not _NAME.match(name):
        raise StatementError(
            f"Illegal argument at Line: {line}, Col: {column}. Source names may only contain "
            f"alphanumeric values, '_' or '-'. Got: '{name}'",
            statement=name,
        )


def _format(properties: Properties, which: str, default: str | None) -> str | None:
    value = properties.get(which, properties.get("FORMAT", default))
    return str(value).upper() if value is not None else None


def _check_format(name: str, topic: str, text: str) -> None:
    if name in FORMATS:
        return
    if name in _REGISTRY_FORMATS and name != "PROTOBUF_NOSR":
        raise KsqlError(
            f"Cannot create topic '{topic}' with format {name} without configuring "
            "'ksql.schema.registry.url'",
            status=428,
            error_code=SCHEMA_REGISTRY,
        )
    if name in _OTHER_FORMATS or name in _REGISTRY_FORMATS:
        raise UnsupportedError(f"The format {name}")
    raise StatementError(f"Unknown format: {name}", statement=text)


def _integer(properties: Properties, name: str) -> int | None:
    value = properties.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise StatementError(f"Invalid value {value} for property {name}: not a number") from error


def create_source(
    statement: CreateSource, metastore: Metastore, topics: Topics
) -> Creation | Existing:
    """Plan CREATE STREAM over a topic.

    Raises:
        KsqlError: As a ksqlDB server refuses it.
    """
    check_name(statement.name)
    kind = statement.kind.lower()
    existing = metastore.streams.get(statement.name)
    if existing is not None and statement.if_not_exists:
        return _existing(kind, statement.name)
    given = statement.properties
    topic = given.get("KAFKA_TOPIC")
    value_format = _format(given, "VALUE_FORMAT", None)
    if topic is None:
        raise StatementError('Missing required property "KAFKA_TOPIC" which has no default value.')
    if value_format is None:
        raise StatementError(
            "Statement is missing the 'VALUE_FORMAT' property from the WITH clause. Either "
            "provide one "
            "or set a default via the 'ksql.persistence.default.format.value' config."
        )
    unknown = sorted(set(given) - _SOURCE_PROPERTIES)
    if unknown:
        raise UnsupportedError(f"The property {', '.join(unknown)}")
    key_format = _format(given, "KEY_FORMAT", "KAFKA") or "KAFKA"
    policy = "compact" if statement.kind == "TABLE" else "delete"
    properties: dict[str, str | int | bool] = {
        "CLEANUP_POLICY": policy,
        "KEY_FORMAT": key_format,
        **{k: v for k, v in given.items() if k != "FORMAT"},
        "VALUE_FORMAT": value_format,
    }
    text = source_text(statement, properties)
    without_policy = {k: v for k, v in properties.items() if k != "CLEANUP_POLICY"}
    for name in (value_format, key_format):
        _check_format(name, str(topic), source_text(statement, without_policy))
    found = topics.find(str(topic))
    partitions = _integer(given, "PARTITIONS")
    if found is None and partitions is None:
        example = source_text(statement, without_policy | {"PARTITIONS": 2})
        raise GenericError(
            f"Topic '{topic}' does not exist. If you want to create a new topic for the "
            "stream/table "
            "please re-run the statement providing the required 'PARTITIONS' configuration "
            "in the WITH "
            f"clause (and optionally 'REPLICAS'). For example: {example}"
        )
    if found is not None:
        given_topic = [_integer(given, n) for n in ("PARTITIONS", "REPLICAS", "RETENTION_MS")]
        there = (found.partitions, found.replicas, found.retention_ms)
        wanted = (t if g is None else g for g, t in zip(given_topic, there, strict=True))
        _check_topic(str(topic), found, TopicInfo(*wanted))
    try:
        if statement.kind == "TABLE":
            if existing is not None and not statement.or_replace:
                raise _exists("table", statement.name)
            raise UnsupportedError("CREATE TABLE")
        if existing is not None:
            if not statement.or_replace:
                raise _exists("stream", statement.name)
            if existing.source is not None:
                raise UnsupportedError(
                    "Replacing a stream that a query writes by one without query"
                )
            if existing.topic != topic:
                raise StatementError(
                    f"Cannot upgrade data source: DataSource '{quoted(statement.name)}' has "
                    "topic = "
                    f"{existing.topic} which is not upgradeable to {topic}"
                )
            _check_upgrade(existing, statement.schema)
        _check_columns(statement.schema)
        SourceReader(statement.schema, key_format, value_format)
    except StatementError as error:
        error.statement = error.statement or text
        raise
    new_topic = None
    if found is None and partitions is not None:
        new_topic = TopicInfo(
            partitions,
            _integer(given, "REPLICAS") or 1,
            _integer(given, "RETENTION_MS") or 604_800_000,
        )
    stored = source_text(statement, properties, if_not_exists=False)
    stream = Stream(statement.name, str(topic), statement.schema, key_format, value_format, stored)
    return Creation(text, stream, new_topic)


def _check_topic(name: str, found: TopicInfo | None, wanted: TopicInfo) -> None:
    if found is not None and found != wanted:
        raise KsqlError(
            f"A Kafka topic with the name '{name}' already exists, with different "
            "partition/replica/retention configuration than required. KSQL expects "
            f"{wanted.partitions} partitions (topic has {found.partitions}), {wanted.replicas} "
            f"replication factor (topic has {found.replicas}), and {wanted.retention_ms} "
            f"retention (topic has {found.retention_ms}).",
            status=500,
            error_code=SERVER_ERROR,
        )


def _check_columns(schema: Schema) -> None:
    if not schema.columns:
        raise StatementError("The statement does not define any columns.")
    for column, times in Counter(c.name for c in schema.columns).items():
        if times > 1:
            raise StatementError(f"Duplicate columns found in schema: {quoted(column)}")
        if column in PSEUDO_COLUMNS:
            raise StatementError(f"'{column}' is a reserved column name.")
    if any(c.role == "PRIMARY KEY" for c in schema.columns):
        raise StatementError("A stream has no PRIMARY KEY: declare the column as KEY.")


def create_as_select(
    statement: CreateAsSelect,
    metastore: Metastore,
    topics: Topics,
    overrides: Mapping[str, Any],
    query_id: str,
) -> Creation | Existing:
    """Plan CREATE STREAM AS SELECT.

    Args:
        statement: The statement.
        metastore: What exists.
        topics: The topics.
        overrides: The request's properties.
        query_id: Id for a new query.

    Raises:
        KsqlError: As a ksqlDB server refuses it.
    """
    check_name(statement.name)
    select = statement.select
    source = metastore.streams.get(select.source)
    if source is None:
        raise StatementError(
            f"Exception while preparing statement: {select.source} does not exist."
        )
    existing = metastore.streams.get(statement.name)
    if existing is not None and statement.if_not_exists:
        return _existing("stream", statement.name)
    if select.limit is not None:
        raise UnsupportedError("LIMIT in CREATE STREAM AS SELECT")
    given = statement.properties
    unknown = sorted(set(given) - _SOURCE_PROPERTIES)
    if unknown:
        raise UnsupportedError(f"The property {', '.join(unknown)}")
    topic = str(given.get("KAFKA_TOPIC", statement.name))
    of_source = topics.find(source.topic)
    if of_source is None:
        raise GenericError(
            f"Could not get details of the source topic: '{source.topic}' does not exist."
        )
    wanted = TopicInfo(
        _integer(given, "PARTITIONS") or of_source.partitions,
        _integer(given, "REPLICAS") or of_source.replicas,
        _integer(given, "RETENTION_MS") or of_source.retention_ms,
    )
    found = topics.find(topic)
    _check_topic(topic, found, wanted)
    properties = {
        **given,
        "CLEANUP_POLICY": given.get("CLEANUP_POLICY", "delete"),
        "KAFKA_TOPIC": topic,
        "PARTITIONS": wanted.partitions,
        "REPLICAS": wanted.replicas,
        "RETENTION_MS": wanted.retention_ms,
    }
    text = as_select_text(statement, properties, source.schema)
    value_format = _format(given, "VALUE_FORMAT", source.value_format) or source.value_format
    key_format = _format(given, "KEY_FORMAT", source.key_format) or source.key_format
    writers = metastore.writers(statement.name)
    running = next(iter(writers), None)
    try:
        if statement.or_replace and len(writers) > 1:
            listed = ", ".join(q.id for q in writers)
            raise StatementError(
                f"REPLACE for sink {quoted(statement.name)} is not supported because there are "
                f"multiple queries writing into it: [{listed}]. TERMINATE the INSERT INTO queries "
                "first."
            )
        _check_format(value_format, topic, text)
        _check_format(key_format, topic, text)
        schema = _sink_schema(statement, source, value_format)
        if existing is not None:
            if not statement.or_replace:
                raise StatementError(
                    "Could not determine output schema for query due to error: "
                    f"{_exists('stream', statement.name).message}"
                )
            if existing.topic != topic:
                raise StatementError(
                    f"Cannot upgrade data source: DataSource '{quoted(statement.name)}' has "
                    "topic = "
                    f"{existing.topic} which is not upgradeable to {topic}"
                )
            _check_upgrade(existing, schema)
        _check_replace(statement, running)
    except StatementError as error:
        error.statement = error.statement or text
        raise
    stream = Stream(
        statement.name, topic, schema, key_format, value_format, text, source=source.name
    )
    query = PersistentQuery(
        id=running.id if running is not None else query_id,
        text=text,
        select=select,
        reads=source,
        sink=statement.name,
        sink_topic=topic,
        sink_schema=schema,
        overrides=dict(overrides),
        paused=running.paused if running is not None else False,
    )
    return Creation(text, stream, wanted if found is None else None, query, running)


def insert_into(
    statement: InsertInto, metastore: Metastore, overrides: Mapping[str, Any], query_id: str
) -> Creation:
    """Plan INSERT INTO ... SELECT: a further query that writes an existing stream.

    Args:
        statement: The statement.
        metastore: What exists.
        overrides: The request's properties.
        query_id: Id for the query, unless the statement gives one.

    Raises:
        KsqlError: As a ksqlDB server refuses it.
    """
    select = statement.select
    source = metastore.streams.get(select.source)
    if source is None:
        raise StatementError(
            f"Exception while preparing statement: {select.source} does not exist."
        )
    sink = metastore.streams.get(statement.name)
    if sink is None:
        raise StatementError(
            f"Exception while preparing statement: {statement.name} does not exist."
        )
    if select.limit is not None:
        raise UnsupportedError("LIMIT in INSERT INTO")
    unknown = sorted(set(statement.properties) - {"QUERY_ID"})
    if unknown:
        raise StatementError(f"Invalid config variable(s) in the WITH clause: {', '.join(unknown)}")
    given = str(statement.properties.get("QUERY_ID", query_id)).upper()
    if "QUERY_ID" in statement.properties:
        if not _NAME.match(given) or given.startswith(("CSAS_", "CTAS_", "INSERTQUERY_", "CST_")):
            raise StatementError(
                f"Query IDs must not start with a reserved prefix and may only contain "
                f"alphanumeric characters, '_' and '-'. Got: '{given}'"
            )
        if given in metastore.queries:
            raise StatementError(f"Query ID '{given}' already exists.")
    schema = _sink_schema(statement, source, sink.value_format)
    if schema != sink.schema:
        raise StatementError(
            "Incompatible schema between results and sink.\n"
            f"Result schema is {schema.text()}\nSink schema is {sink.schema.text()}"
        )
    text = insert_text(statement, source.schema)
    query = PersistentQuery(
        id=given,
        text=text,
        select=select,
        reads=source,
        sink=sink.name,
        sink_topic=sink.topic,
        sink_schema=schema,
        overrides=dict(overrides),
        inserts=True,
    )
    return Creation(text, sink, None, query)


def _check_replace(statement: CreateAsSelect, running: PersistentQuery | None) -> None:
    if running is not None and running.source != statement.select.source:
        raise StatementError(
            f"Cannot upgrade query {running.id}: it reads {running.source}, not "
            f"{statement.select.source}; its offsets would mean nothing. Drop the stream and "
            "create it "
            "again."
        )


def _sink_schema(
    statement: CreateAsSelect | InsertInto, source: Stream, value_format: str
) -> Schema:
    try:
        schema = resolve(
            statement.select, source, persistent=True, sink=identifier(statement.name)
        ).schema
        for key in schema.key:
            kafka_writer(key.type)
        value_writer(schema.value, value_format)
    except UnsupportedError:
        raise
    except StatementError as error:
        raise StatementError(
            f"Could not determine output schema for query due to error: {error.message}"
        ) from error
    return schema


def _exists(kind: str, name: str) -> StatementError:
    return StatementError(f"Cannot add {kind} '{name}': A stream with the same name already exists")


def _existing(kind: str, name: str) -> Existing:
    return Existing(
        f"Cannot add {kind} {quoted(name)}: A stream with the same name already exists."
    )


def _check_upgrade(existing: Stream, schema: Schema) -> None:
    """Refuse a replacement that does not keep all columns where they are."""
    old, new = existing.schema.columns, schema.columns
    changed = [c for i, c in enumerate(old) if i >= len(new) or new[i] != c]
    added_keys = [c for c in new[len(old) :] if c.role == "KEY"]
    if not changed and not added_keys:
        return
    listed = ", ".join(c.definition(quote_all=True) for c in changed or added_keys)
    raise StatementError(
        f"Cannot upgrade data source: DataSource '{quoted(existing.name)}' has schema = "
        f"{existing.schema.text()} which is not upgradeable to {schema.text()}. (The "
        "following columns "
        f"are changed, missing or reordered: [{listed}])"
    )


def drop_source(statement: DropSource, metastore: Metastore) -> Stream | None:
    """Plan DROP; None means that there is nothing to drop and that this is fine.

    Raises:
        KsqlError: As a ksqlDB server refuses it.
    """
    stream = metastore.streams.get(statement.name)
    if stream is None:
        if statement.if_exists:
            return None
        if statement.delete_topic:
            raise GenericError(f"Could not find source to delete topic for: {statement.text}")
        raise StatementError(f"{statement.kind.capitalize()} {statement.name} does not exist.")
    if statement.kind == "TABLE":
        raise StatementError(
            f"Incompatible data source type is STREAM, but statement was DROP TABLE: {stream.name}"
        )
    if statement.delete_topic:
        others = sorted(
            s.name
            for s in metastore.streams.values()
            if s.topic == stream.topic and s.name != stream.name
        )
        if others:
            raise KsqlError(
                f"Refusing to delete topic. Found other data sources ({', '.join(others)}) "
                "using topic "
                f"{stream.topic}",
                status=500,
                error_code=SERVER_ERROR,
            )
    reading = sorted(q.id for q in metastore.readers(stream.name) if q.inserts)
    writing = sorted(q.id for q in metastore.writers(stream.name) if q.inserts)
    if reading or writing:
        raise StatementError(
            f"Cannot drop {stream.name}.\n"
            f"The following queries read from this source: [{', '.join(reading)}].\n"
            f"The following queries write into this source: [{', '.join(writing)}].\n"
            f"You need to terminate them before dropping {stream.name}."
        )
    readers = metastore.dependants(stream.name)
    if readers:
        raise StatementError(
            f"Cannot drop {stream.name}.\nThe following streams and/or tables read from this "
            "source: "
            f"[{', '.join(readers)}].\nYou need to drop them before dropping {stream.name}."
        )
    return stream
