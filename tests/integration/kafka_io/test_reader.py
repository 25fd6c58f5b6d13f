# ruff: noqa: PT012 - leaving the with-block, or reading to the end, is part of what is tested
from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_io import (
    CheckedProducer,
    KafkaIoError,
    OffsetsLostError,
    OutRecord,
    ProducerFencedError,
    ReadTimeoutError,
    TopicMissingError,
    is_covered,
    read_range,
)
from kafka_io.reader import end_of_partition

Config = dict[str, str]


def texts(batches: Any) -> list[str]:
    return [message.value().decode() for batch in batches for message in batch]


@pytest.fixture
def delete_before(admin: AdminClient) -> Callable[[str, int, int], None]:
    def delete(name: str, partition: int, offset: int) -> None:
        for future in admin.delete_records([TopicPartition(name, partition, offset)]).values():
            future.result()

    return delete


def test_it_reads_every_committed_record_once_and_no_aborted_one(
    config: Config, topic: Any, fill: Any, ends: Any
) -> None:
    name = topic("mixed", partitions=3)
    for partition in range(3):
        fill(name, [f"{partition}-a{i}" for i in range(50)], partition=partition)
        fill(name, ["aborted"] * 20, partition=partition, abort=True)
        fill(name, [f"{partition}-b{i}" for i in range(50)], partition=partition)
    progress: list[int] = []
    read = texts(
        read_range(config, {}, ends(name), timeout_s=10, batch_size=7, on_progress=progress.append)
    )
    expected = {f"{p}-{half}{i}" for p in range(3) for half in "ab" for i in range(50)}
    assert len(read) == 300
    assert set(read) == expected
    assert progress[-1] == 300
    for partition in range(3):
        own = [value for value in read if value.startswith(f"{partition}-")]
        assert own == [f"{partition}-{half}{i}" for half in "ab" for i in range(50)]


def test_a_range_that_holds_only_aborted_records_is_read_to_its_end(
    config: Config, topic: Any, fill: Any, ends: Any
) -> None:
    name = topic("aborted")
    fill(name, ["x"] * 5, abort=True)
    assert ends(name) == {(name, 0): 6}
    assert texts(read_range(config, {}, ends(name), timeout_s=5)) == []


def test_a_range_that_ends_in_aborted_records_is_read_to_its_end(
    config: Config, topic: Any, fill: Any, ends: Any
) -> None:
    name = topic("tail")
    fill(name, ["a", "b"])
    fill(name, ["x"] * 5, abort=True)
    assert texts(read_range(config, {}, ends(name), timeout_s=5)) == ["a", "b"]


def test_an_end_within_aborted_records_or_on_a_marker_is_reached(
    config: Config, topic: Any, fill: Any
) -> None:
    name = topic("within")
    fill(name, ["a", "b"])  # offsets 0, 1 and marker 2
    fill(name, ["x"] * 5, abort=True)  # offsets 3 to 7 and marker 8
    fill(name, ["c"])  # offset 9
    for end, expected in ((1, ["a"]), (2, ["a", "b"]), (3, ["a", "b"]), (5, ["a", "b"])):
        assert texts(read_range(config, {}, {(name, 0): end}, timeout_s=5)) == expected
    assert texts(read_range(config, {(name, 0): 2}, {(name, 0): 9}, timeout_s=5)) == []
    assert texts(read_range(config, {(name, 0): 4}, {(name, 0): 10}, timeout_s=5)) == ["c"]


def test_only_offsets_within_the_range_are_given_out(config: Config, topic: Any, fill: Any) -> None:
    name = topic("slice", partitions=2)
    fill(name, [str(i) for i in range(5000)], partition=0)
    fill(name, [str(i) for i in range(5000)], partition=1)
    start, end = {(name, 0): 100, (name, 1): 4990}, {(name, 0): 110, (name, 1): 5000}
    read = texts(read_range(config, start, end, timeout_s=5, batch_size=500))
    assert sorted(read) == sorted([str(i) for i in (*range(100, 110), *range(4990, 5000))])


def test_an_empty_partition_and_an_empty_range_end_at_once(
    config: Config, topic: Any, fill: Any, ends: Any
) -> None:
    name = topic("empty", partitions=3)
    fill(name, ["only"], partition=1)
    assert texts(read_range(config, {}, ends(name), timeout_s=5)) == ["only"]
    assert texts(read_range(config, ends(name), ends(name), timeout_s=5)) == []


def test_an_uncommitted_read_sees_aborted_records_too(
    config: Config, topic: Any, fill: Any, ends: Any
) -> None:
    name = topic("uncommitted")
    fill(name, ["x", "y"], abort=True)
    batches = read_range(config, {}, ends(name), timeout_s=5, isolation="read_uncommitted")
    assert texts(batches) == ["x", "y"]


def test_records_behind_another_producers_open_transaction_are_waited_for(
    config: Config, topic: Any, fill: Any, ends: Any, unique: Any
) -> None:
    name = topic("held")
    with CheckedProducer(config, transactional_id=unique("holder")) as holder:
        holder.begin()
        holder.send(OutRecord(name, b"held", partition=0))
        holder.flush()
        fill(name, ["behind"])
        end = ends(name)
        timer = threading.Timer(1.5, holder.commit)
        timer.start()
        started = time.monotonic()
        assert texts(read_range(config, {}, end, timeout_s=10)) == ["held", "behind"]
        assert time.monotonic() - started > 1
        timer.join()


def test_a_zombies_open_transaction_ends_by_its_time_out(
    config: Config, topic: Any, fill: Any, ends: Any, unique: Any
) -> None:
    name = topic("zombie")
    zombie = CheckedProducer(
        config, transactional_id=unique("zombie"), transaction_timeout_ms=2_000
    )
    with pytest.raises(ProducerFencedError), zombie:
        zombie.begin()
        zombie.send(OutRecord(name, b"never committed", partition=0))
        zombie.flush()
        fill(name, ["behind"])
        # The coordinator looks for expired transactions every 10 s.
        assert texts(read_range(config, {}, ends(name), timeout_s=25)) == ["behind"]


def test_an_open_transaction_that_does_not_end_is_a_read_time_out_that_says_where(
    config: Config, topic: Any, ends: Any, unique: Any
) -> None:
    name = topic("stuck")
    with CheckedProducer(config, transactional_id=unique("stuck")) as holder:
        holder.begin()
        holder.send(OutRecord(name, b"open", partition=0))
        holder.flush()
        with pytest.raises(ReadTimeoutError, match=f"{name}-0.*open transaction") as caught:
            list(read_range(config, {}, ends(name), timeout_s=1))
        holder.abort()
    assert (caught.value.topic, caught.value.partition) == (name, 0)
    assert (caught.value.position, caught.value.target) == (0, 1)


def test_a_start_below_the_log_start_is_an_error_not_a_skip(
    config: Config, topic: Any, fill: Any, ends: Any, delete_before: Any
) -> None:
    name = topic("deleted")
    fill(name, [str(i) for i in range(10)])
    delete_before(name, 0, 4)
    with pytest.raises(OffsetsLostError, match=r"from offset 2 to 3 were deleted"):
        list(read_range(config, {(name, 0): 2}, ends(name), timeout_s=5))
    assert texts(read_range(config, {(name, 0): 4}, ends(name), timeout_s=5))[0] == "4"
    assert texts(read_range(config, {}, ends(name), timeout_s=5))[0] == "4"


def test_records_deleted_while_they_are_read_are_an_error_not_a_skip(
    config: Config, topic: Any, fill: Any, ends: Any, delete_before: Any
) -> None:
    name = topic("deleting", **{"segment.bytes": "1048576"})
    fill(name, [random.Random(i).randbytes(10_000).hex() for i in range(3000)])
    small = {**config, "fetch.message.max.bytes": "100000", "queued.min.messages": "1"}
    end = ends(name)
    reader = read_range(small, {}, end, timeout_s=5, batch_size=10)
    first = next(reader)
    delete_before(name, 0, end[name, 0] - 1)
    with pytest.raises(OffsetsLostError, match=f"{name}-0"):
        for batch in reader:
            first += batch
    assert len(first) < 3000


def test_an_end_beyond_the_log_means_a_topic_created_anew(
    config: Config, topic: Any, fill: Any
) -> None:
    name = topic("anew")
    fill(name, ["a"])
    with pytest.raises(OffsetsLostError, match="created anew"):
        list(read_range(config, {}, {(name, 0): 100}, timeout_s=5))
    with pytest.raises(OffsetsLostError, match=f"{name}-7"):
        list(read_range(config, {}, {(name, 7): 1}, timeout_s=5))


def test_a_missing_topic_is_named(config: Config, unique: Any) -> None:
    name = unique("missing")
    with pytest.raises(TopicMissingError, match=name):
        list(read_range(config, {}, {(name, 0): 1}, timeout_s=5))


def test_an_error_that_a_message_carries_is_raised(config: Config) -> None:
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    message = Message(topic="t", partition=1, offset=3, error=error)
    with pytest.raises(KafkaIoError, match="t-1"):
        end_of_partition(config, message, error)


def test_it_reads_while_others_write_and_stops_at_its_end(
    config: Config, topic: Any, fill: Any, ends: Any, unique: Any
) -> None:
    name = topic("busy")
    fill(name, ["before"] * 10)
    fill(name, ["x"] * 10, abort=True)
    end = ends(name)
    stop = threading.Event()

    def write() -> None:
        with CheckedProducer(config, transactional_id=unique("busy")) as producer:
            while not stop.is_set():
                producer.begin()
                producer.send(OutRecord(name, b"after", partition=0))
                producer.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert texts(read_range(config, {}, end, timeout_s=5)) == ["before"] * 10
    finally:
        stop.set()
        writer.join()


class TestIsCovered:
    def test_committed_offsets_before_trailing_aborted_records_cover_the_end(
        self, config: Config, topic: Any, fill: Any, ends: Any
    ) -> None:
        name = topic("covered", partitions=2)
        fill(name, ["a", "b"])
        fill(name, ["x"] * 3, abort=True)
        assert is_covered(config, {(name, 0): 2}, ends(name))
        assert not is_covered(config, {(name, 0): 1}, ends(name))

    def test_a_partition_without_committed_offset_counts_from_its_first_record(
        self, config: Config, topic: Any, fill: Any, ends: Any
    ) -> None:
        name = topic("none")
        fill(name, ["x"], abort=True)
        assert is_covered(config, {}, ends(name))
        fill(name, ["a"])
        assert not is_covered(config, {}, ends(name))

    def test_what_an_open_transaction_hides_is_not_covered(
        self, config: Config, topic: Any, ends: Any, unique: Any
    ) -> None:
        name = topic("hidden")
        with CheckedProducer(config, transactional_id=unique("hidden")) as holder:
            holder.begin()
            holder.send(OutRecord(name, b"open", partition=0))
            holder.flush()
            assert not is_covered(config, {}, ends(name), timeout_s=1)
            holder.abort()
        assert is_covered(config, {}, ends(name))

    def test_records_deleted_before_the_group_handled_them_are_an_error(
        self, config: Config, topic: Any, fill: Any, ends: Any, delete_before: Any
    ) -> None:
        name = topic("gone")
        fill(name, [str(i) for i in range(10)])
        delete_before(name, 0, 5)
        with pytest.raises(OffsetsLostError):
            is_covered(config, {(name, 0): 3}, ends(name))
