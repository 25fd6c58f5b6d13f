"""SQL types, columns and schemas of streams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp


@dataclass(frozen=True, slots=True)
class SqlType:
    """A SQL type; arrays, maps and structs carry the types they are made of."""

    base: str
    element: SqlType | None = None  # of ARRAY and MAP (whose keys are strings)
    fields: tuple[tuple[str, SqlType], ...] = ()  # of STRUCT
    precision: int = 0  # of DECIMAL
    scale: int = 0

    def __str__(self) -> str:
        return self.text(quote_all=False)

    def text(self, *, quote_all: bool) -> str:
        """Return the type as SQL; ``quote_all`` backquotes the names of all struct fields."""
        if self.base == "ARRAY" and self.element:
            return f"ARRAY<{self.element.text(quote_all=quote_all)}>"
        if self.base == "MAP" and self.element:
            return f"MAP<STRING, {self.element.text(quote_all=quote_all)}>"
        if self.base == "STRUCT":
            name = quoted if quote_all else identifier
            inner = ", ".join(f"{name(n)} {t.text(quote_all=quote_all)}" for n, t in self.fields)
            return f"STRUCT<{inner}>"
        if self.base == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        return self.base

    def entity(self) -> dict[str, Any]:
        """Return the type as the REST API describes it."""
        return {
            "type": self.base,
            "fields": (
                [{"name": n, "schema": t.entity()} for n, t in self.fields]
                if self.base == "STRUCT"
                else None
            ),
            "memberSchema": self.element.entity() if self.element else None,
        }


STRING = SqlType("STRING")
INTEGER = SqlType("INTEGER")
BIGINT = SqlType("BIGINT")
DOUBLE = SqlType("DOUBLE")
BOOLEAN = SqlType("BOOLEAN")
BYTES = SqlType("BYTES")
STRINGS = SqlType("ARRAY", element=STRING)

PRIMITIVES = {
    "STRING": STRING,
    "VARCHAR": STRING,
    "INT": INTEGER,
    "INTEGER": INTEGER,
    "BIGINT": BIGINT,
    "DOUBLE": DOUBLE,
    "BOOLEAN": BOOLEAN,
    "BYTES": BYTES,
}


def cast_type(node: exp.DataType) -> SqlType | None:
    """Return the type that a CAST of the parser names, or nothing if there is none here."""
    name = node.sql().upper()
    return PRIMITIVES.get("STRING" if name == "TEXT" else name)  # sqlglot's word for STRING


PSEUDO_COLUMNS = {"ROWTIME": BIGINT, "ROWPARTITION": INTEGER, "ROWOFFSET": BIGINT}

_PLAIN = re.compile(r"[A-Z_][A-Z0-9_]*\Z")
# Words of ksqlDB's grammar that must be quoted to be names.
_RESERVED = frozenset(
    [
        "AND",
        "AS",
        "BETWEEN",
        "BY",
        "CASE",
        "CAST",
        "CREATE",
        "DELETE",
        "DESCRIBE",
        "DISTINCT",
        "DROP",
        "ELSE",
        "EMIT",
        "END",
        "EXISTS",
        "EXPLAIN",
        "FALSE",
        "FOR",
        "FROM",
        "GROUP",
        "HAVING",
        "IN",
        "INNER",
        "INSERT",
        "INTO",
        "IS",
        "JOIN",
        "LEFT",
        "LIKE",
        "LIMIT",
        "NOT",
        "NULL",
        "ON",
        "OR",
        "ORDER",
        "OUTER",
        "RIGHT",
        "SELECT",
        "STREAM",
        "TABLE",
        "THEN",
        "TRUE",
        "USING",
        "VALUES",
        "WHEN",
        "WHERE",
        "WITH",
        "WITHIN",
    ]
)


def quoted(name: str) -> str:
    """Return ``name`` in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def identifier(name: str) -> str:
    """Return ``name`` as SQL, in backquotes only where it would read as another name without."""
    return name if _PLAIN.match(name) and name not in _RESERVED else quoted(name)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a stream: ``role`` is ``"VALUE"``, ``"KEY"`` or ``"HEADERS"``."""

    name: str
    type: SqlType
    role: str = "VALUE"

    def definition(self, *, quote_all: bool = False) -> str:
        """Return the column as it stands in CREATE STREAM."""
        name = quoted(self.name) if quote_all else identifier(self.name)
        suffix = "" if self.role == "VALUE" else f" {self.role}"
        return f"{name} {self.type.text(quote_all=quote_all)}{suffix}"

    def entity(self) -> dict[str, Any]:
        """Return the column as DESCRIBE shows it."""
        entity: dict[str, Any] = {"name": self.name, "schema": self.type.entity()}
        if self.role != "VALUE":
            entity["type"] = self.role
        return entity


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a stream, key first as declared."""

    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[Column, ...]:
        """The KEY columns."""
        return tuple(c for c in self.columns if c.role == "KEY")

    @property
    def value(self) -> tuple[Column, ...]:
        """The columns that are written into the record's value."""
        return tuple(c for c in self.columns if c.role != "KEY")

    def text(self, *, quote_all: bool = True) -> str:
        """Return the columns as SQL, comma separated."""
        return ", ".join(c.definition(quote_all=quote_all) for c in self.columns)

    def find(self, name: str) -> Column | None:
        """Return the column called ``name``, if there is one."""
        return next((c for c in self.columns if c.name == name), None)
