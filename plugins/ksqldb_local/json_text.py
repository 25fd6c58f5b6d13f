"""JSON as Jackson reads and writes it: a fast path by orjson, an exact one for what that refuses.

What Jackson (ksqlDB's JSON library) does differently from a strict parser: text after the first
value is
ignored, a repeated name keeps its last value, numbers keep the digits they were written with.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

import orjson


class JsonError(ValueError):
    """Text that is not JSON."""


MISSING = object()
"""What an empty text holds: nothing, which is not the same as ``null``."""

_BLANK = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\(?:u00([01][a-f])|.)", re.DOTALL)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE_ESCAPE = re.compile("[\udc80-\udcff]")


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"Non-standard token '{name}'")


_EXACT = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)


def parse_exact(text: str) -> Any:
    """Parse the first JSON value of ``text`` with every number as written.

    Args:
        text: JSON text.

    Returns:
        dict, list, str, int, Decimal, bool or None; :data:`MISSING` for blank text.

    Raises:
        JsonError: The text does not start with a JSON value.
    """
    return _first_value(text)[0]


def _first_value(text: str) -> tuple[Any, int]:
    blank = _BLANK.match(text)
    start = blank.end() if blank else 0
    if start == len(text):
        return MISSING, start
    try:
        value, end = _EXACT.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from error
    if end < len(text):
        after = text[end]
        # Jackson ends a number at white space only, and a literal where no name could go on.
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            if after not in " \t\r\n":
                raise JsonError(f"Unexpected character ({after!r}) after a number")
        elif (value is None or isinstance(value, bool)) and (after.isalnum() or after in "_$"):
            raise JsonError(f"Unrecognized token starting at {text[start : end + 1]!r}")
    return value, end


def parse_text(text: str) -> Any:
    """Parse ``text`` fast; fractional and very large numbers may come as float.

    Raises:
        JsonError: As :func:`parse_exact`.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return parse_exact(text)


def parse_bytes(raw: bytes) -> Any:
    """Parse a record's value: UTF-8, a byte order mark is skipped, invalid bytes are an error.

    Fractional and very large numbers may come as float.

    Raises:
        JsonError: The bytes do not start with a JSON value in valid UTF-8.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return parse_bytes_exact(raw)


def parse_bytes_exact(raw: bytes) -> Any:
    """Parse a record's value with every number as written.

    Raises:
        JsonError: As :func:`parse_bytes`.
    """
    if raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
    # Only the bytes of the value itself have to be UTF-8: Jackson does not read on behind it.
    text = raw.decode("utf-8", "surrogateescape")
    value, end = _first_value(text)
    if _SURROGATE_ESCAPE.search(text, 0, end):
        raise JsonError("Invalid UTF-8 byte")
    return value


_SURROGATE = re.compile("[\ud800-\udfff]")


def escape_like_jackson(text: str) -> str:
    """Return orjson's output with the escapes that Jackson's UTF-8 generator writes.

    Astral characters become surrogate pairs, control characters upper-case hex.
    """
    if not text.isascii():
        text = _ASTRAL.sub(_surrogate_pair, text)
    if "\\u00" in text:
        text = _ESCAPE.sub(lambda m: "\\u00" + m[1].upper() if m[1] else m[0], text)
    return text


def _surrogate_pair(match: re.Match[str]) -> str:
    code = ord(match[0]) - 0x10000
    return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"


def _has_astral(raw: bytes) -> bool:
    """Tell whether UTF-8 may hold characters beyond the basic plane: by their first bytes."""
    # Searching for single bytes is many times faster here than one regular expression.
    return b"\xf0" in raw or b"\xf1" in raw or b"\xf2" in raw or b"\xf3" in raw or b"\xf4" in raw


def dump_object(row: dict[str, Any] | list[Any]) -> bytes:
    """Serialize a record's value or a query's row: compact, raw UTF-8, with Jackson's escapes.

    Half a surrogate pair, which UTF-8 cannot carry, goes out as its escape: Jackson writes each
    half of a pair that way, and an alert must not be lost for half a smiley.
    """
    try:
        raw = orjson.dumps(row)
    except orjson.JSONEncodeError:
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        return escape_like_jackson(_SURROGATE.sub(_half, text)).encode()
    if b"\\u00" in raw or (not raw.isascii() and _has_astral(raw)):
        return escape_like_jackson(raw.decode()).encode()
    return raw


def _half(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04X}"


def number_text(value: int | Decimal) -> str:
    """Return a number as Java's ``BigDecimal.toString`` does: Decimal has the same rules."""
    return str(value)


def node_text(value: Any) -> str:
    """Return an exactly parsed value as compact JSON text (Jackson's ``JsonNode.toString``)."""
    if isinstance(value, dict):
        inner = ",".join(f"{_string(k)}:{node_text(v)}" for k, v in value.items())
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(node_text, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value)


_CONTROL = re.compile(r'[\x00-\x1f"\\]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _string(text: str) -> str:
    # Into Java text, so (unlike into UTF-8) astral characters stay as they are.
    return '"' + _CONTROL.sub(lambda m: _SHORT.get(m[0]) or f"\\u{ord(m[0]):04X}", text) + '"'


def varchar(value: Any) -> str:
    """Coerce an exactly parsed, non-null value to VARCHAR as ksqlDB's JSON format does.

    Objects give JSON text, arrays Java's ``[a, b]``.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + ", ".join(map(varchar, value)) + "]"
    return node_text(value)


# BigDecimal shows a number as written unless it has an exponent or begins with six zeros.
_PLAIN_NUMBER = re.compile(r"-?(?!0\.00000)\d+\.\d+\Z")


class JsonPath:
    """A JSON path as EXTRACTJSONFIELD reads it: ``$.a.b[0]`` and ``$['a']``.

    Raises:
        ValueError: The path does not start with ``$`` or cannot be read.
    """

    _STEP = re.compile(r"""\.([^.\[]+)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\['((?:[^'\\]|\\.)*)'\]""")

    def __init__(self, path: str) -> None:
        if not path.startswith("$"):
            raise ValueError(f"Invalid JSON path: '{path}'")
        steps: list[str] = []
        at = 1
        while at < len(path):
            step = self._STEP.match(path, at)
            if step is None:
                raise ValueError(f"Invalid JSON path: '{path}'")
            steps.append(next(group for group in step.groups() if group is not None))
            at = step.end()
        self.steps = tuple(steps)
        last = next((s for s in reversed(steps) if not s.isdigit()), "")
        # Finds the digits of a number where it stands, instead of parsing the whole text again.
        self._last = json.dumps(last, ensure_ascii=False)
        self._number = re.compile(
            re.escape(self._last)
            + r"[ \t\r\n]*:[ \t\r\n]*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\d.eE])"
        )
        self._top_level = len(steps) == 1

    def extract(self, text: str, document: Any) -> str | None:
        """Return what the path points at as text; None where there is nothing.

        Args:
            text: The JSON text.
            document: The same text as :func:`parse_text` parsed it.
        """
        node = document
        for step in self.steps:
            if type(node) is dict:
                node = node.get(step, MISSING)
            elif type(node) is list:
                # As Java's Integer.parseInt and ArrayNode.get: no such index is no value.
                if not re.fullmatch(r"[+-]?[0-9]+", step):
                    return None
                index = int(step)
                node = node[index] if 0 <= index < len(node) else MISSING
            else:
                return None
            if node is MISSING:
                return None
        if type(node) is str:
            return node
        if type(node) is float or isinstance(node, dict | list):
            return self._exact(text, node)
        if node is MISSING:
            return ""
        return node_text(node)

    def as_written(self, text: str, digits: str) -> str | None:
        """Return ``digits`` if just these are written at the only place of that name.

        For a path of one step. None means that :meth:`extract` has to find out.
        """
        at = text.find(self._last)
        if at < 0 or "e" in digits or text.find(self._last, at + 1) >= 0:
            return None
        at += len(self._last)
        if not text.startswith(":", at):
            return None
        at += 2 if text.startswith(" ", at + 1) else 1
        end = at + len(digits)
        return digits if text.startswith(digits, at) and text[end : end + 1] in ",}" else None

    def _exact(self, text: str, node: Any) -> str | None:
        if type(node) is float and self._top_level:
            written = self.as_written(text, repr(node))
            if written is not None:
                return written
            found = self._number.search(text)
            if found is not None and text.count(self._last) == 1 and float(found[1]) == node:
                written = found[1]
                if _PLAIN_NUMBER.match(written):
                    return written
                return number_text(Decimal(written))
        exact = parse_exact(text)
        for step in self.steps:
            exact = exact[int(step)] if isinstance(exact, list) else exact[step]
        return node_text(exact)
