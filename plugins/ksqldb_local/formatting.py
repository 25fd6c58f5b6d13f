"""The canonical text of statements: what the server echoes, stores and compares."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from ksqldb_local.errors import UnsupportedError
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    InsertInto,
    InsertValues,
    Properties,
    Select,
)
from ksqldb_local.types import PSEUDO_COLUMNS, Schema, cast_type, identifier, quoted

OPERATORS: Mapping[type[exp.Expression], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
    exp.And: "AND",
    exp.Or: "OR",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
}


def literal(value: str) -> str:
    """Return ``value`` as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def column_name(node: exp.Expression) -> str:
    """Return the name of a column reference: upper case unless it was quoted."""
    name = node.this if isinstance(node, exp.Column) else node
    if not isinstance(name, exp.Identifier):
        raise UnsupportedError(f"The reference {node.sql()}")
    return str(name.this) if name.args.get("quoted") else str(name.this).upper()


def qualifier(node: exp.Column) -> str | None:
    """Return the stream that a column reference names, if it names one."""
    table = node.args.get("table")
    return column_name(table) if isinstance(table, exp.Identifier) else None


def expression_text(
    node: exp.Expression, alias: str | None = None, schema: Schema | None = None
) -> str:
    """Return the canonical text of an expression.

    Args:
        node: The expression.
        alias: Name of the source to qualify columns with; None leaves them bare.
        schema: Columns that exist; others stay bare, so that an error message shows them as
        written.
    """

    def text(inner: exp.Expression) -> str:
        return expression_text(inner, alias, schema)

    if isinstance(node, exp.Paren):
        return text(node.this)
    if isinstance(node, exp.Column):
        name = column_name(node)
        known = schema is None or schema.find(name) or name in PSEUDO_COLUMNS
        return f"{identifier(alias)}.{identifier(name)}" if alias and known else identifier(name)
    if isinstance(node, exp.Literal):
        return literal(node.this) if node.is_string else str(node.this)
    if isinstance(node, exp.Null):
        return "null"
    if isinstance(node, exp.Boolean):
        return "true" if node.this else "false"
    if isinstance(node, exp.Neg):
        inner = text(node.this)
        return f"- {inner}" if inner.startswith("-") else f"-{inner}"
    if isinstance(node, exp.Not):
        if isinstance(node.this, exp.Is) and isinstance(node.this.expression, exp.Null):
            return f"({text(node.this.this)} IS NOT NULL)"
        return f"(NOT {text(node.this)})"
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
        return f"({text(node.this)} IS NULL)"
    if isinstance(node, exp.In):
        values = ", ".join(map(text, node.expressions))
        return f"({text(node.this)} IN ({values}))"
    if isinstance(node, exp.Between):
        return f"({text(node.this)} BETWEEN {text(node.args['low'])} AND {text(node.args['high'])})"
    if isinstance(node, exp.Escape) and isinstance(node.this, exp.Like):
        return _like_text(node.this, text(node.this.this), text(node.this.expression), node)
    if isinstance(node, exp.Like):
        return _like_text(node, text(node.this), text(node.expression), None)
    if isinstance(node, exp.DPipe):
        return f"CONCAT({text(node.this)}, {text(node.expression)})"
    if isinstance(node, exp.Case):
        parts = ["CASE"]
        if node.this is not None:
            parts.append(text(node.this))
        for branch in node.args["ifs"]:
            parts.append(f"WHEN {text(branch.this)} THEN {text(branch.args['true'])}")
        if node.args.get("default") is not None:
            parts.append(f"ELSE {text(node.args['default'])}")
        return "(" + " ".join([*parts, "END"]) + ")"
    if isinstance(node, exp.Cast):
        return f"CAST({text(node.this)} AS {cast_type(node.to) or node.to.sql().upper()})"
    if isinstance(node, exp.Anonymous):
        return f"{str(node.this).upper()}({', '.join(map(text, node.expressions))})"
    operator = OPERATORS.get(type(node))
    if operator is None:
        raise UnsupportedError(f"The expression {node.sql()}")
    return f"({text(node.this)} {operator} {text(node.expression)})"


def _like_text(like: exp.Like, value: str, pattern: str, escape: exp.Escape | None) -> str:
    suffix = f" ESCAPE {literal(escape.expression.this)}" if escape is not None else ""
    text = f"({value} LIKE {pattern}{suffix})"
    return f"(NOT {text})" if like.args.get("negate") else text


def _with(properties: Properties) -> str:
    def value(item: str | int | bool) -> str:
        if isinstance(item, bool):
            return "true" if item else "false"
        return str(item) if isinstance(item, int) else literal(item)

    inner = ", ".join(f"{name}={value(properties[name])}" for name in sorted(properties))
    return f" WITH ({inner})" if properties else ""


def _head(kind: str, name: str, *, or_replace: bool, if_not_exists: bool) -> str:
    return (
        ("CREATE OR REPLACE " if or_replace else "CREATE ")
        + kind
        + (" IF NOT EXISTS " if if_not_exists else " ")
        + identifier(name)
    )


def source_text(
    statement: CreateSource, properties: Properties, *, if_not_exists: bool | None = None
) -> str:
    """Return CREATE STREAM over a topic with ``properties`` in place of the statement's own."""
    head = _head(
        statement.kind,
        statement.name,
        or_replace=statement.or_replace,
        if_not_exists=statement.if_not_exists if if_not_exists is None else if_not_exists,
    )
    columns = f" ({statement.schema.text(quote_all=False)})" if statement.schema.columns else ""
    return f"{head}{columns}{_with(properties)};"


def select_text(select: Select, schema: Schema | None) -> str:
    """Return a SELECT with its columns qualified by the source's name."""
    alias = select.alias
    items = []
    for item in select.items:
        if item.expression is None:
            items.append("*")
        else:
            text = expression_text(item.expression, alias, schema)
            items.append(f"{text} {identifier(item.alias)}" if item.alias else text)
    listing = f" {items[0]}" if len(items) == 1 else "\n  " + ",\n  ".join(items)
    text = f"SELECT{listing}\nFROM {identifier(select.source)} {identifier(alias)}"
    if select.where is not None:
        text += f"\nWHERE {expression_text(select.where, alias, schema)}"
    if select.partition_by:
        keys = ", ".join(expression_text(e, alias, schema) for e in select.partition_by)
        text += f"\nPARTITION BY {keys}"
    # A persistent query always emits changes, also where the statement does not say so.
    return f"{text}\nEMIT CHANGES"


def as_select_text(statement: CreateAsSelect, properties: Properties, schema: Schema | None) -> str:
    """Return CREATE STREAM AS SELECT with ``properties`` in place of the statement's own."""
    head = _head(
        "STREAM",
        statement.name,
        or_replace=statement.or_replace,
        if_not_exists=statement.if_not_exists,
    )
    return f"{head}{_with(properties)} AS {select_text(statement.select, schema)};"


def insert_text(statement: InsertInto, schema: Schema | None) -> str:
    """Return INSERT INTO ... SELECT."""
    head = f"INSERT INTO {identifier(statement.name)}{_with(statement.properties)}"
    return f"{head} {select_text(statement.select, schema)};"


def masked_insert_text(statement: InsertValues) -> str:
    """Return INSERT INTO ... VALUES without its values, which must not get into logs."""
    columns = ", ".join(map(quoted, statement.columns))
    values = ", ".join("'[value]'" for _ in statement.values)
    head = "INSERT INTO " + quoted(statement.name) + (f" ({columns})" if columns else "")
    return f"{head} VALUES ({values});"
