"""Where a command's alerts go: standard output, or a file that appears when it is complete."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from emergencias_cli.console import fail

if TYPE_CHECKING:
    from upath import UPath

STDOUT = "-"

Sink = Callable[[bytes], object]
"""Takes some lines of JSON, each ended by a newline."""


@contextmanager
def lines_to(to: str) -> Iterator[Sink]:
    """Open standard output (`-`) or a file, compressed if its name ends in .gz.

    A reader that has seen enough, as `head`, ends the command quietly; a file that cannot be
    written ends it with a plain message.
    """
    try:
        if to == STDOUT:
            yield sys.stdout.buffer.write
            sys.stdout.buffer.flush()
        else:
            with _file(to) as sink:
                yield sink
    except BrokenPipeError:
        # Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except OSError as error:
        raise fail(f"{to} cannot be written: {error}") from error


def file_path(name: str) -> UPath:
    """Return the path of a file to write, or end the command: it is none, or not reachable."""
    from upath import UPath

    try:
        path = UPath(name)
        path.fs.protocol  # noqa: B018 (loads the driver of a remote one)
    except (ValueError, ImportError) as error:
        raise fail(f"{name} cannot be written: {error}") from error
    if not path.name:
        raise fail(f"{name!r} is no file's name; give one, or - for standard output")
    return path


@contextmanager
def _file(name: str) -> Iterator[Sink]:
    from emergencias.files import replacing

    with replacing(file_path(name)) as raw:
        if not name.endswith(".gz"):
            yield raw.write
            return
        # Without a name and a time inside, so that the same alerts give the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield packed.write
