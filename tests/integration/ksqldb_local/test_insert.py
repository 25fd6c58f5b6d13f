"""INSERT INTO: further queries that write a stream, and single records."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

EARLIEST = {"auto.offset.reset": "earliest"}


@pytest.fixture
def streams(server: Any) -> str:
    """Create the stream A, and B selected from it; return B's topic."""
    source, sink = server.create_topic("a"), server.topic("b")
    server.execute(
        f"CREATE STREAM a (id VARCHAR KEY, v VARCHAR, n BIGINT) WITH (KAFKA_TOPIC='{source}', "
        "VALUE_FORMAT='JSON');"
    )
    server.execute(
        f"CREATE STREAM b WITH (KAFKA_TOPIC='{sink}') AS SELECT * FROM a WHERE n > 5;", **EARLIEST
    )
    return str(sink)


def values(server: Any, topic: str, count: int) -> list[tuple[bytes | None, Any]]:
    records = server.read_all(topic, at_least=count)
    return sorted(((m.key(), json.loads(m.value())) for m in records), key=str)


def test_insert_into_writes_beside_the_streams_own_query(server: Any, streams: str) -> None:
    answer = server.execute("INSERT INTO b SELECT * FROM a WHERE v = 'x' EMIT CHANGES;", **EARLIEST)
    server.execute("INSERT INTO a VALUES ('k', 'x', 7);")
    server.execute("INSERT INTO a (v) VALUES ('x');")

    query_id = answer["commandStatus"]["queryId"]
    assert query_id == f"INSERTQUERY_{answer['commandSequenceNumber'] - 1}"
    assert answer["commandId"] == "stream/`B`/create"
    both = (b"k", {"V": "x", "N": 7})
    assert values(server, streams, 3) == [(None, {"V": "x", "N": None}), both, both]
    assert server.explain(query_id)["sinks"] == ["B"]


def test_insert_into_goes_on_after_a_restart(server: Any, streams: str) -> None:
    # A cast, since the text that is stored names its type otherwise than most people write it.
    negative = "CAST(n AS VARCHAR) LIKE '-%'"
    server.execute(f"INSERT INTO b SELECT * FROM a WHERE {negative};", **EARLIEST)
    server.execute("INSERT INTO a VALUES ('k', 'before', -1);")
    server.read_all(streams, at_least=1)
    server.kill(signal.SIGKILL)
    server.start()
    server.execute("INSERT INTO a VALUES ('k', 'after', -2);")

    found = values(server, streams, 2)
    assert [v["V"] for _, v in found] == ["after", "before"]


def test_own_query_id_is_taken_once(server: Any, streams: str) -> None:
    text = "INSERT INTO b WITH (QUERY_ID='mine') SELECT * FROM a;"
    answer = server.execute(text)
    again = server.ksql(text)

    assert answer["commandStatus"]["queryId"] == "MINE"
    assert again.status_code == 400
    assert "already exists" in again.json()["message"]


def test_stream_is_not_dropped_or_replaced_under_an_insert(server: Any, streams: str) -> None:
    query_id = server.execute("INSERT INTO b SELECT * FROM a;")["commandStatus"]["queryId"]
    dropped = server.ksql("DROP STREAM b;")
    replaced = server.ksql(
        f"CREATE OR REPLACE STREAM b WITH (KAFKA_TOPIC='{streams}') AS SELECT * FROM a;"
    )

    for response in (dropped, replaced):
        assert response.status_code == 400
        assert query_id in response.json()["message"]
    server.execute(f"TERMINATE {query_id};")
    server.execute("DROP STREAM b;")


WRONG = [
    ("INSERT INTO b SELECT id, v FROM a;", "Incompatible schema"),
    ("INSERT INTO nobody SELECT * FROM a;", "NOBODY does not exist"),
    ("INSERT INTO b SELECT * FROM nobody;", "NOBODY does not exist"),
    ("INSERT INTO b WITH (QUERY_ID='CSAS_X_1') SELECT * FROM a;", "reserved"),
    ("INSERT INTO b WITH (PARTITIONS=2) SELECT * FROM a;", "PARTITIONS"),
    ("INSERT INTO nobody VALUES ('k');", "unknown stream"),
    ("INSERT INTO a (z) VALUES ('secret');", "`Z` does not exist"),
    ("INSERT INTO a (n) VALUES ('secret');", "Expected type BIGINT"),
    ("INSERT INTO a (v, n) VALUES ('secret');", "a value for each column"),
    ("INSERT INTO a (v, v) VALUES ('secret', 'x');", "named twice"),
    ("INSERT INTO a (n) VALUES (1 / 0);", "/ by zero"),
]


def test_wrong_insert_is_refused_without_showing_values(server: Any, streams: str) -> None:
    for statement, words in WRONG:
        response = server.ksql(statement)

        assert response.status_code == 400, statement
        assert response.json()["@type"] == "statement_error"
        assert words in response.json()["message"]
        assert "secret" not in response.text


def test_inserted_record_has_the_given_time_and_types(server: Any) -> None:
    topic = server.create_topic("t", partitions=1)
    server.execute(
        f"CREATE STREAM t (d DOUBLE, f BOOLEAN, s VARCHAR) WITH (KAFKA_TOPIC='{topic}', "
        "VALUE_FORMAT='JSON');"
    )
    now = time.time_ns() // 1_000_000  # the broker deletes what is older than the retention
    server.execute(f"INSERT INTO t (rowtime, d, f, s) VALUES ({now}, 1, true, 'it''s');")

    message = server.read_all(topic, at_least=1)[0]
    assert message.timestamp()[1] == now
    assert message.value() == b'{"D":1.0,"F":true,"S":"it\'s"}'
