"""``streamsProperties``: which there are, what they may hold, what they mean here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ksqldb_local.errors import SERVER_ERROR, GenericError, KsqlError

OFFSET_RESET = "ksql.streams.auto.offset.reset"
_PREFIX = "ksql.streams."
_IMMUTABLE = {"ksql.service.id", "ksql.streams.bootstrap.servers", "bootstrap.servers"}
_CHOICES = {
    "auto.offset.reset": ("latest", "earliest", "none"),
    "processing.guarantee": (
        "at_least_once",
        "exactly_once",
        "exactly_once_beta",
        "exactly_once_v2",
    ),
}
# Settings of Kafka Streams and its clients: taken and shown back. This engine is exactly-once and
# tuned
# for one broker whatever they say, so that the same deployment works against both servers.
_ACCEPTED = frozenset(
    [
        "application.server",
        "buffered.records.per.partition",
        "cache.max.bytes.buffering",
        "client.id",
        "commit.interval.ms",
        "connections.max.idle.ms",
        "default.deserialization.exception.handler",
        "default.production.exception.handler",
        "max.task.idle.ms",
        "max.warmup.replicas",
        "metadata.max.age.ms",
        "metrics.recording.level",
        "num.standby.replicas",
        "num.stream.threads",
        "poll.ms",
        "receive.buffer.bytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "replication.factor",
        "request.timeout.ms",
        "retries",
        "retry.backoff.ms",
        "send.buffer.bytes",
        "state.cleanup.delay.ms",
        "state.dir",
        "statestore.cache.max.bytes",
        "task.timeout.ms",
        "topology.optimization",
        "acks",
        "batch.size",
        "buffer.memory",
        "compression.type",
        "delivery.timeout.ms",
        "enable.idempotence",
        "linger.ms",
        "max.block.ms",
        "max.in.flight.requests.per.connection",
        "max.request.size",
        "transaction.timeout.ms",
        "fetch.max.bytes",
        "fetch.max.wait.ms",
        "fetch.min.bytes",
        "group.instance.id",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "max.poll.records",
        "session.timeout.ms",
    ]
)


def _short_name(name: str) -> str:
    short = name.removeprefix(_PREFIX)
    for client in ("consumer.", "producer.", "main.consumer."):
        short = short.removeprefix(client)
    return short


def check(properties: Mapping[str, Any], statement: str) -> dict[str, Any]:
    """Return the properties of a request, checked, as they are shown back.

    Args:
        properties: Name to value as sent.
        statement: The request's text, for the error.

    Raises:
        KsqlError: A value that is not allowed (400), a property that may not be set (400) or that
        does
            not exist (500), as a ksqlDB server answers.
    """
    prohibited = sorted(_IMMUTABLE & set(properties))
    if prohibited:
        raise GenericError(
            "One or more properties overrides set locally are prohibited by the KSQL server "
            f"(use UNSET to reset their default value): [{', '.join(prohibited)}]"
        )
    for name, value in properties.items():
        short = _short_name(name)
        choices = _CHOICES.get(short)
        if choices is None:
            if short not in _ACCEPTED and not (
                name.startswith("ksql.") and not name.startswith(_PREFIX)
            ):
                raise KsqlError(
                    f"Not recognizable as ksql, streams, consumer, or producer property: '{name}'",
                    status=500,
                    error_code=SERVER_ERROR,
                    statement=statement,
                )
            continue
        if value not in choices:
            raise GenericError(
                f"Failed to coerce type of value '{value}' for key '{name}'\nCaused by: "
                "Invalid value "
                f"{value} for configuration {short}: String must be one of: {', '.join(choices)}"
            )
        if value == "none":
            raise GenericError(
                f"Failed to coerce type of value 'none' for key '{name}'\nCaused by: 'none' is not "
                "valid for this property within KSQL"
            )
    return dict(properties)


def offset_reset(properties: Mapping[str, Any]) -> str:
    """Return where a new query starts: ``latest`` unless the request says ``earliest``."""
    for name in (OFFSET_RESET, "auto.offset.reset"):
        if name in properties:
            return str(properties[name])
    return "latest"
