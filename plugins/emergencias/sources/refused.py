"""The file in which the rows that were refused wait for somebody to mend them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import orjson
from upath import UPath

from emergencias.files import HashingWriter, replacing
from emergencias.sources.rows import Refused

REFUSED_FILE = "refused.jsonl"
MAX_TEXT = 10_000
"""Most characters of a refused row that are written; file and line lead to the rest."""


@contextmanager
def refused_rows(path: UPath | None, source: str) -> Iterator[Callable[[Refused], None]]:
    """Write refused rows as JSON Lines; if there are none, an earlier reading's file goes.

    Args:
        path: The file to write, which appears whole or not at all; None writes nothing.
        source: The file that the rows are of.

    Yields:
        What takes the rows, in their order.
    """
    with ExitStack() as stack:
        sink: HashingWriter | None = None

        def write(row: Refused) -> None:
            nonlocal sink
            if path is None:
                return
            if sink is None:
                sink = stack.enter_context(replacing(path))
            told = {
                "file": source,
                "line": row.place.line,
                "row": row.place.row,
                "reason": row.reason,
                "text": row.text.rstrip("\r\n")[:MAX_TEXT],
            }
            sink.write(
                orjson.dumps(
                    {
                        # A byte that is no text becomes visible, as \udcff.
                        name: value.encode("utf-8", "backslashreplace").decode()
                        if isinstance(value, str)
                        else value
                        for name, value in told.items()
                    },
                    option=orjson.OPT_APPEND_NEWLINE,
                )
            )

        yield write
        if path is not None and sink is None:
            path.unlink(missing_ok=True)
