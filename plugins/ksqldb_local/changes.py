"""What statements do to the metastore: the same executed and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ksqldb_local.command_log import Command
from ksqldb_local.metastore import Metastore, PersistentQuery
from ksqldb_local.parser import parse
from ksqldb_local.planner import Creation, Existing, create_as_select, create_source, insert_into
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    DropSource,
    InsertInto,
    QueryCommand,
)
from ksqldb_local.topics import TopicInfo, Topics
from ksqldb_local.types import quoted

QUERY_MESSAGES = {
    "TERMINATE": "Query terminated.",
    "PAUSE": "Query paused.",
    "RESUME": "Query resumed.",
}


def plan_creation(
    statement: CreateSource | CreateAsSelect | InsertInto,
    store: Metastore,
    topics: Topics,
    properties: Mapping[str, Any],
    query_id: str,
) -> Creation | Existing:
    """Plan a statement that makes a stream or a query.

    Raises:
        KsqlError: As a ksqlDB server refuses it.
    """
    if isinstance(statement, CreateSource):
        return create_source(statement, store, topics)
    if isinstance(statement, CreateAsSelect):
        return create_as_select(statement, store, topics, properties, query_id)
    return insert_into(statement, store, properties, query_id)


def remember(store: Metastore, plan: Creation) -> None:
    """Add what was planned."""
    store.streams[plan.stream.name] = plan.stream
    if plan.query is not None:
        store.queries[plan.query.id] = plan.query


def targets(statement: QueryCommand, store: Metastore) -> list[PersistentQuery]:
    """Return the queries that a TERMINATE, PAUSE or RESUME is about."""
    if statement.query_id is None:
        return list(store.queries.values())
    query = store.queries.get(statement.query_id)
    return [] if query is None else [query]


def apply_query_command(action: str, query: PersistentQuery, store: Metastore) -> None:
    """Do what a TERMINATE, PAUSE or RESUME does to one query."""
    if action == "TERMINATE":
        del store.queries[query.id]
    else:
        query.paused = action == "PAUSE"


def dropped_message(name: str, topic: str | None) -> str:
    """Return what DROP reports; ``topic`` None is a stream that was not there."""
    if topic is None:
        return f"Source {quoted(name)} does not exist."
    return f"Source {quoted(name)} (topic: {topic}) was dropped."


def replay(command: Command, store: Metastore) -> dict[str, Any] | None:
    """Apply a command of the log to the metastore; topics and offsets are as it left them.

    Returns:
        The command's status; None for TERMINATE, whose statuses ksqlDB does not restore either.
    """
    statement = parse(command.statement)[0]
    status: dict[str, Any] = {"status": "SUCCESS", "message": "", "queryId": None}
    if isinstance(statement, CreateSource | CreateAsSelect | InsertInto):
        planned = plan_creation(
            statement,
            store,
            _ReplayTopics(statement),
            command.properties,
            command.query_id or "",
        )
        if isinstance(planned, Creation):
            remember(store, planned)
            status["message"] = (
                f"Created query with ID {planned.query.id}" if planned.query else "Stream created"
            )
            status["queryId"] = planned.query.id if planned.query else None
    elif isinstance(statement, DropSource):
        stream = store.streams.get(statement.name)
        status["message"] = dropped_message(statement.name, stream.topic if stream else None)
        if stream is not None:
            store.drop(statement.name)
    elif isinstance(statement, QueryCommand):
        status["message"] = QUERY_MESSAGES[statement.action]
        for query in targets(statement, store):
            apply_query_command(statement.action, query, store)
        if statement.action == "TERMINATE":
            return None
    return status


class _ReplayTopics:
    """The topics as a replayed statement left them: exactly what its canonical text says."""

    def __init__(self, statement: CreateSource | CreateAsSelect | InsertInto) -> None:
        def number(name: str, default: int) -> int:
            return int(statement.properties.get(name, default))

        self._info = TopicInfo(
            number("PARTITIONS", 1), number("REPLICAS", 1), number("RETENTION_MS", 604_800_000)
        )

    def find(self, name: str) -> TopicInfo | None:
        return self._info

    def create(self, name: str, info: TopicInfo) -> None:
        raise AssertionError(f"replaying must not create {name}")

    def delete(self, name: str) -> None:
        raise AssertionError(f"replaying must not delete {name}")
