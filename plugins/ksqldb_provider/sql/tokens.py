"""Tokens of ksqlDB SQL: what a file must be cut into before anything can be said about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ksqldb_provider.sql.errors import SqlError

_PATTERN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\r\n]* | /\*.*?\*/)
  | (?P<string>'(?:[^']|'')*')
  | (?P<dollar>\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$)
  | (?P<quoted>`(?:[^`]|``)*` | "(?:[^"]|"")*")
  | (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>(?:[^\W\d]|_)[\w@]*)
  | (?P<variable>\$\{[^}]*\})
  | (?P<symbol>(?!/\*)(?:<>|!=|<=|>=|\|\||->|=>|:=|[-+*/%=<>(),.;:\[\]{}?&|^~!]))
    """,
    re.VERBOSE | re.DOTALL,
)
_UNCLOSED = {
    "'": "a string is not closed: a quote (') is missing",
    "`": "a quoted name is not closed: a backquote (`) is missing",
    '"': 'a quoted name is not closed: a double quote (") is missing',
    "/*": "a comment is not closed: '*/' is missing",
    "$": "a dollar-quoted string is not closed",
}


class TokenKind(Enum):
    """What a token is; comments and white space are dropped."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    SYMBOL = "symbol"
    VARIABLE = "variable"


@dataclass(frozen=True, slots=True)
class Token:
    """One token and where it stands in the text (character offsets, `end` exclusive)."""

    kind: TokenKind
    text: str
    start: int
    end: int

    @property
    def value(self) -> str:
        """What it means: names as ksqlDB keeps them (unquoted: upper case), strings unquoted."""
        match self.kind:
            case TokenKind.WORD:
                return self.text.upper()
            case TokenKind.QUOTED:
                quote = self.text[0]
                return self.text[1:-1].replace(quote * 2, quote)
            case TokenKind.STRING if self.text.startswith("'"):
                return self.text[1:-1].replace("''", "'")
            case TokenKind.STRING:
                tag = self.text[: self.text.index("$", 1) + 1]
                return self.text[len(tag) : -len(tag)]
            case _:
                return self.text

    def is_word(self, *words: str) -> bool:
        """Tell whether this is one of the given keywords (upper case)."""
        return self.kind is TokenKind.WORD and self.text.upper() in words

    def is_symbol(self, symbol: str) -> bool:
        """Tell whether this is the given symbol."""
        return self.kind is TokenKind.SYMBOL and self.text == symbol


def tokenize(text: str) -> Iterator[Token]:
    """Yield the tokens of SQL text, without comments and white space.

    Raises:
        SqlError: Something is not closed or cannot be a token; says line and column.
    """
    position = 0
    while position < len(text):
        match = _PATTERN.match(text, position)
        if match is None:
            rest = text[position:]
            opened = next((mark for mark in _UNCLOSED if rest.startswith(mark)), None)
            raise SqlError(
                _UNCLOSED[opened] if opened else f"{rest[0]!r} is not part of ksqlDB SQL",
                text=text,
                position=position,
            )
        if match["comment"] is None and match["space"] is None:
            kind = "string" if match.lastgroup == "dollar" else match.lastgroup
            yield Token(TokenKind(kind), match[0], position, match.end())
        position = match.end()


def split(text: str) -> tuple[tuple[Token, ...], ...]:
    """Cut SQL text into statements, each with its closing `;`.

    Only a `;` outside strings, quoted names and comments ends a statement; comments after the
    last one belong to none.

    Raises:
        SqlError: The text cannot be read, or the last statement has no `;`.
    """
    statements: list[tuple[Token, ...]] = []
    current: list[Token] = []
    for token in tokenize(text):
        current.append(token)
        if token.is_symbol(";"):
            statements.append(tuple(current))
            current = []
    if current:
        raise SqlError("the statement does not end with ';'", text=text, position=current[-1].end)
    return tuple(statements)
