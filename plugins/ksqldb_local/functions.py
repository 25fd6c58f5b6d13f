"""The functions that expressions may call. Semantics and sources: docs/ksqldb_local.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ksqldb_local.errors import FunctionError
from ksqldb_local.json_text import MISSING, JsonError, JsonPath, parse_text
from ksqldb_local.types import BIGINT, BOOLEAN, INTEGER, STRING, STRINGS, SqlType


class JsonCache:
    """Parses the JSON text of a record once, however many functions look into it.

    A worker has its own: it remembers one text, which is the one of the record in hand.
    """

    def __init__(self) -> None:
        self._text: str | None = None
        self._document: Any = None
        self._error: JsonError | None = None

    def _load(self, text: str) -> None:
        self._text = text
        self._error = None
        try:
            self._document = parse_text(text)
        except JsonError as error:
            self._document = None
            self._error = error

    def document(self, text: str) -> Any:
        """Return the parsed ``text``.

        Raises:
            FunctionError: It is not JSON.
        """
        if text is not self._text:
            self._load(text)
        if self._error is not None:
            raise FunctionError(f"Invalid JSON format:{text}") from self._error
        return self._document

    def is_json_string(self, text: str | None) -> bool:
        """Tell whether ``text`` starts with a JSON value; blank text and NULL do not."""
        if text is None:
            return False
        if text is not self._text:
            self._load(text)
        return self._error is None and self._document is not MISSING

    def extract_json_field(self, text: str | None, path: str | None) -> str | None:
        """Return what ``path`` points at; NULL where there is nothing.

        Raises:
            FunctionError: The text is not JSON or the path cannot be read.
        """
        if text is None or path is None:
            return None
        return self.extract(text, _path(path))

    def extract(self, text: str | None, path: JsonPath) -> str | None:
        """As :meth:`extract_json_field`, the path read once at compile time."""
        if text is None:
            return None
        if text is not self._text:
            self._load(text)
        if self._error is not None:
            raise FunctionError(f"Invalid JSON format:{text}") from self._error
        return path.extract(text, self._document)

    def extract_name(self, text: str | None, name: str, path: JsonPath) -> str | None:
        """As :meth:`extract` for ``$.name``: the common case, without the general walk."""
        if text is None:
            return None
        if text is not self._text:
            self._load(text)
        document = self._document
        if type(document) is dict:
            value = document.get(name, MISSING)
            if type(value) is str:
                return value
            if value is MISSING:
                return None
        return self.extract(text, path)

    def json_keys(self, text: str | None) -> list[str] | None:
        """Return the names of a JSON object; NULL for NULL and for any other JSON value.

        Raises:
            FunctionError: The text is not JSON.
        """
        if text is None:
            return None
        document = self.document(text)
        return list(document) if isinstance(document, dict) else None

    def json_array_length(self, text: str | None) -> int | None:
        """Return the length of a JSON array; NULL for NULL and for any other JSON value.

        Raises:
            FunctionError: The text is not JSON.
        """
        if text is None:
            return None
        document = self.document(text)
        return len(document) if isinstance(document, list) else None


@lru_cache(maxsize=256)
def _path(path: str) -> JsonPath:
    try:
        return JsonPath(path)
    except ValueError as error:
        raise FunctionError(str(error)) from error


def coalesce(*values: Any) -> Any:
    """Return the first value that is not NULL."""
    return next((v for v in values if v is not None), None)


def _null_in_null_out(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any) -> Any:
        return None if any(v is None for v in values) else function(*values)

    return checked


def concat(*values: str | None) -> str:
    """Join the texts, leaving out NULLs."""
    return "".join(v for v in values if v is not None)


_WHITESPACE = "".join(map(chr, range(33)))  # what Java's String.trim removes


def substring(text: str | None, start: int | None, length: int | None = 2**31) -> str | None:
    """Return a part of ``text``; positions count from 1, negative ones from the end."""
    if text is None or start is None or length is None:
        return None
    # Java counts UTF-16 units, so a character beyond the basic plane counts twice.
    units = text.encode("utf-16-le", "surrogatepass")
    size = len(units) // 2
    begin = max(size + start, 0) if start < 0 else max(min(start - 1, size), 0)
    end = max(min(begin + length, size), begin)
    return units[2 * begin : 2 * end].decode("utf-16-le", "surrogatepass")


def length(text: str) -> int:
    """Return the length of ``text`` in UTF-16 units, as Java counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@lru_cache(maxsize=256)
def like_pattern(pattern: str, escape: str | None) -> re.Pattern[str]:
    """Compile a LIKE pattern: ``%`` any text of one line, ``_`` one character.

    Raises:
        FunctionError: The pattern ends with the escape character.
    """
    regex = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None:
                raise FunctionError("LIKE pattern must not end with escape character")
            regex.append(re.escape(following))
        elif character == "%":
            regex.append("[^\n\r\x85\u2028\u2029]*")  # Java's dot stops at line ends
        elif character == "_":
            regex.append("[^\n\r\x85\u2028\u2029]")
        else:
            regex.append(re.escape(character))
    return re.compile("".join(regex))


def like(value: str | None, pattern: str | None, escape: str | None = None) -> bool:
    """Tell whether ``value`` as a whole has the form of ``pattern``.

    Raises:
        FunctionError: Either is NULL, as in ksqlDB (where a filter then drops the row).
    """
    if value is None or pattern is None:
        raise FunctionError("LIKE of NULL")
    return like_pattern(pattern, escape).fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Function:
    """A function: what it takes, what it gives, how it is called.

    ``arguments`` holds the types taken; None is any type. ``variadic`` repeats the last one.
    ``returns`` None is the type of the first argument whose type is known.
    """

    arguments: tuple[SqlType | None, ...]
    returns: SqlType | None
    call: Callable[..., Any] | str  # a str names a method of JsonCache
    optional: int = 0
    variadic: bool = False
    nullable: bool = True

    def accepts(self, types: Sequence[SqlType | None]) -> bool:
        """Tell whether arguments of these types (None is NULL) can be passed."""
        least = len(self.arguments) - self.optional
        if len(types) < least or (len(types) > len(self.arguments) and not self.variadic):
            return False
        for index, given in enumerate(types):
            wanted = self.arguments[min(index, len(self.arguments) - 1)]
            if wanted is None or given is None or given == wanted:
                continue
            if wanted == BIGINT and given == INTEGER:
                continue
            return False
        return True


FUNCTIONS: dict[str, Function] = {
    "EXTRACTJSONFIELD": Function((STRING, STRING), STRING, "extract_json_field"),
    "IS_JSON_STRING": Function((STRING,), BOOLEAN, "is_json_string", nullable=False),
    "JSON_KEYS": Function((STRING,), STRINGS, "json_keys"),
    "JSON_ARRAY_LENGTH": Function((STRING,), INTEGER, "json_array_length"),
    "COALESCE": Function((None,), None, coalesce, variadic=True),
    "IFNULL": Function((None, None), None, coalesce),
    "NULLIF": Function((None, None), None, lambda a, b: None if a == b else a),
    "CONCAT": Function((STRING,), STRING, concat, variadic=True),
    "UCASE": Function((STRING,), STRING, _null_in_null_out(str.upper)),
    "LCASE": Function((STRING,), STRING, _null_in_null_out(str.lower)),
    "TRIM": Function((STRING,), STRING, _null_in_null_out(lambda s: s.strip(_WHITESPACE))),
    "SUBSTRING": Function((STRING, INTEGER, INTEGER), STRING, substring, optional=1),
    "LEN": Function((STRING,), INTEGER, _null_in_null_out(length)),
    "REPLACE": Function((STRING, STRING, STRING), STRING, _null_in_null_out(str.replace)),
}
