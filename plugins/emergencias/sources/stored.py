"""A file as it is stored: where, its bytes, whether they are gzipped."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import BinaryIO, cast

from upath import UPath

from emergencias.sources.errors import SourceError

CHUNK = 2**20
"""Bytes read at once."""

HEAD = 2**16
"""Bytes looked at to find out what a file is."""

PathLike = str | os.PathLike[str]


class StoredFile:
    """A local file or any URI that fsspec knows."""

    def __init__(self, path: PathLike) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    def error(self, what: str) -> SourceError:
        """Return the error that says what is wrong with the file."""
        return SourceError(f"Input file {self.name} {what.rstrip('.')}.")

    def error_at(self, where: str, what: str) -> SourceError:
        """Return the error that says what is wrong and where in the file."""
        return SourceError(f"Input file {self.name}, {where}: {what.rstrip('.')}.")

    @cached_property
    def gzipped(self) -> bool:
        """Whether the bytes are gzip data."""
        with self._stored() as file:
            return file.read(2) == b"\x1f\x8b"

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the content, unzipped.

        Raises:
            SourceError: There is no such file, or it is damaged. Other errors of the file system
                (a remote one that does not answer) stay what they are: they are no fault of the
                file, and a retry can help.
        """
        with self._stored() as stored:
            if not self.gzipped:
                yield stored
                return
            try:
                with gzip.GzipFile(fileobj=stored) as plain:
                    yield cast(BinaryIO, plain)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise self.error(f"is damaged or cut off gzip data: {error}") from error

    @contextmanager
    def _stored(self) -> Iterator[BinaryIO]:
        if not self.name.strip():
            raise SourceError(f"input_path is {self.name!r}; it must be the path of a file")
        try:
            path = UPath(self.path)
            if path.is_dir():
                raise self.error("is a directory; it must be a file")
            opened = path.open("rb")
        except FileNotFoundError as error:
            raise self.error("does not exist") from error
        except (PermissionError, IsADirectoryError, NotADirectoryError, ImportError) as error:
            raise self.error(f"cannot be read: {error}") from error
        except SourceError:
            raise
        except ValueError as error:  # a path or a scheme that fsspec does not know
            raise self.error(f"cannot be read: {error}") from error
        with opened:
            yield opened


def sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file's bytes as stored, hexadecimal.

    Raises:
        SourceError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with StoredFile(path)._stored() as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
