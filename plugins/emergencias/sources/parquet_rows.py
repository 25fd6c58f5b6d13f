"""Parquet, a batch of rows at a time; gzipped as well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from typing import Any, BinaryIO, cast

from emergencias.sources.errors import SourceError
from emergencias.sources.json_rows import as_text, real, whole
from emergencias.sources.names import fold
from emergencias.sources.rows import CheckNames, Place, Refused, Row, Rows
from emergencias.sources.stored import StoredFile

_BATCH = 4096


def parquet_rows(file: StoredFile, wanted: Collection[str], check_names: CheckNames) -> Rows:
    """Read those columns of a Parquet file whose folded names are wanted.

    Args:
        file: The file.
        wanted: Folded names.
        check_names: Called with the names of all its columns before the first row.

    Raises:
        SourceError: It is not readable Parquet.
    """
    import pyarrow as pa  # heavy to import, and only needed for Parquet
    import pyarrow.parquet as pq

    with _seekable(file) as opened:
        row = 0
        try:
            table = pq.ParquetFile(opened)
            check_names(table.schema_arrow.names)
            names = tuple(name for name in table.schema_arrow.names if fold(name) in wanted)
            for batch in table.iter_batches(_BATCH, columns=list(names)):
                for cells in zip(*map(_arrow_values, batch.columns), strict=True):
                    row += 1
                    place = Place(None, row)
                    try:
                        values = [_plain(value) for value in cells]
                    except UnicodeDecodeError as error:
                        flaw = f"bytes that are not UTF-8 text: {error}"
                        yield Refused(place, flaw, as_text(dict(zip(names, cells, strict=True))))
                    else:
                        yield Row(place, names, values)
        except SourceError:
            raise
        except UnicodeDecodeError as error:  # a text column's own, found by the batch
            raise file.error_at(
                f"after row {row}", f"bytes that are not UTF-8 text: {error}"
            ) from error
        except (ValueError, OverflowError) as error:
            if isinstance(error, pa.ArrowException):
                raise file.error(f"is not readable Parquet: {error}") from error
            raise file.error_at(
                f"after row {row}", f"a value that cannot be read: {error}"
            ) from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the file system's; pyarrow's own about damaged data have no number
            raise file.error(f"is not readable Parquet: {error}") from error


@contextmanager
def _seekable(file: StoredFile) -> Iterator[BinaryIO]:
    """Open the file; a gzipped one as a temporary copy, for Parquet is read from its end."""
    with file.opened() as opened:
        if not file.gzipped:
            yield opened
            return
        with tempfile.TemporaryFile(prefix="emergencias-") as copy:
            shutil.copyfileobj(opened, copy, 2**20)
            copy.seek(0)
            yield cast(BinaryIO, copy)


def _arrow_values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's times end at microseconds.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return cast(list[Any], column.to_pylist())


def _plain(value: Any) -> Any:
    """Return a Parquet value as JSON knows it."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (float, Decimal)) and value != value:
        return None
    if isinstance(value, int):
        return whole(str(value))
    if isinstance(value, (float, Decimal)):
        is_whole = isinstance(value, Decimal) and value == value.to_integral_value()
        return whole(str(int(value))) if is_whole else real(str(value))
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
