"""The streams and queries that exist."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksqldb_local.statements import Select
from ksqldb_local.types import Schema


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream: a topic and how its records read. ``source`` is the stream it was selected from."""

    name: str
    topic: str
    schema: Schema
    key_format: str
    value_format: str
    text: str
    source: str | None = None


@dataclass(slots=True)
class PersistentQuery:
    """A running CREATE STREAM AS SELECT, or INSERT INTO (``inserts``)."""

    id: str
    text: str
    select: Select
    reads: Stream  # as it was then: a source that gains columns later does not change the query
    sink: str
    sink_topic: str
    sink_schema: Schema
    overrides: Mapping[str, Any]
    inserts: bool = False
    paused: bool = False

    @property
    def source(self) -> str:
        """Name of the stream that it reads."""
        return self.reads.name

    @property
    def status(self) -> str:
        """What ``statusCount`` and ``ksqlHostQueryStatus`` show."""
        return "PAUSED" if self.paused else "RUNNING"


class Metastore:
    """Streams and queries by name, in the order in which they came."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.queries: dict[str, PersistentQuery] = {}

    def sandbox(self) -> Metastore:
        """Return a copy to try statements on."""
        other = Metastore()
        other.streams = dict(self.streams)
        other.queries = {k: copy.copy(q) for k, q in self.queries.items()}
        return other

    def readers(self, stream: str) -> list[PersistentQuery]:
        """Return the queries that read a stream."""
        return [q for q in self.queries.values() if q.source == stream]

    def writers(self, stream: str) -> list[PersistentQuery]:
        """Return the queries that write a stream."""
        return [q for q in self.queries.values() if q.sink == stream]

    def dependants(self, stream: str) -> list[str]:
        """Return the names of the streams selected from a stream, sorted."""
        return sorted(s.name for s in self.streams.values() if s.source == stream)

    def drop(self, name: str) -> None:
        """Forget a stream and the queries that write it."""
        del self.streams[name]
        for query in self.writers(name):
            del self.queries[query.id]
