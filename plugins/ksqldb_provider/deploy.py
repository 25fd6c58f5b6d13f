"""Bring a ksqlDB server to what a list of statements says, without ever replaying history.

First a plan: every statement is compared with what the server has. Only when no statement
conflicts is anything executed, in order, one statement a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ksqldb_provider.client.errors import (
    AlreadyExistsError,
    KsqlDbError,
    QueryFailedError,
    UnknownObjectError,
)
from ksqldb_provider.sql import SqlError, check_deployable, parse_statement

if TYPE_CHECKING:
    from ksqldb_provider.client import KsqlDbClient, Query, QueryDescription, SourceDescription
    from ksqldb_provider.sql import Definition, Statement
    from ksqldb_provider.topics import Topics

log = logging.getLogger(__name__)

EXACTLY_ONCE_FROM_START: Mapping[str, str] = {
    "auto.offset.reset": "earliest",
    "processing.guarantee": "exactly_once_v2",
}
"""A new query reads all that its source still has, and hands on each record exactly once."""

_POLL_S = 0.25
_RETRY_S = 2.0
_STUMBLE_S = 10.0


class Action(Enum):
    """What a plan does with a statement."""

    CREATE = "create"
    UNCHANGED = "unchanged"
    REPLACE = "replace"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """What will be done with a statement, and why.

    `remedy` says what a person has to do about a conflict. `query_id` is the persistent query
    that runs the statement, once there is one.
    """

    statement: Statement
    action: Action
    reason: str
    remedy: str = ""
    query_id: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Return it as plain values, for XCom."""
        statement = self.statement
        return {
            "statement": statement.name,
            "file": statement.path.name if statement.path else None,
            "topic": statement.topic,
            "action": self.action.value,
            "reason": self.reason,
            "remedy": self.remedy,
            "query_id": self.query_id,
        }


class DeployConflictError(Exception):
    """The server has something that a deployment must not touch; nothing was executed."""

    def __init__(self, conflicts: Sequence[PlannedStatement], address: str) -> None:
        self.conflicts = tuple(conflicts)
        lines = [
            f"- {conflict.statement.name}"
            f"{f' ({conflict.statement.path.name})' if conflict.statement.path else ''}: "
            f"{conflict.reason}. {conflict.remedy}"
            for conflict in conflicts
        ]
        super().__init__(
            f"{len(lines)} statement(s) cannot be deployed on ksqlDB at {address}:\n"
            + "\n".join(lines)
        )


def plan(
    client: KsqlDbClient, topics: Topics, statements: Sequence[Statement]
) -> list[PlannedStatement]:
    """Compare statements with the server; nothing is changed.

    Args:
        client: Who asks the server.
        topics: Who knows what was written to Kafka topics.
        statements: CREATE STREAM or TABLE statements, sources before what reads them.

    Raises:
        SqlError: A statement cannot be deployed at all.
        KsqlDbError: The server cannot be asked.
    """
    check_deployable(statements)
    planner = _Planner(client, topics, statements)
    return [planner.plan(statement) for statement in statements]


def apply(
    client: KsqlDbClient,
    topics: Topics,
    planned: Sequence[PlannedStatement],
    *,
    properties: Mapping[str, str] = EXACTLY_ONCE_FROM_START,
    timeout_s: float = 180.0,
    stop: threading.Event | None = None,
) -> list[PlannedStatement]:
    """Execute a plan in order and wait until every query of it runs.

    What can be retried is retried within `timeout_s` a statement: before each new attempt the
    server is asked again, so that a statement whose answer was lost is not executed twice.

    Args:
        client: Who asks the server.
        topics: Who knows what was written to Kafka topics.
        planned: What `plan` returned.
        properties: `streamsProperties` of each request.
        timeout_s: Longest time for one statement, until its query runs.
        stop: Ends the work between two steps when set.

    Returns:
        The plan with the ids of the queries.

    Raises:
        DeployConflictError: The plan has conflicts; nothing was executed.
        QueryFailedError: A query does not run.
        KsqlDbError: A statement was refused or could not be executed in time.
    """
    conflicts = [item for item in planned if item.action is Action.CONFLICT]
    if conflicts:
        raise DeployConflictError(conflicts, client.address)
    planner = _Planner(client, topics, [item.statement for item in planned])
    applier = _Applier(client, planner, properties, timeout_s, stop or threading.Event())
    return [applier.apply(item) for item in planned]


def render(planned: Sequence[PlannedStatement]) -> str:
    """Return a plan as a table in plain text, remedies below it."""
    rows = [("file", "statement", "topic", "action", "query", "reason")]
    rows += [
        (
            item.statement.path.name if item.statement.path else "-",
            item.statement.name,
            item.statement.topic,
            item.action.value,
            item.query_id or "-",
            item.reason,
        )
        for item in planned
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    remedies = [f"{item.statement.name}: {item.remedy}" for item in planned if item.remedy]
    return "\n".join([*lines, *remedies])


class _Planner:
    """Plans statement by statement, knowing the columns of those that came before."""

    def __init__(
        self, client: KsqlDbClient, topics: Topics, statements: Sequence[Statement]
    ) -> None:
        self._client = client
        self._topics = topics
        self._statements = statements
        self._columns: dict[str, tuple[str, ...]] = {}
        self._written: Mapping[str, int] | None = None
        self._queries: Mapping[str, QueryDescription] | None = None

    def plan(self, statement: Statement) -> PlannedStatement:
        planned = self._plan(statement)
        if planned.action is Action.CONFLICT:
            # Another deployment may have created it between two of our questions.
            self.forget()
            planned = self._plan(statement)
        return planned

    def forget(self) -> None:
        """Ask anew for what was asked once for all statements."""
        self._written = None
        self._queries = None

    def _written_to(self, topic: str) -> int | None:
        if self._written is None:
            self._written = self._topics.written(
                sorted({statement.topic for statement in self._statements})
            )
        return self._written.get(topic)

    def _describe_query(self, query_id: str) -> QueryDescription:
        if self._queries is None:
            self._queries = {query.id: query for query in self._client.query_descriptions()}
        return self._queries.get(query_id) or self._client.explain(query_id)

    def _plan(self, statement: Statement) -> PlannedStatement:
        wanted = _definition(statement)
        self._columns[wanted.name] = self._output_columns(wanted)
        try:
            found = self._client.describe(wanted.name)
        except UnknownObjectError:
            return self._plan_new(statement)
        if found.type != wanted.object_type.removeprefix("SOURCE "):
            return _conflict(
                statement,
                f"the server has a {found.type} of that name",
                f"Drop it (DROP {found.type} {found.name};) or choose another name",
            )
        try:
            current = _definition(parse_statement(found.statement))
        except SqlError as error:
            return _conflict(
                statement,
                f"the server's definition cannot be compared: {error}",
                "Compare by hand (DESCRIBE), then drop the stream or leave it out",
            )
        if statement.sink_topic or current.sources:
            return self._plan_query(statement, found)
        return self._plan_source(statement, current)

    def _plan_new(self, statement: Statement) -> PlannedStatement:
        written = self._written_to(statement.topic)
        if not statement.sink_topic:
            if written is None and "PARTITIONS" not in _definition(statement).properties:
                return _conflict(
                    statement,
                    f"its topic {statement.topic} does not exist",
                    "Create the topics first (task create_topics)",
                )
            return PlannedStatement(statement, Action.CREATE, "the server does not have it")
        if written:
            return _conflict(
                statement,
                f"the server does not have it, but its sink topic {statement.topic} was written "
                f"to ({written} offsets): a new query would route all of "
                f"{', '.join(statement.sources)} into it once more",
                _by_hand(statement),
            )
        return PlannedStatement(statement, Action.CREATE, "the server does not have it")

    def _plan_source(self, statement: Statement, current: Definition) -> PlannedStatement:
        wanted = _definition(statement)
        if difference := _property_difference(wanted, current):
            return _conflict(
                statement,
                difference,
                "Drop the streams that read it, then it, and deploy again; or give the new form "
                "a name of its own",
            )
        if wanted.columns == current.columns:
            return PlannedStatement(statement, Action.UNCHANGED, "same definition")
        if wanted.columns[: len(current.columns)] == current.columns:
            added = ", ".join(column.name for column in wanted.columns[len(current.columns) :])
            return PlannedStatement(statement, Action.REPLACE, f"columns added: {added}")
        return _conflict(
            statement,
            "columns were removed, retyped or reordered, which ksqlDB cannot do in place: it has "
            + ", ".join(f"{column.name} {column.type}" for column in current.columns),
            _KEEP_COLUMNS,
        )

    def _plan_query(self, statement: Statement, found: SourceDescription) -> PlannedStatement:
        running = next((query for query in found.write_queries if _is_own(query)), None)
        echo = running.query_string if running else found.statement
        change, problem, remedy = self._compare(
            statement, _definition(parse_statement(echo)), found
        )
        if running is None:
            return self._plan_gone(statement, problem, remedy)
        if problem:
            return replace(_conflict(statement, problem, remedy), query_id=running.id)
        if running.is_paused:
            reason, remedy = f"query {running.id} is paused", f"RESUME {running.id};"
            return replace(_conflict(statement, reason, remedy), query_id=running.id)
        description = self._describe_query(running.id)
        if failure := _failure(description):
            return replace(_conflict(statement, failure, _MEND), query_id=running.id)
        if change:
            return PlannedStatement(statement, Action.REPLACE, change, query_id=running.id)
        return PlannedStatement(
            statement, Action.UNCHANGED, "same definition, running", query_id=running.id
        )

    def _plan_gone(self, statement: Statement, problem: str, remedy: str) -> PlannedStatement:
        gone = "its query is gone (terminated)"
        if problem:
            return _conflict(statement, f"{gone} and {problem}", remedy)
        written = self._written_to(statement.topic)
        if written:
            return _conflict(
                statement,
                f"{gone} while its sink topic {statement.topic} was written to ({written} "
                f"offsets): a new query would route all of {', '.join(statement.sources)} into "
                "it once more",
                _by_hand(statement),
            )
        # OR REPLACE starts a new query even when other streams read this one; DROP would not.
        return PlannedStatement(
            statement, Action.REPLACE, f"{gone}; nothing was ever written to {statement.topic}"
        )

    def _compare(
        self, statement: Statement, current: Definition, found: SourceDescription
    ) -> tuple[str, str, str]:
        """Return (what may be changed in place, what may not, what to do about that)."""
        wanted = _definition(statement)
        if difference := _property_difference(wanted, current):
            return "", difference, _NEW_STREAM
        if not wanted.select:
            return "", "the server has a query for it, the file has none", _NEW_STREAM
        if wanted.sources != current.sources or wanted.clauses != current.clauses:
            return (
                "",
                f"it reads or groups otherwise: the server reads {', '.join(current.sources)}",
                _NEW_STREAM,
            )
        keys = {field.name for field in found.fields if field.is_key}
        has = [field.name for field in found.fields if not field.is_key]
        wants = [name for name in self._columns[wanted.name] if name not in keys]
        if wants[: len(has)] != has:
            return (
                "",
                "columns were removed or reordered, which ksqlDB cannot do in place: the server "
                f"has {', '.join(has)}; the file {', '.join(wants)}",
                _KEEP_COLUMNS,
            )
        changes = []
        if len(wants) > len(has):
            changes.append(f"columns added: {', '.join(wants[len(has) :])}")
        elif wanted.select != current.select:
            changes.append("columns computed otherwise")
        if wanted.where != current.where:
            changes.append("filter changed")
        return "; ".join(changes), "", ""

    def _output_columns(self, wanted: Definition) -> tuple[str, ...]:
        if not wanted.select:
            return tuple(column.name for column in wanted.columns)
        names: list[str] = []
        for name, _ in wanted.select:
            if name == "*":
                for source in wanted.sources:
                    names += self._columns_of(source)
            else:
                names.append(name)
        return tuple(names)

    def _columns_of(self, source: str) -> tuple[str, ...]:
        """Return the columns that a source will have once the statements before are applied."""
        if source not in self._columns:
            try:
                fields = self._client.describe(source).fields
            except UnknownObjectError as error:
                raise SqlError(
                    f"{source} is read before it is created: neither the server nor an earlier "
                    "statement has it; number its file lower"
                ) from error
            self._columns[source] = tuple(field.name for field in fields)
        return self._columns[source]


class _Applier:
    """Executes one planned statement after the other."""

    def __init__(
        self,
        client: KsqlDbClient,
        planner: _Planner,
        properties: Mapping[str, str],
        timeout_s: float,
        stop: threading.Event,
    ) -> None:
        self._client = client
        self._planner = planner
        self._properties = properties
        self._timeout_s = timeout_s
        self._stop = stop
        self._after: int | None = None

    def apply(self, planned: PlannedStatement) -> PlannedStatement:
        deadline = time.monotonic() + self._timeout_s
        current = planned
        while current.action is not Action.UNCHANGED:
            try:
                current = replace(
                    current, action=Action.UNCHANGED, query_id=self._execute(current, deadline)
                )
            except KsqlDbError as error:
                # "Exists already": another deployment, or our own attempt whose answer was lost.
                exists = isinstance(error, AlreadyExistsError)
                if not (error.retryable or exists) or time.monotonic() >= deadline:
                    raise
                if self._stop.wait(_POLL_S if exists else _RETRY_S):
                    raise
                log.warning("Looking again, then trying again: %s", error)
                self._planner.forget()
                current = self._planner.plan(planned.statement)
                if current.action is Action.CONFLICT:
                    raise DeployConflictError([current], self._client.address) from error
        if current.query_id:
            self._await_running(current.query_id, deadline)
        return replace(planned, query_id=current.query_id)

    def _execute(self, planned: PlannedStatement, deadline: float) -> str | None:
        result = self._client.execute(
            planned.statement.create_text(or_replace=planned.action is Action.REPLACE),
            properties=self._properties,
            after=self._after,
            timeout_s=max(1.0, deadline - time.monotonic()),
            stop=self._stop,
        )
        self._after = result.command_sequence_number
        return result.command_status.query_id

    def _await_running(self, query_id: str, deadline: float) -> None:
        failing_since: float | None = None
        while True:
            description = self._client.explain(query_id)
            if description.is_running:
                return
            now = time.monotonic()
            failure = _failure(description)
            # A query that has just started may stumble once and then run.
            failing_since = (failing_since or now) if failure else None
            failed = failing_since is not None and now - failing_since >= _STUMBLE_S
            if failed or now >= deadline or self._stop.wait(_POLL_S):
                raise QueryFailedError(
                    failure
                    or f"query {query_id} was not running after {self._timeout_s:.0f} s: state "
                    f"{description.state}",
                    address=self._client.address,
                    statement=description.statement_text,
                )


_NEW_STREAM = (
    "Give the new form a stream and a topic of its own; or drop this stream and delete its topic, "
    "if its records may go, and deploy again"
)
_KEEP_COLUMNS = (
    "Keep the columns in their order and add new ones at the end; or give the new form a stream "
    "and a topic of its own"
)
_MEND = (
    "Mend the cause; the server starts a failed query again by itself (or restart it). Do not "
    "TERMINATE the query: a new one would start again from the beginning"
)


def _by_hand(statement: Statement) -> str:
    return (
        f"Decide what is right: to route everything again, delete the topic {statement.topic}, "
        "create it anew and deploy again; to go on with new records only, execute the statement "
        "by hand as CREATE OR REPLACE with 'auto.offset.reset' = 'latest' (what came in between "
        "is then not routed)"
    )


def _conflict(statement: Statement, reason: str, remedy: str) -> PlannedStatement:
    return PlannedStatement(statement, Action.CONFLICT, reason, remedy)


def _definition(statement: Statement) -> Definition:
    if statement.definition is None:
        raise SqlError(f"not a CREATE statement: {statement.text[:80]!r}", path=statement.path)
    return statement.definition


def _is_own(query: Query) -> bool:
    """Tell a stream's own query from an INSERT INTO that writes to it too."""
    return query.id.upper().startswith(("CSAS_", "CTAS_"))


def _failure(description: QueryDescription) -> str:
    if description.query_errors:
        return f"query {description.id} has failed: {description.query_errors[-1].summary}"
    if description.state == "ERROR":
        return f"query {description.id} is in state ERROR"
    return ""


def _property_difference(wanted: Definition, current: Definition) -> str:
    """Compare what the file gives; the server also fills in what it does not give."""
    for name in sorted({*wanted.properties, "KAFKA_TOPIC"}):
        wants = wanted.topic if name == "KAFKA_TOPIC" else wanted.properties[name]
        has = current.topic if name == "KAFKA_TOPIC" else current.properties.get(name)
        if wants != has:
            what = "topic" if name == "KAFKA_TOPIC" else name
            return f"its {what} would change from {has} to {wants}, which ksqlDB cannot do in place"
    return ""
