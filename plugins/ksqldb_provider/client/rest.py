"""A client of ksqlDB's REST interface: explicit time-outs, typed answers, typed failures."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    Source,
    SourceDescription,
    StatementResult,
)
from ksqldb_provider.client.rows import ROWS_TYPE, QueryRows
from ksqldb_provider.sql.values import identifier, literal, without_values

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import httpx

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)

_ACCEPT = "application/vnd.ksql.v1+json"
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
        shown = without_values(sql)
        answer = self._request("POST", "/ksql", body=body, statement=shown)
        if not isinstance(answer, list):
            raise self._unexpected(answer, shown)
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
        result = self.run(sql, properties=properties, after=after, timeout_s=timeout_s, stop=stop)
        if result.command is None:
            raise self._unexpected(result.entity, sql)
        return result.command

    def run(
        self,
        sql: str,
        *,
        properties: Mapping[str, str] | None = None,
        after: int | None = None,
        timeout_s: float = 120.0,
        stop: threading.Event | None = None,
    ) -> StatementResult:
        """Send a statement of any kind; if it changes something, wait until it is done.

        Arguments and errors are those of `execute`.
        """
        entities = self.statement(sql, properties=properties, after=after)
        if not entities:
            return StatementResult()
        entity = entities[-1]
        if not isinstance(entity, dict):
            raise self._unexpected(entity, sql)
        kind = str(entity.get("@type", ""))
        command = None
        if kind == "currentStatus":
            command = self._finished(
                self._typed(CommandResult, entity), sql, timeout_s, stop or threading.Event()
            )
        return StatementResult(type=kind, entity=entity, command=command)

    def _finished(
        self, result: CommandResult, sql: str, timeout_s: float, stop: threading.Event
    ) -> CommandResult:
        status = result.command_status
        deadline = time.monotonic() + timeout_s
        while not status.is_final:
            # The interface has no way to be told; the event lets a killed task stop at once.
            if time.monotonic() >= deadline or stop.wait(_POLL_S):
                raise errors.CommandTimeoutError(
                    f"{result.command_id} is still {status.status} after {timeout_s:.0f} s"
                    if not stop.is_set()
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

    def terminate(self, query_id: str, *, timeout_s: float = 120.0) -> CommandResult:
        """End a persistent query; its stream, its topic and its records stay.

        Raises:
            UnknownObjectError: There is no such query (any more).
            ValueError: The id has characters that no query id has.
        """
        return self.execute(f"TERMINATE {_checked_id(query_id)};", timeout_s=timeout_s)

    def drop(
        self, name: str, *, delete_topic: bool = False, timeout_s: float = 120.0
    ) -> CommandResult:
        """Remove a stream or table, and the query that writes it.

        Args:
            name: Its name as ksqlDB keeps it.
            delete_topic: Delete its Kafka topic with all records, too.
            timeout_s: Longest wait while the server says that it is still executing.

        Raises:
            UnknownObjectError: There is none of that name.
            StatementRejectedError: Others read it; names them.
        """
        kind = self.describe(name).type
        ending = " DELETE TOPIC" if delete_topic else ""
        return self.execute(f"DROP {kind} {identifier(name)}{ending};", timeout_s=timeout_s)

    def insert(self, name: str, row: Mapping[str, Any]) -> None:
        """Write one record to a stream's or table's topic.

        It is not in any transaction and cannot be undone. The values are not shown in errors.

        Args:
            name: The stream or table, as ksqlDB keeps its name.
            row: Values by column name, as ksqlDB keeps them.

        Raises:
            SqlError: A value cannot be put into SQL.
            ServerUnavailableError: With `maybe_executed`, the record may have been written.
        """
        head = f"INSERT INTO {identifier(name)} ({', '.join(map(identifier, row))}) VALUES "  # noqa: S608 - all of it is quoted
        values = ", ".join(literal(value) for value in row.values())
        self._request(
            "POST",
            "/ksql",
            body={"ksql": f"{head}({values});", "streamsProperties": {}},
            statement=f"{head}(…);",
        )

    @contextmanager
    def query(
        self,
        sql: str,
        *,
        properties: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Iterator[QueryRows]:
        """Open a SELECT: a pull query, or a push query (EMIT CHANGES), best with a LIMIT.

        A query that is left before its end is closed on the server, too.

        Args:
            sql: One SELECT with its `;`.
            properties: Properties of the query, like `auto.offset.reset` of a push query.
            timeout_s: Longest time until the last row.

        Returns:
            The rows, as they come; a context manager.

        Raises:
            QueryTimeoutError: The last row had not come in time.
            KsqlDbError: The query was refused, or the connection broke.
        """
        response = self._send(
            "POST",
            "/query-stream",
            body={"sql": sql, "properties": dict(properties or {})},
            statement=sql,
            timeout_s=timeout_s,
            accept=ROWS_TYPE,
            stream=True,
        )
        try:
            if not response.is_success:
                response.read()
                self._answer(response, sql)
            rows = QueryRows(response, address=self.address, statement=sql, timeout_s=timeout_s)
            try:
                yield rows
            finally:
                if not rows.ended:
                    self._close_query(rows.query_id)
        finally:
            response.close()

    def _close_query(self, query_id: str) -> None:
        try:
            self._send("POST", "/close-query", body={"queryId": query_id})
        except errors.KsqlDbError as error:
            # The server ends the query all the same once its connection is closed.
            log.info("Query %s was left open: %s", query_id, error)

    def command_status(self, command_id: str) -> CommandStatus:
        """Return how far a command is; its id holds backquotes, which the address cannot."""
        path = f"/status/{quote(command_id, safe='/')}"
        return self._typed(CommandStatus, self._request("GET", path))

    def streams(self) -> tuple[Source, ...]:
        """Return all streams."""
        return self._sources("streams")

    def tables(self) -> tuple[Source, ...]:
        """Return all tables."""
        return self._sources("tables")

    def _sources(self, kind: str) -> tuple[Source, ...]:
        sql = f"SHOW {kind.upper()};"
        entity = self._entity(self.statement(sql), kind, sql)
        return tuple(self._typed(Source, item) for item in self._member(entity, kind))

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
        sql = f"DESCRIBE {identifier(name)};"
        entity = self._entity(self.statement(sql), "sourceDescription", sql)
        return self._typed(SourceDescription, self._member(entity, "sourceDescription"))

    def explain(self, query_id: str) -> QueryDescription:
        """Return what the server knows of a persistent query, its errors included.

        Raises:
            UnknownObjectError: There is no such query (any more).
            ValueError: The id has characters that no query id has.
        """
        sql = f"EXPLAIN {_checked_id(query_id)};"
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
        response = self._send(method, path, body=body, statement=statement, timeout_s=timeout_s)
        return self._answer(response, statement)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        statement: str = "",
        timeout_s: float | None = None,
        accept: str = _ACCEPT,
        stream: bool = False,
    ) -> httpx.Response:
        import httpx

        connect_s, read_s = self._timeouts
        read_s = read_s if timeout_s is None else timeout_s
        timeout = httpx.Timeout(read_s, connect=min(connect_s, read_s))
        refused: list[str] = []
        for _ in self._urls:
            client = self._client()
            try:
                request = client.build_request(
                    method,
                    self.address + path,
                    json=body,
                    headers={"Accept": accept},
                    timeout=timeout,
                )
                return client.send(request, stream=stream)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                refused.append(f"{self.address}: {error or type(error).__name__}")
                self._current = (self._current + 1) % len(self._urls)
            except httpx.HTTPError as error:
                raise errors.ServerUnavailableError(
                    f"no answer to {method} {path}: {type(error).__name__} {error}".rstrip(),
                    address=self.address,
                    statement=statement,
                    maybe_executed=path == "/ksql",
                ) from error
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


def _checked_id(query_id: str) -> str:
    if not _QUERY_ID.fullmatch(query_id):
        raise ValueError(f"{query_id!r} is not a query id (like CSAS_MY_STREAM_7)")
    return query_id
