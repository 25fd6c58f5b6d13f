"""JSON: a list of objects, or objects one after the other (JSON Lines).

Not ijson: it silently turns a lone surrogate into '?', keeps the last of two equal names, and does
not say where an error is. Nor orjson, which keeps the last of two equal names as well.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import deque
from itertools import islice, takewhile
from typing import Any

from emergencias.sources import encoding, stored
from emergencias.sources.encoding import Encoding
from emergencias.sources.errors import SourceError, shorten
from emergencias.sources.rows import MAX_ROW_CHARS, Place, Refused, Row, Rows
from emergencias.sources.stored import StoredFile

_BLANK = " \t\n\r"
_LOOK_AT = 60
"""Characters after an error that are masked before the first 20 of them are shown."""
_BLANKS = re.compile(f"[{_BLANK}]*")


def list_rows(file: StoredFile, enc: Encoding) -> Rows:
    """Read a JSON list, one element at a time.

    An element that is no object, or has a name twice, is refused. Where the text is no JSON
    nobody can say where the next element begins.

    Raises:
        SourceError: The text is not JSON to its end.
    """
    with encoding.text(file, enc) as text:
        json_text = _JsonText(file, text)
        json_text.expect("[", "'[', the begin of a list of objects")
        row = 0
        while json_text.peek() not in ("", "]"):
            if row:
                json_text.expect(",", "',' or ']'")
                json_text.peek()
            row += 1
            place = Place(json_text.line, row)
            yield _row(place, *json_text.value(place))
        json_text.expect("]", "',' or ']'")
        if json_text.peek():
            raise json_text.error("there is more after the list's end")


def line_rows(file: StoredFile, enc: Encoding) -> Rows:
    """Read objects one after the other; each may also take several lines, or share one.

    A line that is no JSON is refused, and reading goes on with the next. A line that begins with
    '{' begins an object of its own, so that one that is cut off swallows no other.
    """
    with encoding.text(file, enc) as text:
        lines = _Lines(text)
        decoder = _Decoder()
        row = 0
        while lines.next_begins():
            row += 1
            place = Place(lines.number, row)
            try:
                value, flaws, end = _decode_growing(decoder, lines)
            except json.JSONDecodeError as error:
                flaw = f"not valid JSON: {error.msg}{_found(error.doc[error.pos :])}"
                yield Refused(place, flaw, lines.drop_first())
            except RecursionError:
                yield Refused(place, "nested too deeply", lines.drop_first())
            else:
                yield _row(place, value, flaws)
                lines.drop(end)


def _row(place: Place, value: Any, flaws: list[str]) -> Row | Refused:
    if not isinstance(value, dict):
        flaws.append(f"is {shorten(value)}; it must be a JSON object")
    if flaws:
        return Refused(place, flaws[0], as_text(value))
    return Row(place, tuple(value), tuple(value.values()))


def as_text(value: Any) -> str:
    """Return a refused value as JSON, or nothing if it is nested too deeply for that."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return ""


def _found(rest: str) -> str:
    if not rest.strip():
        return "; the text ends: is it cut off?"
    return f"; there is {shorten(rest[:_LOOK_AT], 20)!r}"


class _Decoder:
    """Decodes one value and collects what JSON readers usually let pass."""

    def __init__(self) -> None:
        self._flaws: list[str] = []
        self._decode = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=whole,
            parse_float=real,
            parse_constant=self._constant,
        ).raw_decode

    def decode(self, text: str, at: int) -> tuple[Any, list[str], int]:
        """Return the value that begins at `at`, what is wrong with it, and where it ends.

        Raises:
            json.JSONDecodeError: There is no whole value.
        """
        self._flaws = []
        value, end = self._decode(text, at)
        return value, self._flaws, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._flaws.append(f"has {shorten(twice)!r} twice; each name may be there only once")
        return result

    def _constant(self, text: str) -> str | None:
        if text == "NaN":  # how Python and pandas write a number that is missing
            return None
        self._flaws.append(f"has {text}, which is no JSON; write null or a text")
        return text


def whole(text: str) -> int | str:
    """Return a whole number; as text if it has more than the 64 bits that JSON writers handle."""
    if len(text) > 20:
        return text
    value = int(text)
    return value if -(2**63) <= value < 2**64 else text


def real(text: str) -> float | str:
    """Return a number; as text if it is beyond a float's range."""
    value = float(text)
    return value if math.isfinite(value) else text


class _JsonText:
    """Reads JSON values from a text of any length; holds one chunk and one value at a time."""

    def __init__(self, file: StoredFile, text: io.TextIOWrapper) -> None:
        self._file = file
        self._source = text
        self._text = ""
        self._at = 0
        self._before = 0  # characters that have been dropped from the text's begin
        self._line = 1
        self._counted = 0  # characters of the text whose lines are in _line
        self._decoder = _Decoder()

    @property
    def line(self) -> int:
        """The line of the present position."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """Return the next character that is not blank, without taking it; '' at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def expect(self, sign: str, meaning: str) -> None:
        """Take the next character, which must be `sign`."""
        if self.peek() != sign:
            raise self.error(f"expected {meaning}")
        self._at += 1

    def value(self, place: Place) -> tuple[Any, list[str]]:
        """Take and return the next value, that of the row at `place`, and what is wrong with it."""
        while True:
            try:
                value, flaws, self._at = self._decoder.decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # It may only be cut off by the end of what was read so far.
                too_long = len(self._text) - self._at > MAX_ROW_CHARS
                if not too_long and self._read_on():
                    continue
                limit = f"; no whole object in {MAX_ROW_CHARS:,} characters" if too_long else ""
                raise self.error(f"row {place.row}: {error.msg}{limit}", error.pos) from error
            except RecursionError as error:
                raise self.error(f"row {place.row}: nested too deeply") from error
            else:
                return value, flaws

    def error(self, what: str, at: int | None = None) -> SourceError:
        """Return the error that says what is wrong at the present position (or at `at`)."""
        self._at = self._at if at is None else at
        return self._file.error_at(
            f"line {self.line}, character {self._before + self._at + 1}",
            f"not valid JSON: {what}{_found(self._text[self._at : self._at + _LOOK_AT])}",
        )

    def _read_on(self) -> bool:
        chunk = self._source.read(stored.CHUNK)
        if not chunk:
            return False
        self._line = self.line
        self._before += self._at
        self._text = self._text[self._at :] + chunk
        self._at = self._counted = 0
        return True


class _Lines:
    """The lines of a text, of which some are held until it is known what they are."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._held: deque[str] = deque()
        self.number = 1
        """The number of the first line that is held."""

    def next_begins(self) -> bool:
        """Hold the next line that is not blank, as the first; False at the end."""
        while True:
            if not self._held and not self.hold(1):
                return False
            if self._held[0].strip(_BLANK):
                return True
            self.drop_first()

    def hold(self, more: int) -> int:
        """Hold so many lines more, or what is left; return how many they are."""
        before = len(self._held)
        for _ in range(more):
            line = self._text.readline(MAX_ROW_CHARS)
            if not line:
                break
            self._held.append(line)
        return len(self._held) - before

    def continuing(self, count: int) -> int:
        """Return how many of the next `count` lines, after as many, may go on with an object."""
        if (missing := 2 * count - len(self._held)) > 0:
            self.hold(missing)
        more = islice(self._held, count, 2 * count)
        return sum(1 for _ in takewhile(lambda line: not line.lstrip(_BLANK).startswith("{"), more))

    def joined(self, lines: int) -> str:
        """Return the first lines that are held as one text."""
        return "".join(islice(self._held, lines))

    def drop_first(self) -> str:
        """Let go of the first line and return it."""
        line = self._held.popleft()
        self.number += line.endswith(("\n", "\r"))
        return line

    def drop(self, characters: int) -> None:
        """Let go of the first characters that are held."""
        while characters and characters >= len(self._held[0]):
            characters -= len(self.drop_first())
        if characters:
            self._held[0] = self._held[0][characters:]


def _decode_growing(decoder: _Decoder, lines: _Lines) -> tuple[Any, list[str], int]:
    """Decode the value at the begin of what is held, holding more lines if it goes on there."""
    count = 1
    while True:
        text = lines.joined(count).rstrip(_BLANK)
        begin = len(text) - len(text.lstrip(_BLANK))
        try:
            return decoder.decode(text, begin)
        except json.JSONDecodeError as error:
            may_go_on = error.pos >= len(text) and text.startswith("{", begin)
            if not may_go_on or len(text) >= MAX_ROW_CHARS:
                raise
            # Twice as many: an object of many lines is decoded a few times, not once a line.
            more = lines.continuing(count)
            if not more:
                raise
            count += more
