"""Which failures a retry can mend."""

from __future__ import annotations

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

PERMANENT = (
    "emergencias.params.RunParamsError",
    "emergencias.plan.PlanConflictError",
    "emergencias.sources.SourceError",
    "emergencias.intake.InputChangedError",
    "emergencias.reconciliation.ReconciliationError",
    "kafka_io.TopicMismatchError",
    "kafka_io.OffsetsLostError",
    "kafka_io.ProducerFencedError",
)
"""Failures that stay however often a task is run: a person has to change something first."""


def retry_policy() -> ExceptionRetryPolicy:
    """Fail at once on what a retry cannot mend; all else (connectivity, a killed worker) retries."""
    return ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception=list(PERMANENT),
                action=RetryAction.FAIL,
                reason="a retry cannot mend this; see the message for what to do",
            )
        ]
    )
