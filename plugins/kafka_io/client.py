"""What every Kafka client of this package has in common: settings, logs and error mapping."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from kafka_io.errors import BrokerUnavailableError, KafkaIoError, TopicMissingError

ClientConfig = Mapping[str, Any]
"""Settings of librdkafka, at least `bootstrap.servers`; never changed by this package."""

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""

Offsets = dict[Partition, int]
"""An offset for each of some partitions."""

_log = logging.getLogger("kafka_io.librdkafka")

_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
_MISSING = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)


class _DebugLog:
    """Give librdkafka's own log lines to DEBUG.

    What matters of them reaches the caller as an exception; as warnings they would be noise for
    things that are expected, such as a broker that is still starting.
    """

    def log(self, _level: int, message: str, *args: object) -> None:
        _log.debug(message, *args)


class LastError:
    """Keep the latest error that a client reported from its background threads."""

    def __init__(self) -> None:
        self.reason = ""

    def __call__(self, error: KafkaError) -> None:
        """Keep an error, unless it only sums up others that say more."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self.reason:
            self.reason = error.str()


def client_config(
    config: ClientConfig, settings: Mapping[str, Any], last_error: LastError | None = None
) -> dict[str, Any]:
    """Return `config` with `settings` on top, quiet logs and an error callback."""
    return {
        **config,
        **settings,
        "logger": _DebugLog(),
        "error_cb": last_error or LastError(),
    }


def addresses(config: ClientConfig) -> str:
    """Return the broker addresses of a configuration, the only part of it fit for a message."""
    return str(config.get("bootstrap.servers", "(bootstrap.servers is not set)"))


def to_kafka_io_error(
    config: ClientConfig, error: KafkaError, doing: str, last_error: LastError | None = None
) -> KafkaIoError:
    """Return the error of this package that says what `error` means to the caller.

    Args:
        config: The client's settings, to name the address.
        error: What librdkafka reported.
        doing: What was attempted, as in "reading the offsets of group g".
        last_error: What the client's threads reported meanwhile; often the real cause.
    """
    if error.code() in _UNREACHABLE:
        cause = (last_error and last_error.reason) or error.str()
        return BrokerUnavailableError(
            f"Kafka at {addresses(config)} did not answer while {doing}: {cause}. "
            "Check that the broker runs, that the address is right and, if it asks for them, "
            "the credentials of the connection; then try again."
        )
    if error.code() in _MISSING:
        return TopicMissingError(
            f"A topic is missing at {addresses(config)} while {doing}: {error.str()}. "
            "Create the topics first, or check the name."
        )
    return KafkaIoError(f"Kafka at {addresses(config)} refused {doing}: {error}.")


@contextmanager
def mapped_errors(
    config: ClientConfig, doing: str, last_error: LastError | None = None
) -> Iterator[None]:
    """Turn librdkafka's exceptions of the block into this package's.

    Raises:
        BrokerUnavailableError: The broker did not answer in time.
        TopicMissingError: A topic or partition does not exist.
        KafkaIoError: Anything else that the broker or the client refused.
    """
    try:
        yield
    except KafkaException as exc:
        raise to_kafka_io_error(config, exc.args[0], doing, last_error) from exc
