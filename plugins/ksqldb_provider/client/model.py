"""What a ksqlDB server answers, typed. Fields that we do not use are ignored."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Answer(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


class ServerInfo(_Answer):
    """Who the server is; `server_status` is RUNNING once it serves requests."""

    version: str
    kafka_cluster_id: str
    ksql_service_id: str
    server_status: str | None = None


class HealthDetail(_Answer):
    """Health of one part of the server."""

    is_healthy: bool


class Health(_Answer):
    """Health of the server: the HTTP status is 200 also when it is not healthy."""

    is_healthy: bool
    details: dict[str, HealthDetail] = Field(default_factory=dict)
    server_state: str | None = None


class CommandStatus(_Answer):
    """How far a statement is: QUEUED, PARSING, EXECUTING, then SUCCESS, ERROR or TERMINATED."""

    status: str
    message: str = ""
    query_id: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the status will not change any more."""
        return self.status in ("SUCCESS", "ERROR", "TERMINATED")


class CommandResult(_Answer):
    """The answer to a statement that changes something.

    `command_sequence_number` goes into the next request, so that whichever server gets it has
    executed this statement first.
    """

    statement_text: str = ""
    command_id: str
    command_status: CommandStatus
    command_sequence_number: int | None = None


class StatementResult(_Answer):
    """The answer to any statement.

    Attributes:
        type: What kind of answer it is, like `currentStatus` or `streams`; empty for an INSERT.
        entity: The answer as it came.
        command: How a statement that changes something went.
    """

    type: str = ""
    entity: dict[str, Any] = Field(default_factory=dict)
    command: CommandResult | None = None


class Query(_Answer):
    """A running query, as lists show it; `state` says RUNNING even for a failed one."""

    id: str
    query_string: str
    query_type: str = ""
    state: str | None = None
    status_count: dict[str, int] = Field(default_factory=dict)
    sinks: tuple[str, ...] = ()
    sink_kafka_topics: tuple[str, ...] = ()

    @property
    def is_paused(self) -> bool:
        """Whether somebody paused it (the state does not show it)."""
        return "PAUSED" in self.status_count


class FieldDescription(_Answer):
    """A column; `type` is KEY for key columns."""

    name: str
    data_type: dict[str, Any] = Field(alias="schema")
    type: str | None = None

    @property
    def is_key(self) -> bool:
        """Whether it comes from the record's key."""
        return self.type == "KEY"


class SourceDescription(_Answer):
    """A stream or table, as DESCRIBE shows it."""

    name: str
    type: str
    topic: str
    statement: str = ""
    key_format: str = ""
    value_format: str = ""
    fields: tuple[FieldDescription, ...] = ()
    read_queries: tuple[Query, ...] = ()
    write_queries: tuple[Query, ...] = ()
    source_constraints: tuple[str, ...] = ()


class QueryError(_Answer):
    """Why a query failed."""

    error_message: str = ""
    type: str = ""

    @property
    def summary(self) -> str:
        """Return the first line of the Java stack trace."""
        return self.error_message.strip().split("\n", 1)[0]


class QueryDescription(_Answer):
    """A persistent query, as EXPLAIN shows it; only `query_errors` tells that it has failed."""

    id: str
    statement_text: str
    sources: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    state: str | None = None
    ksql_host_query_status: dict[str, str] = Field(default_factory=dict)
    query_errors: tuple[QueryError, ...] = ()
    overridden_properties: dict[str, Any] = Field(default_factory=dict)
    consumer_group_id: str | None = None

    @property
    def states(self) -> frozenset[str]:
        """Its states on the servers that have it."""
        return frozenset(self.ksql_host_query_status.values()) or frozenset({self.state or ""})

    @property
    def is_running(self) -> bool:
        """Whether it runs on every server that has it and has not failed."""
        return self.states == {"RUNNING"} and not self.query_errors


class Source(_Answer):
    """A stream or a table, as SHOW STREAMS and SHOW TABLES list it."""

    name: str
    topic: str
    key_format: str = ""
    value_format: str = ""
