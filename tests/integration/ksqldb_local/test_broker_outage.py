"""The broker goes away while records are routed, and comes back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from local_stack.services import Service, kafka_service
from local_stack.settings import StackSettings
from local_stack.stack import Stack


def unreported(service: Service, event: str) -> None:
    """Take the stack's progress reports."""


@pytest.fixture
def broker(make_stack_settings: Callable[[], StackSettings]) -> Iterator[tuple[Stack, str]]:
    """Return a broker of its own, which the test may stop."""
    settings = make_stack_settings()
    stack = Stack(settings, [kafka_service(settings)])
    stack.up(unreported)
    yield stack, settings.bootstrap_servers
    stack.down(unreported)


@pytest.fixture
def bootstrap_servers(broker: tuple[Stack, str]) -> str:
    return broker[1]


@pytest.mark.timeout(300)
def test_outage_loses_and_doubles_nothing_and_shows_in_health(
    broker: tuple[Stack, str], server: Any
) -> None:
    stack, address = broker
    source, sink = server.create_topic("s"), server.topic("sink")
    server.execute(
        f"CREATE STREAM s (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    server.execute(
        f"CREATE STREAM sink WITH (KAFKA_TOPIC='{sink}', VALUE_FORMAT='JSON') AS SELECT v, "
        "ROWPARTITION AS p, ROWOFFSET AS o FROM s;",
        **{"auto.offset.reset": "earliest"},
    )
    producer = Producer({"bootstrap.servers": address, "message.timeout.ms": 200_000})
    for number in range(20_000):
        producer.produce(source, value=b"%d" % number)
    assert producer.flush(60) == 0
    server.read_all(sink, at_least=1)

    stack.down(unreported)
    health = server.client.get("/healthcheck")
    change = server.ksql("CREATE STREAM t (v VARCHAR) WITH (KAFKA_TOPIC='x', VALUE_FORMAT='JSON');")
    shown = server.ksql("SHOW STREAMS;")
    stack.up(unreported)

    assert health.status_code == 200
    assert health.json()["isHealthy"] is False
    assert health.json()["details"]["kafka"] == {"isHealthy": False}
    assert change.status_code == 503
    assert change.json()["error_code"] == 50000
    assert shown.status_code == 200
    for number in range(20_000, 21_000):
        producer.produce(source, value=b"%d" % number)
    assert producer.flush(60) == 0
    rows = [json.loads(m.value()) for m in server.read_all(sink, at_least=21_000, timeout_s=120)]
    assert set(Counter((r["P"], r["O"]) for r in rows).values()) == {1}
    assert sorted(int(r["V"]) for r in rows) == list(range(21_000))
    server.wait_until(
        lambda: server.client.get("/healthcheck").json()["isHealthy"], "it is healthy again"
    )
    server.execute(f"CREATE STREAM t (v VARCHAR) WITH (KAFKA_TOPIC='{sink}', VALUE_FORMAT='JSON');")
    assert server.explain(server.query_of("sink")["id"])["queryErrors"] == []
