"""Topics as they should be: specified, compared with the broker, created when missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from kafka_io.admin import admin_client
from kafka_io.client import ClientConfig, addresses
from kafka_io.errors import BrokerUnavailableError, KafkaIoError, TopicMismatchError


@dataclass(frozen=True)
class TopicSpec:
    """Say what a topic has to be like.

    Attributes:
        name: The topic's name.
        partitions: How many partitions it has.
        retention_ms: How long records are kept, in milliseconds; -1 for ever.
        cleanup_policy: `delete`, `compact` or `compact,delete`.
        replication_factor: How many copies; -1 takes, and accepts, what the broker does.
        config: Further settings of the topic, by Kafka's names.
        description: What the topic holds, for people.
    """

    name: str
    partitions: int
    retention_ms: int
    cleanup_policy: str = "delete"
    replication_factor: int = -1
    config: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def settings(self) -> dict[str, str]:
        """Return all settings of the topic that are compared and set, by Kafka's names."""
        return {
            "retention.ms": str(self.retention_ms),
            "cleanup.policy": self.cleanup_policy,
            **self.config,
        }


@dataclass(frozen=True)
class TopicResult:
    """Say which topics were created and which were there already, as they should be."""

    created: tuple[str, ...]
    unchanged: tuple[str, ...]


def ensure_topics(
    config: ClientConfig, specs: Sequence[TopicSpec], *, timeout_s: float = 30
) -> TopicResult:
    """Create the topics that are missing and check the others.

    All are compared before any is created. A topic that somebody else creates meanwhile counts as
    there, if it is equal. On return every topic has leaders, so it can be written at once.

    Raises:
        TopicMismatchError: Topics exist with other settings; lists all of them; nothing created.
        BrokerUnavailableError: No answer, or no leaders, within `timeout_s`.
        KafkaIoError: The broker refused a topic, with its reason.
    """
    deadline = monotonic() + timeout_s
    with admin_client(config, "creating topics") as admin:
        existing = _compare(config, admin, specs, timeout_s)
        missing = [spec for spec in specs if spec.name not in existing]
        created = _create(config, admin, missing, timeout_s)
        _wait_for_leaders(config, admin, specs, deadline, timeout_s)
        # Who lost a race compares with the winner's topic.
        _compare(config, admin, [s for s in missing if s.name not in created], timeout_s)
    return TopicResult(
        created=created,
        unchanged=tuple(spec.name for spec in specs if spec.name not in created),
    )


def _compare(
    config: ClientConfig, admin: AdminClient, specs: Sequence[TopicSpec], timeout_s: float
) -> set[str]:
    """Return the names of the topics that exist; raise if one of them differs from its spec."""
    actual = _describe(admin, [spec.name for spec in specs], timeout_s)
    differences = [
        f"topic {spec.name!r}: {name} is {have}, should be {want}"
        for spec in specs
        if spec.name in actual
        for name, want, have in _differences(spec, actual[spec.name])
    ]
    if differences:
        raise TopicMismatchError(
            f"Topics at {addresses(config)} are not as specified, none was created: "
            + "; ".join(differences)
            + ". Change the specification, alter the topic (kafka-configs.sh --alter, "
            "kafka-topics.sh --alter --partitions), or delete it if its records can be lost."
        )
    return set(actual)


def _differences(spec: TopicSpec, actual: Mapping[str, str]) -> list[tuple[str, str, str]]:
    wanted = {"partitions": str(spec.partitions), **spec.settings()}
    if spec.replication_factor != -1:
        wanted["replication factor"] = str(spec.replication_factor)
    return [
        (name, want, actual.get(name, "(not set)"))
        for name, want in wanted.items()
        if _as_set(want) != _as_set(actual.get(name, ""))
    ]


def _as_set(value: str) -> set[str]:
    """Compare lists such as `compact,delete` regardless of their order."""
    return {item.strip() for item in value.split(",")}


def _describe(
    admin: AdminClient, names: Sequence[str], timeout_s: float
) -> dict[str, dict[str, str]]:
    """Return the settings of those of the topics that exist."""
    found: dict[str, dict[str, str]] = {}
    if not names:
        return found
    futures = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
    for name, future in futures.items():
        try:
            topic = future.result()
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise
        found[name] = {
            "partitions": str(len(topic.partitions)),
            "replication factor": str(len(topic.partitions[0].replicas)),
        }
    if found:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        configs = admin.describe_configs(resources, request_timeout=timeout_s)
        for resource, entries in configs.items():
            found[resource.name] |= {name: e.value or "" for name, e in entries.result().items()}
    return found


def _create(
    config: ClientConfig, admin: AdminClient, specs: Sequence[TopicSpec], timeout_s: float
) -> tuple[str, ...]:
    """Create topics and return those that did not exist after all."""
    if not specs:
        return ()
    created, refused = [], []
    futures = admin.create_topics(
        [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=spec.replication_factor,
                config=spec.settings(),
            )
            for spec in specs
        ],
        request_timeout=timeout_s,
        operation_timeout=timeout_s,
    )
    for name, future in futures.items():
        try:
            future.result()
            created.append(name)
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                raise
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                refused.append(f"{name!r}: {error.str()}")
    if refused:
        raise KafkaIoError(
            f"Kafka at {addresses(config)} refused to create topics: {'; '.join(refused)}. "
            f"Created: {', '.join(created) or 'none'}. Correct the specification or the rights "
            "of the user and run again; what exists is kept."
        )
    return tuple(created)


def _wait_for_leaders(
    config: ClientConfig,
    admin: AdminClient,
    specs: Sequence[TopicSpec],
    deadline: float,
    timeout_s: float,
) -> None:
    while True:
        known = admin.list_topics(timeout=max(deadline - monotonic(), 1)).topics
        pending = [
            spec.name
            for spec in specs
            if spec.name not in known
            or not known[spec.name].partitions
            or any(part.leader == -1 for part in known[spec.name].partitions.values())
        ]
        if not pending:
            return
        if monotonic() > deadline:
            raise BrokerUnavailableError(
                f"Topics at {addresses(config)} have no leader after {timeout_s:g} s: "
                f"{', '.join(pending)}. Check that the brokers of the cluster are up; run again."
            )
        admin.poll(0.1)
