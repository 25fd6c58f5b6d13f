"""A router in a process of its own: Python's lock would have the routers take turns.

Both ends of a pipe: :class:`RouterProcess` is what the engine holds, :func:`_serve` what runs at
the other end. A process that ends by itself is started again with all its queries; what it left
open is aborted by its successor, which has the same transactional id.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from ksqldb_local.metastore import PersistentQuery
from ksqldb_local.router import Route, RouterSettings, RouteState, TopicRouter

log = logging.getLogger(__name__)

_context = multiprocessing.get_context("forkserver")
_AGAIN_S = 1.0
_END_S = 10.0

Request = tuple[str, tuple[Any, ...]]


class RouterError(Exception):
    """What went wrong at the other end."""


def prepare() -> None:
    """Begin to load what routers need, so that the first one need not wait for it."""
    _context.set_forkserver_preload([__name__])
    from multiprocessing import forkserver

    forkserver.ensure_running()


class RouterProcess:
    """The routing of one topic.

    Args:
        settings: What the router reads and how.
        may_restart: Asked when the process ended by itself; False when it must not be started
            again, because another engine took over.
    """

    def __init__(self, settings: RouterSettings, may_restart: Callable[[], bool]) -> None:
        self.topic = settings.topic
        self._settings = settings
        self._may_restart = may_restart
        self._routes: dict[str, Route] = {}
        self._requests: dict[int, tuple[Request, Future[Any]]] = {}
        self._numbers = count()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._launch()
        self._watcher = threading.Thread(
            target=self._watch, name=f"router-{settings.topic}", daemon=True
        )
        self._watcher.start()

    # --- what it runs ----------------------------------------------------------------------------

    def runs(self, query: PersistentQuery) -> bool:
        """Say whether it is this very query that runs here under its id."""
        route = self._routes.get(query.id)
        return route is not None and route.query is query

    def query_ids(self) -> list[str]:
        """Return the ids of the queries that it runs."""
        return list(self._routes)

    def add(self, route: Route) -> Future[None]:
        """Start a query, or replace the one with its id: it goes on where that one is."""
        with self._lock:
            self._routes[route.query.id] = route
            return self._ask("add", route)

    def remove(self, query_id: str) -> Future[None]:
        """Stop a query at the next transaction boundary."""
        with self._lock:
            self._routes.pop(query_id, None)
            return self._ask("remove", query_id)

    def pause(self, query_id: str, paused: bool) -> Future[None]:
        """Pause or resume a query at the next transaction boundary."""
        return self._ask("pause", query_id, paused)

    def ask_state(self, query_id: str) -> Future[RouteState | None]:
        """Ask how a query is doing; None is answered when it does not run here."""
        return self._ask("state", query_id)

    # --- the process -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the process to end after the transaction in hand."""
        self._stopping.set()
        self._ask("stop")

    def join(self, timeout: float) -> None:
        """Wait for its end; kill it after ``timeout`` seconds, which aborts its transaction."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()

    def _launch(self) -> None:
        ours, theirs = _context.Pipe()
        with theirs:
            process = _context.Process(
                target=_serve, args=(self._settings, theirs), name=f"router-{self.topic}"
            )
            process.start()
        self._connection, self._process = ours, process

    def _ask(self, method: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._requests[number] = (method, arguments), future
            self._send(number, (method, arguments))
        return future

    def _send(self, number: int, request: Request) -> None:
        try:
            self._connection.send((number, request))
        except OSError as error:
            # The process has ended; what it did not answer is asked again of its successor.
            log.debug("router of %s cannot be asked: %s", self.topic, error)

    def _watch(self) -> None:
        while True:
            try:
                number, failure, result = self._connection.recv()
            except (EOFError, OSError):
                if self._stopping.is_set() or not self._start_again():
                    return
                continue
            with self._lock:
                _, future = self._requests.pop(number, (None, None))
            if future is None:
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(RouterError(failure))

    def _start_again(self) -> bool:
        """Start it again with all that it ran; False when it has to stay ended."""
        if not self._routes:  # what was still to be done was to stop what ran
            for _, future in self._requests.values():
                future.set_result(None)
            return False
        self._process.join(_END_S)
        log.warning(
            "The router of %s ended (exit code %s); starting it again",
            self.topic,
            self._process.exitcode,
        )
        if self._stopping.wait(_AGAIN_S) or not self._may_restart():
            return False
        with self._lock:
            try:
                self._launch()
            except (OSError, EOFError):
                log.exception("The router of %s cannot be started; trying again", self.topic)
                return True
            for route in self._routes.values():
                self._send(next(self._numbers), ("add", (route,)))
            for number, (request, _) in self._requests.items():
                self._send(number, request)
        return True


def _serve(settings: RouterSettings, connection: Connection) -> None:
    """Run the router until the other end is closed, by its holder or by its holder's death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which tells us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    router = TopicRouter(settings)
    threading.Thread(target=_listen, args=(router, connection), daemon=True).start()
    status = 0
    try:
        router.run()
    except Exception:
        log.exception("router of %s ends", settings.topic)
        status = 1
    logging.shutdown()
    # Clients of a broker that is down would hold the exit up for minutes; nothing is left to lose.
    os._exit(status)


def _listen(router: TopicRouter, connection: Connection) -> None:
    lock = threading.Lock()

    def answer(number: int, future: Future[Any]) -> None:
        error = future.exception()
        failure = None if error is None else str(error) or type(error).__name__
        with lock:
            connection.send((number, failure, future.result() if error is None else None))

    while True:
        try:
            number, (method, arguments) = connection.recv()
        except (EOFError, OSError):
            method = "stop"
        if method == "stop":
            router.stop()
            return
        future: Future[Any] = getattr(router, method)(*arguments)
        future.add_done_callback(partial(answer, number))
