from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from kafka_io import (
    BrokerUnavailableError,
    CheckedProducer,
    KafkaIoError,
    OutRecord,
    TopicMismatchError,
    TopicResult,
    TopicSpec,
    ensure_topics,
    load_catalogue,
)

Config = dict[str, str]
DAY_MS = 86_400_000


@pytest.fixture
def specs(unique: Any) -> list[TopicSpec]:
    return [TopicSpec(unique("one"), 3, DAY_MS), TopicSpec(unique("two"), 1, DAY_MS, "compact")]


def test_missing_topics_are_created_as_specified_and_can_be_written_at_once(
    config: Config, specs: list[TopicSpec], admin: AdminClient
) -> None:
    names = tuple(spec.name for spec in specs)
    assert ensure_topics(config, specs) == TopicResult(created=names, unchanged=())
    with CheckedProducer(config) as producer:
        for name in names:
            producer.send(OutRecord(name, b"x", b"k"))
    known = admin.list_topics(timeout=10).topics
    assert [len(known[name].partitions) for name in names] == [3, 1]


def test_a_second_call_changes_nothing(config: Config, specs: list[TopicSpec]) -> None:
    ensure_topics(config, specs)
    names = tuple(spec.name for spec in specs)
    assert ensure_topics(config, specs) == TopicResult(created=(), unchanged=names)


def test_only_what_is_missing_is_created(config: Config, specs: list[TopicSpec]) -> None:
    ensure_topics(config, specs[:1])
    result = ensure_topics(config, specs)
    assert (result.created, result.unchanged) == ((specs[1].name,), (specs[0].name,))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"partitions": 4}, "partitions is 3, should be 4"),
        ({"retention_ms": 2 * DAY_MS}, "retention.ms is 86400000, should be 172800000"),
        ({"cleanup_policy": "compact"}, "cleanup.policy is delete, should be compact"),
        ({"replication_factor": 2}, "replication factor is 1, should be 2"),
        ({"config": {"max.message.bytes": "5"}}, "max.message.bytes is 1048588, should be 5"),
        ({"config": {"no.such": "5"}}, "no.such is (not set), should be 5"),
    ],
)
def test_a_mismatch_names_the_topic_the_setting_and_both_values(
    config: Config, specs: list[TopicSpec], changes: dict[str, Any], told: str
) -> None:
    ensure_topics(config, specs[:1])
    with pytest.raises(TopicMismatchError) as caught:
        ensure_topics(config, [dataclasses.replace(specs[0], **changes)])
    assert f"topic {specs[0].name!r}: {told}" in str(caught.value)


def test_all_mismatches_are_told_and_nothing_is_created(
    config: Config, specs: list[TopicSpec], unique: Any, admin: AdminClient
) -> None:
    ensure_topics(config, specs)
    third = TopicSpec(unique("three"), 1, DAY_MS)
    wrong = [dataclasses.replace(spec, partitions=7) for spec in specs]
    with pytest.raises(TopicMismatchError) as caught:
        ensure_topics(config, [third, *wrong])
    assert all(spec.name in str(caught.value) for spec in specs)
    assert third.name not in admin.list_topics(timeout=10).topics


def test_the_order_of_cleanup_policies_does_not_matter(config: Config, unique: Any) -> None:
    spec = TopicSpec(unique("both"), 1, DAY_MS, "delete,compact")
    ensure_topics(config, [spec])
    same = dataclasses.replace(spec, cleanup_policy="compact,delete")
    assert ensure_topics(config, [same]).unchanged == (spec.name,)


def test_topics_created_by_two_at_once_are_created_once(
    config: Config, specs: list[TopicSpec]
) -> None:
    results: list[TopicResult] = []
    barrier = threading.Barrier(4)

    def create() -> None:
        barrier.wait()
        results.append(ensure_topics(config, specs))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    created = [name for result in results for name in result.created]
    assert sorted(created) == sorted(spec.name for spec in specs)


def test_a_topic_that_the_broker_refuses_is_named_with_the_reason(
    config: Config, unique: Any
) -> None:
    spec = TopicSpec(unique("bad"), 1, DAY_MS, replication_factor=9)
    with pytest.raises(KafkaIoError, match=f"{spec.name}.*[Rr]eplication factor"):
        ensure_topics(config, [spec])
    bad_config = TopicSpec(unique("bad2"), 1, DAY_MS, config={"no.such.setting": "1"})
    with pytest.raises(KafkaIoError, match=r"no\.such\.setting"):
        ensure_topics(config, [bad_config])


def test_a_broker_that_is_down_is_named_within_the_time_out(capfd: Any) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        ensure_topics(
            {"bootstrap.servers": "127.0.0.1:1"}, [TopicSpec("t", 1, DAY_MS)], timeout_s=1
        )
    assert time.monotonic() - started < 4
    assert capfd.readouterr().err == ""


def test_the_projects_catalogue_is_taken_by_a_broker(config: Config, unique: Any) -> None:
    path = Path(__file__).parents[3] / "include" / "kafka" / "topics.yaml"
    specs = [dataclasses.replace(spec, name=unique(spec.name)) for spec in load_catalogue(path)]
    assert len(ensure_topics(config, specs).created) == len(specs)
    assert len(ensure_topics(config, specs).unchanged) == len(specs)
