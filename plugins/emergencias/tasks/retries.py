"""Which failures a retry can mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowNotFoundException

if TYPE_CHECKING:
    from airflow.sdk import Context


class FailFast(RetryPolicy):
    """Fail at once on an error that says of itself that a retry cannot mend it.

    Such errors have an attribute `retryable` that is False; all else (a broker that is away, a
    killed worker, what nobody foresaw) gets the task's ordinary retries. Airflow's own
    `ExceptionRetryPolicy` imports the classes that it names when the DAG is parsed, and with them
    every client library.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Look for `retryable` on the exception and on what caused it."""
        cause: BaseException | None = exception
        while cause is not None:
            missing_connection = isinstance(cause, AirflowNotFoundException)
            if missing_connection or getattr(cause, "retryable", None) is False:
                return RetryDecision.fail("a retry cannot mend this; the message says what can")
            cause = cause.__cause__
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep: the worker that asks has parsed the DAG itself."""
        return {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailFast)

    def __hash__(self) -> int:
        return hash(FailFast)
