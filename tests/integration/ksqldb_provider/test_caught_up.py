"""Waiting for queries, with the sensor and the trigger as Airflow runs them."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from kafka_io import CheckedProducer, OutRecord
from ksqldb_provider.caught_up import CaughtUp, watch
from ksqldb_provider.client import QueryFailedError
from ksqldb_provider.operators import KsqlDbDeployOperator
from ksqldb_provider.sensors import KsqlDbReadySensor, KsqlQueriesCaughtUpSensor

T1 = "T1_Recepcion_avisos"


class TaskInstance:
    """Keeps what a task pushes."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def connections(monkeypatch, ksqldb_url: str, bootstrap_servers: str) -> None:
    host, port = ksqldb_url.removeprefix("http://").split(":")
    ksqldb = {"conn_type": "ksqldb", "schema": "http", "host": host, "port": int(port)}
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap_servers}}
    monkeypatch.setenv("AIRFLOW_CONN_KSQLDB_DEFAULT", json.dumps(ksqldb))
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))


@pytest.fixture
def query_ids(rules, connections) -> list[str]:
    """Deploy the rules with the operator."""
    ti = TaskInstance()
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    returned = operator.execute({"ti": ti})
    assert [row["action"] for row in returned] == ["create"] * 12
    assert json.loads(json.dumps(returned)) == returned
    return ti.pushed["query_ids"]


def value(grado: str = "Urgente") -> bytes:
    return json.dumps({"grado": grado, "requiere_medico": "No"}).encode()


def send(kafka, rules, count: int) -> None:
    with CheckedProducer(kafka) as producer:
        for _ in range(count):
            producer.send(OutRecord(topic=rules.topic(T1), value=value()))
        producer.flush()


def run_deferred(sensor: KsqlQueriesCaughtUpSensor) -> dict[str, Any] | None:
    """Do what Airflow does: execute, and run the trigger (stored and read back) if deferred."""
    deferred = deferral_of(sensor)
    if deferred is None:
        return None
    assert deferred.method_name == "execute_complete"
    path, arguments = deferred.trigger.serialize()
    assert path == "ksqldb_provider.triggers.KsqlQueriesCaughtUpTrigger"
    again = type(deferred.trigger)(**json.loads(json.dumps(arguments)))

    async def first_event() -> dict[str, Any]:
        async for event in again.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    event = asyncio.run(first_event())
    sensor.execute_complete({}, event)
    return event


def deferral_of(sensor: KsqlQueriesCaughtUpSensor) -> TaskDeferred | None:
    try:
        sensor.execute({})
    except TaskDeferred as deferred:
        return deferred
    return None


def sensor(query_ids, **arguments: Any) -> KsqlQueriesCaughtUpSensor:
    return KsqlQueriesCaughtUpSensor(task_id="wait", query_ids=query_ids, **arguments)


def test_it_is_not_deferred_when_everything_has_caught_up(query_ids):
    assert run_deferred(sensor(query_ids)) is None


@pytest.mark.parametrize("deferrable", [True, False])
def test_records_that_were_there_have_been_routed_when_it_succeeds(
    rules, kafka, query_ids, client, deferrable
):
    send(kafka, rules, 2000)
    run_deferred(sensor(query_ids, deferrable=deferrable, timeout=120, poke_interval=0.2))
    watched = watch(client, query_ids)
    assert CaughtUp(client, kafka, watched).check()


def test_trailing_aborted_transaction_does_not_hold_it_up(rules, kafka, query_ids):
    with CheckedProducer(kafka, transactional_id=f"{rules.prefix}aborted") as producer:
        producer.begin()
        producer.send(OutRecord(topic=rules.topic(T1), value=value(), partition=1))
        producer.flush()
        producer.abort()
    run_deferred(sensor(query_ids, timeout=60, poke_interval=0.2))


def test_time_out_names_query_partition_and_lag(rules, kafka, query_ids):
    with CheckedProducer(
        kafka, transactional_id=f"{rules.prefix}open", transaction_timeout_ms=120_000
    ) as producer:
        producer.begin()
        producer.send(OutRecord(topic=rules.topic(T1), value=value(), partition=2))
        producer.flush()
        # Whether it is there is not known before the transaction ends: nobody has caught up.
        with pytest.raises(AirflowSensorTimeout) as caught:
            run_deferred(sensor(query_ids, timeout=1, poke_interval=0.2))
        producer.commit()
    assert "not caught up after 1 s" in str(caught.value)
    assert f"lags on {rules.topic(T1)}-2 by 1" in str(caught.value)
    assert query_ids[0] in str(caught.value)
    run_deferred(sensor(query_ids, timeout=60, poke_interval=0.2))


def test_query_that_is_gone_fails_at_once_with_its_name(rules, client, kafka, query_ids):
    client.execute(f"TERMINATE {query_ids[-1]};")
    with pytest.raises(AirflowFailException, match=f"query {query_ids[-1]} is gone"):
        run_deferred(sensor(query_ids))


def test_query_that_goes_while_waiting_fails_the_wait(rules, client, kafka, query_ids):
    with CheckedProducer(
        kafka, transactional_id=f"{rules.prefix}held", transaction_timeout_ms=120_000
    ) as producer:
        producer.begin()
        producer.send(OutRecord(topic=rules.topic(T1), value=value(), partition=0))
        producer.flush()
        victim = query_ids[0]
        killer = threading.Timer(1.0, lambda: client.statement(f"TERMINATE {victim};"))
        killer.start()
        with pytest.raises(AirflowFailException, match=f"query {victim} is gone"):
            run_deferred(sensor(query_ids, timeout=60, poke_interval=0.2))
        killer.join()
        producer.abort()


def test_ends_captured_at_the_start_are_kept_when_the_trigger_starts_again(
    rules, kafka, client, query_ids
):
    watched = watch(client, query_ids)
    targets = CaughtUp(client, kafka, watched).targets
    send(kafka, rules, 10)
    resumed = CaughtUp(client, kafka, watched, targets=targets)
    assert {query: resumed.targets[query] for query in targets} == targets


@pytest.mark.parametrize("given", ["CSAS_X_1", [], None, [""]])
def test_what_is_no_list_of_ids_is_refused(connections, given):
    with pytest.raises(AirflowFailException, match="give a list of at least one query id"):
        sensor(given).execute({})


def test_missing_query_is_named(client):
    with pytest.raises(QueryFailedError, match="query CSAS_NADA_1 is gone"):
        watch(client, ["CSAS_NADA_1"])


def test_ready_sensor_succeeds_on_a_running_server(connections):
    assert KsqlDbReadySensor(task_id="ready").execute({}) is None


def test_dry_run_reports_the_plan_and_executes_nothing(rules, connections, client):
    ti = TaskInstance()
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder), dry_run=True)
    rows = operator.execute({"ti": ti})
    assert {row["action"] for row in rows} == {"create"}
    assert ti.pushed["query_ids"] == []
    names = {stream.name for stream in client.streams()}
    assert not any(name.startswith(rules.prefix.upper()) for name in names)


def test_conflict_fails_without_retry_and_says_what_to_do(rules, query_ids):
    rules.edit("12_", "T3.6_", "T3.7_")
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    with pytest.raises(AirflowFailException, match=r"(?s)topic would change.*Give the new form"):
        operator.execute({"ti": TaskInstance()})


def test_broken_file_fails_without_retry_and_is_named(rules, connections):
    rules.edit("07_", "EMIT CHANGES;", "EMIT CHANGES")
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    with pytest.raises(AirflowFailException, match=r"07_redireccion_medicos\.sql: line"):
        operator.execute({"ti": TaskInstance()})
