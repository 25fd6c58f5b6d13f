"""Runs all queries of one source topic: one read, one parse, one transaction per batch.

What makes it exactly once: outputs, processing-log entries and the offsets of every query's own
consumer group are committed in one Kafka transaction. The transactional id is stable, so a
successor fences this process and aborts what it left open *before* it reads the offsets. Whatever
fails, the session is thrown away and a new one begins from the offsets that the broker holds.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from ksqldb_local import processing_log
from ksqldb_local.errors import DeserializationError
from ksqldb_local.formats import SourceReader
from ksqldb_local.functions import JsonCache
from ksqldb_local.fusion import Fused, fuse
from ksqldb_local.metastore import PersistentQuery, Stream
from ksqldb_local.program import Program
from ksqldb_local.topics import BrokerTopics, Offsets
from ksqldb_local.transactions import (
    TRANSACTION_TIMEOUT_MS,
    commit,
    group_metadata,
    is_fenced,
    producer,
)

log = logging.getLogger(__name__)

SMALLEST_BATCH, LARGEST_BATCH = 1_000, 16_000
"""Most records of one transaction: grown and shrunk to stay far from its time-out."""
_SLOW_S, _FAST_S = 2.0, 0.7
_IDLE_S = 0.05
_CHECK_S = 5.0
_RETRY_S = 1.0
_COMMIT_S = 30.0
_GONE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
}


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What a router is told when it starts.

    Attributes:
        config: Client settings, at least ``bootstrap.servers``.
        topic: The topic to read.
        transactional_id: Stable for the service and the topic.
        log_topic: Where entries of the processing log go.
    """

    config: Mapping[str, Any]
    topic: str
    transactional_id: str
    log_topic: str


@dataclass(frozen=True, slots=True)
class RouteState:
    """How a query is doing.

    Attributes:
        errors: What EXPLAIN shows: what it lost (kept), and why it stands still (until it does
            not).
        next: The first offset of each partition that it has not handled; None before it read any.
        consumed: Records read since it is at work here, and their bytes.
        produced: Records written since then.
        last_ms: Timestamp of the last record read.
        age_s: Seconds that it has been at work here, at least one.
    """

    errors: list[dict[str, Any]]
    next: Offsets | None = None
    consumed: int = 0
    consumed_bytes: int = 0
    produced: int = 0
    last_ms: int = 0
    age_s: float = 1.0


@dataclass(slots=True, eq=False)
class Route:
    """One query at work; ``next`` holds the first offset of a partition not yet handled."""

    query: PersistentQuery
    group: str
    sink: Stream
    program: Program | None = None
    metadata: Any = None
    next: Offsets | None = None
    failure: str | None = None
    retry_at: float = 0.0
    error: dict[str, Any] | None = None
    losses: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=10))
    consumed: int = 0
    consumed_bytes: int = 0
    produced: int = 0
    last_ms: int = 0
    since: float = field(default_factory=time.monotonic)

    def state(self) -> RouteState:
        """Return how it is doing."""
        return RouteState(
            errors=[*self.losses, *([self.error] if self.error is not None else [])],
            next=self.next,
            consumed=self.consumed,
            consumed_bytes=self.consumed_bytes,
            produced=self.produced,
            last_ms=self.last_ms,
            age_s=max(1.0, time.monotonic() - self.since),
        )

    def go_on_from(self, old: Route) -> None:
        """Take over where the query stands that this one replaces, and what is known of it."""
        self.next, self.metadata = old.next, old.metadata
        self.consumed, self.consumed_bytes = old.consumed, old.consumed_bytes
        self.produced, self.last_ms, self.since = old.produced, old.last_ms, old.since
        self.losses = old.losses


@dataclass(slots=True)
class _Reading:
    """The routes over one stream: its records are decoded once for all of them."""

    reader: SourceReader
    routes: list[Route] = field(default_factory=list)
    fused: Fused | None = None


class _Interrupted(Exception):
    """A batch that has to be done again without the routes that failed."""


class TopicRouter:
    """Reads one topic and writes what the queries over it make of its records.

    :meth:`run` does the work; all other public methods may be called by other threads.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self.topic = settings.topic
        self._config = dict(settings.config)
        self._transactional_id = settings.transactional_id
        self._log_topic = settings.log_topic
        self._topics = BrokerTopics(self._config)
        self._json = JsonCache()
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = (
            queue.SimpleQueue()
        )
        self._stop_requested = threading.Event()
        self._routes: dict[str, Route] = {}
        self._partitions: list[int] = []
        self._topic_id: str | None = None
        self._position: Offsets = {}
        self._readings: list[_Reading] = []
        self._batch = SMALLEST_BATCH
        self._delivery_failures: dict[str, str] = {}
        self._checked_at = 0.0
        self._failed_sessions = 0
        self._in_batch = False

    # --- called by other threads -----------------------------------------------------------------

    def add(self, route: Route) -> Future[None]:
        """Start a query, or replace the one with its id: it goes on where that one is."""

        def apply() -> None:
            old = self._routes.get(route.query.id)
            if old is not None:
                route.go_on_from(old)
            route.program = Program(
                route.query.id, route.query.select, route.query.reads, route.sink, self._json
            )
            self._routes[route.query.id] = route

        return self._submit(apply)

    def remove(self, query_id: str) -> Future[None]:
        """Stop a query at the next transaction boundary."""

        def apply() -> None:
            self._routes.pop(query_id, None)

        return self._submit(apply)

    def pause(self, query_id: str, paused: bool) -> Future[None]:
        """Pause or resume a query at the next transaction boundary."""

        def apply() -> None:
            if (route := self._routes.get(query_id)) is not None:
                route.query.paused = paused

        return self._submit(apply)

    def _submit(self, action: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()
        self._commands.put((action, future))
        return future

    def stop(self) -> None:
        """Ask the thread to end after the transaction in hand."""
        self._stop_requested.set()

    def state(self, query_id: str) -> Future[RouteState | None]:
        """Return how a query is doing, at once."""
        future: Future[RouteState | None] = Future()
        route = self._routes.get(query_id)
        future.set_result(None if route is None else route.state())
        return future

    # --- the work --------------------------------------------------------------------------------

    def run(self) -> None:
        """Run sessions until told to stop; one that fails is followed by the next.

        Raises:
            KafkaException: The broker fenced the producer: it timed out, or another engine took
                over, which is not for the router to tell.
        """
        while not self._stop_requested.is_set():
            try:
                self._session()
            except KafkaException as error:
                if is_fenced(error):
                    raise
                self._failed_session(error.args[0].str())
            except Exception as error:
                # A defect must not stop the routing silently: it is shown, and retried.
                log.exception("router of %s failed", self.topic)
                self._failed_session(f"{type(error).__name__}: {error}")
            else:
                continue
            self._stop_requested.wait(_RETRY_S)

    def _failed_session(self, reason: str) -> None:
        """Log it; shown as the queries' error only when the next session fails as well."""
        log.warning("Routing of %s was interrupted: %s; beginning anew", self.topic, reason)
        if self._failed_sessions:
            for route in self._routes.values():
                route.error = query_error(f"{reason} (topic {self.topic}); retrying")
        self._failed_sessions += 1

    def _session(self) -> None:
        """One producer and one consumer, until told to stop or something fails."""
        transactional = producer(
            {
                **self._config,
                "on_delivery": self._on_delivery,
                "delivery.report.only.error": True,
            },
            self._transactional_id,
        )
        consumer: Consumer | None = None
        try:
            transactional.init_transactions(_COMMIT_S)
            # Only now nothing of a predecessor is open any more: the broker's offsets are the
            # truth.
            for route in self._routes.values():
                route.next = None
            consumer = Consumer(
                {
                    **self._config,
                    "group.id": f"{self._transactional_id}-reader",
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    "queued.max.messages.kbytes": 32_768,
                    "queued.min.messages": 3 * LARGEST_BATCH,
                    "fetch.wait.max.ms": 500,
                }
            )
            self._position = {}
            self._checked_at = 0.0
            while not self._stop_requested.is_set():
                self._apply_commands()
                if not self._prepare(consumer):
                    self._wait_for_command()
                    continue
                first = consumer.poll(_IDLE_S)
                if first is None:
                    continue
                batch = [first, *consumer.consume(self._batch - 1, 0)]
                self._handle(transactional, batch)
        finally:
            if consumer is not None:
                consumer.close()
            # Without this the next session's fencing would log errors of this one's open
            # transaction.
            transactional.purge()
            del transactional

    def _apply_commands(self) -> None:
        while True:
            try:
                action, future = self._commands.get_nowait()
            except queue.Empty:
                return
            self._apply(action, future)

    def _apply(self, action: Callable[[], None], future: Future[None]) -> None:
        try:
            action()
        except Exception as error:
            future.set_exception(error)
        else:
            self._checked_at = 0.0
            future.set_result(None)

    def _wait_for_command(self) -> None:
        try:
            action, future = self._commands.get(timeout=0.2)
        except queue.Empty:
            return
        self._apply(action, future)

    def _active(self) -> list[Route]:
        return [r for r in self._routes.values() if not r.query.paused and r.failure is None]

    def _prepare(self, consumer: Consumer) -> bool:
        """Bring the reader to where the routes are; False when there is nothing to read."""
        now = time.monotonic()
        if now - self._checked_at < _CHECK_S:
            return bool(self._readings)
        self._checked_at = now
        if not self._check_topics(now):
            self._readings = []
            return False
        active = self._active()
        for route in active:
            if route.next is None:
                self._load_offsets(route)
        active = self._active()
        if set(active) != {r for reading in self._readings for r in reading.routes}:
            self._readings = _group(active, self._json)
        if not active:
            return False
        self._seek(consumer, active)
        if not self._in_batch:  # what failed was not a batch, so being here again mends it
            self._mended(active)
        return True

    def _mended(self, routes: Sequence[Route]) -> None:
        self._failed_sessions = 0
        for route in routes:
            route.error = None

    def _check_topics(self, now: float) -> bool:
        """Set routes aside whose sink is gone, and take them up again when it is back."""
        names = self._topics.names()
        source = names.get(self.topic)
        if source is None:
            message = (
                f"Source topic {self.topic} does not exist (was it deleted?): create it again, "
                "or drop the streams that read it"
            )
            for route in self._routes.values():
                self._fail(route, message, retry_s=0.0, missing=True)
            self._position = {}
            return False
        self._partitions = list(range(len(source)))
        topic_id = self._topics.topic_id(self.topic)
        if self._topic_id not in (None, topic_id):
            # The broker forgot the groups' offsets with the old one; nothing of this is routed.
            log.warning("%s was deleted and made anew; going on at its beginning", self.topic)
            for route in self._routes.values():
                route.next = dict.fromkeys(self._partitions, 0)
            self._position = {}
        self._topic_id = topic_id
        for route in self._routes.values():
            if route.sink.topic not in names:
                self._fail(route, f"Sink topic {route.sink.topic} does not exist", missing=True)
            elif self._log_topic not in names:
                # Without it, a record that cannot be read would be passed over untold.
                self._fail(
                    route,
                    f"Processing log {self._log_topic} does not exist: create the topic again",
                    missing=True,
                )
            elif route.failure is not None and now >= route.retry_at:
                route.failure = None
        return True

    def _fail(
        self, route: Route, message: str, *, retry_s: float = _CHECK_S, missing: bool = False
    ) -> None:
        if route.failure != message:
            log.warning("%s stands still: %s", route.query.id, message)
            route.error = query_error(message, "USER" if missing else "SYSTEM")
        route.failure = message
        route.retry_at = time.monotonic() + retry_s

    def _load_offsets(self, route: Route) -> None:
        if route.metadata is None:
            route.metadata = group_metadata(self._config, route.group)
        committed = self._topics.committed(route.group, self.topic, self._partitions)
        if not committed:
            # It committed its beginning when it was created: without it, any guess loses or
            # doubles.
            self._fail(
                route,
                f"Consumer group {route.group} has lost its offsets for {self.topic} (deleted, or "
                "older than offsets.retention.minutes): reset the group's offsets to where "
                "routing has to go on, or drop the stream and create it again",
                retry_s=30.0,
            )
            return
        # A partition that the topic gained since holds nothing older than the query.
        route.next = {p: committed.get(p, 0) for p in self._partitions}

    def _seek(self, consumer: Consumer, active: list[Route]) -> None:
        wanted: Offsets = {}
        for route in active:
            assert route.next is not None  # noqa: S101 - loaded above, for the type checker
            for partition in self._partitions:
                offset = route.next.setdefault(partition, 0)
                wanted[partition] = min(offset, wanted.get(partition, offset))
        if wanted == self._position:
            return
        starts = self._topics.offsets(self.topic, self._partitions, where="earliest")
        ends = self._topics.high_watermarks(self.topic, self._partitions)
        for partition, offset in wanted.items():
            if starts[partition] <= offset <= ends[partition]:
                continue
            # Gone is gone: going on at the first record there is loses least, and says what.
            loss = (
                f"{self.topic}[{partition}]: records {offset} to {starts[partition]} were deleted "
                "before they were routed (retention shorter than the time that the query stood "
                f"still); going on at {starts[partition]}"
            )
            log.error("%s", loss)
            for route in active:
                route.losses.append(query_error(loss))
            wanted[partition] = starts[partition]
            for route in active:
                if route.next is not None and not (
                    starts[partition] <= route.next[partition] <= ends[partition]
                ):
                    route.next[partition] = starts[partition]
        consumer.assign([TopicPartition(self.topic, p, o) for p, o in wanted.items()])
        self._position = wanted

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in (
            KafkaError._PURGE_QUEUE,
            KafkaError._PURGE_INFLIGHT,
        ):
            self._delivery_failures.setdefault(str(message.topic()), error.str())

    def _handle(self, transactional: Producer, batch: list[Message]) -> None:
        """Route a batch in one transaction; on failure nothing of it remains."""
        records = [m for m in batch if m.error() is None]
        for message in batch:
            error = message.error()
            if error is None:
                continue
            if error.code() in _GONE:
                self._checked_at = 0.0
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._position = {}
                self._checked_at = 0.0
            elif error.fatal() or not error.retriable():
                log.info("reader of %s: %s", self.topic, error.str())
        if not records:
            return
        routes = [route for reading in self._readings for route in reading.routes]
        self._delivery_failures.clear()
        self._in_batch = True
        began = time.monotonic()
        transactional.begin_transaction()
        try:
            handled = self._route_all(transactional, records)
            for route in routes:
                after = self._after(route, handled)
                offsets = [TopicPartition(self.topic, p, o) for p, o in after.items()]
                transactional.send_offsets_to_transaction(offsets, route.metadata, _COMMIT_S)
            commit(transactional, _COMMIT_S)
        except (KafkaException, _Interrupted) as error:
            self._batch = SMALLEST_BATCH
            self._recover(transactional, error)
            return
        self._in_batch = False
        self._adapt(len(batch), time.monotonic() - began)
        self._mended(routes)
        self._position |= handled
        for route in routes:
            route.next = self._after(route, handled)

    def _adapt(self, records: int, took_s: float) -> None:
        """Let transactions grow under load, but not towards their time-out."""
        if took_s > _SLOW_S:
            self._batch = max(self._batch // 2, SMALLEST_BATCH)
        elif records == self._batch and took_s < _FAST_S:
            self._batch = min(self._batch * 2, LARGEST_BATCH)

    @staticmethod
    def _after(route: Route, handled: Offsets) -> Offsets:
        """Return where a route stands after a batch; one ahead of the reader stays there.

        All partitions are named, so that the offset of an idle one does not expire.
        """
        before = route.next or {}
        return before | {p: max(o, before.get(p, 0)) for p, o in handled.items()}

    def _recover(self, transactional: Producer, error: Exception) -> None:
        """Abort; a sink that refuses a record stops its own queries, all else the session."""
        if isinstance(error, KafkaException) and (
            error.args[0].fatal() or not error.args[0].txn_requires_abort()
        ):
            raise error
        transactional.abort_transaction(_COMMIT_S)
        refused = {
            topic: reason
            for topic, reason in self._delivery_failures.items()
            if "timed out" not in reason.lower()
        }
        if not refused:
            raise error
        for route in self._routes.values():
            for topic in (route.sink.topic, self._log_topic):
                if topic in refused:
                    self._fail(route, f"Cannot write to {topic}: {refused[topic]}", retry_s=30.0)
        self._position = {}
        self._checked_at = 0.0

    def _route_all(self, transactional: Producer, records: list[Message]) -> Offsets:
        """Send what the queries make of the records; return the offsets after the last ones."""
        last = {m.partition(): m.offset() for m in records}
        handled: Offsets = {p: o + 1 for p, o in last.items() if p is not None and o is not None}

        def send(topic: str, **record: Any) -> None:
            self._send(transactional, topic, **record)

        for reading in self._readings:
            # A query that is ahead of the reader has to skip what it has handled already.
            behind = any(
                r.next is not None and r.next.get(p, 0) > self._position.get(p, 0)
                for r in reading.routes
                for p in handled
            )
            if reading.fused is None or behind:
                for message in records:
                    self._route_one(transactional, reading, message, behind=behind)
                continue

            def exact(message: Message, reading: _Reading = reading) -> None:
                self._route_one(transactional, reading, message, behind=False, counted=True)

            produced, size, time_ms = reading.fused(records, transactional.produce, send, exact)
            for route, count in zip(reading.routes, produced, strict=True):
                route.consumed += len(records)
                route.consumed_bytes += size
                route.produced += count
                route.last_ms = time_ms
        return handled

    def _route_one(
        self,
        transactional: Producer,
        reading: _Reading,
        message: Message,
        *,
        behind: bool,
        counted: bool = False,
    ) -> None:
        """Do it exactly: with its errors, its entries in the log, and routes that are ahead."""
        partition, offset = _coordinates(message)
        routes: Sequence[Route] = reading.routes
        if behind:
            routes = [
                r for r in routes if r.next is not None and r.next.get(partition, 0) <= offset
            ]
            if not routes:
                return
        kind, timestamp = message.timestamp()
        if not counted:
            for route in routes:
                route.consumed += 1
                route.consumed_bytes += len(message.value() or b"")
                route.last_ms = timestamp
        headers = None
        try:
            row = reading.reader.read(message.key(), message.value(), message.headers)
        except DeserializationError as error:
            for route in routes:
                self._log(
                    transactional,
                    processing_log.deserialization_error(
                        route.query.id, self.topic, error.target, error.message
                    ),
                )
            return
        for route in routes:
            program = route.program
            assert program is not None  # noqa: S101 - compiled when the route was added
            if row is None:
                emitted = program.tombstone(reading.reader, message.key())
            else:
                emitted, entries = program.run(row, timestamp, partition, offset)
                for entry in entries:
                    self._log(transactional, entry)
            if emitted is None:
                continue
            if headers is None:
                headers = message.headers() or []
            route.produced += 1
            self._send(
                transactional,
                program.sink_topic,
                value=emitted[1],
                key=emitted[0],
                headers=headers,
                timestamp=0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
            )

    def _log(self, transactional: Producer, entry: bytes) -> None:
        self._send(transactional, self._log_topic, value=entry)

    def _send(self, transactional: Producer, topic: str, **record: Any) -> None:
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_MS / 1000
        while True:
            try:
                transactional.produce(topic, **record)
            except BufferError:
                # The local queue is full: wait for the broker, never drop.
                transactional.poll(0.1)
                if time.monotonic() > deadline:
                    raise _Interrupted(f"the broker takes no records for {topic}") from None
                continue
            except KafkaException as error:
                self._delivery_failures.setdefault(topic, error.args[0].str())
                raise _Interrupted(str(error)) from error
            return


def query_error(message: str, kind: str = "SYSTEM") -> dict[str, Any]:
    """Return an entry of EXPLAIN's ``queryErrors``."""
    return {"timestamp": int(time.time() * 1000), "errorMessage": message, "type": kind}


def _coordinates(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None:
        raise ValueError("a record without partition or offset")
    return partition, offset


def _group(routes: list[Route], json: JsonCache) -> list[_Reading]:
    readings: dict[tuple[Any, ...], _Reading] = {}
    for route in routes:
        source = route.query.reads
        key = (source.schema, source.key_format, source.value_format)
        if key not in readings:
            readings[key] = _Reading(SourceReader(*key))
        readings[key].routes.append(route)
    for reading in readings.values():
        programs = [r.program for r in reading.routes if r.program is not None]
        reading.fused = fuse(reading.routes[0].query.reads, programs, json)
    return list(readings.values())
