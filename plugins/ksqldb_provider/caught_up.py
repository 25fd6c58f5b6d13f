"""Whether persistent queries have handled everything that was there when the question was asked.

Lag 0 cannot tell: where a partition ends in records of an aborted transaction the committed
offset stays behind for ever. A query has caught up when a read_committed read from its committed
offsets to the end finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksqldb_provider.client.errors import KsqlDbError, QueryFailedError

if TYPE_CHECKING:
    from kafka_io import ClientConfig, Offsets
    from ksqldb_provider.client import KsqlDbClient, QueryDescription

_AT_ONCE = 12


@dataclass(frozen=True, slots=True)
class WatchedQuery:
    """A query, its consumer group, and the topics that it reads and writes."""

    id: str
    group: str
    source_topics: tuple[str, ...]
    sink_topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a query is from the end that it has to reach."""

    query_id: str
    behind: Mapping[tuple[str, int], int]

    def __str__(self) -> str:
        partitions = ", ".join(
            f"{topic}-{partition} by {lag}"
            for (topic, partition), lag in sorted(self.behind.items())
        )
        return f"{self.query_id} lags on {partitions}"


def watch(client: KsqlDbClient, query_ids: Sequence[str]) -> tuple[WatchedQuery, ...]:
    """Look up what queries read and write.

    Raises:
        QueryFailedError: A query is gone or has failed; names it and its error.
        KsqlDbError: The server cannot be asked.
    """
    topics = {stream.name: stream.topic for stream in client.streams()}

    def topics_of(names: Sequence[str]) -> tuple[str, ...]:
        # What is not a stream is a table.
        return tuple(topics.get(name) or client.describe(name).topic for name in names)

    return tuple(
        WatchedQuery(
            id=query.id,
            group=query.consumer_group_id
            or f"_confluent-ksql-{client.info().ksql_service_id}query_{query.id}",
            source_topics=topics_of(query.sources),
            sink_topics=topics_of(query.sinks),
        )
        for query in check_queries(client, query_ids)
    )


def check_queries(client: KsqlDbClient, query_ids: Sequence[str]) -> list[QueryDescription]:
    """Return what the server knows of queries, all of which work.

    Raises:
        QueryFailedError: One is gone or has failed.
    """
    found = {query.id: query for query in client.query_descriptions()}
    for query_id in query_ids:
        if query_id not in found:
            raise QueryFailedError(
                f"query {query_id} is gone (terminated or dropped)",
                address=client.address,
                next_step="Deploy the streams again; the plan says what is to be done about it.",
            )
        if errors := found[query_id].query_errors:
            raise QueryFailedError(
                f"query {query_id} has failed: {errors[-1].summary}", address=client.address
            )
    return [found[query_id] for query_id in query_ids]


class CaughtUp:
    """Follows queries until all have handled what was there, sources before what reads them.

    For queries that read what no other query of the list writes, the ends are those of the
    moment of construction or of `targets`; for the others, those of the moment when everything
    upstream has caught up: only then is all of it in their sources.

    Args:
        client: Who asks the server.
        kafka: Settings of the Kafka client.
        queries: What `watch` returned.
        targets: Ends captured before, by query id (see `targets`), to go on with.
    """

    def __init__(
        self,
        client: KsqlDbClient,
        kafka: ClientConfig,
        queries: Sequence[WatchedQuery],
        targets: Mapping[str, Offsets] | None = None,
    ) -> None:
        self._client = client
        self._kafka = kafka
        self._waiting = {query.id: query for query in queries}
        self.targets: dict[str, Offsets] = dict(targets or {})
        self.lags: tuple[Lag, ...] = ()
        self._capture_targets()

    def check(self) -> bool:
        """Look once.

        Returns:
            True when all queries have caught up; if False, `lags` says how far they are.

        Raises:
            QueryFailedError: A query is gone or has failed.
            OffsetsLostError: Records were deleted before a query had handled them.
            BrokerUnavailableError: Kafka does not answer.
        """
        check_queries(self._client, list(self._waiting))
        progress = True
        while self._waiting and progress:
            done, self.lags = self._look()
            for query_id in done:
                del self._waiting[query_id]
            # What is caught up may have freed others, which need not wait for the next look.
            progress = bool(done)
            self._capture_targets()
        return not self._waiting

    def _capture_targets(self) -> None:
        from kafka_io import high_watermarks

        ready = {
            query.id: query
            for query in self._waiting.values()
            if query.id not in self.targets and not self._upstream_of(query)
        }
        topics = {topic for query in ready.values() for topic in query.source_topics}
        if not topics:
            return
        ends = high_watermarks(self._kafka, sorted(topics))
        for query in ready.values():
            self.targets[query.id] = {
                partition: end
                for partition, end in ends.items()
                if partition[0] in query.source_topics
            }

    def _upstream_of(self, query: WatchedQuery) -> bool:
        return any(
            set(other.sink_topics) & set(query.source_topics)
            for other in self._waiting.values()
            if other.id != query.id
        )

    def _look(self) -> tuple[list[str], tuple[Lag, ...]]:
        from kafka_io import is_covered

        done: list[str] = []
        lags: list[Lag] = []
        # Queries that stand at the same offsets of the same topic share one answer.
        answers: dict[str, bool] = {}
        queries = [query for query in self._waiting.values() if query.id in self.targets]
        for query, committed in zip(queries, self._committed(queries), strict=True):
            end = self.targets[query.id]
            behind = {
                partition: target - committed.get(partition, 0)
                for partition, target in end.items()
                if committed.get(partition, 0) < target
            }
            question = str(sorted(behind.items()))
            if behind and question not in answers:
                answers[question] = is_covered(self._kafka, committed, end)
            if not behind or answers[question]:
                done.append(query.id)
            else:
                lags.append(Lag(query.id, behind))
        return done, tuple(lags)

    def _committed(self, queries: Sequence[WatchedQuery]) -> list[Offsets]:
        """Ask for all groups at the same time: each question is mostly waiting."""
        from kafka_io import committed_offsets

        def ask(query: WatchedQuery) -> Offsets:
            # Not waiting for a commit on its way only makes a query look later than it is.
            return committed_offsets(self._kafka, query.group, query.source_topics, stable=False)

        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            return list(pool.map(ask, queries))


class CatchUpTimeoutError(KsqlDbError):
    """Queries had not caught up in time; says which, where and by how much."""

    retryable = True
    next_step = "Look at the server's log and at EXPLAIN of the query."

    def __init__(self, lags: Sequence[Lag], timeout_s: float, address: str) -> None:
        shown = "; ".join(str(lag) for lag in lags) or "nothing is known yet"
        super().__init__(
            f"not caught up and no nearer to it for {timeout_s:.0f} s: {shown}", address=address
        )
