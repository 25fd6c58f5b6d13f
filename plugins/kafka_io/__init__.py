"""Kafka done right: topic specs, checked producer, exactly-once loop, bounded reader."""

from __future__ import annotations

from confluent_kafka import Message

from kafka_io.admin import (
    check_broker,
    committed_offsets,
    high_watermarks,
    log_start_offsets,
    offsets_for_time,
)
from kafka_io.catalogue import CatalogueError, load_catalogue
from kafka_io.client import ClientConfig, Offsets, Partition
from kafka_io.errors import (
    BrokerUnavailableError,
    DeliveryError,
    FlushTimeoutError,
    KafkaIoError,
    OffsetsLostError,
    ProducerFencedError,
    ReadTimeoutError,
    TopicMismatchError,
    TopicMissingError,
    TransactionAbortedError,
)
from kafka_io.exactly_once import LoopResult, run_exactly_once
from kafka_io.producer import CheckedProducer, OutRecord
from kafka_io.reader import is_covered, read_range
from kafka_io.topics import TopicResult, TopicSpec, ensure_topics

__all__ = [
    "BrokerUnavailableError",
    "CatalogueError",
    "CheckedProducer",
    "ClientConfig",
    "DeliveryError",
    "FlushTimeoutError",
    "KafkaIoError",
    "LoopResult",
    "Message",
    "Offsets",
    "OffsetsLostError",
    "OutRecord",
    "Partition",
    "ProducerFencedError",
    "ReadTimeoutError",
    "TopicMismatchError",
    "TopicMissingError",
    "TopicResult",
    "TopicSpec",
    "TransactionAbortedError",
    "check_broker",
    "committed_offsets",
    "ensure_topics",
    "high_watermarks",
    "is_covered",
    "load_catalogue",
    "log_start_offsets",
    "offsets_for_time",
    "read_range",
    "run_exactly_once",
]
