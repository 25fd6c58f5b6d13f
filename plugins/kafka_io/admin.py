"""Questions to a broker: is it there, and where do topics and groups begin, end and stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from kafka_io.client import ClientConfig, LastError, Offsets, client_config, mapped_errors
from kafka_io.errors import TopicMissingError

_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]

_ELECTING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
_CHOOSING_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_ELECTION_POLL_S = 0.1


@contextmanager
def admin_client(config: ClientConfig, doing: str) -> Iterator[AdminClient]:
    """Give an admin client for the block and map its errors; `doing` goes into their messages."""
    last_error = LastError()
    with (
        mapped_errors(config, doing, last_error),
        AdminClient(client_config(config, {}, last_error)) as admin,
    ):
        try:
            yield admin
        except KafkaException:
            admin.poll(0)  # serves the error callback, which knows the cause of a time-out
            raise


def check_broker(config: ClientConfig, *, timeout_s: float) -> str:
    """Return the cluster's id once the broker answers.

    Raises:
        BrokerUnavailableError: No answer within `timeout_s`.
    """
    with admin_client(config, "asking for the cluster's id") as admin:
        return str(admin.describe_cluster(request_timeout=timeout_s).result().cluster_id)


def log_start_offsets(
    config: ClientConfig, topics: Iterable[str], *, timeout_s: float = 30
) -> Offsets:
    """Return the first offset that each partition still has.

    Raises:
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: No answer within `timeout_s`.
    """
    with admin_client(config, "reading log start offsets") as admin:
        return _list_offsets(admin, topics, _EARLIEST, timeout_s)


def high_watermarks(
    config: ClientConfig, topics: Iterable[str], *, timeout_s: float = 30
) -> Offsets:
    """Return the end offset of each partition, open transactions included.

    A read_committed client reports the last stable offset as the end instead, and would miss
    committed records that follow another producer's open transaction.

    Raises:
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: No answer within `timeout_s`.
    """
    with admin_client(config, "reading end offsets") as admin:
        return _list_offsets(admin, topics, _LATEST, timeout_s)


def offsets_for_time(
    config: ClientConfig, topics: Iterable[str], timestamp_ms: int, *, timeout_s: float = 30
) -> Offsets:
    """Return, for each partition, the first offset whose record is at `timestamp_ms` or later.

    Where there is no such record it is the high watermark: a record that comes later is not missed.

    Raises:
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: No answer within `timeout_s`.
    """
    names = tuple(topics)
    with admin_client(config, f"looking for the offsets at time {timestamp_ms}") as admin:
        # The ends first: a record that arrives between the two questions is then within the range.
        ends = _list_offsets(admin, names, _LATEST, timeout_s)
        found = _list_offsets(admin, names, OffsetSpec.for_timestamp(timestamp_ms), timeout_s)
    return {part: found[part] if found[part] >= 0 else end for part, end in ends.items()}


def committed_offsets(
    config: ClientConfig,
    group: str,
    topics: Iterable[str],
    *,
    timeout_s: float = 30,
    stable: bool = True,
) -> Offsets:
    """Return the committed offsets of a consumer group, only of partitions that have one.

    Args:
        config: Settings of librdkafka.
        group: The consumer group; asking does not join it.
        topics: Topics to ask for.
        timeout_s: How long to wait for the answer.
        stable: Wait for transactions in progress, so that the answer never lags behind records
            that a read_committed reader has already seen; otherwise give what is committed now.

    Raises:
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: No answer, or an open transaction, for all of `timeout_s`.
    """
    doing = f"reading the offsets of group {group!r}"
    with admin_client(config, doing) as admin:
        partitions = _partitions(admin, topics, timeout_s)
    last_error = LastError()
    settings = {
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_committed" if stable else "read_uncommitted",
    }
    # Not by the admin client: librdkafka 2.16 crashes in it while the group's coordinator moves.
    consumer = Consumer(client_config(config, settings, last_error))
    found: Offsets = {}
    try:
        with mapped_errors(config, doing, last_error):
            for part in ask_committed(consumer, partitions, timeout_s):
                if part.offset >= 0:
                    found[part.topic, part.partition] = part.offset
    finally:
        consumer.close()
    return found


def ask_committed(
    consumer: Consumer, partitions: list[TopicPartition], timeout_s: float
) -> list[TopicPartition]:
    """Ask for the consumer's group's offsets, again while the group's coordinator is being chosen.

    The first group of a new cluster makes the broker create its offsets topic: until that has
    leaders, the answer is "not coordinator".

    Raises:
        KafkaException: The last answer, when the time is up or asking again cannot help.
    """
    deadline = monotonic() + timeout_s
    pause = Event()
    while True:
        try:
            found = consumer.committed(partitions, max(deadline - monotonic(), 1))
            refused = next((part.error for part in found if part.error is not None), None)
            if refused is None:
                return found
            raise KafkaException(refused)
        except KafkaException as exc:
            if exc.args[0].code() not in _CHOOSING_COORDINATOR or monotonic() >= deadline:
                raise
        pause.wait(_ELECTION_POLL_S)


def _partitions(
    admin: AdminClient, topics: Iterable[str], timeout_s: float
) -> list[TopicPartition]:
    """Return all partitions of the topics, without creating a topic by asking for it."""
    futures = admin.describe_topics(TopicCollection(sorted(set(topics))), request_timeout=timeout_s)
    return [
        TopicPartition(name, info.id)
        for name, future in futures.items()
        for info in _described(name, future).partitions
    ]


def _described(name: str, future: Any) -> Any:
    try:
        return future.result()
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissingError(
                f"Topic {name!r} does not exist. Create the topics first, or check the name."
            ) from exc
        raise


def _list_offsets(
    admin: AdminClient, topics: Iterable[str], spec: OffsetSpec, timeout_s: float
) -> Offsets:
    """Ask each partition's leader; where one is just being elected, ask again until the time is up.

    A topic that was created a moment ago, or whose leader moves, answers "not leader" for a while.
    """
    deadline = monotonic() + timeout_s
    pending = {(part.topic, part.partition) for part in _partitions(admin, topics, timeout_s)}
    offsets: Offsets = {}
    while pending:
        futures = admin.list_offsets(
            {TopicPartition(*part): spec for part in pending},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=max(deadline - monotonic(), 1),
        )
        for part, future in futures.items():
            try:
                offsets[part.topic, part.partition] = future.result().offset
            except KafkaException as exc:
                if exc.args[0].code() not in _ELECTING or monotonic() >= deadline:
                    raise
        pending -= offsets.keys()
        if pending:
            admin.poll(_ELECTION_POLL_S)
    return offsets
