"""What the parser makes of a statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from ksqldb_local.types import Schema

Properties = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Statement:
    """Any statement: ``text`` is how it was written, up to and with its semicolon."""

    text: str


@dataclass(frozen=True, slots=True)
class SelectItem:
    """One expression of a SELECT and where it starts; ``expression`` None is ``*``."""

    expression: exp.Expression | None
    alias: str | None
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT over one stream."""

    items: tuple[SelectItem, ...]
    source: str
    alias: str
    where: exp.Expression | None
    partition_by: tuple[exp.Expression, ...]
    emit_changes: bool
    limit: int | None


@dataclass(frozen=True, slots=True)
class CreateSource(Statement):
    """CREATE STREAM (or TABLE) over a topic."""

    kind: str
    name: str
    schema: Schema
    properties: Properties
    or_replace: bool
    if_not_exists: bool


@dataclass(frozen=True, slots=True)
class CreateAsSelect(Statement):
    """CREATE STREAM ... AS SELECT."""

    name: str
    properties: Properties
    select: Select
    or_replace: bool
    if_not_exists: bool


@dataclass(frozen=True, slots=True)
class InsertInto(Statement):
    """INSERT INTO ... SELECT."""

    name: str
    properties: Properties
    select: Select


@dataclass(frozen=True, slots=True)
class InsertValues(Statement):
    """INSERT INTO ... VALUES; ``columns`` empty are all of the stream's."""

    name: str
    columns: tuple[str, ...]
    values: tuple[exp.Expression, ...]


@dataclass(frozen=True, slots=True)
class Query(Statement):
    """A SELECT of its own (push or pull query)."""

    select: Select


@dataclass(frozen=True, slots=True)
class DropSource(Statement):
    """DROP STREAM or TABLE."""

    kind: str
    name: str
    if_exists: bool
    delete_topic: bool


@dataclass(frozen=True, slots=True)
class QueryCommand(Statement):
    """TERMINATE, PAUSE or RESUME; ``query_id`` None is ALL."""

    action: str
    query_id: str | None


@dataclass(frozen=True, slots=True)
class Show(Statement):
    """SHOW or LIST of ``what``: STREAMS, QUERIES, TOPICS...; ``every``: hidden ones too."""

    what: str
    extended: bool
    every: bool


@dataclass(frozen=True, slots=True)
class Describe(Statement):
    """DESCRIBE of a stream."""

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Explain(Statement):
    """EXPLAIN of a query id."""

    query_id: str


@dataclass(frozen=True, slots=True)
class SetProperty(Statement):
    """SET, or UNSET when ``value`` is None."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Define(Statement):
    """DEFINE of a variable, or UNDEFINE when ``value`` is None."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Print(Statement):
    """PRINT of a topic, which /ksql refuses as it refuses a query."""


@dataclass(frozen=True, slots=True)
class Unsupported(Statement):
    """A statement that ksqlDB knows and this engine does not run."""

    what: str
