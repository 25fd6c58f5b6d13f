"""Writes a run's files whole or not at all, on a local disk or an object store."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from upath import UPath

_LOCAL = ("", "file", "local")


class HashingWriter:
    """A binary sink that knows the SHA-256 and the size of what went through it."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write the whole of `data`."""
        view = memoryview(data)
        self._hash.update(view)
        self.size += view.nbytes
        self._sink.write(view)
        return view.nbytes

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size

    def flush(self) -> None:
        """Hand on what the sink has buffered."""
        self._sink.flush()

    def close(self) -> None:
        """Stop taking data; the sink itself is closed by who opened it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written, in hex."""
        return self._hash.hexdigest()


@contextmanager
def replacing(path: UPath) -> Iterator[HashingWriter]:
    """Write a file that appears under its name only when it is complete.

    What stood there stays until then, and for good if the block raises. Two writers at once do not
    disturb each other; the last to finish wins. One that is killed leaves a hidden file
    `.<name>.<hex>`, which nothing reads: whose it is, and whether it still writes, cannot be told.

    Args:
        path: The file; its folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("wb") as sink:
            writer = HashingWriter(sink)
            yield writer
        _move(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _move(source: UPath, target: UPath) -> None:
    if source.protocol in _LOCAL:
        source.replace(target)
    else:
        source.fs.mv(source.path, target.path)
