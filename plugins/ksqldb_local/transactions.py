"""A transactional producer as the command log and the routers use it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

TRANSACTION_TIMEOUT_MS = 10_000

FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}


def producer(config: Mapping[str, Any], transactional_id: str) -> Producer:
    """Return a producer that partitions as Java's does and reports failed deliveries only."""
    return Producer(
        {
            **config,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 100,  # a commit sends what waits, so this only fills requests under load
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
            # The broker decides what is too large; a record that it let in must get out again.
            "message.max.bytes": 100_000_000,
        }
    )


def group_metadata(config: Mapping[str, Any], group: str) -> Any:
    """Return what commits offsets for a consumer group that has no members."""
    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False})
    try:
        return consumer.consumer_group_metadata()
    finally:
        consumer.close()


def is_fenced(error: KafkaException) -> bool:
    """Tell whether another producer took the id over, or the broker timed us out."""
    return error.args[0].code() in FENCED


def commit(transactional: Producer, timeout_s: float) -> None:
    """Commit, asking again while the outcome is open and time is left.

    Raises:
        KafkaException: It was not committed, or whether it was is not known: the caller has to
            begin anew with the offsets that the broker holds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            transactional.commit_transaction(max(1.0, deadline - time.monotonic()))
        except KafkaException as error:
            if error.args[0].retriable() and time.monotonic() < deadline:
                continue
            raise
        return
