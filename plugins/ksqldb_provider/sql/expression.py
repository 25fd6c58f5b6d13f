"""One canonical form for an expression, whoever wrote it down.

A server does not echo SQL as it was sent: it upper-cases unquoted names, puts the source before
every column and parentheses around every operation. Two texts mean the same expression exactly
when their canonical forms are equal.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ksqldb_provider.sql.errors import SqlError

if TYPE_CHECKING:
    from sqlglot import Dialect, exp

Canonical = tuple[Any, ...] | str
"""Nested tuples; only good for comparing and printing."""

_TYPE_SYNONYMS = {"VARCHAR": "TEXT", "INTEGER": "INT"}


def canonical(text: str, *, sources: frozenset[str] = frozenset()) -> Canonical:
    """Return the canonical form of an expression.

    Args:
        text: The expression, without comments.
        sources: Names (as ksqlDB keeps them) whose qualification says nothing, because there is
            only one source to read from.

    Raises:
        SqlError: It cannot be parsed.
    """
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = _dialect().parser().parse(_dialect().tokenize(f"SELECT {text}"), text)[0]
    except SqlglotError as error:
        raise SqlError(f"cannot read the expression {text!r}: {error}") from error
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1:
        raise SqlError(f"{text!r} is not one expression")
    return _canonical(tree.expressions[0], sources)


@cache
def _dialect() -> Dialect:
    from sqlglot import Dialect, parser, tokens

    class KsqlDb(Dialect):
        class Tokenizer(tokens.Tokenizer):
            IDENTIFIERS = ['"', "`"]  # noqa: RUF012 - sqlglot's own way of configuring

        class Parser(parser.Parser):
            # Every function stays what it is called; sqlglot would merge dialects' synonyms.
            FUNCTIONS = {}  # noqa: RUF012 - see above

    return KsqlDb()


def _canonical(node: Any, sources: frozenset[str]) -> Canonical:
    from sqlglot import exp

    match node:
        case exp.Paren():
            return _canonical(node.this, sources)
        case exp.And() | exp.Or():
            operator = type(node)
            return (operator.__name__, *_operands(node, operator, sources))
        case exp.Identifier():
            return node.name if node.quoted else node.name.upper()
        case exp.Column() if node.args.get("table") is not None:
            table = _canonical(node.args["table"], sources)
            column = _canonical(node.this, sources)
            return ("Column", column) if table in sources else ("Column", table, column)
        case exp.Column():
            return ("Column", _canonical(node.this, sources))
        case exp.DPipe():
            parts = (_canonical(part, sources) for part in (node.this, node.expression))
            return ("Function", "CONCAT", *parts)  # as a server echoes it
        case exp.Like() if node.args.get("negate"):
            return ("Not", ("this", ("Like", *_arguments(node, sources, "negate"))))
        case exp.Anonymous():
            arguments = (_canonical(argument, sources) for argument in node.expressions)
            return ("Function", str(node.this).upper(), *arguments)
        case exp.Literal():
            return ("String" if node.is_string else "Number", str(node.this))
        case exp.DataType():
            name = node.this.name
            return ("Type", _TYPE_SYNONYMS.get(name, name), *_arguments(node, sources, "this"))
        case exp.Expr():
            return (type(node).__name__, *_arguments(node, sources))
        case _:
            return str(node)


def _operands(node: exp.Expr, operator: type[exp.Expr], sources: frozenset[str]) -> list[Canonical]:
    """Flatten `a AND (b AND c)`: grouping within one operator changes nothing."""
    from sqlglot import exp

    if isinstance(node, exp.Paren):
        return _operands(node.this, operator, sources)
    if isinstance(node, operator):
        return [
            *_operands(node.args["this"], operator, sources),
            *_operands(node.args["expression"], operator, sources),
        ]
    return [_canonical(node, sources)]


def _arguments(
    node: exp.Expr, sources: frozenset[str], *left_out: str
) -> list[tuple[str, Canonical]]:
    arguments: list[tuple[str, Canonical]] = []
    for name, value in sorted(node.args.items()):
        if name in left_out or value is None or value is False or value == []:
            continue
        if isinstance(value, list):
            arguments.append((name, tuple(_canonical(item, sources) for item in value)))
        else:
            arguments.append((name, _canonical(value, sources)))
    return arguments
