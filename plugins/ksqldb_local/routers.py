"""The routers: one for each topic that queries read, made when the first query needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from ksqldb_local.metastore import Metastore, PersistentQuery
from ksqldb_local.router import Route, RouterSettings, RouteState, query_error
from ksqldb_local.router_process import RouterProcess, prepare

_ANSWER_S = 3.0


class Routers:
    """The queries at work.

    Args:
        config: Client settings.
        service_id: Names consumer groups and transactions.
        log_topic: Where entries of the processing log go.
        may_restart: Asked when a router ended by itself; False when another engine took over.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        service_id: str,
        log_topic: str,
        may_restart: Callable[[], bool],
    ) -> None:
        self._config = config
        self._service_id = service_id
        self._log_topic = log_topic
        self._may_restart = may_restart
        self._routers: dict[str, RouterProcess] = {}
        prepare()

    def group(self, query_id: str) -> str:
        """Return the consumer group of a persistent query, named as ksqlDB names it."""
        return f"_confluent-ksql-{self._service_id}query_{query_id}"

    def of(self, query: PersistentQuery) -> RouterProcess:
        """Return the running router that the query belongs to."""
        topic = query.reads.topic
        if topic not in self._routers:
            settings = RouterSettings(
                self._config,
                topic,
                transactional_id=f"_confluent-ksql-{self._service_id}router_{topic}",
                log_topic=self._log_topic,
            )
            self._routers[topic] = RouterProcess(settings, self._may_restart)
        return self._routers[topic]

    def route(self, query: PersistentQuery, store: Metastore) -> Route:
        """Return the query as a router runs it."""
        return Route(query, self.group(query.id), store.streams[query.sink])

    def remove(self, query: PersistentQuery) -> Future[None]:
        """Stop a query at the next transaction boundary, and a router that has none left."""
        topic = query.reads.topic
        router = self.of(query)
        removed = router.remove(query.id)
        if not router.query_ids():
            # Forgotten at once: the next query on the topic gets a new one, which fences it.
            del self._routers[topic]
            removed.add_done_callback(lambda _: router.stop())
        return removed

    def states(self, queries: Iterable[PersistentQuery]) -> dict[str, RouteState]:
        """Return how queries are doing, by id; those that are not at work are left out.

        All routers are asked before the first answer is waited for, and for 3 s in all: one that
        hangs must not hold up the server.
        """
        deadline = time.monotonic() + _ANSWER_S
        asked = [
            (query, router.ask_state(query.id))
            for query in queries
            if (router := self._routers.get(query.reads.topic)) is not None
        ]
        states = {}
        for query, answer in asked:
            try:
                state = answer.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                reason = f"The router of {query.reads.topic} does not answer"
                state = RouteState(errors=[query_error(reason)])
            if state is not None:
                states[query.id] = state
        return states

    def align(self, store: Metastore) -> None:
        """Stop the queries that are no more, start or replace those that are not at work."""
        for router in self._routers.values():
            for gone in set(router.query_ids()) - store.queries.keys():
                router.remove(gone)
        for query in store.queries.values():
            if not self.of(query).runs(query):
                self.of(query).add(self.route(query, store))

    def stop(self) -> None:
        """End all of them after the transactions in hand."""
        routers = list(self._routers.values())
        for router in routers:
            router.stop()
        for router in routers:
            router.join(timeout=15)
