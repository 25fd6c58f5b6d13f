"""What SHOW, DESCRIBE and EXPLAIN answer: streams, queries and how they are doing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ksqldb_local import entities
from ksqldb_local.errors import StatementError, UnsupportedError
from ksqldb_local.metastore import Metastore, PersistentQuery
from ksqldb_local.router import RouteState
from ksqldb_local.routers import Routers
from ksqldb_local.settings import Settings
from ksqldb_local.statements import Describe, Explain, Show
from ksqldb_local.topics import BrokerTopics
from ksqldb_local.transient import TransientQueries

States = Mapping[str, RouteState]
"""How queries are doing, by id."""


class Descriptions:
    """Describes what there is; changes nothing.

    Args:
        settings: Whose ``listen`` answers show.
        topics: The broker's topics.
        routers: The queries at work.
        transient: The open push queries.
    """

    def __init__(
        self,
        settings: Settings,
        topics: BrokerTopics,
        routers: Routers,
        transient: TransientQueries,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._routers = routers
        self._transient = transient

    def show(
        self, statement: Show, store: Metastore, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return SHOW or LIST.

        Raises:
            UnsupportedError: Of something that this engine does not have.
        """
        if statement.what == "STREAMS":
            if statement.extended:
                states = self._states(store)
                return {
                    "@type": "source_descriptions",
                    "sourceDescriptions": [
                        self._source_description(name, store, states)[0] for name in store.streams
                    ],
                }
            return {
                "@type": "streams",
                "streams": [entities.stream(s) for s in store.streams.values()],
            }
        if statement.what == "TABLES":
            if statement.extended:
                return {"@type": "source_descriptions", "sourceDescriptions": []}
            return {"@type": "tables", "tables": []}
        if statement.what == "QUERIES":
            if statement.extended:
                states = self._states(store)
                return {
                    "@type": "query_descriptions",
                    "queryDescriptions": [
                        self._query_description(q, states.get(q.id)) for q in store.queries.values()
                    ],
                }
            return {
                "@type": "queries",
                "queries": [
                    *(entities.running_query(q) for q in store.queries.values()),
                    *(entities.push_query(q.id, q.text) for q in self._transient.pushing()),
                ],
            }
        if statement.what == "TOPICS":
            if statement.extended:
                raise UnsupportedError("SHOW TOPICS EXTENDED")
            hidden = ("_confluent", "__consumer_offsets", "__transaction_state", "__share")
            return {
                "@type": "kafka_topics",
                "topics": [
                    {"name": name, "replicaInfo": replicas}
                    for name, replicas in sorted(self._topics.names().items())
                    if statement.every or not name.startswith(hidden)
                ],
            }
        if statement.what == "VARIABLES":
            return {
                "@type": "variables",
                "variables": [{"name": n, "value": v} for n, v in sorted(variables.items())],
            }
        raise UnsupportedError(f"SHOW {statement.what}")

    def describe(self, statement: Describe, store: Metastore) -> dict[str, Any]:
        """Return DESCRIBE.

        Raises:
            StatementError: There is no such stream.
        """
        if statement.name not in store.streams:
            raise StatementError(f"Could not find STREAM/TABLE '{statement.name}' in the Metastore")
        description, warnings = self._source_description(
            statement.name, store, self._states(store) if statement.extended else None
        )
        return {
            "@type": "sourceDescription",
            "sourceDescription": description,
            "warnings": warnings,
        }

    def explain(self, statement: Explain, store: Metastore) -> dict[str, Any]:
        """Return EXPLAIN of a query.

        Raises:
            StatementError: There is no such query.
        """
        query = store.queries.get(statement.query_id)
        if query is None:
            raise StatementError(
                f"Query with id:{statement.query_id} does not exist, use SHOW QUERIES to view the "
                "full set of queries."
            )
        return {
            "@type": "queryDescription",
            "queryDescription": self._query_description(query, self._states(store).get(query.id)),
        }

    def _states(self, store: Metastore) -> States:
        return self._routers.states(store.queries.values())

    def _source_description(
        self, name: str, store: Metastore, states: States | None
    ) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Describe a stream; with the states of the queries EXTENDED."""
        stream = store.streams[name]
        warnings = []
        replicas = self._topics.names().get(stream.topic)
        if replicas is None:
            warnings.append(
                {
                    "message": "Error from Kafka: Failed to Describe Kafka Topic(s): "
                    f"[{stream.topic}]"
                }
            )
        statistics, cluster = (
            self._statistics(name, store, states) if states is not None else ("", [])
        )
        # As a server, which gives up at the missing topic and then shows neither of these.
        shown = replicas is not None
        summaries = (
            [self._offset_summary(q, states.get(q.id)) for q in store.writers(name)]
            if states is not None and shown
            else []
        )
        return (
            entities.source_description(
                stream,
                readers=store.readers(name),
                writers=store.writers(name),
                dependants=store.dependants(name) if shown else [],
                partitions=len(replicas or ()),
                replication=replicas[0] if replicas else 0,
                extended=states is not None,
                statistics=statistics,
                offset_summaries=summaries,
                cluster_statistics=cluster,
            ),
            warnings,
        )

    def _statistics(
        self, name: str, store: Metastore, states: States
    ) -> tuple[str, list[dict[str, Any]]]:
        """Return what the queries wrote to a stream and read from it since they run here."""
        writing = [r for q in store.writers(name) if (r := states.get(q.id)) and r.produced]
        reading = [r for q in store.readers(name) if (r := states.get(q.id)) and r.consumed]
        values: dict[str, float] = {}
        if writing:
            total = sum(r.produced for r in writing)
            values["messages-per-sec"] = total / max(r.age_s for r in writing)
            values["total-messages"] = total
        if reading:
            total = sum(r.consumed for r in reading)
            values["consumer-messages-per-sec"] = total / max(r.age_s for r in reading)
            values["consumer-total-messages"] = total
            values["consumer-total-bytes"] = sum(r.consumed_bytes for r in reading)
        if not values:
            return "", []
        last = max(r.last_ms for r in (*writing, *reading))
        when = datetime.fromtimestamp(last / 1000, UTC).isoformat(timespec="milliseconds")
        listed = " ".join(
            f"{n}: {v:9.2f}" if n.endswith("per-sec") else f"{n}: {v:9.0f}"
            for n, v in values.items()
        )
        text = (
            "The statistics field is deprecated and will be removed in a future version of ksql. "
            "Please update your client to the latest version and use statisticsMap instead.\n"
            f"{listed}     last-message: {when.replace('+00:00', 'Z')}"
        )
        return text, [
            {"name": n, "host": self._settings.listen, "value": float(v), "timestamp": last}
            for n, v in values.items()
        ]

    def _offset_summary(self, query: PersistentQuery, state: RouteState | None) -> dict[str, Any]:
        group = self._routers.group(query.id)
        topic = query.reads.topic
        summaries = []
        partitions = self._topics.partitions(topic)
        committed = self._topics.committed(group, topic, partitions or [])
        if partitions is not None and committed and state is not None and state.consumed:
            starts = self._topics.offsets(topic, partitions, where="earliest")
            ends = self._topics.high_watermarks(topic, partitions)
            summaries.append(
                {
                    "kafkaTopic": topic,
                    "offsets": [
                        {
                            "partition": p,
                            "logStartOffset": starts[p],
                            "logEndOffset": ends[p],
                            "consumerOffset": committed.get(p, 0),
                        }
                        for p in partitions
                    ],
                }
            )
        return {"groupId": group, "topicSummaries": summaries}

    def _query_description(
        self, query: PersistentQuery, state: RouteState | None
    ) -> dict[str, Any]:
        topic = query.reads.topic
        handled = (state.next if state is not None else None) or {}
        tasks = [
            {
                "taskId": f"0_{partition}",
                "topicOffsets": [
                    {
                        "topicPartitionEntity": {"topic": topic, "partition": partition},
                        "endOffset": handled.get(partition, -1),
                        "committedOffset": handled.get(partition, -1),
                    }
                ],
                "timeCurrentIdlingStarted": None,
            }
            for partition in self._topics.partitions(topic) or sorted(handled)
        ]
        return entities.query_description(
            query,
            errors=state.errors if state is not None else [],
            host=self._settings.listen,
            group=self._routers.group(query.id),
            tasks=tasks,
        )
