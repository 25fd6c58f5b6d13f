"""What a deployment has to know about Kafka topics before it may start a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kafka_io import ClientConfig


class Topics(Protocol):
    """Answers how much was ever written to topics."""

    def written(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Return how many offsets are used up in each topic; missing topics are left out."""


class KafkaTopics:
    """Asks Kafka.

    Offsets, not records, are counted: a sink whose records have expired or were deleted has
    received them all the same, and whoever read them would get them a second time.

    Args:
        config: Settings of the Kafka client, at least `bootstrap.servers`.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    def written(self, topics: Sequence[str]) -> dict[str, int]:
        """Return how many offsets are used up in each topic; missing topics are left out.

        Raises:
            BrokerUnavailableError: Kafka does not answer.
        """
        from kafka_io import TopicMissingError, high_watermarks

        try:
            ends = high_watermarks(self._config, topics)
        except TopicMissingError:
            if len(topics) == 1:
                return {}
            one_by_one = (self.written([topic]) for topic in topics)
            return {topic: count for found in one_by_one for topic, count in found.items()}
        written = dict.fromkeys(topics, 0)
        for (topic, _), end in ends.items():
            written[topic] += end
        return written
