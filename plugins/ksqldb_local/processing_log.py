"""Entries of the processing log: what could not be read or computed, in ksqlDB's form."""

from __future__ import annotations

import time

import orjson

_PARTS = (
    "deserializationError",
    "recordProcessingError",
    "productionError",
    "serializationError",
    "kafkaStreamsThreadError",
)


def _entry(logger: str, kind: int, part: str, details: dict[str, object]) -> bytes:
    message: dict[str, object] = {"type": kind, **dict.fromkeys(_PARTS)}
    message[part] = details
    return orjson.dumps(
        {"level": "ERROR", "logger": logger, "time": int(time.time() * 1000), "message": message}
    )


def deserialization_error(query_id: str, topic: str, target: str, message: str) -> bytes:
    """Return the entry for a record whose key or value cannot be read."""
    return _entry(
        f"processing.{query_id}.KsqlTopic.Source.deserializer",
        0,
        "deserializationError",
        {
            "target": target,
            "errorMessage": f"Failed to deserialize {target} from topic: {topic}. {message}",
            "recordB64": None,
            "cause": [message],
            "topic": topic,
        },
    )


def processing_error(query_id: str, step: str, message: str, cause: str) -> bytes:
    """Return the entry for an expression that failed; ``step`` is WhereFilter or Project."""
    return _entry(
        f"processing.{query_id}.{step}",
        1,
        "recordProcessingError",
        {"errorMessage": message, "record": None, "cause": [cause]},
    )


def serialization_error(query_id: str, sink: str, topic: str, message: str) -> bytes:
    """Return the entry for a row that cannot be written."""
    return _entry(
        f"processing.{query_id}.{sink}.serializer",
        3,
        "serializationError",
        {
            "target": "value",
            "errorMessage": f"Error serializing message to topic: {topic}. {message}",
            "record": None,
            "cause": [message],
            "topic": topic,
        },
    )
