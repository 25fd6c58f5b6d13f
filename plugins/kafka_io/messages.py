"""Where a consumed message comes from, typed as it is for one that a broker gave out."""

from __future__ import annotations

from confluent_kafka import Message

from kafka_io.client import Partition


def partition_of(message: Message) -> Partition:
    """Return the topic and partition of a consumed message, also of one that reports an error."""
    return message.topic(), message.partition()  # type: ignore[return-value]


def offset_of(message: Message) -> int:
    """Return the offset of a consumed message; for an end of partition, the offset of that end."""
    return message.offset()  # type: ignore[return-value]
