"""The errors that a ksqlDB server answers with, as exceptions."""

from __future__ import annotations

from typing import Any

BAD_REQUEST = 40000
BAD_STATEMENT = 40001
QUERY_ENDPOINT = 40002
HTTP2_ONLY = 40004
NOT_FOUND = 40400
SCHEMA_REGISTRY = 42801
SERVER_ERROR = 50000
SEQUENCE_TIMEOUT = 50301
NOT_READY = 50302


class KsqlError(Exception):
    """A request that is refused: what the answer's status, code and message are.

    Args:
        message: What is wrong, and where that helps, what to do next.
        status: HTTP status of the answer.
        error_code: ksqlDB's error code.
        statement: Text of the statement that failed; None gives a ``generic_error``.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        error_code: int = BAD_STATEMENT,
        statement: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_code = error_code
        self.statement = statement

    def body(self) -> dict[str, Any]:
        """Return the error as ksqlDB's JSON entity."""
        if self.statement is None:
            return {
                "@type": "generic_error",
                "error_code": self.error_code,
                "message": self.message,
            }
        return {
            "@type": "statement_error",
            "error_code": self.error_code,
            "message": self.message,
            "statementText": self.statement,
            "entities": [],
        }


class StatementError(KsqlError):
    """A statement that is wrong; whoever knows its text fills it in."""


class GenericError(KsqlError):
    """A request that is wrong as a whole, not one of its statements."""

    def __init__(self, message: str, *, status: int = 400, error_code: int = BAD_REQUEST) -> None:
        super().__init__(message, status=status, error_code=error_code)


class UnsupportedError(StatementError):
    """Valid ksqlDB SQL that this engine does not run."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not supported by ksqldb_local, which only routes streams: "
            "send this statement to a ksqlDB server."
        )


class FunctionError(Exception):
    """An expression that fails for a record: it is logged, the query goes on."""


class DeserializationError(Exception):
    """A record whose key or value does not have the declared format."""

    def __init__(self, target: str, message: str) -> None:
        super().__init__(message)
        self.target = target
        self.message = message
