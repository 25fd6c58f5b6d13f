# ruff: noqa: PT012 - leaving the with-block, or reading to the end, is part of what is tested
from __future__ import annotations

import random
import time
from random import Random
from typing import Any

import pytest
from confluent_kafka import Consumer

from kafka_io import (
    BrokerUnavailableError,
    CheckedProducer,
    DeliveryError,
    FlushTimeoutError,
    KafkaIoError,
    OutRecord,
    ProducerFencedError,
    TransactionAbortedError,
    high_watermarks,
    read_range,
)

Config = dict[str, str]

TOO_LARGE = random.Random(0).randbytes(100_000)  # compression must not make it fit


def test_everything_of_a_record_arrives(config: Config, topic: Any) -> None:
    name = topic("whole", partitions=3)
    a_minute_ago = time.time_ns() // 1_000_000 - 60_000
    sent = OutRecord(
        name,
        "é".encode(),
        b"key",
        headers=[("a", b"1"), ("b", None), ("a", b"")],
        timestamp_ms=a_minute_ago,
        partition=2,
    )
    with CheckedProducer(config) as producer:
        producer.send(sent)
        producer.send(OutRecord(name, None, b"gone", partition=2))
    (batch,) = read_range(config, {}, high_watermarks(config, [name]), timeout_s=5)
    whole, tombstone = batch
    assert (whole.key(), whole.value()) == (b"key", "é".encode())
    assert whole.headers() == [("a", b"1"), ("b", None), ("a", b"")]
    assert whole.timestamp()[1] == a_minute_ago
    assert tombstone.value() is None
    assert abs(tombstone.timestamp()[1] / 1000 - time.time()) < 60


def test_a_key_goes_to_the_partition_that_java_gives_it(config: Config, topic: Any) -> None:
    # Hashes of Kafka's own tests for its murmur2; the partition is hash & 0x7fffffff mod 7.
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    name = topic("java", partitions=7)
    with CheckedProducer(config) as producer:
        for key in known:
            producer.send(OutRecord(name, b"x", key))
    batches = read_range(config, {}, high_watermarks(config, [name]), timeout_s=5)
    found = {message.key(): message.partition() for batch in batches for message in batch}
    assert found == {key: (hash_ & 0x7FFFFFFF) % 7 for key, hash_ in known.items()}


def test_a_record_too_large_for_its_topic_is_reported(config: Config, topic: Any) -> None:
    name = topic("small", **{"max.message.bytes": "10000"})
    with pytest.raises(DeliveryError, match=name) as caught, CheckedProducer(config) as producer:
        producer.send(OutRecord(name, b"fits"))
        producer.flush()
        producer.send(OutRecord(name, TOO_LARGE))
        producer.flush()
    assert caught.value.about_record
    assert caught.value.topic == name


def test_a_record_too_large_for_any_topic_is_reported(config: Config, topic: Any) -> None:
    name = topic("huge")
    with pytest.raises(DeliveryError) as caught, CheckedProducer(config) as producer:
        # What does not compress: the broker's limit is for the bytes that it gets.
        producer.send(OutRecord(name, Random(1).randbytes(2_000_000)))
        producer.flush()
    assert caught.value.about_record


def test_an_unknown_topic_is_reported(config: Config, unique: Any) -> None:
    name = unique("unknown")
    with pytest.raises(DeliveryError, match=name) as caught, CheckedProducer(config) as producer:
        producer.send(OutRecord(name, b"x"))
        producer.flush()
    assert not caught.value.about_record


def test_the_first_failure_is_raised_by_the_next_send(config: Config, topic: Any) -> None:
    name = topic("latched", **{"max.message.bytes": "10000"})
    with pytest.raises(DeliveryError), CheckedProducer(config) as producer:
        producer.send(OutRecord(name, TOO_LARGE))
        with pytest.raises(DeliveryError):
            producer.flush()
        producer.send(OutRecord(name, b"after"))


def test_leaving_the_block_verifies_delivery(config: Config, topic: Any) -> None:
    name = topic("leave", **{"max.message.bytes": "10000"})
    with pytest.raises(DeliveryError), CheckedProducer(config) as producer:
        producer.send(OutRecord(name, TOO_LARGE))


def test_a_flush_that_leaves_records_says_how_many() -> None:
    config = {"bootstrap.servers": "127.0.0.1:1"}
    with (
        pytest.raises(FlushTimeoutError, match=r"3 records .* 127\.0\.0\.1:1") as caught,
        CheckedProducer(config) as producer,
    ):
        for _ in range(3):
            producer.send(OutRecord("t", b"x"))
        producer.flush(0.3)
    assert caught.value.remaining == 3


def test_a_full_local_queue_is_waited_for(config: Config, topic: Any) -> None:
    name = topic("full")
    small = {**config, "queue.buffering.max.messages": "10", "linger.ms": "50"}
    with CheckedProducer(small) as producer:
        for i in range(500):
            producer.send(OutRecord(name, str(i).encode()))
    assert high_watermarks(config, [name]) == {(name, 0): 500}


def test_a_local_queue_that_stays_full_is_an_error() -> None:
    config = {"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": "10"}
    with (
        pytest.raises(FlushTimeoutError, match="10 records"),
        CheckedProducer(config, timeout_s=0.3) as producer,
    ):
        for _ in range(11):
            producer.send(OutRecord("t", b"x"))


def test_a_transaction_is_seen_whole_or_not_at_all(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    name = topic("atomic")
    with CheckedProducer(config, transactional_id=unique("atomic")) as producer:
        producer.begin()
        producer.send(OutRecord(name, b"aborted"))
        producer.abort()
        producer.begin()
        producer.send(OutRecord(name, b"committed"))
        producer.commit()
    assert values(name) == ["committed"]


def test_an_exception_in_the_block_aborts_at_once(
    config: Config, topic: Any, fill: Any, values: Any, unique: Any
) -> None:
    name = topic("raised")
    with (
        pytest.raises(ZeroDivisionError),
        CheckedProducer(config, transactional_id=unique("raised")) as producer,
    ):
        producer.begin()
        producer.send(OutRecord(name, b"no"))
        producer.flush()
        raise ZeroDivisionError
    fill(name, ["yes"])
    started = time.monotonic()
    assert values(name) == ["yes"]
    assert time.monotonic() - started < 5


def test_a_transaction_left_open_is_aborted_and_told(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    name = topic("left")
    with (
        pytest.raises(KafkaIoError, match="ended with an open transaction"),
        CheckedProducer(config, transactional_id=unique("left")) as producer,
    ):
        producer.begin()
        producer.send(OutRecord(name, b"no"))
    assert values(name) == []


def test_a_transaction_with_a_failed_record_cannot_be_committed(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    name = topic("failed", **{"max.message.bytes": "10000"})
    with CheckedProducer(config, transactional_id=unique("failed")) as producer:
        producer.begin()
        producer.send(OutRecord(name, b"good"))
        producer.send(OutRecord(name, TOO_LARGE))
        with pytest.raises(DeliveryError, match=name):
            producer.commit()
        producer.begin()  # the failure belongs to the aborted transaction only
        producer.send(OutRecord(name, b"next"))
        producer.commit()
    assert values(name) == ["next"]


def test_a_second_producer_of_the_id_fences_the_first_and_aborts_its_transaction(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    name, identity = topic("fenced"), unique("fenced")
    with (
        pytest.raises(ProducerFencedError, match=identity),
        CheckedProducer(config, transactional_id=identity) as zombie,
    ):
        zombie.begin()
        zombie.send(OutRecord(name, b"zombie"))
        zombie.flush()
        with CheckedProducer(config, transactional_id=identity) as heir:
            started = time.monotonic()
            assert values(name) == []  # read before the heir sends: nothing is open any more
            assert time.monotonic() - started < 5
            heir.begin()
            heir.send(OutRecord(name, b"heir"))
            heir.commit()
        zombie.send(OutRecord(name, b"zombie again"))
        zombie.commit()
    assert values(name) == ["heir"]


def test_a_fenced_producer_cannot_begin_or_commit_anything(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    name, identity = topic("idle"), unique("idle")
    with (
        pytest.raises(ProducerFencedError),
        CheckedProducer(config, transactional_id=identity) as zombie,
    ):
        with CheckedProducer(config, transactional_id=identity):
            pass
        zombie.begin()
        zombie.send(OutRecord(name, b"zombie"))
        zombie.commit()
    assert values(name) == []


def test_a_fenced_producer_says_so_on_every_later_call(
    config: Config, topic: Any, unique: Any
) -> None:
    name, identity = topic("later"), unique("later")
    started = time.monotonic()
    with (
        pytest.raises(ProducerFencedError),
        CheckedProducer(config, transactional_id=identity) as zombie,
    ):
        with CheckedProducer(config, transactional_id=identity):
            pass
        zombie.begin()
        zombie.send(OutRecord(name, b"zombie"))
        with pytest.raises(ProducerFencedError):
            zombie.commit()
        with pytest.raises(ProducerFencedError):
            zombie.begin()
        with pytest.raises(ProducerFencedError):
            zombie.send(OutRecord(name, b"zombie"))
    assert time.monotonic() - started < 10


def test_a_transaction_that_expired_cannot_be_committed(
    config: Config, topic: Any, fill: Any, values: Any, unique: Any
) -> None:
    name = topic("expired")
    with (
        pytest.raises((ProducerFencedError, TransactionAbortedError)),
        CheckedProducer(
            config, transactional_id=unique("expired"), transaction_timeout_ms=1_000
        ) as producer,
    ):
        producer.begin()
        producer.send(OutRecord(name, b"late"))
        producer.flush()
        fill(name, ["other"])
        assert values(name) == ["other"]  # comes once the coordinator has aborted ours
        producer.commit()
    assert values(name) == ["other"]


def test_offsets_of_a_member_that_lost_its_generation_abort_the_transaction(
    config: Config, topic: Any, values: Any, unique: Any
) -> None:
    source, sink, group = topic("source"), topic("sink"), unique("group")
    settings: dict[str, Any] = {**config, "group.id": group, "session.timeout.ms": 6000}
    first, second = Consumer(settings), Consumer(settings)
    try:
        assigned: list[Any] = []
        first.subscribe([source], on_assign=lambda _c, parts: assigned.append(parts))
        while not assigned:
            first.poll(0.1)
        metadata = first.consumer_group_metadata()
        first.unsubscribe()
        joined: list[Any] = []
        second.subscribe([source], on_assign=lambda _c, parts: joined.append(parts))
        while not joined:
            second.poll(0.1)
            first.poll(0)
        with CheckedProducer(config, transactional_id=unique("lost")) as producer:
            producer.begin()
            producer.send(OutRecord(sink, b"twice"))
            with pytest.raises(TransactionAbortedError):
                producer.send_offsets({(source, 0): 1}, metadata)
            producer.begin()
            producer.send(OutRecord(sink, b"once"))
            producer.commit()
    finally:
        first.close()
        second.close()
    assert values(sink) == ["once"]


def test_a_broker_that_is_down_is_named_within_the_time_out(capfd: Any) -> None:
    config = {"bootstrap.servers": "127.0.0.1:1"}
    started = time.monotonic()
    with (
        pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"),
        CheckedProducer(config, transactional_id="t", timeout_s=1),
    ):
        pass
    assert time.monotonic() - started < 4
    assert capfd.readouterr().err == ""


def test_nothing_connects_before_the_block_is_entered() -> None:
    producer = CheckedProducer({"bootstrap.servers": "not an address"})
    with pytest.raises(KafkaIoError, match="within its with-block"):
        producer.send(OutRecord("t", b"x"))
