"""The command log: every statement that changed something, in a topic, replayed at start."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from ksqldb_local.topics import FOREVER, BrokerTopics, Offsets, TopicInfo
from ksqldb_local.transactions import commit, group_metadata, producer


@dataclass(frozen=True, slots=True)
class Command:
    """One entry. ``offset`` is its sequence number (-1 before it is written)."""

    id: str
    statement: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    query_id: str | None = None
    offset: int = -1


class CommandLogError(Exception):
    """The log cannot be written or read; what to do is in the message."""


class CommandLog:
    """Appends commands, each in a transaction of its own, and reads all of them back.

    A transaction's marker takes an offset, so sequence numbers step by 2, as ksqlDB's do. The
    transactional id is the service's: who opens the log last owns it, and fences every other
    process.
    """

    def __init__(self, config: Mapping[str, Any], service_id: str) -> None:
        self._config = dict(config)
        self.topic = f"_confluent-ksql-{service_id}_command_topic"
        self._transactional_id = f"_confluent-ksql-{service_id}_command"
        self._owner_group = f"_confluent-ksql-{service_id}_owner"
        self._topics = BrokerTopics(config)
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._delivered: list[int] = []
        self.healthy = False

    def open(self) -> list[Command]:
        """Take the log over from any predecessor and return all its commands.

        Nothing can be appended before :meth:`resume`: a command that was read but is not applied
        yet must not be passed by a new one.

        Raises:
            KafkaException: The broker does not answer (a later try may do).
            CommandLogError: The log holds something that is not a command.
        """
        if self._topics.partitions(self.topic) is None:
            self._topics.create(
                self.topic,
                TopicInfo(partitions=1, replicas=-1, retention_ms=FOREVER),
                config={"cleanup.policy": "delete"},
            )
        with self._lock:
            self._producer = producer(
                {**self._config, "on_delivery": self._on_delivery}, self._transactional_id
            )
            self._producer.init_transactions(30)
        return self._read_all()

    def resume(self) -> None:
        """Allow :meth:`append`, now that all commands of the log are applied."""
        self.healthy = True

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is None and offset is not None:
            self._delivered.append(offset)

    def _read_all(self) -> list[Command]:
        end = self._topics.high_watermarks(self.topic, [0])[0]
        consumer = Consumer(
            {
                **self._config,
                "group.id": self._owner_group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        commands = []
        try:
            consumer.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
            while end > 0:
                message = consumer.poll(30)
                if message is None:
                    raise CommandLogError(
                        f"The command topic {self.topic} could not be read to its end ({end}) "
                        "within "
                        "30 s: is the broker overloaded?"
                    )
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        if (message.offset() or 0) >= end:
                            break
                        continue
                    raise KafkaException(error)
                commands.append(_decode(message))
        finally:
            consumer.close()
        return commands

    def append(
        self, command: Command, *, starts: tuple[str, str, Offsets] | None = None
    ) -> Command:
        """Write a command; where a new query begins is committed in the same transaction.

        Args:
            command: What to write.
            starts: Consumer group, topic and offsets that the query begins at.

        Returns:
            The command with its sequence number.

        Raises:
            CommandLogError: It was not written, or whether it was is not known (then it is seen,
            or not,
                after the log was opened again).
        """
        with self._lock:
            transactional = self._producer
            if transactional is None or not self.healthy:
                raise CommandLogError("Lost the connection to the broker; reconnecting.")
            try:
                self._delivered.clear()
                transactional.begin_transaction()
                transactional.produce(
                    self.topic, key=command.id, value=_encode(command), partition=0
                )
                if starts is not None:
                    group, topic, offsets = starts
                    transactional.send_offsets_to_transaction(
                        [TopicPartition(topic, p, o) for p, o in offsets.items()],
                        group_metadata(self._config, group),
                        10,
                    )
                commit(transactional, 10)
            except KafkaException as error:
                self.healthy = False
                raise CommandLogError(error.args[0].str()) from error
            return Command(
                command.id,
                command.statement,
                command.properties,
                command.query_id,
                self._delivered[-1],
            )

    def check_ownership(self) -> None:
        """Find out whether another process has taken the service over.

        Raises:
            KafkaException: It has (fenced), or the broker does not answer.
        """
        with self._lock:
            transactional = self._producer
            if transactional is None or not self.healthy:
                return
            try:
                transactional.begin_transaction()
                transactional.send_offsets_to_transaction(
                    [TopicPartition(self.topic, 0, 0)],
                    group_metadata(self._config, self._owner_group),
                    10,
                )
                commit(transactional, 10)
            except KafkaException:
                self.healthy = False
                raise


def _encode(command: Command) -> bytes:
    return orjson.dumps(
        {
            "statement": command.statement,
            "streamsProperties": dict(command.properties),
            "queryId": command.query_id,
        }
    )


def _decode(message: Message) -> Command:
    try:
        value = orjson.loads(message.value() or b"")
        return Command(
            id=(message.key() or b"").decode(),
            statement=value["statement"],
            properties=value["streamsProperties"],
            query_id=value["queryId"],
            offset=message.offset() or 0,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CommandLogError(
            f"Offset {message.offset()} of {message.topic()} is not a command of ksqldb_local "
            f"({error}): "
            "the topic belongs to a ksqlDB server. Use another --service-id."
        ) from error
