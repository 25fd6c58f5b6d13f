from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_io import (
    BrokerUnavailableError,
    CheckedProducer,
    OutRecord,
    TopicMissingError,
    check_broker,
    committed_offsets,
    high_watermarks,
    log_start_offsets,
    offsets_for_time,
)

Config = dict[str, str]
DOWN = {"bootstrap.servers": "127.0.0.1:1"}


def test_a_broker_that_answers_gives_its_clusters_id(config: Config) -> None:
    assert len(check_broker(config, timeout_s=10)) > 5


@pytest.mark.parametrize(
    "ask",
    [
        lambda: check_broker(DOWN, timeout_s=1),
        lambda: high_watermarks(DOWN, ["t"], timeout_s=1),
        lambda: log_start_offsets(DOWN, ["t"], timeout_s=1),
        lambda: offsets_for_time(DOWN, ["t"], 0, timeout_s=1),
        lambda: committed_offsets(DOWN, "g", ["t"], timeout_s=1),
    ],
)
def test_a_broker_that_is_down_is_named_within_the_time_out(
    ask: Callable[[], Any], capfd: Any
) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 .*Check that the"):
        ask()
    assert time.monotonic() - started < 4
    assert capfd.readouterr().err == ""


def test_no_secret_of_the_configuration_is_in_a_message(bootstrap_servers: str) -> None:
    secret = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "user-of-112",
        "sasl.password": "very-secret",
    }
    for address in ("127.0.0.1:1", bootstrap_servers):  # nobody there; one that wants no SASL
        with pytest.raises(BrokerUnavailableError, match="credentials") as caught:
            check_broker({**secret, "bootstrap.servers": address}, timeout_s=2)
        assert "very-secret" not in str(caught.value)
        assert address in str(caught.value)


def test_a_configuration_is_never_changed(config: Config) -> None:
    before = dict(config)
    check_broker(config, timeout_s=10)
    assert config == before


def test_a_missing_topic_is_named_and_not_created(
    config: Config, unique: Any, admin: AdminClient
) -> None:
    name = unique("missing")
    for ask in (high_watermarks, log_start_offsets):
        with pytest.raises(TopicMissingError, match=name):
            ask(config, [name])
    assert name not in admin.list_topics(timeout=10).topics


def test_the_end_counts_open_transactions(config: Config, topic: Any, unique: Any) -> None:
    name = topic("open", partitions=2)
    with CheckedProducer(config, transactional_id=unique("open")) as producer:
        producer.begin()
        producer.send(OutRecord(name, b"x", partition=1))
        producer.flush()
        assert high_watermarks(config, [name]) == {(name, 0): 0, (name, 1): 1}
        producer.abort()


def test_the_log_start_follows_deletion(
    config: Config, topic: Any, fill: Any, admin: AdminClient
) -> None:
    name = topic("start")
    fill(name, ["a", "b", "c"])
    assert log_start_offsets(config, [name]) == {(name, 0): 0}
    for future in admin.delete_records([TopicPartition(name, 0, 2)]).values():
        future.result()
    assert log_start_offsets(config, [name]) == {(name, 0): 2}


def test_the_offset_of_a_time_is_the_first_at_or_after_it(config: Config, topic: Any) -> None:
    name = topic("times", partitions=2)
    start = time.time_ns() // 1_000_000
    with CheckedProducer(config) as producer:
        for timestamp in (1_000, 2_000, 3_000):
            record = OutRecord(name, b"x", partition=0, timestamp_ms=start + timestamp)
            producer.send(record)
    asked = [1_000, 1_001, 3_000, 3_001]
    found = [offsets_for_time(config, [name], start + timestamp) for timestamp in asked]
    assert [offsets[name, 0] for offsets in found] == [0, 1, 2, 3]  # none later: the end
    assert {offsets[name, 1] for offsets in found} == {0}


def test_only_committed_partitions_are_told(config: Config, topic: Any, unique: Any) -> None:
    name, group = topic("committed", partitions=2), unique("group")
    assert committed_offsets(config, group, [name]) == {}
    consumer = Consumer({**config, "group.id": group})
    consumer.commit(offsets=[TopicPartition(name, 1, 5)], asynchronous=False)
    consumer.close()
    assert committed_offsets(config, group, [name]) == {(name, 1): 5}


def test_offsets_of_a_transaction_in_progress_are_waited_for(
    config: Config, topic: Any, unique: Any
) -> None:
    name, group = topic("pending"), unique("group")
    joined: list[Any] = []
    consumer = Consumer({**config, "group.id": group})
    consumer.subscribe([name], on_assign=lambda _c, partitions: joined.append(partitions))
    while not joined:
        consumer.poll(0.1)
    with CheckedProducer(config, transactional_id=unique("pending")) as producer:
        producer.begin()
        producer.send_offsets({(name, 0): 7}, consumer.consumer_group_metadata())
        with pytest.raises(BrokerUnavailableError, match="did not answer"):
            committed_offsets(config, group, [name], timeout_s=1)
        producer.commit()
    assert committed_offsets(config, group, [name]) == {(name, 0): 7}
    consumer.close()
