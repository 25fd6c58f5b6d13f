"""A bounded reader: all records between two offsets, and certainty that there are no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from kafka_io.admin import check_broker, high_watermarks, log_start_offsets
from kafka_io.client import (
    ClientConfig,
    LastError,
    Offsets,
    addresses,
    client_config,
    mapped_errors,
    to_kafka_io_error,
)
from kafka_io.errors import OffsetsLostError, ReadTimeoutError
from kafka_io.messages import offset_of, partition_of

_POLL_S = 0.1
_ANSWER_S = 10
"""A busy broker needs longer for an answer than a caller may want to wait for a record."""

READER_SETTINGS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # An offset that is gone must be an error: any reset would skip or repeat records silently.
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    # The end of a partition is only known from an empty fetch, so an empty one must come soon.
    "fetch.wait.max.ms": 100,
    # librdkafka's pause of 1 s after its queue was full costs a third of the throughput.
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 32_768,
}
"""Settings that every consumer of this package reads with."""

_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


def read_range(
    config: ClientConfig,
    start: Offsets,
    end: Offsets,
    *,
    timeout_s: float,
    batch_size: int = 1000,
    isolation: str = "read_committed",
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[list[Message]]:
    """Yield every record from `start` up to `end`, in order within each partition.

    Take `end` from `high_watermarks`. A partition is done when its position is known to have
    reached the end: markers and aborted records take offsets, so neither a count of records nor
    an empty poll says so. A transaction that another producer has open is waited for. No consumer
    group is used and nothing is committed.

    Args:
        config: Settings of librdkafka.
        start: First offset to read of each partition; a partition that is only in `end` is read
            from its first record.
        end: Offset after the last one to read, for each partition.
        timeout_s: How long the read may go without advancing.
        batch_size: Most records to yield at once.
        isolation: `read_committed` or `read_uncommitted`.
        on_progress: Called with the number of records read so far, after each batch.

    Raises:
        ReadTimeoutError: No partition advanced for `timeout_s`.
        OffsetsLostError: Records of the range were deleted, or the topic was created anew.
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: The broker did not answer within `timeout_s`, or 10 s if that is
            longer.
    """
    pending = _checked_range(config, start, end, timeout_s)
    if not pending:
        return
    settings = {
        **READER_SETTINGS,
        "group.id": "kafka_io-reader",  # the client insists on one; who assigns never joins it
        "isolation.level": isolation,
    }
    last_error = LastError()
    consumer = Consumer(client_config(config, settings, last_error))
    try:
        with mapped_errors(config, "reading a range of offsets", last_error):
            consumer.assign([TopicPartition(*part, first) for part, first in pending.items()])
            read = 0
            advanced_at = monotonic()
            while pending:
                messages = consumer.consume(batch_size, _POLL_S)
                batch, seen = _within_range(config, messages, end)
                if _advance(consumer, pending, seen, end):
                    advanced_at = monotonic()
                elif monotonic() - advanced_at > timeout_s:
                    check_broker(config, timeout_s=max(timeout_s, _ANSWER_S))
                    part, position = next(iter(pending.items()))
                    raise ReadTimeoutError(*part, position, end[part], timeout_s)
                if batch:
                    yield batch
                    # The caller's own time between batches is no sign of a stuck reader.
                    advanced_at = monotonic()
                    read += len(batch)
                    if on_progress is not None:
                        on_progress(read)
    finally:
        consumer.close()


def is_covered(
    config: ClientConfig, group_offsets: Offsets, end: Offsets, *, timeout_s: float = 5
) -> bool:
    """Say whether a group that stands at `group_offsets` has handled all records before `end`.

    Committed offsets alone cannot say it: where a partition ends in markers or aborted records
    they stay behind the end for ever. So it is covered if a read_committed read of what is between
    finds no record. A partition without a committed offset counts from its first record.

    Returns:
        False also if another producer's open transaction hides the answer for `timeout_s`.

    Raises:
        OffsetsLostError: Records after the group's offsets were deleted before it handled them.
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: The broker did not answer within `timeout_s`, or 10 s if that is
            longer.
    """
    open_end = {part: target for part, target in end.items() if group_offsets.get(part, 0) < target}
    start = {part: group_offsets[part] for part in open_end if part in group_offsets}
    try:
        return next(read_range(config, start, open_end, timeout_s=timeout_s), None) is None
    except ReadTimeoutError:
        return False


def _checked_range(config: ClientConfig, start: Offsets, end: Offsets, timeout_s: float) -> Offsets:
    """Return where to start in each partition that has something to read."""
    wanted = {part: target for part, target in end.items() if start.get(part, 0) < target}
    topics = {topic for topic, _ in wanted}
    if not topics:
        return {}
    answer_s = max(timeout_s, _ANSWER_S)
    first = log_start_offsets(config, topics, timeout_s=answer_s)
    last = high_watermarks(config, topics, timeout_s=answer_s)
    pending: Offsets = {}
    for part, target in wanted.items():
        name = f"{part[0]}-{part[1]}"
        if part not in last or target > last[part]:
            raise OffsetsLostError(
                f"{name} at {addresses(config)} ends at offset {last.get(part, 0)}, before "
                f"{target}, which it once reached: the topic was deleted and created anew, or lost "
                "its log. Offsets taken before that say nothing about it; start a new run."
            )
        position = start.get(part, first[part])
        if position < first[part]:
            raise OffsetsLostError(
                f"The records of {name} at {addresses(config)} from offset {position} to "
                f"{first[part] - 1} were deleted (retention, or kafka-delete-records.sh) before "
                "they were read. They cannot be read any more; start a new run, and keep the "
                "topic's retention longer than the time between writing and reading."
            )
        if position < target:
            pending[part] = position
    return pending


def _within_range(
    config: ClientConfig, messages: list[Message], end: Offsets
) -> tuple[list[Message], Offsets]:
    """Return the records before the end, and for each partition seen the offset to read next."""
    batch: list[Message] = []
    seen: Offsets = {}
    for message in messages:
        part, offset, error = partition_of(message), offset_of(message), message.error()
        if error is not None:
            # At the end of a partition the offset counts the markers and aborted records, too.
            seen[part] = end_of_partition(config, message, error)
        elif offset < end[part]:
            batch.append(message)
            seen[part] = offset + 1
        else:
            seen[part] = offset
    return batch, seen


def _advance(consumer: Consumer, pending: Offsets, seen: Offsets, end: Offsets) -> bool:
    """Move `pending` to what was seen, stop reading what is done, return whether it moved."""
    moved = False
    for part, position in past_markers(consumer, seen).items():
        if part in pending and position > pending[part]:
            pending[part] = position
            moved = True
    done = [part for part, position in pending.items() if position >= end[part]]
    if done:
        consumer.pause([TopicPartition(*part) for part in done])
        for part in done:
            del pending[part]
    return moved or bool(done)


def past_markers(consumer: Consumer, seen: Offsets) -> Offsets:
    """Return where the consumer stands in the partitions just seen, beyond trailing markers.

    The consumer's own position is at or after the last record it gave out, and it is fresh only
    for partitions that it gave something of: after a seek or a new assignment it is a stale one.
    """
    positions = consumer.position([TopicPartition(*part) for part in seen])
    return {
        (found.topic, found.partition): max(found.offset, seen[found.topic, found.partition])
        for found in positions
    }


def end_of_partition(config: ClientConfig, message: Message, error: KafkaError) -> int:
    """Return the offset at which a partition ends, if that is all that a message reports.

    Raises:
        OffsetsLostError: The message says that the next offset to read does not exist.
        TopicMissingError: The message says that the topic does not exist.
        KafkaIoError: The message reports another error.
    """
    if error.code() == KafkaError._PARTITION_EOF:
        return offset_of(message)
    topic, partition = partition_of(message)
    if error.code() in _LOST:
        raise OffsetsLostError(
            f"The next offset to read of {topic}-{partition} at {addresses(config)} does not "
            f"exist ({error.str()}): its records were deleted before they were read, or the topic "
            "was created anew. They cannot be read any more; see from their source what they "
            "were, then start a new run (for a consumer group: set its offsets with "
            "kafka-consumer-groups.sh --reset-offsets)."
        )
    raise to_kafka_io_error(config, error, f"reading {topic}-{partition}")
