"""What the routing SQL says, in a form that a second engine can check.

The SQL files are the only place where routing is written. ksqlDB runs them; reconciliation runs
the same conditions again in DuckDB, over the same records, and compares. A run is judged by the
files as they were when it was planned; its plan holds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ksqldb_provider.sql import (
    Definition,
    SqlError,
    Statement,
    StatementKind,
    parse_statement,
    tokenize,
)

# Of sqlglot's dialects, one that takes identifiers in backquotes and in double quotes, as ksqlDB.
_DIALECT = "sqlite"
_PSEUDO_COLUMNS = ("ROWTIME", "ROWPARTITION", "ROWOFFSET")
_JSON_PATH = re.compile(r"\$(?:\.[A-Za-z_]\w*|\[\d+\])+", re.ASCII)
_FALSE = "FALSE"

IS_JSON = "IS_JSON"
"""Column of a raw stream's rows: whether ksqlDB takes the text for JSON."""

JSON_KEYS = "JSON_KEYS"
"""Column of a raw stream's rows: the object's names, NULL for what is no object."""


class RoutingSqlError(ValueError):
    """A routing statement cannot be checked; the message names the file and the construct."""

    retryable = False


@dataclass(frozen=True)
class Predicate:
    """A WHERE condition as a DuckDB expression that is TRUE or FALSE, never NULL.

    Attributes:
        sql: The expression over double-quoted columns.
        columns: The columns that it reads. Of a raw stream also `IS_JSON`, `JSON_KEYS` and JSON
            paths (`$.grado`), each holding what EXTRACTJSONFIELD gives for it.
    """

    sql: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """One `CREATE STREAM … AS SELECT`: who reads which topic and writes which."""

    source_topic: str
    sink_topic: str
    predicate: Predicate
    file: str


@dataclass(frozen=True)
class Routes:
    """The routing table, in deployment order.

    Attributes:
        source_topic: What the raw source stream reads.
        source_columns: That stream's key column and text column.
        routes: Who reads which topic and writes which.
    """

    source_topic: str
    source_columns: tuple[str, str]
    routes: tuple[Route, ...]

    def reading(self, topic: str) -> tuple[Route, ...]:
        """Return the routes that read the topic."""
        return tuple(route for route in self.routes if route.source_topic == topic)

    @property
    def sinks(self) -> tuple[str, ...]:
        """The topics that the SQL writes."""
        return tuple(route.sink_topic for route in self.routes)


def load_routes(sql: Mapping[str, str]) -> Routes:
    """Read the routing table from SQL files, in the order of their names.

    Args:
        sql: Text by file name, one statement a file; a run's is in its plan.

    Raises:
        RoutingSqlError: A file holds something other than the one raw source stream or a
            `CREATE STREAM … AS SELECT … FROM <stream> WHERE …` whose condition can be checked.
    """
    streams: dict[str, _Stream] = {}
    routes: list[Route] = []
    raw: _Stream | None = None
    for file, text in sorted(sql.items()):
        statement, definition = _parse(file, text)
        if statement.kind is StatementKind.CREATE_SOURCE:
            if raw is not None:
                raise RoutingSqlError(
                    f"{file}: a second source stream. Two streams over a topic disagree about "
                    "which records exist; route everything from the first one."
                )
            raw = streams[statement.name] = _source_stream(file, definition)
            continue
        source = _source_of(file, definition, streams)
        routes.append(
            Route(
                source_topic=source.topic,
                sink_topic=statement.sink_topic,
                predicate=_predicate(file, statement, source),
                file=file,
            )
        )
        columns = _columns_out(definition, source)
        streams[statement.name] = _Stream(statement.topic, columns, is_raw=False)
    if raw is None or not routes:
        raise RoutingSqlError(
            f"The routing SQL has {len(sql)} file(s), {len(routes)} of them routes; expected one "
            "source stream and at least one CREATE STREAM … AS SELECT."
        )
    key, text_column = raw.columns
    return Routes(raw.topic, (key, text_column), tuple(routes))


class _Term(NamedTuple):
    """An expression's value in DuckDB, and when ksqlDB's evaluation would throw instead."""

    sql: str
    error: str = _FALSE
    can_be_null: bool = False


@dataclass(frozen=True)
class _Stream:
    topic: str
    columns: tuple[str, ...]
    is_raw: bool


def _parse(file: str, text: str) -> tuple[Statement, Definition]:
    try:
        statement = parse_statement(text, path=Path(file))
    except SqlError as error:
        raise RoutingSqlError(str(error)) from error
    if statement.definition is None or statement.definition.object_type != "STREAM":
        raise RoutingSqlError(f"{file}: routing files hold CREATE STREAM statements only.")
    return statement, statement.definition


def _source_stream(file: str, definition: Definition) -> _Stream:
    properties = definition.properties
    format_ = properties.get("VALUE_FORMAT", properties.get("FORMAT"))
    if format_ != "KAFKA" or len(definition.columns) != 2:
        raise RoutingSqlError(
            f"{file}: the source stream must be the raw text, (key VARCHAR KEY, text VARCHAR) with "
            "VALUE_FORMAT='KAFKA': a typed stream drops records that it cannot read."
        )
    columns = tuple(column.name for column in definition.columns)
    return _Stream(definition.topic, columns, is_raw=True)


def _source_of(file: str, definition: Definition, streams: Mapping[str, _Stream]) -> _Stream:
    if definition.clauses:
        raise RoutingSqlError(
            f"{file}: the query must read one stream, with or without WHERE; it has also "
            f"{', '.join(definition.clauses)}."
        )
    name = next(iter(definition.sources), "nothing")
    if name not in streams:
        raise RoutingSqlError(
            f"{file}: reads {name}, which no earlier file creates. The streams so far: "
            f"{', '.join(streams) or 'none'}."
        )
    return streams[name]


def _predicate(file: str, statement: Statement, source: _Stream) -> Predicate:
    condition = _condition(statement)
    if condition is None:
        return Predicate("TRUE", ())
    translator = _Translator(file, source)
    truth = translator.truth(condition)
    sql = truth.sql
    if truth.error != _FALSE:
        # ksqlDB drops a row whose condition throws.
        sql = f"CASE WHEN {truth.error} THEN FALSE ELSE {truth.sql} END"
    return Predicate(sql, tuple(sorted(translator.columns)))


def _condition(statement: Statement) -> exp.Expression | None:
    where = dropwhile(lambda token: not token.is_word("WHERE"), tokenize(statement.text))
    words = takewhile(lambda token: not (token.is_word("EMIT") or token.is_symbol(";")), where)
    text = " ".join(token.text for token in words)
    if not text:
        return None
    try:
        select = sqlglot.parse_one(f"SELECT 1 {text}", read=_DIALECT)
    except SqlglotError as error:
        raise RoutingSqlError(f"{statement.path}: cannot read {text!r}: {error}") from error
    condition: exp.Expression = select.args["where"].this
    return condition


def _columns_out(definition: Definition, source: _Stream) -> tuple[str, ...]:
    names: list[str] = []
    for name, _ in definition.select:
        names += source.columns if name == "*" else (name,)
    return tuple(names)


def _name(identifier: Any) -> str:
    name = str(identifier.name)
    return name if identifier.args.get("quoted") else name.upper()


def _either(*errors: str) -> str:
    real = [error for error in dict.fromkeys(errors) if error != _FALSE]
    if not real:
        return _FALSE
    return real[0] if len(real) == 1 else f"({' OR '.join(real)})"


@dataclass
class _Translator:
    """Turns a ksqlDB condition into DuckDB's, keeping ksqlDB's logic.

    A comparison with NULL is FALSE there, not NULL: `x <> 'A'` drops a missing x, `NOT (x = 'A')`
    and `x NOT IN ('A')` keep it. AND, OR and CASE stop at the first operand that decides; a
    function that throws before that drops the row.
    """

    file: str
    source: _Stream
    columns: set[str] = field(default_factory=set)

    def truth(self, node: exp.Expression) -> _Term:
        """Translate a condition; its value is never NULL where there is no error."""
        if isinstance(node, exp.Paren):
            return self.truth(node.this)
        if isinstance(node, exp.And | exp.Or):
            return self._junction(node)
        if isinstance(node, exp.Not):
            inner = self.truth(node.this)
            return _Term(f"(NOT {inner.sql})", inner.error)
        if isinstance(node, exp.EQ | exp.NEQ):
            left, right = self.value(node.this), self.value(node.expression)
            sign = "=" if isinstance(node, exp.EQ) else "<>"
            return _Term(
                f"COALESCE({left.sql} {sign} {right.sql}, FALSE)",
                _either(left.error, right.error),
            )
        if isinstance(node, exp.In) and node.expressions:
            value = self.value(node.this)
            items = [self.value(item) for item in node.expressions]
            # Item by item: one NULL in the list must not make the others unknown.
            tests = " OR ".join(f"COALESCE({value.sql} = {item.sql}, FALSE)" for item in items)
            if all(isinstance(item, exp.Literal) for item in node.expressions):
                listed = ", ".join(item.sql for item in items)
                tests = f"COALESCE({value.sql} IN ({listed}), FALSE)"
            return _Term(f"({tests})", _either(value.error, *(i.error for i in items)))
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            value = self.value(node.this)
            return _Term(f"({value.sql} IS NULL)", value.error)
        value = self.value(node)
        if not value.can_be_null:
            return value
        # A condition without a value throws there; it never happens to the ones above.
        return _Term(
            f"COALESCE({value.sql}, FALSE)", _either(value.error, f"({value.sql} IS NULL)")
        )

    def value(self, node: exp.Expression) -> _Term:
        """Translate an expression that may be NULL."""
        if isinstance(node, exp.Paren):
            return self.value(node.this)
        if isinstance(node, exp.Literal | exp.Boolean):
            return _Term(node.sql(dialect="duckdb"))
        if isinstance(node, exp.Null):
            return _Term("NULL", can_be_null=True)
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Case):
            return self._case(node)
        if isinstance(node, exp.Coalesce):
            terms = [self.value(item) for item in (node.this, *node.expressions)]
            listed = ", ".join(term.sql for term in terms)
            return _Term(
                f"COALESCE({listed})",
                _either(*(term.error for term in terms)),
                can_be_null=all(term.can_be_null for term in terms),
            )
        if isinstance(node, exp.JSONKeys):
            self._raw_text(node.this, "JSON_KEYS")
            return _Term(self._use(JSON_KEYS), self._not_json(node.this), can_be_null=True)
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        if isinstance(node, exp.And | exp.Or | exp.Not | exp.EQ | exp.NEQ | exp.In | exp.Is):
            return self.truth(node)
        for kind, function in ((exp.Upper, "upper"), (exp.Lower, "lower"), (exp.Trim, "trim")):
            if isinstance(node, kind) and not any(v for k, v in node.args.items() if k != "this"):
                value = self.value(node.this)
                return _Term(f"{function}({value.sql})", value.error, value.can_be_null)
        raise self._refuse(node)

    def _junction(self, node: exp.And | exp.Or) -> _Term:
        left, right = self.truth(node.this), self.truth(node.expression)
        word = "AND" if isinstance(node, exp.And) else "OR"
        reached = left.sql if word == "AND" else f"NOT {left.sql}"
        later = _FALSE if right.error == _FALSE else f"({reached} AND {right.error})"
        return _Term(f"({left.sql} {word} {right.sql})", _either(left.error, later))

    def _case(self, node: exp.Case) -> _Term:
        if node.this is not None:
            raise self._refuse(node)
        values, errors = [], []
        can_be_null = node.args.get("default") is None
        for branch in node.args["ifs"]:
            test, value = self.truth(branch.this), self.value(branch.args["true"])
            values.append(f"WHEN {test.sql} THEN {value.sql}")
            if test.error != _FALSE:
                errors.append(f"WHEN {test.error} THEN TRUE")
            errors.append(f"WHEN {test.sql} THEN {value.error}")
            can_be_null |= value.can_be_null
        last = node.args.get("default")
        default = _Term("NULL") if last is None else self.value(last)
        can_be_null |= default.can_be_null
        throws = any(not error.endswith(f"THEN {_FALSE}") for error in errors)
        error = _FALSE
        if throws or default.error != _FALSE:
            error = f"CASE {' '.join(errors)} ELSE {default.error} END"
        return _Term(f"CASE {' '.join(values)} ELSE {default.sql} END", error, can_be_null)

    def _column(self, node: exp.Column) -> _Term:
        name = _name(node.this)
        if name not in self.source.columns and name not in _PSEUDO_COLUMNS:
            raise RoutingSqlError(
                f"{self.file}: unknown column {name}; the stream has "
                f"{', '.join(self.source.columns)}."
            )
        return _Term(self._use(name), can_be_null=name not in _PSEUDO_COLUMNS)

    def _function(self, node: exp.Anonymous) -> _Term:
        name, arguments = str(node.this).upper(), node.expressions
        if name == "IS_JSON_STRING" and len(arguments) == 1:
            self._raw_text(arguments[0], name)
            return _Term(self._use(IS_JSON))
        if name == "EXTRACTJSONFIELD" and len(arguments) == 2:
            self._raw_text(arguments[0], name)
            path = arguments[1]
            if not isinstance(path, exp.Literal) or not _JSON_PATH.fullmatch(path.name):
                raise self._refuse(node)
            return _Term(self._use(path.name), self._not_json(arguments[0]), can_be_null=True)
        raise self._refuse(node)

    def _raw_text(self, node: exp.Expression, function: str) -> None:
        if not (
            self.source.is_raw
            and isinstance(node, exp.Column)
            and _name(node.this) == self.source.columns[1]
        ):
            raise RoutingSqlError(
                f"{self.file}: {function} is checked only on the text column of the source "
                f"stream, not on {node.sql()}."
            )

    def _not_json(self, text: exp.Expression) -> str:
        return f"({self._use(_name(text.this))} IS NOT NULL AND NOT {self._use(IS_JSON)})"

    def _use(self, column: str) -> str:
        self.columns.add(column)
        return '"' + column.replace('"', '""') + '"'

    def _refuse(self, node: exp.Expression) -> RoutingSqlError:
        return RoutingSqlError(
            f"{self.file}: reconciliation cannot check {node.sql(dialect=_DIALECT)!r}. It knows "
            "AND, OR, NOT, =, <>, IN, IS NULL, CASE WHEN, COALESCE, UCASE, LCASE, TRIM, "
            "IS_JSON_STRING, JSON_KEYS and EXTRACTJSONFIELD(text, '$.field'); write the condition "
            "with these or add the construct to emergencias.routes."
        )
