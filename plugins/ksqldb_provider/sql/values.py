"""Values and names put into SQL: quoted, or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.tokens import Token, TokenKind, tokenize


def literal(value: Any) -> str:
    """Return a value as SQL: text is quoted, a list becomes `(a, b)` as IN wants it.

    Args:
        value: None, bool, int, float, Decimal, str, or a list or tuple of these.

    Raises:
        SqlError: There is no way to write it that means the same.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case str() if "\0" not in value:
            return "'" + value.replace("'", "''") + "'"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            # An exponent makes it a DOUBLE; without one ksqlDB would read a DECIMAL.
            return f"{value!r}E0" if "e" not in repr(value) else repr(value)
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case list() | tuple() if value and not any(isinstance(v, list | tuple) for v in value):
            return f"({', '.join(literal(item) for item in value)})"
    raise SqlError(
        f"{value!r} ({type(value).__name__}) cannot be put into SQL: give text, a number, a truth "
        "value, None, or a list of these that is not empty"
    )


def identifier(name: str) -> str:
    """Return a name, as ksqlDB keeps it, in backquotes: `my stream` cannot be read otherwise.

    Raises:
        SqlError: It is empty.
    """
    if not name or "\0" in name:
        raise SqlError(f"{name!r} is not a name")
    return "`" + name.replace("`", "``") + "`"


def name_of(text: str) -> str:
    """Return the name that SQL text means: unquoted names are kept in upper case.

    Raises:
        SqlError: It is anything but one name.
    """
    tokens = list(tokenize(text))
    if len(tokens) != 1 or tokens[0].kind not in (TokenKind.WORD, TokenKind.QUOTED):
        raise SqlError(f"{text!r} is not one name; put odd ones into backquotes")
    return tokens[0].value


def without_values(text: str) -> str:
    """Return a statement for logs and messages: what an INSERT would write is left out.

    It may hold what only the topic's readers should see. Other statements, and what cannot be
    read, stay as they are.
    """
    try:
        tokens = list(tokenize(text))
    except SqlError:
        return text
    words = [token.value for token in tokens]
    if words[:2] != ["INSERT", "INTO"] or "VALUES" not in words:
        return text
    return f"{text[: tokens[words.index('VALUES')].end]} (…);"


def bind(text: str, parameters: Mapping[str, Any]) -> str:
    """Put values into SQL where `:name` stands, each written by `literal`.

    Inside strings, quoted names and comments `:name` is left alone.

    Args:
        text: SQL with `:name` for each value.
        parameters: The values by name.

    Raises:
        SqlError: A name without a value, a value without a name, or one that cannot be written.
    """
    parts: list[str] = []
    done = 0
    used: set[str] = set()
    for colon, word in _placeholders(text):
        name = word.text
        if name not in parameters:
            raise SqlError(f"no value is given for :{name}", text=text, position=colon.start)
        try:
            value = literal(parameters[name])
        except SqlError as error:
            raise SqlError(f"parameter {name}: {error.problem}") from error
        parts += [text[done : colon.start], f" {value}"]  # apart, as `--` starts a comment
        done = word.end
        used.add(name)
    if unused := sorted(parameters.keys() - used):
        raise SqlError(f"no :name in the SQL for the parameters {', '.join(unused)}")
    return "".join([*parts, text[done:]])


def _placeholders(text: str) -> list[tuple[Token, Token]]:
    tokens: Sequence[Token] = list(tokenize(text))
    return [
        (colon, word)
        for colon, word in pairwise(tokens)
        if colon.is_symbol(":") and word.kind is TokenKind.WORD and word.start == colon.end
    ]
