"""The wait for queries, in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from kafka_io import Offsets
    from ksqldb_provider.caught_up import CaughtUp, Lag

EncodedTargets = Mapping[str, Sequence[tuple[str, int, int]]]
"""Ends by query id as (topic, partition, offset): what survives being stored as JSON."""


def encode_targets(targets: Mapping[str, Offsets]) -> dict[str, list[tuple[str, int, int]]]:
    """Return ends to reach in a form that can be stored as JSON."""
    return {
        query_id: [(topic, partition, end) for (topic, partition), end in sorted(ends.items())]
        for query_id, ends in targets.items()
    }


def decode_targets(targets: EncodedTargets) -> dict[str, Offsets]:
    """Undo `encode_targets`."""
    return {
        query_id: {(topic, partition): end for topic, partition, end in ends}
        for query_id, ends in targets.items()
    }


class KsqlQueriesCaughtUpTrigger(BaseTrigger):
    """Fires when queries have caught up, have failed, or the time is up.

    Connections are looked up by their ids, so no credential is stored with the trigger; the ends
    travel with it, so that another triggerer goes on where this one stopped.

    Args:
        query_ids: Ids of the queries.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        kafka_conn_id: Connection of its Kafka cluster.
        targets: The ends captured when the task started (`encode_targets`).
        timeout_s: How long no query may come nearer to its end.
        poll_interval_s: Seconds between two looks.
    """

    def __init__(
        self,
        *,
        query_ids: Sequence[str],
        ksqldb_conn_id: str,
        kafka_conn_id: str,
        targets: EncodedTargets,
        timeout_s: float,
        poll_interval_s: float = 1.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.query_ids = list(query_ids)
        self.ksqldb_conn_id = ksqldb_conn_id
        self.kafka_conn_id = kafka_conn_id
        self.targets = targets
        self.timeout_s = timeout_s
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and its arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "query_ids": self.query_ids,
                "ksqldb_conn_id": self.ksqldb_conn_id,
                "kafka_conn_id": self.kafka_conn_id,
                "targets": {
                    query: [list(end) for end in ends] for query, ends in self.targets.items()
                },
                "timeout_s": self.timeout_s,
                "poll_interval_s": self.poll_interval_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; every look is made in a thread, as the clients block."""
        from asgiref.sync import sync_to_async

        from kafka_io import BrokerUnavailableError, KafkaIoError
        from ksqldb_provider.caught_up import CatchUpTimeoutError
        from ksqldb_provider.client import KsqlDbError
        from ksqldb_provider.hooks import KsqlDbHook, kafka_config

        # sync_to_async, not to_thread: looking up a connection calls back into this event loop.
        in_thread = sync_to_async(thread_sensitive=False)
        client = await in_thread(KsqlDbHook(self.ksqldb_conn_id).get_client)()
        kafka = await in_thread(kafka_config)(self.kafka_conn_id)
        caught_up: CaughtUp | None = None
        problem = ""
        lags: Sequence[Lag] = ()
        deadline = time.monotonic() + self.timeout_s
        try:
            while True:
                try:
                    if caught_up is None:
                        caught_up = await asyncio.to_thread(self._resume, client, kafka)
                    if await asyncio.to_thread(caught_up.check):
                        yield _event("success", query_ids=self.query_ids)
                        return
                    problem = ""
                except (KsqlDbError, KafkaIoError) as error:
                    can_pass = isinstance(error, BrokerUnavailableError) or getattr(
                        error, "retryable", False
                    )
                    if not can_pass:
                        yield _event("failed", message=str(error))
                        return
                    problem = str(error)
                    self.log.warning("Looking again later: %s", error)
                if caught_up is not None and caught_up.lags != lags:
                    lags = caught_up.lags
                    deadline = time.monotonic() + self.timeout_s
                if time.monotonic() >= deadline:
                    late = CatchUpTimeoutError(lags, self.timeout_s, client.address)
                    message = f"{late} Last problem: {problem}" if problem else str(late)
                    yield _event("timeout", message=message)
                    return
                await asyncio.sleep(self.poll_interval_s)
        finally:
            client.close()

    def _resume(self, client: Any, kafka: Mapping[str, Any]) -> CaughtUp:
        from ksqldb_provider.caught_up import CaughtUp, watch

        return CaughtUp(
            client, kafka, watch(client, self.query_ids), targets=decode_targets(self.targets)
        )


def _event(status: str, **details: Any) -> TriggerEvent:
    return TriggerEvent({"status": status, **details})  # type: ignore[no-untyped-call]
