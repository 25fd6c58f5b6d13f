"""What a deployment has to know about Kafka topics before it may start a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kafka_io import ClientConfig


class Topics(Protocol):
    """Answers how much was ever written to a topic."""

    def written(self, topic: str) -> int | None:
        """Return how many offsets are used up in a topic; None when it does not exist."""


class KafkaTopics:
    """Asks Kafka.

    Offsets, not records, are counted: a sink whose records have expired or were deleted has
    received them all the same, and whoever read them would get them a second time.

    Args:
        config: Settings of the Kafka client, at least `bootstrap.servers`.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    def written(self, topic: str) -> int | None:
        """Return how many offsets are used up in a topic; None when it does not exist.

        Raises:
            BrokerUnavailableError: Kafka does not answer.
        """
        from kafka_io import TopicMissingError, high_watermarks

        try:
            return sum(high_watermarks(self._config, [topic]).values())
        except TopicMissingError:
            return None
