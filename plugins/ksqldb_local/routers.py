"""The routers: one for each topic that queries read, made when the first query needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ksqldb_local.metastore import Metastore, PersistentQuery
from ksqldb_local.router import Route, TopicRouter


class Routers:
    """The queries at work.

    Args:
        config: Client settings.
        service_id: Names consumer groups and transactions.
        log_topic: Where entries of the processing log go.
        on_fenced: Called when the broker fenced a router; raises when another process took over.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        service_id: str,
        log_topic: str,
        on_fenced: Callable[[], None],
    ) -> None:
        self._config = config
        self._service_id = service_id
        self._log_topic = log_topic
        self._on_fenced = on_fenced
        self._routers: dict[str, TopicRouter] = {}

    def group(self, query_id: str) -> str:
        """Return the consumer group of a persistent query, named as ksqlDB names it."""
        return f"_confluent-ksql-{self._service_id}query_{query_id}"

    def of(self, query: PersistentQuery) -> TopicRouter:
        """Return the running router that the query belongs to."""
        topic = query.reads.topic
        router = self._routers.get(topic)
        if router is None:
            router = TopicRouter(
                self._config,
                topic,
                transactional_id=f"_confluent-ksql-{self._service_id}router_{topic}",
                log_topic=self._log_topic,
                on_fenced=self._on_fenced,
            )
            self._routers[topic] = router
            router.start()
        return router

    def route(self, query: PersistentQuery, store: Metastore) -> Route:
        """Return the query as a router runs it."""
        return Route(query, self.group(query.id), store.streams[query.sink])

    def live(self, query: PersistentQuery) -> Route | None:
        """Return the state of a query at work."""
        router = self._routers.get(query.reads.topic)
        return router.route(query.id) if router is not None else None

    def align(self, store: Metastore) -> None:
        """Stop the queries that are no more, start or replace those that are not at work."""
        for router in self._routers.values():
            for gone in set(router.query_ids()) - store.queries.keys():
                router.remove(gone)
        for query in store.queries.values():
            route = self.live(query)
            if route is None or route.query is not query:
                self.of(query).add(self.route(query, store))

    def stop(self) -> None:
        """End all of them after the transactions in hand."""
        routers = list(self._routers.values())
        for router in routers:
            router.stop()
        for router in routers:
            router.join(timeout=15)
