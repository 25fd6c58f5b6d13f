"""One exception for each kind of failure of a ksqlDB server, each saying whether a retry helps."""

from __future__ import annotations

import re

_SHOWN = 300
_UNKNOWN = re.compile(
    r"Could not find STREAM|Unknown queryId|into an unknown |(?<!`) does not exist"
)
_PLACES = (
    re.compile(r"line (\d+):(\d+)"),
    re.compile(r"Line: (\d+), Col: (\d+)"),
)


class KsqlDbError(Exception):
    """A ksqlDB server could not be asked, or did not do what it was asked.

    Attributes:
        retryable: Whether the same call can succeed later without anybody changing anything.
        maybe_executed: Whether the server may have executed the statement all the same, because
            the connection broke after it was sent.
        address: The server's address.
        statement: The SQL that was sent, if any.
    """

    retryable = False
    next_step = ""

    def __init__(
        self,
        problem: str,
        *,
        address: str = "",
        statement: str = "",
        next_step: str = "",
        maybe_executed: bool = False,
    ) -> None:
        self.problem = problem
        self.address = address
        self.statement = statement
        self.maybe_executed = maybe_executed
        parts = [problem.rstrip()]
        if address:
            parts.append(f"(ksqlDB at {address})")
        if statement:
            shown = " ".join(statement.split())
            parts.append(f"Statement: {shown[:_SHOWN]}{'…' if len(shown) > _SHOWN else ''}")
        parts.append(next_step or self.next_step)
        super().__init__(" ".join(part for part in parts if part))


class ServerUnavailableError(KsqlDbError):
    """Nobody answers at the address, or the answer broke off."""

    retryable = True
    next_step = (
        "Check that a ksqlDB server (or `python -m ksqldb_local`) runs there and that the "
        "connection's host and port are right."
    )


class ServerNotReadyError(KsqlDbError):
    """The server is up but still starting, or cannot reach Kafka."""

    retryable = True
    next_step = "Wait until it has started; if it stays so, look at its log and at Kafka."


class ServerFaultError(KsqlDbError):
    """The server failed inside (HTTP 5xx) for a reason that it alone knows."""

    next_step = "Look at the server's log."


class AuthorizationError(KsqlDbError):
    """The server does not know or does not allow the user."""

    next_step = "Correct the login and password of the connection, or have the right granted."


class RequestRejectedError(KsqlDbError):
    """The request itself was wrong: a property, a parameter or the type of statement."""

    next_step = "Correct the request; sending it again gives the same answer."


class StatementRejectedError(KsqlDbError):
    """The statement was refused: syntax, names or types.

    Attributes:
        line: Line of the mistake inside the statement, when the server says it.
        column: Column of the mistake, likewise.
    """

    next_step = "Correct the statement; sending it again gives the same answer."

    def __init__(self, problem: str, **details: str) -> None:
        found = next((match for place in _PLACES if (match := place.search(problem))), None)
        self.line = int(found[1]) if found else None
        self.column = int(found[2]) if found else None
        super().__init__(problem, **details)  # type: ignore[arg-type]


class UnknownObjectError(StatementRejectedError):
    """A stream, table, query or command of that name does not exist."""

    next_step = "Deploy what is missing first, or correct the name."


class AlreadyExistsError(StatementRejectedError):
    """A stream or table of that name exists already."""

    next_step = "Deploy through the plan, which replaces what may be replaced, or drop it first."


class NotUpgradableError(StatementRejectedError):
    """CREATE OR REPLACE would drop, retype or reorder columns, which ksqlDB does not allow."""

    next_step = (
        "Keep the columns in their order and add new ones at the end, or give the new form a "
        "new stream and a new topic."
    )


class TopicMissingError(KsqlDbError):
    """A stream was declared over a Kafka topic that does not exist."""

    next_step = "Create the topic first (task create_topics, or the topic catalogue)."


class TopicConflictError(KsqlDbError):
    """The sink topic exists with other partitions, replicas or retention than its source."""

    next_step = (
        "Create source and sink topics with the same partitions, replication and retention, or "
        "give PARTITIONS and RETENTION_MS in the statement's WITH."
    )


class CommandRunnerBusyError(KsqlDbError):
    """The server was busy with an earlier statement and did not execute this one."""

    retryable = True
    next_step = "Send it again: a query that is still starting can block the server for 45 s."


class SequenceTimeoutError(KsqlDbError):
    """The server did not get to the earlier statement that the request wanted to wait for."""

    retryable = True
    next_step = "Send it again when the server has caught up."


class CommandFailedError(KsqlDbError):
    """The server accepted the statement and then could not execute it."""

    next_step = "Look at the server's log; mend the cause and deploy again."


class CommandTimeoutError(KsqlDbError):
    """The server accepted the statement but did not finish it in time."""

    retryable = True
    next_step = "Deploy again: what was done by then is found and left alone."


class QueryTimeoutError(KsqlDbError):
    """The rows that a query was to give had not all come in time."""

    retryable = True
    next_step = "Allow more time, or ask for fewer rows; a push query waits for rows to come."


class QueryFailedError(KsqlDbError):
    """A persistent query is gone, paused or has failed: its records are not processed."""

    next_step = "Mend the cause (a missing topic, a missing right), then look at EXPLAIN of it."


class UnexpectedAnswerError(KsqlDbError):
    """The answer is not what ksqlDB gives."""

    next_step = "Check that a ksqlDB server, and not something else, listens there."


def error_from_answer(
    status: int, code: int, message: str, *, address: str, statement: str
) -> KsqlDbError:
    """Choose the exception for an error answer.

    Args:
        status: HTTP status.
        code: `error_code` of the body; 0 when there is none.
        message: The server's message.
        address: The server's address.
        statement: The SQL that was sent, if any.
    """
    kind = _kind(status, code, message)
    return kind(message or f"HTTP status {status}", address=address, statement=statement)


def _kind(status: int, code: int, message: str) -> type[KsqlDbError]:
    if status in (401, 403) or code // 100 in (401, 403):
        return AuthorizationError
    if code == 50301:
        return SequenceTimeoutError
    if status in (502, 503, 504):
        return ServerNotReadyError
    if status >= 500:
        if message.startswith("Could not write the statement"):
            return CommandRunnerBusyError
        if message.startswith("A Kafka topic with the name"):
            return TopicConflictError
        if message.startswith("Failed to get Kafka cluster information"):
            return ServerNotReadyError
        if message.startswith("Not recognizable as ksql"):
            return RequestRejectedError
        return ServerFaultError
    if re.match(r"Topic '.*' does not exist", message):
        return TopicMissingError
    if code == 40001:
        if "already exists" in message:
            return AlreadyExistsError
        if message.startswith("Cannot upgrade data source") or "is not upgradeable" in message:
            return NotUpgradableError
        if _UNKNOWN.search(message):
            return UnknownObjectError
        return StatementRejectedError
    if status == 404 or code == 40400:
        return UnknownObjectError
    return RequestRejectedError
