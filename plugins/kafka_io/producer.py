"""A producer that tells: no record is lost without an exception that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from kafka_io.client import (
    ClientConfig,
    LastError,
    Offsets,
    addresses,
    client_config,
    to_kafka_io_error,
)
from kafka_io.errors import (
    DeliveryError,
    FlushTimeoutError,
    KafkaIoError,
    ProducerFencedError,
    TransactionAbortedError,
)

_ABOUT_THE_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError._INVALID_ARG,
    }
)
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
_PURGED_BY_ABORT = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
_SENDS_PER_POLL = 500


@dataclass(frozen=True, slots=True)
class OutRecord:
    """Be a record to send.

    Attributes:
        topic: Where it goes.
        value: Its value; None is a tombstone.
        key: Its key; decides the partition as Java producers do (murmur2).
        headers: Name and value of each header, in order.
        timestamp_ms: Milliseconds since 1970; None is the time of sending.
        partition: A fixed partition instead of the key's.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int | None = None
    partition: int | None = None


class CheckedProducer:
    """Send records and know that they arrived.

    Idempotent (no duplicates from retries, order kept) with acks from all replicas. With a
    `transactional_id` all sends are in transactions: entering the with-block fences an earlier
    producer of that id and aborts what it left open; leaving it by an exception aborts.

    Nothing connects before the with-block is entered. The first record that fails is remembered
    and raised by the next call of any method, so no failure goes unseen, and a transaction with
    a failed record cannot be committed. Not to be shared between threads or across a fork.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 10_000,
        timeout_s: float = 30,
    ) -> None:
        """Note what to connect to.

        Args:
            config: Settings of librdkafka; never changed.
            transactional_id: Stable name of the one who does this work, so that a retry can abort
                what its predecessor left open; None sends without transactions.
            transaction_timeout_ms: When the broker aborts a transaction whose producer is silent.
            timeout_s: How long to wait for the broker in any one call.
        """
        self._config = config
        self._timeout_s = timeout_s
        self._last_error = LastError()
        self._settings: dict[str, Any] = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            # Long enough for a broker's restart, short enough for the caller to hear of it.
            "topic.metadata.propagation.max.ms": 5_000,
            # The topic's own limit decides; the client's default lies below that of brokers.
            "message.max.bytes": 100_000_000,
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        self._transactional_id = transactional_id
        if transactional_id is not None:
            self._settings |= {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": transaction_timeout_ms,
            }
        else:
            self._settings["message.timeout.ms"] = 30_000
        self._producer: Producer | None = None
        self._failure: DeliveryError | None = None
        self._in_transaction = False
        self._has_gap = False
        self._end: KafkaIoError | None = None
        self._sends = 0

    def __enter__(self) -> Self:
        """Connect; a transactional producer takes over its id.

        Raises:
            BrokerUnavailableError: No answer within the time-out.
            ProducerFencedError: Another producer took over the id at the same moment.
        """
        self._connect()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Verify that all was delivered or, after an exception, abort; then disconnect."""
        try:
            if exc is None:
                if self._in_transaction:
                    self.abort()
                    raise KafkaIoError(
                        f"The with-block of transactional id {self._transactional_id!r} ended with "
                        "an open transaction, which was aborted. Call commit() or abort() first."
                    )
                self.flush(self._timeout_s)
            else:
                self._abort_after(exc)
        finally:
            self._close()

    def send(self, record: OutRecord) -> None:
        """Hand a record over for sending.

        A full local queue is waited for, never a reason to drop a record. That the record arrived
        is only known after `flush` or `commit`.

        Raises:
            DeliveryError: This record, or an earlier one, cannot be delivered.
            FlushTimeoutError: The local queue stayed full for the whole time-out.
            ProducerFencedError: Another producer took over the transactional id.
        """
        if self._failure is not None:
            raise self._failure
        producer = self._open()
        self._sends += 1
        if self._sends % _SENDS_PER_POLL == 0:
            self._serve(0)
        deadline: float | None = None
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    partition=-1 if record.partition is None else record.partition,
                    timestamp=record.timestamp_ms or 0,
                    headers=list(record.headers) if record.headers else None,
                )
                return
            except BufferError:
                now = monotonic()
                deadline = deadline or now + self._timeout_s
                if now > deadline:
                    raise FlushTimeoutError(
                        len(producer), self._timeout_s, addresses(self._config)
                    ) from None
                self._serve(0.1)
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() == KafkaError._FATAL and self._transactional_id is not None:
                    # The cause of the fatal error is only told by the transactional calls.
                    self._call("sending a record", producer.commit_transaction)
                if error.code() in (KafkaError._STATE, KafkaError._FATAL):
                    raise self._translated(error, "sending a record") from exc
                self._latch(error, record.topic)
            if self._failure is not None:
                raise self._failure

    def flush(self, timeout_s: float = 30) -> None:
        """Wait until the broker has confirmed every record sent so far.

        Raises:
            DeliveryError: A record was not delivered; the first one is named.
            FlushTimeoutError: Records were left unconfirmed.
        """
        try:
            remaining = self._open().flush(timeout_s)
        except KafkaException as exc:
            raise self._translated(exc.args[0], "flushing") from exc
        if self._failure is not None:
            raise self._failure
        if remaining:
            raise FlushTimeoutError(remaining, timeout_s, addresses(self._config))

    def begin(self) -> None:
        """Open a transaction.

        Raises:
            ProducerFencedError: Another producer took over the transactional id.
        """
        if self._has_gap:
            # A failed record leaves a gap in the sequence numbers, for which the broker refuses
            # the next transaction; a producer that starts afresh has none.
            self._close()
            self._connect()
        producer = self._open()
        self._call("opening a transaction", lambda _timeout: producer.begin_transaction())
        self._in_transaction = True

    def send_offsets(self, offsets: Offsets, group_metadata: Any) -> None:
        """Commit consumed offsets (the next to read) with the open transaction.

        Args:
            offsets: For each partition the offset after the last one handled.
            group_metadata: `Consumer.consumer_group_metadata()` of the consumer that owns them;
                its generation is what keeps a member that lost them from committing.

        Raises:
            TransactionAbortedError: The consumer is not the owner any more; the transaction was
                aborted.
            ProducerFencedError: Another producer took over the transactional id.
            BrokerUnavailableError: No answer within the time-out.
        """
        producer = self._open()
        positions = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        self._call(
            "adding consumed offsets to a transaction",
            lambda timeout: producer.send_offsets_to_transaction(
                positions, group_metadata, timeout
            ),
        )

    def commit(self) -> None:
        """Commit the open transaction; on return all its records and offsets are in force.

        Raises:
            DeliveryError: A record was not delivered; the transaction was aborted.
            TransactionAbortedError: It could not be committed and was aborted; do it again.
            ProducerFencedError: Another producer took over the transactional id.
            BrokerUnavailableError: No answer within the time-out: whether it was committed is
                unknown here; read the committed offsets or records before doing it again.
        """
        failure = self._failure
        if failure is not None:
            self._abort()
            raise failure
        try:
            self._call("committing a transaction", self._open().commit_transaction)
        finally:
            self._in_transaction = False  # committed, aborted, or out of this producer's hands

    def abort(self) -> None:
        """Abort the open transaction, if there is one, and forget its failed records.

        Raises:
            ProducerFencedError: Another producer took over the transactional id.
            BrokerUnavailableError: No answer within the time-out; the broker aborts by itself when
                the transaction expires.
        """
        self._abort()

    def _abort(self) -> DeliveryError | None:
        """Abort the open transaction and return the first failed delivery in it."""
        if self._in_transaction:
            self._in_transaction = False  # also if this fails: then the broker ends it
            self._call("aborting a transaction", self._open().abort_transaction)
            self._serve(0)
        failure, self._failure = self._failure, None
        self._has_gap = self._has_gap or failure is not None
        return failure

    def _connect(self) -> None:
        self._has_gap = False
        self._producer = Producer(client_config(self._config, self._settings, self._last_error))
        if self._transactional_id is not None:
            try:
                self._call("taking over the transactional id", self._producer.init_transactions)
            except KafkaIoError:
                self._close()
                raise

    def _call(self, doing: str, function: Callable[[float], None]) -> None:
        """Call a transactional function, again after retriable errors, until the time-out."""
        deadline = monotonic() + self._timeout_s
        while True:
            try:
                return function(max(deadline - monotonic(), 0.1))
            except KafkaException as exc:
                error = exc.args[0]
                if error.retriable() and monotonic() < deadline:
                    self._serve(0.1)
                    continue
                if error.txn_requires_abort() and self._in_transaction:
                    # Which record failed is only reported once the others have been given up.
                    failure = self._abort()
                    raise failure or self._translated(error, doing) from exc
                raise self._translated(error, doing) from exc

    def _serve(self, timeout_s: float) -> None:
        """Serve delivery reports for up to `timeout_s`."""
        try:
            self._open().poll(timeout_s)
        except KafkaException as exc:
            raise self._translated(exc.args[0], "serving delivery reports") from exc

    def _translated(self, error: KafkaError, doing: str) -> KafkaIoError:
        translated = self._meaning(error, doing)
        if error.fatal() or error.retriable():
            # Fatal, or still going on after the time-out: no call can succeed after either.
            self._end = translated
            self._in_transaction = False
        return translated

    def _meaning(self, error: KafkaError, doing: str) -> KafkaIoError:
        if error.code() in _FENCED:
            return ProducerFencedError(
                f"The producer with transactional id {self._transactional_id!r} may not go on "
                f"({doing}: {error.str()}). A newer one took over its work, or its transaction "
                "expired while it was held up. Its open transaction is void; start afresh only if "
                "nobody else does this work."
            )
        if error.txn_requires_abort():
            return TransactionAbortedError(
                f"A transaction of {self._transactional_id!r} was aborted ({doing}: "
                f"{error.str()}). Nothing of it is visible; do the same work again."
            )
        return to_kafka_io_error(self._config, error, doing, self._last_error)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in _PURGED_BY_ABORT:
            self._latch(error, message.topic() or "")

    def _latch(self, error: KafkaError, topic: str) -> None:
        if self._failure is None:
            about_record = error.code() in _ABOUT_THE_RECORD
            self._failure = DeliveryError(topic, error.str(), about_record=about_record)

    def _abort_after(self, exc: BaseException) -> None:
        """Abort without hiding the exception that made it necessary."""
        try:
            self.abort()
        except KafkaIoError as abort_error:
            exc.add_note(f"The open transaction could not be aborted here: {abort_error}")

    def _open(self) -> Producer:
        if self._end is not None:
            raise self._end
        if self._producer is None:
            raise KafkaIoError("The producer is not open. Use it within its with-block.")
        return self._producer

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and self._end is None:
            # What is still queued here was reported as failed, or belongs to an aborted attempt.
            producer.purge()
            producer.close()
