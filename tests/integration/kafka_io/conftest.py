"""Fixtures of the kafka_io tests: topics of their own on a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from kafka_io import (
    CheckedProducer,
    Offsets,
    OutRecord,
    TopicSpec,
    ensure_topics,
    high_watermarks,
    read_range,
)


@pytest.fixture
def config(bootstrap_servers: str) -> dict[str, str]:
    return {"bootstrap.servers": bootstrap_servers}


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make names that no other test, and no earlier run on the same broker, has used."""
    suffix = uuid.uuid4().hex[:10]
    return lambda name: f"{name}-{suffix}"


@pytest.fixture
def admin(config: dict[str, str]) -> Iterator[AdminClient]:
    with AdminClient(config) as client:
        yield client


@pytest.fixture
def topic(config: dict[str, str], unique: Callable[[str], str]) -> Callable[..., str]:
    """Create a topic and return its name."""

    def create(name: str, partitions: int = 1, **settings: str) -> str:
        spec = TopicSpec(unique(name), partitions, retention_ms=3_600_000, config=settings)
        ensure_topics(config, [spec])
        return spec.name

    return create


@pytest.fixture
def fill(config: dict[str, str], unique: Callable[[str], str]) -> Callable[..., None]:
    """Write values to a topic in one transaction, which is committed or aborted."""

    def write(
        name: str,
        values: Iterable[str],
        *,
        partition: int | None = 0,
        abort: bool = False,
        keyed: bool = False,
    ) -> None:
        before = high_watermarks(config, [name])
        with CheckedProducer(config, transactional_id=unique(f"fill-{name}")) as producer:
            producer.begin()
            for value in values:
                key = value.encode() if keyed else None
                producer.send(OutRecord(name, value.encode(), key, partition=partition))
            producer.flush()  # an aborted record takes offsets only once it is in the log
            written = high_watermarks(config, [name])
            producer.abort() if abort else producer.commit()
        touched = {part: end for part, end in written.items() if end > before[part]}
        deadline = time.monotonic() + 30  # the broker writes a transaction's end after its answer
        while any(high_watermarks(config, [name])[part] <= end for part, end in touched.items()):
            assert time.monotonic() < deadline, f"no marker behind {touched}"

    return write


@pytest.fixture
def ends(config: dict[str, str], admin: AdminClient) -> Callable[..., Offsets]:
    """Return the high watermarks of topics."""
    return lambda *topics: high_watermarks(config, topics)


@pytest.fixture
def values(config: dict[str, str]) -> Callable[..., list[str]]:
    """Return the values of all committed records of a topic."""

    def read(name: str) -> list[str]:
        return [(message.value() or b"").decode() for message in records(name)]

    def records(name: str) -> Iterator[Message]:
        for batch in read_range(config, {}, high_watermarks(config, [name]), timeout_s=30):
            yield from batch

    return read
