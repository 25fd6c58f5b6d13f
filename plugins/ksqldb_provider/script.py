"""Execute statements one after the other, none of them twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksqldb_provider.client.errors import KsqlDbError
from ksqldb_provider.sql import SqlError, split, without_values

if TYPE_CHECKING:
    from ksqldb_provider.client import KsqlDbClient, StatementResult

log = logging.getLogger(__name__)

_RETRY_S = 2.0
_ELSEWHERE = {
    "SELECT": "rows are read by the query operator (KsqlDbQueryOperator) or `client.query`",
    "PRINT": "records of a topic are read with a Kafka consumer",
    "SET": "it holds within one request only: give `properties`",
    "UNSET": "it holds within one request only: give `properties`",
    "DEFINE": "it holds within one request only: give `parameters`",
    "UNDEFINE": "it holds within one request only: give `parameters`",
    "RUN": "only ksqlDB's command line knows it: give the statements themselves",
}


@dataclass(frozen=True, slots=True)
class Executed:
    """A statement and what the server answered."""

    statement: str
    result: StatementResult

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for XCom and the log; not what an INSERT wrote."""
        command = self.result.command
        return {
            "statement": without_values(self.statement),
            "type": self.result.type,
            "command_id": command.command_id if command else None,
            "query_id": command.command_status.query_id if command else None,
            "message": command.command_status.message if command else None,
            "answer": None if command else self.result.entity or None,
        }


class ScriptError(Exception):
    """A script ended half-way: executing all of it again would execute some of it twice."""

    def __init__(self, error: KsqlDbError, executed: Sequence[Executed], total: int) -> None:
        done = f"{len(executed)} of {total} statements were executed before"
        unsure = "; whether this one was, the server did not say" if error.maybe_executed else ""
        super().__init__(
            f"{error} {done}{unsure}. Look at what the server has, then execute the rest."
        )


def split_script(text: str) -> list[str]:
    """Cut SQL into the statements that can be executed one by one.

    Raises:
        SqlError: It cannot be read, holds no statement, or one of a kind that would do nothing.
    """
    statements = []
    for tokens in split(text):
        if reason := _ELSEWHERE.get(tokens[0].value):
            raise SqlError(
                f"{tokens[0].value} cannot be executed here: {reason}",
                text=text,
                position=tokens[0].start,
            )
        statements.append(text[tokens[0].start : tokens[-1].end])
    if not statements:
        raise SqlError("there is no statement in it")
    return statements


def run_script(
    client: KsqlDbClient,
    statements: Sequence[str],
    *,
    properties: Mapping[str, str] | None = None,
    timeout_s: float = 180.0,
    stop: threading.Event | None = None,
) -> list[Executed]:
    """Execute statements in order, one a request, each after the one before has been executed.

    What was surely not executed (a busy command runner, no connection) is sent again within
    `timeout_s` a statement. What may have been executed is not.

    Args:
        client: Who asks the server.
        statements: What `split_script` returned.
        properties: `streamsProperties` of each request.
        timeout_s: Longest time for one statement.
        stop: Ends the work between two steps when set.

    Raises:
        ScriptError: Some statements were or may have been executed, but not all.
        KsqlDbError: Nothing was executed.
    """
    executed: list[Executed] = []
    after: int | None = None
    waiting = stop or threading.Event()
    for statement in statements:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                result = client.run(
                    statement,
                    properties=properties,
                    after=after,
                    timeout_s=max(1.0, deadline - time.monotonic()),
                    stop=waiting,
                )
                break
            except KsqlDbError as error:
                again = error.retryable and not error.maybe_executed
                if not again or time.monotonic() >= deadline or waiting.wait(_RETRY_S):
                    if executed or error.maybe_executed:
                        raise ScriptError(error, executed, len(statements)) from error
                    raise
                log.warning("Trying again: %s", error)
        executed.append(Executed(statement, result))
        if result.command and result.command.command_sequence_number is not None:
            after = result.command.command_sequence_number
    return executed
