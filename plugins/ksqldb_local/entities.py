"""The JSON entities of the REST API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ksqldb_local.metastore import PersistentQuery, Stream
from ksqldb_local.types import PSEUDO_COLUMNS, Schema, identifier


def stream(item: Stream) -> dict[str, Any]:
    """Return a stream as SHOW STREAMS lists it."""
    return {
        "type": "STREAM",
        "name": item.name,
        "topic": item.topic,
        "keyFormat": item.key_format,
        "valueFormat": item.value_format,
        "isWindowed": False,
    }


def running_query(query: PersistentQuery) -> dict[str, Any]:
    """Return a query as SHOW QUERIES lists it."""
    return {
        "queryString": query.text,
        "sinks": [query.sink],
        "sinkKafkaTopics": [query.sink_topic],
        "id": query.id,
        "statusCount": {query.status: 1},
        "queryType": "PERSISTENT",
        "state": "RUNNING",
    }


def push_query(query_id: str, text: str) -> dict[str, Any]:
    """Return an open push query as SHOW QUERIES lists it."""
    return {
        "queryString": text,
        "sinks": [],
        "sinkKafkaTopics": [],
        "id": query_id,
        "statusCount": {"RUNNING": 1},
        "queryType": "PUSH",
        "state": "RUNNING",
    }


def current_status(
    text: str, command_id: str, status: dict[str, Any], sequence_number: int
) -> dict[str, Any]:
    """Return the answer to a statement that went into the command log."""
    return {
        "@type": "currentStatus",
        "statementText": text,
        "commandId": command_id,
        "commandStatus": status,
        "commandSequenceNumber": sequence_number,
        "warnings": [],
    }


def topology(query: PersistentQuery) -> str:
    """Return the steps as Kafka Streams describes them (node names as of 7.6)."""
    last = 4 if query.select.where is not None else 3
    steps = ["KSTREAM-SOURCE-0000000000", "KSTREAM-TRANSFORMVALUES-0000000001"]
    if query.select.where is not None:
        steps.append("WhereFilter")
    steps += ["Project", f"KSTREAM-SINK-{last:010d}"]
    lines = ["Topologies:", "   Sub-topology: 0"]
    for index, step in enumerate(steps):
        if index == 0:
            lines.append(f"    Source: {step} (topics: [{query.reads.topic}])")
        elif index == len(steps) - 1:
            lines.append(f"    Sink: {step} (topic: {query.sink_topic})")
        else:
            lines.append(f"    Processor: {step} (stores: [])")
        if index < len(steps) - 1:
            lines.append(f"      --> {steps[index + 1]}")
        if index > 0:
            lines.append(f"      <-- {steps[index - 1]}")
    return "\n".join(lines) + "\n\n"


def execution_plan(query: PersistentQuery) -> str:
    """Return the plan as EXPLAIN shows it."""
    source = query.reads.schema
    keys = "".join(f", {identifier(c.name)} {c.type}" for c in source.key)
    pseudo = ", ".join(f"{n} {t}" for n, t in PSEUDO_COLUMNS.items())
    read = f"{source.text(quote_all=False)}, {pseudo}{keys}"
    sink = query.sink_schema.text(quote_all=False)
    steps = [("SINK", sink, query.sink), ("PROJECT", sink, "Project")]
    if query.select.where is not None:
        steps.append(("FILTER", read, "WhereFilter"))
    steps.append(("SOURCE", read, "KsqlTopic.Source"))
    return "".join(
        "\t" * (2 * depth) + f" > [ {name} ] | Schema: {schema} | Logger: {query.id}.{logger}\n"
        for depth, (name, schema, logger) in enumerate(steps)
    )


def query_description(
    query: PersistentQuery,
    *,
    errors: Sequence[dict[str, Any]],
    host: str,
    group: str,
    tasks: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return a query as EXPLAIN describes it."""
    return {
        "id": query.id,
        "statementText": query.text,
        "windowType": None,
        "fields": [c.entity() for c in query.sink_schema.columns],
        "sources": [query.source],
        "sinks": [query.sink],
        "topology": topology(query),
        "executionPlan": execution_plan(query),
        "overriddenProperties": dict(query.overrides),
        "ksqlHostQueryStatus": {host: query.status},
        "queryType": "PERSISTENT",
        "queryErrors": list(errors),
        "tasksMetadata": list(tasks),
        "consumerGroupId": group,
        "state": "RUNNING",
    }


def source_description(
    item: Stream,
    *,
    readers: Iterable[PersistentQuery],
    writers: Iterable[PersistentQuery],
    dependants: Sequence[str],
    partitions: int,
    replication: int,
    extended: bool,
    statistics: str,
    offset_summaries: Sequence[dict[str, Any]],
    cluster_statistics: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return a stream as DESCRIBE describes it."""
    schema: Schema = item.schema
    return {
        "name": item.name,
        "windowType": None,
        "readQueries": [running_query(q) for q in readers],
        "writeQueries": [running_query(q) for q in writers],
        "fields": [c.entity() for c in schema.columns],
        "type": "STREAM",
        "timestamp": "",
        "statistics": statistics,
        "errorStats": "",
        "extended": extended,
        "keyFormat": item.key_format,
        "valueFormat": item.value_format,
        "topic": item.topic,
        "partitions": partitions,
        "replication": replication,
        "statement": item.text,
        "queryOffsetSummaries": list(offset_summaries),
        "sourceConstraints": list(dependants),
        "clusterStatistics": list(cluster_statistics),
        "clusterErrorStats": [],
    }
