"""What fails is shown, is retried, and stops nothing else."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

EARLIEST = {"auto.offset.reset": "earliest"}


def produce(server: Any, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers})
    for value in values:
        producer.produce(topic, value=value)
    assert producer.flush(30) == 0


def start(server: Any, *sinks: str) -> str:
    source = server.create_topic("s", 1)
    server.execute(
        f"CREATE STREAM s (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    for sink in sinks:
        server.execute(
            f"CREATE STREAM {sink} WITH (KAFKA_TOPIC='{server.topic(sink)}', VALUE_FORMAT='JSON') "
            "AS SELECT v FROM s;",
            **EARLIEST,
        )
    return source


def delete_topic(server: Any, topic: str) -> None:
    server.admin.delete_topics([topic])[topic].result()
    server.wait_until(
        lambda: topic not in server.admin.list_topics(timeout=10).topics, f"{topic} is gone"
    )


def test_missing_sink_topic_stops_only_its_query_and_is_caught_up(server: Any) -> None:
    source = start(server, "good", "bad")
    produce(server, source, b"1")
    server.read_all(server.topic("bad"), at_least=1)
    delete_topic(server, server.topic("bad"))

    produce(server, source, b"2")

    server.read_all(server.topic("good"), at_least=2)
    bad = server.query_of("bad")["id"]
    server.wait_until(lambda: server.explain(bad)["queryErrors"] != [], "EXPLAIN shows the error")
    error = server.explain(bad)["queryErrors"][-1]
    assert server.topic("bad") in error["errorMessage"]
    assert server.explain(server.query_of("good")["id"])["queryErrors"] == []

    server.create_topic("bad", 1)

    assert [m.value() for m in server.read_all(server.topic("bad"), at_least=1)] == [b'{"V":"2"}']
    assert len(server.read_all(server.topic("good"))) == 2


def test_missing_processing_log_is_shown_and_nothing_is_passed_over(server: Any) -> None:
    source = server.create_topic("s", 1)
    server.execute(f"CREATE STREAM s (n INT) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='JSON');")
    sink = server.topic("good")
    server.execute(
        f"CREATE STREAM good WITH (KAFKA_TOPIC='{sink}', VALUE_FORMAT='JSON') AS SELECT n FROM s;",
        **EARLIEST,
    )
    produce(server, source, b'{"n":1}')
    server.read_all(sink, at_least=1)
    log = f"{server.service_id}ksql_processing_log"
    delete_topic(server, log)

    produce(server, source, b"unreadable", b'{"n":2}')

    good = server.query_of("good")["id"]
    server.wait_until(lambda: server.explain(good)["queryErrors"] != [], "EXPLAIN shows the error")
    assert log in server.explain(good)["queryErrors"][-1]["errorMessage"]

    server.admin.create_topics([NewTopic(log, 1, 1)])[log].result()

    assert len(server.read_all(sink, at_least=2)) == 2
    assert len(server.read_all(log, at_least=1)) == 1


def test_missing_source_topic_is_shown_and_taken_up_when_it_is_back(server: Any) -> None:
    source = start(server, "sink")
    produce(server, source, b"1")
    server.read_all(server.topic("sink"), at_least=1)
    query = server.query_of("sink")["id"]
    delete_topic(server, source)
    server.wait_until(lambda: server.explain(query)["queryErrors"] != [], "the error is shown")
    assert source in server.explain(query)["queryErrors"][-1]["errorMessage"]
    assert server.execute("SHOW QUERIES;")["queries"][0]["state"] == "RUNNING"

    server.create_topic("s", 1)
    produce(server, source, b"2")

    values = [m.value() for m in server.read_all(server.topic("sink"), at_least=2)]
    assert values == [b'{"V":"1"}', b'{"V":"2"}']


def test_lost_offsets_stop_the_query_with_the_remedy(server: Any) -> None:
    source = start(server, "sink")
    produce(server, source, b"1")
    server.read_all(server.topic("sink"), at_least=1)
    query = server.query_of("sink")["id"]
    server.kill()
    group = f"_confluent-ksql-{server.service_id}query_{query}"
    server.admin.delete_consumer_groups([group])[group].result()

    server.start()

    server.wait_until(lambda: server.explain(query)["queryErrors"] != [], "the error is shown")
    message = server.explain(query)["queryErrors"][-1]["errorMessage"]
    assert group in message
    assert "reset the group's offsets" in message
    assert len(server.read_all(server.topic("sink"))) == 1


def test_failing_expression_drops_the_row_in_a_filter_and_gives_null_in_a_column(
    server: Any,
) -> None:
    source = server.create_topic("s", 1)
    server.execute(
        f"CREATE STREAM s (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA');"
    )
    for name, select in (
        ("f", "v FROM s WHERE EXTRACTJSONFIELD(v, '$.a') = 'x'"),
        ("p", "v, EXTRACTJSONFIELD(v, '$.a') AS a FROM s"),
    ):
        server.execute(
            f"CREATE STREAM {name} WITH (KAFKA_TOPIC='{server.topic(name)}', "
            f"VALUE_FORMAT='JSON') AS SELECT {select};",
            **EARLIEST,
        )
    produce(server, source, b"not json", b'{"a":"x"}')

    rows = [m.value() for m in server.read_all(server.topic("p"), at_least=2)]
    assert rows == [b'{"V":"not json","A":null}', b'{"V":"{\\"a\\":\\"x\\"}","A":"x"}']
    assert len(server.read_all(server.topic("f"), at_least=1)) == 1
    entries = server.read_all(f"{server.service_id}ksql_processing_log", at_least=2)
    assert len(entries) == 2
    assert {e.value().split(b'"logger":"')[1].split(b'"')[0] for e in entries} == {
        b"processing.CSAS_F_3.WhereFilter",
        b"processing.CSAS_P_5.Project",
    }


def test_definition_that_no_server_takes_is_refused_and_a_retry_would_not_help(
    server: Any,
) -> None:
    source = start(server)
    over = f"WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='JSON')"
    for statement, reason in (
        (f"CREATE STREAM x {over};", "does not define any columns"),
        (f"CREATE STREAM x (a VARCHAR, A INT) {over};", "Duplicate columns"),
        (f"CREATE STREAM x (ROWTIME BIGINT) {over};", "reserved column name"),
        (f"CREATE STREAM x (a VARCHAR PRIMARY KEY) {over};", "PRIMARY KEY"),
        ("CREATE STREAM x WITH (REPLICAS=9) AS SELECT * FROM s;", "replication factor"),
        ("CREATE STREAM x AS SELECT z.* FROM s y;", "'Z' is not a valid"),
    ):
        response = server.ksql(statement)
        assert response.status_code == 400, response.text
        assert response.json()["error_code"] == 40001
        assert reason in response.json()["message"]


def test_what_a_server_says_of_topics_and_their_settings(server: Any) -> None:
    source = start(server)
    for statement, status, kind in (
        (
            f"CREATE STREAM x (a VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='JSON', "
            "PARTITIONS=9);",
            500,
            "statement_error",
        ),
        (
            "CREATE STREAM x WITH (CLEANUP_POLICY='delete') AS SELECT * FROM s;",
            400,
            "generic_error",
        ),
        ("DROP STREAM nope DELETE TOPIC;", 400, "generic_error"),
    ):
        response = server.ksql(statement)
        assert (response.status_code, response.json()["@type"]) == (status, kind)


def test_variable_holds_from_its_definition_on(server: Any) -> None:
    start(server)

    answers = server.ksql("DEFINE a='s'; DESCRIBE ${a}; UNDEFINE a;").json()
    late = server.ksql("DESCRIBE ${a}; DEFINE a='s';")
    unknown = server.ksql("UNDEFINE a;").json()

    assert [answer["@type"] for answer in answers] == ["sourceDescription"]
    assert late.status_code == 400
    assert [answer["@type"] for answer in unknown] == ["warning_entity"]


def test_router_that_hangs_is_shown_and_holds_nothing_up(server: Any) -> None:
    start(server, "one", "two", "three")
    asleep = server.routers()
    for router in asleep:
        router.suspend()
    began = time.monotonic()

    queries = server.execute("SHOW QUERIES EXTENDED;")["queryDescriptions"]

    assert time.monotonic() - began < 8
    assert all("does not answer" in q["queryErrors"][0]["errorMessage"] for q in queries)
    for router in asleep:
        router.resume()
    server.wait_until(
        lambda: all(
            not q["queryErrors"]
            for q in server.execute("SHOW QUERIES EXTENDED;")["queryDescriptions"]
        ),
        "the router answers again",
    )


def test_router_ends_with_its_last_query_and_the_next_query_gets_a_new_one(server: Any) -> None:
    source = start(server, "one", "two")
    produce(server, source, b"1")
    server.read_all(server.topic("two"), at_least=1)
    server.execute("DROP STREAM one;")
    assert len(server.routers()) == 1
    server.execute("DROP STREAM two;")
    server.wait_until(lambda: not server.routers(), "no router is left")

    server.execute(
        f"CREATE STREAM three WITH (KAFKA_TOPIC='{server.topic('three')}', VALUE_FORMAT='JSON') AS "
        "SELECT x.* FROM s x;",
        **EARLIEST,
    )

    assert len(server.read_all(server.topic("three"), at_least=1)) == 1


def test_query_of_a_stream_with_a_quoted_name_can_be_addressed(server: Any) -> None:
    start(server)
    server.execute("CREATE STREAM `low` WITH (VALUE_FORMAT='JSON') AS SELECT v FROM s;")
    query = server.query_of("`low`")["id"]

    assert query.startswith("CSAS_LOW_")
    assert server.explain(query)["id"] == query
    server.execute(f"TERMINATE {query};")


def test_batch_with_a_wrong_statement_executes_nothing(server: Any) -> None:
    source = start(server)

    response = server.ksql(
        f"CREATE STREAM one (v VARCHAR) WITH (KAFKA_TOPIC='{source}', VALUE_FORMAT='KAFKA'); "
        "CREATE STREAM two WITH (VALUE_FORMAT='JSON') AS SELECT nada FROM one;"
    )

    assert response.status_code == 400
    names = [s["name"] for s in server.execute("SHOW STREAMS;")["streams"]]
    assert names == ["KSQL_PROCESSING_LOG", "S"]


def test_source_gaining_a_column_does_not_disturb_its_queries(server: Any) -> None:
    source, sink = server.create_topic("s", 1), server.topic("sink")
    columns = "a VARCHAR"
    create = "CREATE OR REPLACE STREAM s ({}) WITH (KAFKA_TOPIC='{}', VALUE_FORMAT='JSON');"
    server.execute(create.format(columns, source))
    server.execute(f"CREATE STREAM sink WITH (KAFKA_TOPIC='{sink}') AS SELECT * FROM s;")
    produce(server, source, b'{"a":"1","b":"x"}')
    server.read_all(sink, at_least=1)

    server.execute(create.format(columns + ", b VARCHAR", source))
    produce(server, source, b'{"a":"2","b":"x"}')

    values = [m.value() for m in server.read_all(sink, at_least=2)]
    assert values == [b'{"A":"1"}', b'{"A":"2"}']
    server.kill()
    server.start()
    produce(server, source, b'{"a":"3","b":"x"}')
    assert server.read_all(sink, at_least=3)[-1].value() == b'{"A":"3"}'
