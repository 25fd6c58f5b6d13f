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


@pytest.fixture
def query_ids(rules, connections, task_instance) -> list[str]:
    """Deploy the rules with the operator."""
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    returned = operator.execute({"ti": task_instance})
    assert [row["action"] for row in returned] == ["create"] * 12
    assert json.loads(json.dumps(returned)) == returned
    return task_instance.pushed["query_ids"]


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
    assert "no nearer to it for 1 s" in str(caught.value)
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


def test_dry_run_reports_the_plan_and_executes_nothing(rules, connections, client, task_instance):
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder), dry_run=True)
    rows = operator.execute({"ti": task_instance})
    assert {row["action"] for row in rows} == {"create"}
    assert task_instance.pushed["query_ids"] == []
    names = {stream.name for stream in client.streams()}
    assert not any(name.startswith(rules.prefix.upper()) for name in names)


ORIGIN = "  'T1_Recepcion_avisos' AS origen,\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "reason", "remedy"),
    [
        (
            "04_",
            ORIGIN,
            "",
            "removed",
            "Keep the",
        ),
        ("12_", "T3.6_", "T3.7_", "topic would change from", "Give the new form"),
        ("05_", "", "", "its query is gone", "delete the topic"),
    ],
    ids=["a removed column", "a changed topic", "a query that is gone"],
)
def test_a_conflict_is_shown_in_the_plan_and_fails_without_retry_saying_what_to_do(
    rules, query_ids, client, kafka, task_instance, capsys, file, old, new, reason, remedy
):
    send(kafka, rules, 3)
    run_deferred(sensor(query_ids))
    if old:
        rules.edit(file, old, new)
    else:
        client.execute(f"TERMINATE {query_ids[3]};")
    running = {query.id: query.query_string for query in client.queries()}
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    with pytest.raises(AirflowFailException) as caught:
        operator.execute({"ti": task_instance})
    log = "".join(capsys.readouterr())
    (conflict,) = (row for row in task_instance.pushed["plan"] if row["action"] == "conflict")
    assert conflict["file"].startswith(file)
    for shown in (conflict["reason"], conflict["remedy"]):
        assert shown in str(caught.value)
        assert shown in log
    assert reason in conflict["reason"]
    assert remedy in conflict["remedy"]
    others = [row["action"] for row in task_instance.pushed["plan"]]
    assert others.count("unchanged") == 11
    assert {query.id: query.query_string for query in client.queries()} == running


def test_broken_file_fails_without_retry_and_is_named(rules, connections, task_instance):
    rules.edit("07_", "EMIT CHANGES;", "EMIT CHANGES")
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(rules.folder))
    with pytest.raises(AirflowFailException, match=r"07_redireccion_medicos\.sql: line"):
        operator.execute({"ti": task_instance})
