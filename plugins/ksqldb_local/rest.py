"""The REST API, answering as ksqlDB's does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ksqldb_local.engine import Engine, substitute
from ksqldb_local.errors import HTTP2_ONLY, NOT_READY, SERVER_ERROR, GenericError, KsqlError
from ksqldb_local.query_format import FORMATS, RowFormat
from ksqldb_local.transient import TransientQuery

_KSQL = "application/vnd.ksql.v1+json"
_JSON_TYPES = (_KSQL, "application/json", "*/*", "application/*")


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


def _error(error: KsqlError) -> Response:
    return _json(error.body(), error.status)


def _accepts_json(request: Request) -> bool:
    accept = request.headers.get("accept")
    if not accept:
        return True
    return any(part.split(";")[0].strip() in _JSON_TYPES for part in accept.split(","))


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if not raw:
        raise GenericError("Empty request", status=500, error_code=SERVER_ERROR)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise GenericError(f"Invalid JSON in request: {error}") from error
    if not isinstance(body, dict):
        raise GenericError("Invalid JSON in request: not an object")
    return body


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise GenericError(f"Invalid JSON in request: '{name}' is not an object")
    return value


def _variables(body: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in _object(body, "sessionVariables").items()}


def _row_format(request: Request) -> type[RowFormat] | None:
    accept = request.headers.get("accept") or "*/*"
    kinds = [part.split(";")[0].strip() for part in accept.split(",")]
    return next((FORMATS[k] for k in kinds if k in FORMATS), None)


class _Readiness:
    """Answers 503 to everything until the engine has restored."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._app
        if scope["type"] == "http" and not self._engine.ready.is_set():
            app = _error(
                GenericError(
                    "KSQL is not yet ready to serve requests.", status=503, error_code=NOT_READY
                )
            )
        await app(scope, receive, send)


def application(engine: Engine) -> Starlette:
    """Return the ASGI application for an engine."""

    async def query_stream(request: Request) -> Response:
        return await _query(request, "sql", "properties")

    async def query(request: Request) -> Response:
        return await _query(request, "ksql", "streamsProperties")

    async def _query(request: Request, sql: str, properties: str) -> Response:
        format_of = _row_format(request)
        if format_of is None:
            return _json([], 406)
        body = await _body(request)
        text = body.get(sql)
        if not isinstance(text, str):
            raise GenericError(
                f"Invalid JSON in request: Missing required creator property '{sql}'"
            )
        text = substitute(text, _variables(body))
        started = await run_in_threadpool(engine.transient.start, text, _object(body, properties))
        rows = format_of(started)
        return StreamingResponse(_answer(started, rows), media_type=rows.media_type)

    async def _answer(started: TransientQuery, rows: RowFormat) -> AsyncIterator[bytes]:
        batches = started.batches()
        try:
            yield rows.head()
            while (batch := await run_in_threadpool(next, batches, None)) is not None:
                if batch:
                    yield rows.body(batch)
            yield rows.tail()
        finally:
            batches.close()
            engine.transient.finish(started)

    async def close_query(request: Request) -> Response:
        query_id = (await _body(request)).get("queryId")
        if not isinstance(query_id, str):
            raise GenericError(
                "Invalid JSON in request: Missing required creator property 'queryId'"
            )
        engine.transient.close(query_id)
        return Response(status_code=200)

    async def ksql(request: Request) -> Response:
        if not _accepts_json(request):
            return _json([], 406)
        body = await _body(request)
        text = body.get("ksql")
        if text is None:
            return _json([])
        if not isinstance(text, str):
            raise GenericError("Invalid JSON in request: 'ksql' is not a text")
        number = body.get("commandSequenceNumber")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise GenericError(
                f"Invalid JSON in request: commandSequenceNumber {number!r} is not a whole number"
            )
        variables = _variables(body)
        return _json(
            await run_in_threadpool(
                engine.execute, text, _object(body, "streamsProperties"), variables, number
            )
        )

    async def info(request: Request) -> Response:
        return _json(await run_in_threadpool(engine.info))

    async def health(request: Request) -> Response:
        return _json(await run_in_threadpool(engine.health))

    async def statuses(request: Request) -> Response:
        return _json(engine.statuses())

    async def status(request: Request) -> Response:
        return _json(engine.status(unquote(request.path_params["command_id"])))

    async def root(request: Request) -> Response:
        return RedirectResponse("/info", status_code=307)

    async def metadata(request: Request) -> Response:
        cluster = await run_in_threadpool(_metadata_id)
        return _json({"version": engine.settings.version, "clusterId": cluster})

    async def metadata_id(request: Request) -> Response:
        return _json(await run_in_threadpool(_metadata_id))

    def _metadata_id() -> dict[str, Any]:
        clusters = {
            "kafka-cluster": engine.cluster_id(),
            "ksql-cluster": engine.settings.service_id,
        }
        return {"scope": {"path": [], "clusters": clusters}, "id": ""}

    async def is_valid_property(request: Request) -> Response:
        return _json(True)

    async def cluster_status(request: Request) -> Response:
        return _json([], 404)

    async def inserts_stream(request: Request) -> Response:
        raise GenericError(
            "This endpoint is only available when using HTTP2", error_code=HTTP2_ONLY
        )

    async def lag(request: Request) -> Response:
        return _json([], 405)

    async def on_defect(request: Request, error: Exception) -> Response:
        # The traceback is logged by the server; the answer has ksqlDB's shape all the same.
        message = f"{type(error).__name__}: {error}"
        return _error(GenericError(message, status=500, error_code=SERVER_ERROR))

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, KsqlError):
            return _error(error)
        raise error

    async def not_found(request: Request, error: Exception) -> Response:
        return Response(status_code=404)

    async def not_allowed(request: Request, error: Exception) -> Response:
        return _json([], 405)

    app = Starlette(
        routes=[
            Route("/", root),
            Route("/ksql", ksql, methods=["POST"]),
            Route("/ksql/", ksql, methods=["POST"]),
            Route("/query-stream", query_stream, methods=["POST"]),
            Route("/query", query, methods=["POST"]),
            Route("/close-query", close_query, methods=["POST"]),
            Route("/info", info),
            Route("/healthcheck", health),
            Route("/status", statuses),
            Route("/status/{command_id:path}", status),
            Route("/v1/metadata", metadata),
            Route("/v1/metadata/id", metadata_id),
            Route("/is_valid_property/{name}", is_valid_property),
            Route("/clusterStatus", cluster_status),
            Route("/inserts-stream", inserts_stream, methods=["POST"]),
            Route("/lag", lag),
        ],
        exception_handlers={
            KsqlError: on_error,
            404: not_found,
            405: not_allowed,
            Exception: on_defect,
        },
    )
    app.add_middleware(_Readiness, engine=engine)
    return app
