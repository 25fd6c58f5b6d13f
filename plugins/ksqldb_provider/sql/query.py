"""What a SELECT asks for: rows that are there, or rows as they come."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.tokens import TokenKind, split


@dataclass(frozen=True, slots=True)
class SelectQuery:
    """One SELECT; a push query (EMIT CHANGES) goes on for ever unless it has a LIMIT."""

    text: str
    is_push: bool
    limit: int | None


def parse_query(text: str) -> SelectQuery:
    """Read exactly one SELECT.

    Raises:
        SqlError: It is something else, or more than one statement.
    """
    statements = split(text)
    if len(statements) != 1:
        raise SqlError(f"one SELECT is expected here, not {len(statements)} statements")
    (tokens,) = statements
    if not tokens[0].is_word("SELECT"):
        raise SqlError(
            f"a SELECT is expected here, not {tokens[0].text}", text=text, position=tokens[0].start
        )
    limit = None
    if len(tokens) > 3 and tokens[-3].is_word("LIMIT") and tokens[-2].kind is TokenKind.NUMBER:
        limit = int(tokens[-2].text)
    return SelectQuery(
        text=text[tokens[0].start : tokens[-1].end],
        is_push=any(
            first.is_word("EMIT") and second.is_word("CHANGES", "FINAL")
            for first, second in pairwise(tokens)
        ),
        limit=limit,
    )
