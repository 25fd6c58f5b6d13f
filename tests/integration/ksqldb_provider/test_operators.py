"""The operators, on a running engine."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from kafka_io import TopicSpec, ensure_topics
from ksqldb_provider.client import QueryTimeoutError
from ksqldb_provider.operators import (
    KsqlDbDeployOperator,
    KsqlDbDropOperator,
    KsqlDbExecuteOperator,
    KsqlDbQueryOperator,
    KsqlDbTerminateOperator,
)
from ksqldb_provider.sensors import KsqlQueryRunningSensor

FROM_START = {"auto.offset.reset": "earliest"}


@pytest.fixture
def run(connections, task_instance):
    """Run an operator or sensor, templates included."""

    def ran(operator: Any, **context: Any) -> Any:
        operator.render_template_fields(context)
        return operator.execute({"ti": task_instance})

    return ran


@pytest.fixture
def name(kafka, client):
    """A stream (and topic) of its own, not created yet; what reads it ends in _2."""
    made = f"O{uuid.uuid4().hex[:8]}".upper()
    ensure_topics(
        kafka, [TopicSpec(name=made + end, partitions=1, retention_ms=-1) for end in ("", "_2")]
    )
    yield made
    for reader in (f"{made}_2", made):
        client.execute(f"DROP STREAM IF EXISTS {reader};")


def create(name: str) -> str:
    return (
        f"CREATE STREAM {name} (id VARCHAR KEY, a VARCHAR, n BIGINT) WITH (KAFKA_TOPIC='{name}', "
        "VALUE_FORMAT='JSON');"
    )


def create_reader(name: str) -> str:
    return (
        f"CREATE STREAM {name}_2 WITH (KAFKA_TOPIC='{name}_2') AS SELECT * FROM {name} "
        "WHERE n > 0 EMIT CHANGES;"
    )


def test_a_script_with_parameters_is_executed_and_its_rows_are_asked_for(
    name, run, task_instance, tmp_path
):
    (tmp_path / "fill.sql").write_text(
        "-- {{ s }}; with a comment\n" + create("{{ s }}") + "INSERT INTO {{ s }} "
        "(id, a, n) VALUES ('1', :a, :n); INSERT INTO {{ s }} (id, a, n) VALUES ('2', 'x', -2);"
    )
    odd = "it's; -- 'no' comment"
    with DAG("d", schedule=None, template_searchpath=str(tmp_path)):
        execute = KsqlDbExecuteOperator(
            task_id="execute", sql="fill.sql", parameters={"a": "{{ odd }}", "n": 7}
        )
    execute.resolve_template_files()
    rows = run(execute, s=name, odd=odd)
    assert [row["type"] for row in rows] == ["currentStatus", "", ""]
    assert task_instance.pushed["ksqldb_url"].endswith(f"/status/stream/%60{name}%60/create")

    pull = KsqlDbQueryOperator(
        task_id="pull", sql=f"SELECT * FROM {name} WHERE a = :a;", parameters={"a": odd}
    )
    assert run(pull) == [{"ID": "1", "A": odd, "N": 7}]
    push = KsqlDbQueryOperator(
        task_id="push",
        sql=f"SELECT n FROM {name} EMIT CHANGES LIMIT 2;",
        properties=FROM_START,
        output_path=str(tmp_path / "out" / "rows.jsonl"),
    )
    result = run(push)
    assert result["rows"] == 2
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"N": 7}, {"N": -2}]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.jsonl"]


def test_a_broken_script_executes_nothing(name, run, client):
    execute = KsqlDbExecuteOperator(task_id="execute", sql=create(name) + " DROP STREAM x")
    with pytest.raises(AirflowFailException, match="does not end with ';'"):
        run(execute)
    assert name not in {stream.name for stream in client.streams()}


def test_a_refused_statement_fails_without_a_retry_and_says_what_was_done(name, run, client):
    execute = KsqlDbExecuteOperator(task_id="execute", sql=create(name) + "CREATE STREM x;")
    with pytest.raises(AirflowFailException, match="1 of 2 statements were executed before"):
        run(execute)
    assert name in {stream.name for stream in client.streams()}


def test_a_push_query_without_a_limit_is_refused(run):
    with pytest.raises(AirflowFailException, match="give it a LIMIT"):
        run(KsqlDbQueryOperator(task_id="push", sql="SELECT * FROM s EMIT CHANGES;"))


def test_rows_that_do_not_come_in_time_can_be_asked_for_again(name, run, client, tmp_path):
    client.execute(create(name))
    client.insert(name, {"ID": "1", "A": "x"})
    push = KsqlDbQueryOperator(
        task_id="push",
        sql=f"SELECT * FROM {name} EMIT CHANGES LIMIT 2;",
        properties=FROM_START,
        query_timeout_s=2,
        output_path=str(tmp_path / "rows.jsonl"),
    )
    with pytest.raises(QueryTimeoutError, match="had not ended after 2 s"):
        run(push)
    assert not (tmp_path / "rows.jsonl").exists()


def test_more_rows_than_xcom_should_hold_are_refused(name, run, client, monkeypatch):
    monkeypatch.setattr("ksqldb_provider.operators.query.XCOM_ROWS", 1)
    client.execute(create(name))
    for number in (1, 2):
        client.insert(name, {"ID": "1", "N": number})
    with pytest.raises(AirflowFailException, match=r"more than 1 rows.*give an output_path"):
        run(KsqlDbQueryOperator(task_id="pull", sql=f"SELECT * FROM {name};"))


def test_streams_are_deployed_watched_and_removed(name, run, task_instance, client):
    deploy = KsqlDbDeployOperator(task_id="d", statements=[create(name), create_reader(name)])
    assert [row["action"] for row in run(deploy)] == ["create", "create"]
    query_ids = task_instance.pushed["query_ids"]
    run(KsqlQueryRunningSensor(task_id="running", query_ids=query_ids, timeout=10))

    client.execute(f"PAUSE {query_ids[0]};")
    paused = KsqlQueryRunningSensor(
        task_id="paused", query_ids=query_ids, timeout=0.2, poke_interval=0.1
    )
    with pytest.raises(AirflowSensorTimeout, match=f"{query_ids[0]} is PAUSED"):
        run(paused)

    terminate = KsqlDbTerminateOperator(task_id="t", query_ids=[*query_ids, "CSAS_NADA_1"])
    assert run(terminate) == query_ids
    assert run(terminate) == []
    with pytest.raises(AirflowFailException, match=f"query {query_ids[0]} is gone"):
        run(KsqlQueryRunningSensor(task_id="gone", query_ids=query_ids))

    with pytest.raises(AirflowFailException, match="read"):
        run(KsqlDbDropOperator(task_id="source", names=[name]))
    with pytest.raises(AirflowFailException, match="names is"):
        run(KsqlDbDropOperator(task_id="letters", names=name))
    drop = KsqlDbDropOperator(task_id="drop", names=[f"{name}_2", name.lower()])
    assert run(drop) == [f"{name}_2", name]
    assert run(drop) == []


def test_a_query_that_has_failed_is_told_by_its_error(name, run, client, kafka):
    from confluent_kafka.admin import AdminClient

    client.execute(create(name))
    query_id = client.execute(create_reader(name)).command_status.query_id
    admin = AdminClient(kafka)
    admin.delete_topics([name])[name].result()

    def look_until_it_fails() -> None:
        for _ in range(300):
            run(KsqlQueryRunningSensor(task_id="failed", query_ids=[query_id], timeout=60))
            threading.Event().wait(0.1)

    with pytest.raises(AirflowFailException, match=f"query {query_id} has failed"):
        look_until_it_fails()
    (query,) = (query for query in client.queries() if query.id == query_id)
    assert query.state == "RUNNING"
