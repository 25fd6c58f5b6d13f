"""A client of ksqlDB's REST interface: explicit time-outs, typed answers, typed failures."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from ksqldb_provider.client import errors
from ksqldb_provider.client.model import (
    CommandResult,
    CommandStatus,
    Health,
    Query,
    QueryDescription,
    ServerInfo,
    SourceDescription,
    Stream,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import httpx

Model = TypeVar("Model", bound=BaseModel)

_ACCEPT = "application/vnd.ksql.v1+json"
_PLAIN_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_QUERY_ID = re.compile(r"[A-Za-z0-9_-]+")
_POLL_S = 0.25


class KsqlDbClient:
    """Talks to one ksqlDB cluster.

    Nothing is connected before the first call. Use it as a context manager, or call `close`.
    With several addresses it stays with the one that answers and goes on to the next only when a
    connection cannot be made: a statement that may have arrived is never sent twice.

    Args:
        base_urls: One address or several of the same cluster, like `http://127.0.0.1:8088`.
        auth: User and password (or API key and secret) for HTTP basic authentication.
        verify: Certificate check: True, False or a TLS context of one's own.
        connect_timeout_s: Longest wait for a connection.
        read_timeout_s: Longest wait for an answer. A server answers a statement within about
            10 s, and a health check within 30 s when Kafka is away.
        transport: Where requests go instead of the network (for tests).

    Every method raises a subclass of `KsqlDbError` when the server cannot be reached or refuses.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        auth: tuple[str, str] | None = None,
        verify: bool | ssl.SSLContext = True,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 40.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        urls = (base_urls,) if isinstance(base_urls, str) else tuple(base_urls)
        if not urls:
            raise ValueError("base_urls is empty: give the address of at least one ksqlDB server")
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._current = 0
        self._auth = auth
        self._verify = verify
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._transport = transport
        self._http: httpx.Client | None = None

    def __enter__(self) -> KsqlDbClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    @property
    def address(self) -> str:
        """The server that is asked at present."""
        return self._urls[self._current]

    def info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Return who the server is."""
        body = self._request("GET", "/info", timeout_s=timeout_s)
        return self._typed(ServerInfo, self._member(body, "KsqlServerInfo"))

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Return the server's opinion about its own health."""
        return self._typed(Health, self._request("GET", "/healthcheck", timeout_s=timeout_s))

    def check_ready(self, *, timeout_s: float = 10.0) -> ServerInfo:
        """Return who the server is, if it is running and healthy.

        Raises:
            ServerNotReadyError: It answers but cannot do its work; names the part that cannot.
        """
        info = self.info(timeout_s=timeout_s)
        if info.server_status != "RUNNING":
            raise errors.ServerNotReadyError(
                f"the server is not running yet: status {info.server_status}",
                address=self.address,
            )
        health = self.health(timeout_s=timeout_s)
        if not health.is_healthy:
            ill = sorted(name for name, part in health.details.items() if not part.is_healthy)
            raise errors.ServerNotReadyError(
                f"the server is not healthy: {', '.join(ill) or health.server_state}",
                address=self.address,
            )
        return info

    def statement(
        self,
        sql: str,
        *,
        properties: Mapping[str, str] | None = None,
        after: int | None = None,
    ) -> list[dict[str, Any]]:
        """Send one statement to `/ksql` and return the answer's entities as they are.

        Args:
            sql: The statement with its `;`.
            properties: `streamsProperties`, like `auto.offset.reset`.
            after: Sequence number of a command that must have been executed first.
        """
        body: dict[str, Any] = {"ksql": sql, "streamsProperties": dict(properties or {})}
        if after is not None:
            body["commandSequenceNumber"] = after
        answer = self._request("POST", "/ksql", body=body, statement=sql)
        if not isinstance(answer, list):
            raise self._unexpected(answer, sql)
        return answer

    def execute(
        self,
        sql: str,
        *,
        properties: Mapping[str, str] | None = None,
        after: int | None = None,
        timeout_s: float = 120.0,
        stop: threading.Event | None = None,
    ) -> CommandResult:
        """Send a statement that changes something and wait until it is done.

        Args:
            sql: One CREATE, DROP, TERMINATE or the like, with its `;`.
            properties: `streamsProperties` of the request.
            after: Sequence number of a command that must have been executed first.
            timeout_s: Longest wait while the server says that it is still executing.
            stop: Ends the wait at once when set.

        Returns:
            The answer with its last status, which is SUCCESS.

        Raises:
            CommandFailedError: The server could not execute it.
            CommandTimeoutError: It was still executing after `timeout_s`.
        """
        entities = self.statement(sql, properties=properties, after=after)
        result = self._typed(CommandResult, self._entity(entities, "currentStatus", sql))
        status = result.command_status
        deadline = time.monotonic() + timeout_s
        waiting = stop or threading.Event()
        while not status.is_final:
            # The interface has no way to be told; the event lets a killed task stop at once.
            if time.monotonic() >= deadline or waiting.wait(_POLL_S):
                raise errors.CommandTimeoutError(
                    f"{result.command_id} is still {status.status} after {timeout_s:.0f} s"
                    if not waiting.is_set()
                    else f"stopped while {result.command_id} was {status.status}",
                    address=self.address,
                    statement=sql,
                    maybe_executed=True,
                )
            status = self.command_status(result.command_id)
        if status.status != "SUCCESS":
            raise errors.CommandFailedError(
                f"{result.command_id}: {status.status}: {status.message}",
                address=self.address,
                statement=sql,
            )
        return result.model_copy(update={"command_status": status})

    def command_status(self, command_id: str) -> CommandStatus:
        """Return how far a command is; its id holds backquotes, which the address cannot."""
        path = f"/status/{quote(command_id, safe='/')}"
        return self._typed(CommandStatus, self._request("GET", path))

    def streams(self) -> tuple[Stream, ...]:
        """Return all streams."""
        entity = self._entity(self.statement("SHOW STREAMS;"), "streams", "SHOW STREAMS;")
        return tuple(self._typed(Stream, item) for item in self._member(entity, "streams"))

    def queries(self) -> tuple[Query, ...]:
        """Return all queries, those of clients (type PUSH) included."""
        entity = self._entity(self.statement("SHOW QUERIES;"), "queries", "SHOW QUERIES;")
        return tuple(self._typed(Query, item) for item in self._member(entity, "queries"))

    def query_descriptions(self) -> tuple[QueryDescription, ...]:
        """Return all queries with their errors, as `explain` does, in one request."""
        sql = "SHOW QUERIES EXTENDED;"
        entity = self._entity(self.statement(sql), "query_descriptions", sql)
        items = self._member(entity, "queryDescriptions")
        return tuple(self._typed(QueryDescription, item) for item in items)

    def describe(self, name: str) -> SourceDescription:
        """Return what the server knows of a stream or table.

        Args:
            name: Its name as ksqlDB keeps it (unquoted names are kept in upper case).

        Raises:
            UnknownObjectError: There is none of that name.
        """
        quoted = name if _PLAIN_NAME.fullmatch(name) else f"`{name.replace('`', '``')}`"
        sql = f"DESCRIBE {quoted};"
        entity = self._entity(self.statement(sql), "sourceDescription", sql)
        return self._typed(SourceDescription, self._member(entity, "sourceDescription"))

    def explain(self, query_id: str) -> QueryDescription:
        """Return what the server knows of a persistent query, its errors included.

        Raises:
            UnknownObjectError: There is no such query (any more).
            ValueError: The id has characters that no query id has.
        """
        if not _QUERY_ID.fullmatch(query_id):
            raise ValueError(f"{query_id!r} is not a query id (like CSAS_MY_STREAM_7)")
        sql = f"EXPLAIN {query_id};"
        try:
            entities = self.statement(sql)
        except errors.StatementRejectedError as error:
            raise errors.UnknownObjectError(
                f"query {query_id}: {error.problem}", address=self.address, statement=sql
            ) from error
        entity = self._entity(entities, "queryDescription", sql)
        return self._typed(QueryDescription, self._member(entity, "queryDescription"))

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        statement: str = "",
        timeout_s: float | None = None,
    ) -> Any:
        import httpx

        connect_s, read_s = self._timeouts
        read_s = read_s if timeout_s is None else timeout_s
        timeout = httpx.Timeout(read_s, connect=min(connect_s, read_s))
        refused: list[str] = []
        for _ in self._urls:
            try:
                response = self._client().request(
                    method,
                    self.address + path,
                    json=body,
                    headers={"Accept": _ACCEPT},
                    timeout=timeout,
                )
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                refused.append(f"{self.address}: {error or type(error).__name__}")
                self._current = (self._current + 1) % len(self._urls)
            except httpx.HTTPError as error:
                raise errors.ServerUnavailableError(
                    f"no answer to {method} {path}: {type(error).__name__} {error}".rstrip(),
                    address=self.address,
                    statement=statement,
                    maybe_executed=method == "POST",
                ) from error
            else:
                return self._answer(response, statement)
        raise errors.ServerUnavailableError(
            f"cannot connect: {'; '.join(refused)}",
            address=", ".join(self._urls),
            statement=statement,
        )

    def _client(self) -> httpx.Client:
        if self._http is None:
            import httpx

            self._http = httpx.Client(
                auth=self._auth,
                verify=self._verify,
                transport=self._transport,
                # A proxy of the environment must not catch calls to a server on this machine.
                trust_env=False,
            )
        return self._http

    def _answer(self, response: httpx.Response, statement: str) -> Any:
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success:
            if body is None:
                raise self._unexpected(response.text, statement)
            return body
        details = body if isinstance(body, dict) else {}
        raise errors.error_from_answer(
            response.status_code,
            int(details.get("error_code") or 0),
            str(details.get("message") or response.text),
            address=self.address,
            statement=statement,
        )

    def _entity(self, entities: list[dict[str, Any]], kind: str, sql: str) -> dict[str, Any]:
        for entity in entities:
            if isinstance(entity, dict) and entity.get("@type") == kind:
                return entity
        raise self._unexpected(entities, sql)

    def _member(self, body: Any, name: str) -> Any:
        if not isinstance(body, dict) or name not in body:
            raise self._unexpected(body, "")
        return body[name]

    def _typed(self, model: type[Model], body: Any) -> Model:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise self._unexpected(body, "") from error

    def _unexpected(self, body: Any, statement: str) -> errors.UnexpectedAnswerError:
        return errors.UnexpectedAnswerError(
            f"not an answer that ksqlDB gives: {str(body)[:200]!r}",
            address=self.address,
            statement=statement,
        )
