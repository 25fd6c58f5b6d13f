"""The exactly-once loop: what is read, what is written and how far it got, as one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Event
from time import monotonic
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from kafka_io.admin import (
    ask_committed,
    check_broker,
    committed_offsets,
    high_watermarks,
    log_start_offsets,
)
from kafka_io.client import (
    ClientConfig,
    LastError,
    Offsets,
    addresses,
    client_config,
    mapped_errors,
)
from kafka_io.errors import (
    DeliveryError,
    OffsetsLostError,
    ReadTimeoutError,
    TransactionAbortedError,
)
from kafka_io.messages import offset_of, partition_of
from kafka_io.producer import CheckedProducer, OutRecord
from kafka_io.reader import (
    READER_SETTINGS,
    end_of_partition,
    is_covered,
    past_markers,
    read_range,
)

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_COVERED_EVERY_S = 0.5
_BROKER_TIMEOUT_S = 30
_ABORTS_IN_A_ROW = 10

Transform = Callable[[Message], Iterable[OutRecord]]
DeadLetter = Callable[[Message, Exception], OutRecord]


@dataclass(frozen=True, slots=True)
class LoopResult:
    """Count what this call did; work of other members of the group is not in it.

    Attributes:
        consumed: Records handled.
        produced: Records that the transform gave.
        dead_lettered: Records that went to the dead-letter topic instead.
        transactions: Committed transactions.
    """

    consumed: int = 0
    produced: int = 0
    dead_lettered: int = 0
    transactions: int = 0


def run_exactly_once(
    config: ClientConfig,
    *,
    group_id: str,
    source_topic: str,
    transactional_id: str,
    sink_topics: Sequence[str],
    transform: Transform,
    dead_letter: DeadLetter,
    until: Offsets | None,
    timeout_s: float,
    batch_size: int = 500,
    on_progress: Callable[[LoopResult], None] | None = None,
    stop: Event | None = None,
) -> LoopResult:
    """Handle every record of a topic exactly once, whatever dies on the way.

    A batch is read, transformed, produced and its offsets committed in one transaction. The loop
    subscribes, so that the group's generation fences a member that lost its partitions without
    knowing it. A record that `transform` raises on, or whose output Kafka refuses for good, goes
    to the dead letter in the same transaction: it is neither lost nor the start of a crash loop.
    Each partition goes on from the group's committed offset, or from its first record.

    Args:
        config: Settings of librdkafka.
        group_id: The consumer group that shares this work.
        source_topic: Where to read.
        transactional_id: Stable name of this member, unlike that of any other one running; a retry
            of it aborts what its predecessor left open.
        sink_topics: Topics that only this group's work fills; if they hold records, the group must
            have offsets.
        transform: Gives what to send for a record; tombstones are handed over like any other.
        dead_letter: Gives the record to send instead, from the record and the reason.
        until: End when the group's offsets cover these, whoever did the work; None follows for
            ever.
        timeout_s: With `until`, how long the group may go without advancing.
        batch_size: Most records in one transaction.
        on_progress: Called with the counts so far, after each transaction.
        stop: Ends the loop between two transactions once it is set.

    Returns:
        What this call did.

    Raises:
        OffsetsLostError: The group's offsets, or records that it has not handled, are gone; going
            on would repeat or lose records. The message says how to go on.
        ReadTimeoutError: The group did not advance for `timeout_s`.
        DeliveryError: The dead letter itself, or for a reason other than the record, a record
            could not be delivered. Nothing of its batch is visible.
        ProducerFencedError: Another member with the same transactional id took over.
        TransactionAbortedError: Transactions were aborted time after time.
        TopicMissingError: A topic does not exist.
        BrokerUnavailableError: The broker did not answer.
    """
    with CheckedProducer(config, transactional_id=transactional_id) as producer:
        _refuse_lost_offsets(config, group_id, source_topic, sink_topics)
        loop = _Loop(
            config=config,
            group_id=group_id,
            source_topic=source_topic,
            producer=producer,
            transform=transform,
            dead_letter=dead_letter,
            until=until,
            timeout_s=timeout_s,
            batch_size=batch_size,
            on_progress=on_progress,
            stop=stop or Event(),
        )
        loop.run()
        return loop.result


def _refuse_lost_offsets(
    config: ClientConfig, group_id: str, source_topic: str, sink_topics: Sequence[str]
) -> None:
    """Raise if the group cannot know where to go on."""
    remedy = (
        "Find out which of them the sink already holds, then set the group's offsets: "
        f"kafka-consumer-groups.sh --bootstrap-server {addresses(config)} --group {group_id} "
        f"--topic {source_topic} --reset-offsets --to-earliest (or --to-offset, --to-latest) "
        "--execute."
    )
    committed = committed_offsets(config, group_id, [source_topic])
    if committed:
        first = log_start_offsets(config, [source_topic])
        deleted = [
            f"{topic}-{partition} from {offset} to {first[topic, partition] - 1}"
            for (topic, partition), offset in committed.items()
            if offset < first[topic, partition]
        ]
        if deleted:
            raise OffsetsLostError(
                f"Records were deleted before group {group_id!r} handled them: "
                f"{', '.join(deleted)}. {remedy}"
            )
        return
    holding = [topic for topic in sink_topics if _holds_records(config, topic)]
    # Asked again: the first transaction of another member may have ended between the questions.
    if holding and not committed_offsets(config, group_id, [source_topic]):
        raise OffsetsLostError(
            f"Group {group_id!r} has no offsets for {source_topic} (they expire with "
            f"offsets.retention.minutes), but {', '.join(holding)} already holds records: starting "
            f"from the first record would repeat them. {remedy}"
        )


def _holds_records(config: ClientConfig, topic: str) -> bool:
    ends = high_watermarks(config, [topic])
    records = read_range(config, {}, ends, timeout_s=_BROKER_TIMEOUT_S)
    return next(records, None) is not None


@dataclass(slots=True)
class _Loop:
    """The state of one call: what it was given, what it did and when the group last advanced."""

    config: ClientConfig
    group_id: str
    source_topic: str
    producer: CheckedProducer
    transform: Transform
    dead_letter: DeadLetter
    until: Offsets | None
    timeout_s: float
    batch_size: int
    on_progress: Callable[[LoopResult], None] | None
    stop: Event
    result: LoopResult = LoopResult()
    advanced_at: float = 0.0
    asked_at: float = 0.0
    group_offsets: Offsets | None = None

    def run(self) -> None:
        """Work until the targets are covered or `stop` is set, with a new member after an abort."""
        self.advanced_at = monotonic()
        aborts = 0
        while True:
            transactions = self.result.transactions
            member = _Member(self)
            try:
                return member.run()
            except TransactionAbortedError as exc:
                aborts = aborts + 1 if self.result.transactions == transactions else 1
                if aborts >= _ABORTS_IN_A_ROW:
                    raise
                _log.info("Group %s: %s Reading again from its offsets.", self.group_id, exc)
            finally:
                member.close()

    def count(self, consumed: int, produced: int, dead_lettered: int) -> None:
        """Add a committed transaction to the result."""
        self.advanced_at = monotonic()
        self.result = replace(
            self.result,
            consumed=self.result.consumed + consumed,
            produced=self.result.produced + produced,
            dead_lettered=self.result.dead_lettered + dead_lettered,
            transactions=self.result.transactions + 1,
        )
        if self.on_progress is not None:
            self.on_progress(self.result)

    def covered(self) -> bool:
        """Say whether the group has handled all targets; raise if it no longer advances."""
        if self.until is None or monotonic() - self.asked_at < _COVERED_EVERY_S:
            return False
        # Not waiting for a transaction in progress: this member may have to join meanwhile.
        offsets = committed_offsets(self.config, self.group_id, [self.source_topic], stable=False)
        if is_covered(self.config, offsets, self.until, timeout_s=1):
            return True
        self.asked_at = monotonic()
        if offsets != self.group_offsets:
            self.group_offsets = offsets
            self.advanced_at = monotonic()
        if monotonic() - self.advanced_at > self.timeout_s:
            check_broker(self.config, timeout_s=self.timeout_s)
            behind = {p: t for p, t in self.until.items() if offsets.get(p, 0) < t}
            part, target = next(iter(behind.items()))
            raise ReadTimeoutError(*part, offsets.get(part, 0), target, self.timeout_s)
        return False


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What to send for one record: what the transform gave or, if it failed, the dead letter."""

    records: list[OutRecord]
    dead: bool


class _Member:
    """One membership of the group, from joining it to the first abort or the end."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._last_error = LastError()
        settings = {
            **READER_SETTINGS,
            "group.id": loop.group_id,
            "group.protocol": "classic",
            "isolation.level": "read_committed",
            # Eager: every change of the group revokes all, so one generation belongs to a batch.
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 2_000,
        }
        self._consumer = Consumer(client_config(loop.config, settings, self._last_error))
        self._generation: Any = None
        self._committed: Offsets = {}
        self._closing = False

    def close(self) -> None:
        """Leave the group at once, so that others need not wait for the session to expire."""
        self._closing = True
        with mapped_errors(self._loop.config, "leaving the group", self._last_error):
            self._consumer.close()

    def run(self) -> None:
        """Handle batches until the targets are covered or the loop is to stop."""
        loop = self._loop
        doing = f"reading {loop.source_topic} as group {loop.group_id!r}"
        with mapped_errors(loop.config, doing, self._last_error):
            self._consumer.subscribe([loop.source_topic], on_assign=self._on_assign)
            while not loop.stop.is_set():
                records, seen = self._split(self._consumer.consume(loop.batch_size, _POLL_S))
                ahead = self._ahead(seen)
                if records or ahead:
                    self._handle(records, ahead)
                elif loop.covered():
                    return

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each partition at the group's offset, or else at its first record."""
        if self._closing:  # an assignment that was on its way when the work was done
            return
        found = ask_committed(consumer, partitions, _BROKER_TIMEOUT_S)
        self._committed = {}
        for part in found:
            self._committed[part.topic, part.partition] = part.offset
            if part.offset < 0:
                part.offset = OFFSET_BEGINNING
        consumer.assign(found)
        # Taken now, not when a batch is done: by then this member may have been expelled, and a
        # client that has no member id yet commits without any check of the generation.
        self._generation = consumer.consumer_group_metadata()
        if not consumer.memberid():
            raise TransactionAbortedError(
                f"The membership in group {self._loop.group_id!r} ended as it began."
            )

    def _split(self, messages: list[Message]) -> tuple[list[Message], Offsets]:
        """Return the records, and for each partition seen the offset to read next."""
        records: list[Message] = []
        seen: Offsets = {}
        for message in messages:
            error = message.error()
            part = partition_of(message)
            if error is None:
                records.append(message)
                seen[part] = offset_of(message) + 1
            elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
                raise TransactionAbortedError(
                    f"A batch of group {self._loop.group_id!r} took so long that the member was "
                    f"expelled: {error.str()}"
                )
            else:
                seen[part] = end_of_partition(self._loop.config, message, error)
        return records, seen

    def _ahead(self, seen: Offsets) -> Offsets:
        """Return the offsets to commit: after the records and the markers that follow them.

        Left at the last record, an offset would fall below the log start once retention deletes
        the markers, and that must mean lost records.
        """
        if not seen:
            return {}
        positions = past_markers(self._consumer, seen)
        return {
            part: offset
            for part, offset in positions.items()
            if offset > self._committed.get(part, -1)
        }

    def _handle(self, records: list[Message], offsets: Offsets) -> None:
        """Handle a batch; one by one if Kafka refuses a record of it for good."""
        try:
            return self._transaction([self._outcome(record) for record in records], offsets)
        except DeliveryError as exc:
            if not exc.about_record:
                raise
        for record in records:
            after = {partition_of(record): offset_of(record) + 1}
            try:
                self._transaction([self._outcome(record)], after)
            except DeliveryError as exc:
                if not exc.about_record:
                    raise
                self._transaction([self._dead(record, exc)], after)
        return self._transaction([], offsets)

    def _outcome(self, record: Message) -> _Outcome:
        try:
            return _Outcome(list(self._loop.transform(record)), dead=False)
        except Exception as exc:
            return self._dead(record, exc)

    def _dead(self, record: Message, exc: Exception) -> _Outcome:
        return _Outcome([self._loop.dead_letter(record, exc)], dead=True)

    def _transaction(self, outcomes: list[_Outcome], offsets: Offsets) -> None:
        producer = self._loop.producer
        producer.begin()
        try:
            for outcome in outcomes:
                for record in outcome.records:
                    producer.send(record)
            producer.send_offsets(offsets, self._generation)
            producer.commit()
        except BaseException:
            producer.abort()
            raise
        self._committed |= offsets
        dead = sum(outcome.dead for outcome in outcomes)
        produced = sum(len(outcome.records) for outcome in outcomes) - dead
        self._loop.count(len(outcomes), produced, dead)
