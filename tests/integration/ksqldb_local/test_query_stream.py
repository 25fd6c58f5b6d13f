"""Push and pull queries over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

EARLIEST = {"auto.offset.reset": "earliest"}


@pytest.fixture
def source(server: Any) -> str:
    """Create the stream S with two records; return its topic."""
    topic = server.create_topic("s", partitions=1)
    server.execute(
        f"CREATE STREAM s (id VARCHAR KEY, v VARCHAR, n BIGINT) WITH (KAFKA_TOPIC='{topic}', "
        "VALUE_FORMAT='JSON');"
    )
    server.execute("INSERT INTO s VALUES ('a', 'one', 1);")
    server.execute("INSERT INTO s VALUES ('b', 'two', 2);")
    return str(topic)


def query(server: Any, sql: str, accept: str = "*/*", **properties: str) -> Any:
    return server.client.post(
        "/query-stream", json={"sql": sql, "properties": properties}, headers={"accept": accept}
    )


def rows(response: Any) -> list[Any]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()][1:]


def listed(server: Any) -> list[str]:
    return [q["id"] for q in server.execute("SHOW QUERIES;")["queries"]]


def test_push_query_ends_at_its_limit(server: Any, source: str) -> None:
    response = query(server, "SELECT v, n * 2 AS d FROM s EMIT CHANGES LIMIT 2;", **EARLIEST)

    assert rows(response) == [["one", 2], ["two", 4]]
    assert listed(server) == []


def test_push_query_gets_what_comes_and_is_listed_until_it_is_closed(
    server: Any, source: str
) -> None:
    body = {"sql": "SELECT v FROM s WHERE n > 5 EMIT CHANGES;"}
    with server.client.stream("POST", "/query-stream", json=body) as response:
        lines = response.iter_lines()
        query_id = json.loads(next(lines))["queryId"]
        assert listed(server) == [query_id]
        server.execute("INSERT INTO s VALUES ('c', 'small', 5); INSERT INTO s (n) VALUES (6);")
        assert json.loads(next(lines)) == [None]
        assert server.client.post("/close-query", json={"queryId": query_id}).status_code == 200
        assert list(lines) == []
    server.wait_until(lambda: listed(server) == [], "the closed query is gone")
    assert server.client.post("/close-query", json={"queryId": query_id}).status_code == 400


def test_push_query_ends_when_its_client_goes(server: Any, source: str) -> None:
    body = {"sql": "SELECT v FROM s EMIT CHANGES;"}
    with server.client.stream("POST", "/query-stream", json=body) as response:
        next(response.iter_lines())
        assert len(listed(server)) == 1

    server.wait_until(lambda: listed(server) == [], "the abandoned query is gone", timeout_s=10)


def test_pull_query_reads_to_the_end_from_the_beginning(server: Any, source: str) -> None:
    assert rows(query(server, "SELECT id, v FROM s WHERE n = 2;")) == [["b", "two"]]
    assert rows(query(server, "SELECT * FROM s LIMIT 1;")) == [["a", "one", 1]]
    assert rows(query(server, "SELECT * FROM s LIMIT 0;")) == []


def test_forms_of_the_answer(server: Any, source: str) -> None:
    sql = "SELECT v FROM s LIMIT 1;"
    array = query(server, sql, "application/json").json()
    v1 = query(server, sql, "application/vnd.ksql.v1+json").json()

    assert array[0]["columnNames"] == ["V"]
    assert array[1:] == [["one"]]
    assert v1[0]["header"]["schema"] == "`V` STRING"
    assert v1[1:] == [{"row": {"columns": ["one"]}}, {"finalMessage": "Limit Reached"}]
    assert query(server, sql, "text/xml").status_code == 406


def test_unreadable_records_are_skipped_and_failing_columns_null(server: Any, source: str) -> None:
    server.execute(
        f"CREATE STREAM raw (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    raw = server.create_topic("bad", partitions=1)
    server.execute(
        f"CREATE STREAM bad_raw (v VARCHAR) WITH (KAFKA_TOPIC='{raw}', VALUE_FORMAT='KAFKA');"
    )
    server.execute(
        f"CREATE STREAM bad (v VARCHAR, n INT) WITH (KAFKA_TOPIC='{raw}', VALUE_FORMAT='JSON');"
    )
    server.execute("INSERT INTO bad_raw VALUES ('nada'); INSERT INTO bad VALUES ('x', 0);")

    assert rows(query(server, "SELECT v, 1 / n AS q FROM bad;")) == [["x", None]]
    half = "SELECT SUBSTRING('\U0001f600b', 2) AS h FROM bad;"  # of a pair that UTF-8 cannot carry
    assert rows(query(server, half)) == [["\ude00b"]]
    assert len(rows(query(server, "SELECT v FROM raw;"))) == 2


WRONG = [
    ("SELECT nada FROM s EMIT CHANGES;", "cannot be resolved"),
    ("SELECT * FROM s EMIT CHANGES; SELECT * FROM s;", "exactly one"),
    ("SELECT v FROM s PARTITION BY v EMIT CHANGES;", "ksqlDB server"),
    ("SELECT v, COUNT(*) FROM s GROUP BY v EMIT CHANGES;", "ksqlDB server"),
    ("PRINT 'x';", "ksqlDB server"),
    ("SELECT", "Syntax"),
    ("SELECT 1.5 AS x FROM s;", "DECIMAL"),
]


def test_wrong_query_is_refused(server: Any, source: str) -> None:
    for sql, words in WRONG:
        response = query(server, sql)

        assert response.status_code == 400, sql
        assert response.json()["@type"] == "statement_error"
        assert response.json()["error_code"] == 40001
        assert words in response.json()["message"]

    response = query(server, "SELECT * FROM s EMIT CHANGES;", **{"auto.offset.reset": "none"})

    assert response.status_code == 400
    assert response.json()["error_code"] == 40000
