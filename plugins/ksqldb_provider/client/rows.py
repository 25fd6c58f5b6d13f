"""The rows of a query, one by one as the server sends them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksqldb_provider.client import errors

if TYPE_CHECKING:
    import httpx

ROWS_TYPE = "application/vnd.ksqlapi.delimited.v1"


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of a query's result; `type` is SQL, like BIGINT or ARRAY<STRING>."""

    name: str
    type: str


class QueryRows:
    """An answer that is still being sent; iterate it once, and only while it is open.

    Nothing is gathered: a row is read from the connection when it is asked for. Each row is a
    dict by column name; numbers, truth values, lists and dicts as in JSON, BYTES in base64, and
    TIMESTAMP, DATE, TIME and DECIMAL as the server writes them.

    Attributes:
        query_id: The server's name of the query.
        columns: What each row has, in order.
    """

    def __init__(
        self, response: httpx.Response, *, address: str, statement: str, timeout_s: float
    ) -> None:
        self._lines = response.iter_lines()
        self._address = address
        self._statement = statement
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        header = self._next()
        try:
            self.query_id: str = header["queryId"]
            self.columns = tuple(
                ResultColumn(name, kind)
                for name, kind in zip(header["columnNames"], header["columnTypes"], strict=True)
            )
        except (TypeError, KeyError, ValueError) as error:
            raise self._unexpected(header) from error
        self.ended = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows.

        Raises:
            QueryTimeoutError: The last row had not come in time.
            KsqlDbError: The server ended the query with an error, or the connection broke.
        """
        names = [column.name for column in self.columns]
        while (row := self._next()) is not None:
            if not isinstance(row, list) or len(row) != len(names):
                raise self._unexpected(row)
            yield dict(zip(names, row, strict=True))
        self.ended = True

    def _next(self) -> Any:
        """Return the next line's value, None at the end."""
        import httpx

        try:
            for line in self._lines:
                if time.monotonic() >= self._deadline:
                    raise self._too_late()
                if line.strip():
                    return self._value(line)
        except httpx.ReadTimeout as error:
            raise self._too_late() from error
        except httpx.HTTPError as error:
            raise errors.ServerUnavailableError(
                f"the answer broke off: {type(error).__name__} {error}".rstrip(),
                address=self._address,
                statement=self._statement,
            ) from error
        return None

    def _value(self, line: str) -> Any:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self._unexpected(line) from error
        if isinstance(value, dict) and "message" in value:
            raise errors.error_from_answer(
                500,
                int(value.get("error_code") or 0),
                str(value["message"]),
                address=self._address,
                statement=self._statement,
            )
        return value

    def _too_late(self) -> errors.QueryTimeoutError:
        return errors.QueryTimeoutError(
            f"the query had not ended after {self._timeout_s:.0f} s",
            address=self._address,
            statement=self._statement,
        )

    def _unexpected(self, value: Any) -> errors.UnexpectedAnswerError:
        return errors.UnexpectedAnswerError(
            f"not a row or header that ksqlDB gives: {str(value)[:200]!r}",
            address=self._address,
            statement=self._statement,
        )
