"""Which format a file has."""

from __future__ import annotations

import re
from collections.abc import Collection

from emergencias.sources import encoding
from emergencias.sources.encoding import Encoding
from emergencias.sources.errors import shorten
from emergencias.sources.names import fold
from emergencias.sources.stored import HEAD, StoredFile

FORMATS = ("json", "jsonl", "csv", "parquet")

_ENDINGS = {"ndjson": "jsonl", "tsv": "csv", "pq": "parquet"}


def is_parquet(file: StoredFile) -> bool:
    """Say whether a file is Parquet, by its first bytes or its name.

    Raises:
        SourceError: The file is empty.
    """
    with file.opened() as opened:
        head = opened.read(HEAD)
    if not head.strip():
        raise file.error("is empty; it must hold 1 alert or more")
    is_json = head.lstrip().startswith((b"[", b"{"))
    return head.startswith(b"PAR1") or (_ending(file) == "parquet" and not is_json)


def text_format(file: StoredFile, enc: Encoding, wanted: Collection[str], header: bool) -> str:
    """Return a text file's format, by its content or else its name.

    Args:
        file: The file.
        enc: Its encoding.
        wanted: Names that its header should have, folded.
        header: Whether a CSV would have a header; without one only a CSV is expected.

    Raises:
        SourceError: The file holds nothing, or its format is unknown.
    """
    with encoding.text(file, enc) as text:
        content = text.read(HEAD).lstrip()
    if not content:
        raise file.error("is empty; it must hold 1 alert or more")
    if not header:
        return "csv"
    if content.startswith(("[", "{")):
        return "json" if content.startswith("[") else "jsonl"
    if (ending := _ending(file)) in FORMATS:
        return ending
    first_line = fold(re.split(r"[\r\n]", content, maxsplit=1)[0])
    if any(name in first_line for name in wanted):
        return "csv"
    raise file.error(
        f"has an unknown format: it begins with {shorten(content[:60], 20)!r}. A file can be a "
        "JSON list, JSON Lines, CSV (any delimiter) or Parquet, each also as .gz"
    )


def _ending(file: StoredFile) -> str:
    ending = file.name.lower().removesuffix(".gz").rpartition(".")[2]
    return _ENDINGS.get(ending, ending)
