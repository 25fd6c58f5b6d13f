"""Which encoding a text file is in."""

from __future__ import annotations

import codecs
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from emergencias.sources import stored
from emergencias.sources.stored import HEAD, StoredFile

_SIGNATURES = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that one's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NARROW = ("cp1252", "latin-1", "cp850", "mac-roman")
"""What Spanish text that is not UTF-8 comes in: Windows, old Unix, DOS, old Macs."""

_EXPECTED = frozenset("áéíóúüñÁÉÍÓÚÜÑçÇàèòïÀÈÒÏ·¿¡ºª€«»")
_TYPOGRAPHIC = frozenset("\u2013\u2014\u2018\u2019\u201c\u201d\u2026")  # dashes, quotes, dots

_SAMPLE = 2**18
_BEFORE = 200
_HIGH = re.compile(rb"[\x80-\xff]")
_DAMAGED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding by Python's name, and how many of the file's bytes are no text in it.

    Only UTF-8 can have such bytes. They are read as lone surrogates, which no JSON can hold, so
    that a row that has them is refused and the others are not.
    """

    name: str
    damaged: int = 0

    @property
    def errors(self) -> str:
        """What a decoder does with bytes that are no text."""
        return "surrogateescape" if self.name.startswith("utf-8") else "strict"


def detect(file: StoredFile, given: str | None = None) -> Encoding:
    """Find the encoding out by its mark, by trying UTF-8, and then by what the text looks like.

    Args:
        file: A text file; it is read to its end unless it has a mark.
        given: An encoding that is known already; the file is only checked.

    Raises:
        SourceError: No encoding fits.
    """
    with file.opened() as opened:
        head = opened.read(HEAD)
    marked = next((name for mark, name in _SIGNATURES if head.startswith(mark)), None)
    if given is None:
        given = marked
    if given is not None:
        try:
            name = codecs.lookup(given).name
            if marked is not None and name.startswith(marked.removesuffix("-sig")):
                name = marked  # the mark is none of the text
            return Encoding(name, _check(file, name))
        except (UnicodeError, LookupError) as error:
            raise file.error(f"is not {given} text: {error}") from error
    if head.count(0) > len(head) // 4:
        # The half of a Latin letter that is 0 comes first or second.
        candidates = ["utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"]
    else:
        sample, continuing, damaged = _try_utf8(file)
        # Text of another encoding has next to no valid sequences of UTF-8, and damaged UTF-8
        # next to no others.
        if damaged == 0 or continuing > damaged:
            return Encoding("utf-8", damaged)
        candidates = _looks_like(sample)
    for name in candidates:
        try:
            return Encoding(name, _check(file, name))
        except UnicodeDecodeError:
            continue
    raise file.error(
        "is text in no encoding that is known here (UTF-8, UTF-16, Windows-1252, ISO 8859-1, "
        "code page 850, Mac Roman); save it as UTF-8, or name its encoding in a mapping"
    )


@contextmanager
def text(file: StoredFile, encoding: Encoding) -> Iterator[io.TextIOWrapper]:
    """Open the file as text, line ends as they are, after `detect` has found its encoding."""
    with (
        file.opened() as opened,
        io.TextIOWrapper(
            opened, encoding=encoding.name, errors=encoding.errors, newline=""
        ) as wrapper,
    ):
        yield wrapper


def _try_utf8(file: StoredFile) -> tuple[bytes, int, int]:
    """Return a sample of what is not ASCII, and how many bytes continue a character or are none."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    sample = bytearray()
    continuing = damaged = 0
    with file.opened() as opened:
        while True:
            chunk = opened.read(stored.CHUNK)
            decoded = decoder.decode(chunk, final=not chunk)
            if not decoded.isascii():
                damaged += len(_DAMAGED.findall(decoded))
                if len(sample) < _SAMPLE and (high := _HIGH.search(chunk)):
                    start = max(high.start() - _BEFORE, 0)
                    sample += chunk[start : start + _SAMPLE - len(sample)]
            # All bytes but the first of each character: a measure of how many long ones there are.
            continuing += len(chunk) - len(decoded)
            if not chunk:
                return bytes(sample), continuing, damaged


def _looks_like(sample: bytes) -> list[str]:
    """Return the encodings, the one first that makes the most of Spain's letters of the sample.

    Not charset-normalizer: of a few rows of alerts it takes one Windows text in five, and most
    Mac texts, for something else (docs/decisions/0010-rows-refused-alone.md).
    """

    def likeness(encoding: str) -> float:
        try:
            decoded = sample.decode(encoding)
        except UnicodeDecodeError:
            return -math.inf
        return sum(
            2 if sign in _EXPECTED else 0 if sign in _TYPOGRAPHIC else -1 if sign.isalpha() else -3
            for sign in decoded
            if not sign.isascii()
        )

    return sorted(_NARROW, key=likeness, reverse=True)


def _check(file: StoredFile, encoding: str) -> int:
    """Return how many bytes are no text in the encoding.

    Raises:
        UnicodeDecodeError: There are some, and the encoding is not UTF-8.
    """
    errors = Encoding(encoding).errors
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    damaged = 0
    with file.opened() as opened:
        while True:
            chunk = opened.read(stored.CHUNK)
            decoded = decoder.decode(chunk, final=not chunk)
            if errors != "strict" and not decoded.isascii():
                damaged += len(_DAMAGED.findall(decoded))
            if not chunk:
                return damaged
