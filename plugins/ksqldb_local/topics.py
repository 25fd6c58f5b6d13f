"""The broker's topics, and a sandbox of them in which statements are tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

Offsets = dict[int, int]
"""Partition to offset, of one topic."""

FOREVER = -1
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """What statements need to know of a topic."""

    partitions: int
    replicas: int
    retention_ms: int


class Topics(Protocol):
    """What the planner asks of the topics."""

    def find(self, name: str) -> TopicInfo | None:
        """Return the topic, or None."""
        ...

    def create(self, name: str, info: TopicInfo) -> None:
        """Create the topic."""
        ...

    def delete(self, name: str) -> None:
        """Delete the topic."""
        ...


class SandboxTopics:
    """The real topics, with changes that stay in here."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._changed: dict[str, TopicInfo | None] = {}

    def find(self, name: str) -> TopicInfo | None:
        """Return the topic, or None."""
        return self._changed[name] if name in self._changed else self._topics.find(name)

    def create(self, name: str, info: TopicInfo) -> None:
        """Note the topic as created."""
        self._changed[name] = info

    def delete(self, name: str) -> None:
        """Note the topic as deleted."""
        self._changed[name] = None


class BrokerTopics:
    """The topics of the cluster.

    Every method raises ``KafkaException`` when the broker does not answer within the time-out.
    """

    def __init__(self, config: Mapping[str, Any], *, timeout_s: float = 10.0) -> None:
        self._config = dict(config)
        self._timeout = timeout_s
        self.admin = AdminClient(self._config)

    def cluster_id(self) -> str:
        """Return the cluster's id."""
        cluster = self.admin.describe_cluster(request_timeout=self._timeout).result()
        return str(cluster.cluster_id)

    def names(self) -> dict[str, list[int]]:
        """Return all topics, each with the replica count of every partition."""
        metadata = self.admin.list_topics(timeout=self._timeout)
        return {
            name: [len(p.replicas) for p in topic.partitions.values()]
            for name, topic in metadata.topics.items()
            if topic.error is None
        }

    def partitions(self, name: str) -> list[int] | None:
        """Return the topic's partitions; None when there is no such topic."""
        # All topics are asked for: a client that asks for one by name goes on asking for it.
        topic = self.admin.list_topics(timeout=self._timeout).topics.get(name)
        return None if topic is None or topic.error is not None else sorted(topic.partitions)

    def topic_id(self, name: str) -> str:
        """Return the topic's unique id, which a topic of the same name made later does not have."""
        futures = self.admin.describe_topics(TopicCollection([name]), request_timeout=self._timeout)
        return str(futures[name].result().topic_id)

    def find(self, name: str) -> TopicInfo | None:
        """Return the topic, or None."""
        replicas = self.names().get(name)
        if replicas is None:
            return None
        resource = ConfigResource(ResourceType.TOPIC, name)
        configs = self.admin.describe_configs([resource], request_timeout=self._timeout)
        retention = configs[resource].result()["retention.ms"].value
        return TopicInfo(len(replicas), replicas[0], int(retention or FOREVER))

    def create(
        self, name: str, info: TopicInfo, *, config: Mapping[str, str] | None = None
    ) -> None:
        """Create the topic and wait for its leaders; an existing one is left as it is."""
        topic = NewTopic(
            name,
            info.partitions,
            info.replicas,
            config={"retention.ms": str(info.retention_ms), **(config or {})},
        )
        created = self.admin.create_topics([topic], operation_timeout=self._timeout)[name]
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        # The broker that created it knows it before the others (and its own cache) do.
        deadline = time.monotonic() + self._timeout
        pause = threading.Event()
        while not self._has_leaders(name):
            if time.monotonic() > deadline:
                raise KafkaException(
                    KafkaError(
                        KafkaError.LEADER_NOT_AVAILABLE,
                        f"topic {name} was created but has no leader after {self._timeout:.0f} s",
                    )
                )
            pause.wait(0.02)

    def _has_leaders(self, name: str) -> bool:
        topic = self.admin.list_topics(timeout=self._timeout).topics.get(name)
        if topic is None or topic.error is not None or not topic.partitions:
            return False
        return all(p.leader >= 0 and p.error is None for p in topic.partitions.values())

    def delete(self, name: str) -> None:
        """Delete the topic; one that is gone already is fine."""
        deleted = self.admin.delete_topics([name], operation_timeout=self._timeout)[name]
        try:
            deleted.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise

    def offsets(self, name: str, partitions: list[int], *, where: str) -> Offsets:
        """Return the ``earliest`` or the ``latest`` offset of each partition.

        The latest is the last stable one: what an open transaction holds is still to come for a
        reader
        that begins now.
        """
        spec = _EARLIEST if where == "earliest" else _LATEST
        futures = self.admin.list_offsets(
            {TopicPartition(name, p): spec for p in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self._timeout,
        )
        return {tp.partition: future.result().offset for tp, future in futures.items()}

    def high_watermarks(self, name: str, partitions: list[int]) -> Offsets:
        """Return the end offset of each partition, open transactions included."""
        futures = self.admin.list_offsets(
            {TopicPartition(name, p): _LATEST for p in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._timeout,
        )
        return {tp.partition: future.result().offset for tp, future in futures.items()}

    def committed(self, group: str, name: str, partitions: list[int]) -> Offsets:
        """Return the offsets that a consumer group has committed, of the partitions that have one.

        A transaction that is being completed is waited for. The client is made for the question: an
        AdminClient does not find a group's coordinator again after the broker was restarted.
        """
        if not partitions:
            return {}
        consumer = Consumer(
            {
                **self._config,
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        try:
            answers = consumer.committed(
                [TopicPartition(name, p) for p in partitions], self._timeout
            )
        finally:
            consumer.close()
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {a.partition: a.offset for a in answers if a.offset >= 0}
