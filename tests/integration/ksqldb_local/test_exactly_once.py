"""Nothing is lost and nothing doubled, whatever happens to the process."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from confluent_kafka import Message, Producer

EARLIEST = {"auto.offset.reset": "earliest"}


def produce(server: Any, topic: str, values: list[bytes], *, seconds: float = 0) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "linger.ms": 5})
    pause = threading.Event()
    for index, value in enumerate(values):
        producer.produce(topic, value=value, key=str(index).encode())
        if seconds and index % 100 == 99:
            producer.poll(0)
            pause.wait(seconds * 100 / len(values))
    assert producer.flush(60) == 0


def coordinates(messages: list[Message]) -> Counter[tuple[int, int]]:
    values = [json.loads(m.value() or b"") for m in messages]
    return Counter((v["P"], v["O"]) for v in values)


def routing(server: Any, source: str, left: str, right: str, chained: str) -> None:
    server.execute(
        f"CREATE STREAM s (id VARCHAR KEY, v VARCHAR) WITH (KAFKA_TOPIC='{source}', "
        "KEY_FORMAT='KAFKA', VALUE_FORMAT='KAFKA');"
    )
    for name, topic, where in (("a", left, "v LIKE 'a%'"), ("b", right, "NOT (v LIKE 'a%')")):
        server.execute(
            f"CREATE STREAM {name} WITH (KAFKA_TOPIC='{topic}', VALUE_FORMAT='JSON') AS SELECT id, "
            f"v, ROWPARTITION AS p, ROWOFFSET AS o FROM s WHERE {where};",
            **EARLIEST,
        )
    server.execute(
        f"CREATE STREAM c WITH (KAFKA_TOPIC='{chained}') AS SELECT * FROM a;", **EARLIEST
    )


def kill_engine(server: Any, chance: random.Random) -> None:
    server.kill(signal.SIGKILL)
    server.start()


def kill_router(server: Any, chance: random.Random) -> None:
    chance.choice(server.routers()).kill()
    server.wait_until(lambda: len(server.routers()) == 2, "the router is started again")


@pytest.mark.parametrize("kill", [kill_engine, kill_router])
def test_killed_at_random_moments_every_record_arrives_once(
    server: Any, kill: Callable[[Any, random.Random], None]
) -> None:
    seed = int(os.environ.get("EMERGENCIAS_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    values = [(b"a" if chance.random() < 0.5 else b"b") + b"%d" % n for n in range(30_000)]
    producing = threading.Thread(
        target=produce, args=(server, source, values), kwargs={"seconds": 12}
    )
    producing.start()
    kills = 0
    while producing.is_alive() or kills < 5:
        time.sleep(chance.uniform(0.05, 1.5))
        kill(server, chance)
        kills += 1
    producing.join()

    records = server.read_all(source, at_least=len(values))
    wanted = {
        "a": {(m.partition(), m.offset()) for m in records if m.value().startswith(b"a")},
        "b": {(m.partition(), m.offset()) for m in records if m.value().startswith(b"b")},
    }
    for topic, part in ((left, "a"), (right, "b"), (chained, "a")):
        found = coordinates(server.read_all(topic, at_least=len(wanted[part])))
        assert set(found) == wanted[part]
        assert set(found.values()) == {1}
    query = server.query_of("a")["id"]
    ends = Counter(m.partition() for m in records)
    server.wait_until(
        lambda: server.committed(query, source) == dict(ends), "the group has committed the ends"
    )


def test_terminated_in_order_it_goes_on_where_it_was(server: Any) -> None:
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    produce(server, source, [b"a1", b"b1"])
    server.read_all(chained, at_least=1)

    assert server.kill(signal.SIGTERM) == 0
    produce(server, source, [b"a2", b"b2", b"a3"])
    server.start()

    assert len(server.read_all(chained, at_least=3)) == 3
    assert len(server.read_all(right, at_least=2)) == 2
    assert [q["id"] for q in server.execute("SHOW QUERIES;")["queries"]] == [
        "CSAS_A_3",
        "CSAS_B_5",
        "CSAS_C_7",
    ]


def test_a_process_that_was_asleep_and_replaced_routes_nothing_any_more(server: Any) -> None:
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    produce(server, source, [b"a0"])
    server.read_all(chained, at_least=1)
    zombie = server.process
    asleep = [*server.routers(), psutil.Process(zombie.pid)]
    for process in asleep:
        process.suspend()
    address = server.host
    with_new_address = type(server)(server.bootstrap_servers).host
    server.host, server.client.base_url = with_new_address, f"http://{with_new_address}"
    server.start()
    assert address != server.host

    produce(server, source, [b"a1", b"a2", b"b1"])
    server.read_all(chained, at_least=3)
    for process in asleep:
        process.resume()
    assert zombie.wait(timeout=60) == 1
    produce(server, source, [b"a3"])

    assert len(server.read_all(chained, at_least=4)) == 4
    assert set(coordinates(server.read_all(left)).values()) == {1}
    assert server.process.poll() is None


def test_killed_engine_leaves_no_process_behind(server: Any) -> None:
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert len(server.routers()) == 2

    server.kill(signal.SIGKILL)

    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_new_query_begins_at_latest_or_earliest_and_then_keeps_pace(server: Any) -> None:
    source, early, late = (server.create_topic(n) for n in ("s", "early", "late"))
    server.execute(
        f"CREATE STREAM s (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    produce(server, source, [b"old%d" % n for n in range(1_000)])
    select = "AS SELECT v, ROWPARTITION AS p, ROWOFFSET AS o FROM s"
    server.execute(f"CREATE STREAM late WITH (KAFKA_TOPIC='{late}', VALUE_FORMAT='JSON') {select};")
    server.kill(signal.SIGKILL)  # what it begins at was committed with its creation
    produce(server, source, [b"new%d" % n for n in range(10)])
    server.start()
    server.execute(
        f"CREATE STREAM early WITH (KAFKA_TOPIC='{early}', VALUE_FORMAT='JSON') {select};",
        **EARLIEST,
    )
    produce(server, source, [b"new%d" % n for n in range(10, 20)])

    after = [json.loads(m.value())["V"] for m in server.read_all(late, at_least=20)]
    assert sorted(after) == sorted(f"new{n}" for n in range(20))
    assert len(server.read_all(early, at_least=1_020)) == 1_020


def test_filter_replaced_while_producing_takes_over_without_gap_or_repetition(server: Any) -> None:
    source, sink = server.create_topic("s"), server.create_topic("sink")
    server.execute(
        f"CREATE STREAM s (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    create = (
        f"CREATE OR REPLACE STREAM sink WITH (KAFKA_TOPIC='{sink}', VALUE_FORMAT='JSON') AS "
        "SELECT v, ROWPARTITION AS p, ROWOFFSET AS o FROM s WHERE v LIKE '{}%';"
    )
    before = server.execute(create.format("a"))["commandStatus"]["queryId"]
    values = [v for n in range(10_000) for v in (b"a%d" % n, b"b%d" % n)]
    producing = threading.Thread(
        target=produce, args=(server, source, values), kwargs={"seconds": 4}
    )
    producing.start()
    time.sleep(2)
    replaced = server.execute(create.format("b"))
    producing.join()
    server.wait_until(
        lambda: sum(server.committed(before, source).values()) == len(values),
        "the query has handled all records",
    )

    found = server.read_all(sink)
    assert replaced["commandStatus"]["queryId"] == before
    assert set(coordinates(found).values()) == {1}
    # In every partition: the old filter's records up to one offset, the new one's after it.
    for partition in range(3):
        rows = sorted(
            (v["O"], v["V"][0])
            for v in (json.loads(m.value()) for m in found)
            if v["P"] == partition
        )
        letters = "".join(letter for _, letter in rows)
        assert letters == "a" * letters.count("a") + "b" * letters.count("b")
        assert letters.count("a") > 0
        assert letters.count("b") > 0
        switch = max(o for o, letter in rows if letter == "a")
        records = [m for m in server.read_all(source) if m.partition() == partition]
        a_before = [m for m in records if m.value().startswith(b"a") and m.offset() <= switch]
        assert letters.count("a") == len(a_before)
        b_from = min(o for o, letter in rows if letter == "b")
        b_after = [m for m in records if m.value().startswith(b"b") and m.offset() >= b_from]
        assert letters.count("b") == len(b_after)


def test_paused_query_takes_up_what_came_meanwhile(server: Any) -> None:
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    query = server.query_of("a")["id"]
    server.execute(f"PAUSE {query};")
    produce(server, source, [b"a1", b"b1", b"a2"])
    assert len(server.read_all(right, at_least=1)) == 1
    assert server.read_all(left) == []

    server.execute(f"RESUME {query};")

    assert len(server.read_all(left, at_least=2)) == 2
    assert len(server.read_all(right)) == 1


def test_transaction_of_another_producer_that_is_aborted_is_not_routed(server: Any) -> None:
    source, left, right, chained = (server.create_topic(n) for n in ("s", "a", "b", "c"))
    routing(server, source, left, right, chained)
    producer = Producer(
        {"bootstrap.servers": server.bootstrap_servers, "transactional.id": f"{server.name}-t"}
    )
    producer.init_transactions()
    for commit in (False, True, False):
        producer.begin_transaction()
        producer.produce(source, value=b"a-committed" if commit else b"a-aborted", partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()

    assert [json.loads(m.value())["V"] for m in server.read_all(left, at_least=1)] == [
        "a-committed"
    ]
