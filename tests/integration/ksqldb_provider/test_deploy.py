"""Deploying the project's own rules on a running engine, again and again."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest

from kafka_io import CheckedProducer, OutRecord, high_watermarks, log_start_offsets, read_range
from ksqldb_provider.caught_up import CaughtUp, watch
from ksqldb_provider.client import NotUpgradableError
from ksqldb_provider.deploy import Action, DeployConflictError, apply, plan
from ksqldb_provider.sql import load_folder

T1 = "T1_Recepcion_avisos"
RULES = 12


def deploy(client, topics, rules):
    return apply(client, topics, plan(client, topics, load_folder(rules.folder)))


def actions(client, topics, rules) -> Counter[Action]:
    return Counter(item.action for item in plan(client, topics, load_folder(rules.folder)))


def send(kafka, rules, *, count: int, grado: str = "Urgente", cuerpo: str = "GEOs") -> None:
    value = json.dumps({"grado": grado, "cuerpo_necesario": cuerpo, "requiere_medico": "No"})
    with CheckedProducer(kafka) as producer:
        for _ in range(count):
            producer.send(OutRecord(topic=rules.topic(T1), value=value.encode()))
        producer.flush()


def wait_until_routed(client, kafka, query_ids) -> None:
    caught_up = CaughtUp(client, kafka, watch(client, query_ids))
    for _ in range(300):
        if caught_up.check():
            return
        threading.Event().wait(0.1)
    pytest.fail(f"not caught up: {[str(lag) for lag in caught_up.lags]}")


def offsets_in(kafka, topic: str, *, cuerpo: str | None = None) -> list[tuple[int, int]]:
    start, end = log_start_offsets(kafka, [topic]), high_watermarks(kafka, [topic])
    rows = (
        json.loads(message.value())
        for batch in read_range(kafka, start, end, timeout_s=20)
        for message in batch
    )
    return [
        (row["T1_PARTICION"], row["T1_OFFSET"])
        for row in rows
        if cuerpo in (None, row["CUERPO_NECESARIO"])
    ]


def test_folder_deployed_twice_changes_nothing(rules, client, topics):
    assert actions(client, topics, rules) == {Action.CREATE: RULES}
    first = deploy(client, topics, rules)
    assert [item.query_id is not None for item in first] == [False] + [True] * (RULES - 1)
    running = {query.id: query.query_string for query in client.queries()}
    assert actions(client, topics, rules) == {Action.UNCHANGED: RULES}
    second = deploy(client, topics, rules)
    assert [item.query_id for item in second] == [item.query_id for item in first]
    assert {query.id: query.query_string for query in client.queries()} == running


def test_queries_run_exactly_once_from_the_beginning(rules, client, topics):
    deployed = deploy(client, topics, rules)
    query = client.explain(next(item.query_id for item in deployed if item.query_id))
    assert query.overridden_properties == {
        "auto.offset.reset": "earliest",
        "processing.guarantee": "exactly_once_v2",
    }


def test_changed_filter_replaces_just_that_query_and_loses_and_doubles_nothing(
    rules, client, topics, kafka
):
    before = deploy(client, topics, rules)
    query_ids = [item.query_id for item in before if item.query_id]
    send(kafka, rules, count=40)
    rules.edit("05_", "'Medicos')", "'Medicos', 'GEOs')")
    planned = plan(client, topics, load_folder(rules.folder))
    assert Counter(item.action for item in planned) == {
        Action.UNCHANGED: RULES - 1,
        Action.REPLACE: 1,
    }
    wait_until_routed(client, kafka, query_ids)
    after = apply(client, topics, planned)
    assert [item.query_id for item in after] == [item.query_id for item in before]
    send(kafka, rules, count=30)
    send(kafka, rules, count=20, cuerpo="UME")
    wait_until_routed(client, kafka, query_ids)

    urgent = offsets_in(kafka, rules.topic("T2_Centro_112"))
    assert (len(urgent), len(set(urgent))) == (90, 90)
    command = offsets_in(kafka, rules.topic("T2.2_Centro_de_mando"))
    assert (len(command), len(set(command))) == (60, 60)
    assert actions(client, topics, rules) == {Action.UNCHANGED: RULES}


def test_records_that_come_while_a_query_is_replaced_are_neither_lost_nor_doubled(
    rules, client, topics, kafka
):
    deployed = deploy(client, topics, rules)
    query_ids = [item.query_id for item in deployed if item.query_id]
    stop = threading.Event()
    sent = Counter[str]()

    def produce() -> None:
        while not stop.is_set():
            for cuerpo in ("GEOs", "UME"):
                send(kafka, rules, count=5, cuerpo=cuerpo)
                sent[cuerpo] += 5

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for old, new in (
            ("'Medicos')", "'Medicos', 'GEOs')"),
            ("'Medicos', 'GEOs')", "'Medicos')"),
        ):
            stop.wait(1)
            rules.edit("05_", old, new)
            assert Counter(item.action for item in deploy(client, topics, rules)) == {
                Action.UNCHANGED: RULES - 1,
                Action.REPLACE: 1,
            }
        stop.wait(1)
    finally:
        stop.set()
        producer.join()
    wait_until_routed(client, kafka, query_ids)

    urgent = offsets_in(kafka, rules.topic("T2_Centro_112"))
    assert len(urgent) == len(set(urgent)) == sent.total()
    command = offsets_in(kafka, rules.topic("T2.2_Centro_de_mando"))
    assert len(command) == len(set(command))
    unaffected = offsets_in(kafka, rules.topic("T2.2_Centro_de_mando"), cuerpo="UME")
    assert len(unaffected) == sent["UME"]
    # While the other filter was in force the others went to nobody; before and after, to it.
    others = len(command) - len(unaffected)
    assert 0 < others < sent["GEOs"]


def test_column_added_at_the_end_reaches_the_streams_that_read_it(rules, client, topics):
    deploy(client, topics, rules)
    rules.edit("02_", "AS id_incidente", "AS id_incidente,\n  'x' AS nuevo")
    planned = plan(client, topics, load_folder(rules.folder))
    replaced = [item for item in planned if item.action is Action.REPLACE]
    assert [item.statement.path.name[:2] for item in replaced] == ["02", "05", "06"]
    apply(client, topics, planned)
    fields = client.describe(replaced[1].statement.name).fields
    assert fields[-1].name == "NUEVO"
    assert actions(client, topics, rules) == {Action.UNCHANGED: RULES}


def test_removed_column_is_refused_before_anything_is_executed(rules, client, topics):
    deploy(client, topics, rules)
    rules.edit("03_", "  EXTRACTJSONFIELD(texto, '$.contacto') AS contacto,\n", "")
    rules.edit("05_", "'Medicos')", "'Medicos', 'GEOs')")
    running = {query.id: query.query_string for query in client.queries()}
    with pytest.raises(DeployConflictError, match="columns were removed or reordered"):
        deploy(client, topics, rules)
    assert {query.id: query.query_string for query in client.queries()} == running


def test_the_server_refuses_it_too(rules, client, topics):
    (_, urgent, *_) = deploy(client, topics, rules)
    text = urgent.statement.create_text(or_replace=True)
    shorter = text.replace("  EXTRACTJSONFIELD(texto, '$.grado') AS grado,\n", "")
    assert shorter != text
    with pytest.raises(NotUpgradableError, match="GRADO"):
        client.execute(shorter)


def test_gone_query_whose_sink_holds_records_is_refused_with_the_way_out(
    rules, client, topics, kafka
):
    deployed = deploy(client, topics, rules)
    send(kafka, rules, count=3)
    wait_until_routed(client, kafka, [item.query_id for item in deployed if item.query_id])
    victim = next(item for item in deployed if item.statement.path.name.startswith("05_"))
    client.execute(f"TERMINATE {victim.query_id};")
    with pytest.raises(DeployConflictError, match=r"(?s)its query is gone.*delete the topic"):
        deploy(client, topics, rules)
    assert victim.query_id not in {query.id for query in client.queries()}


def test_gone_query_whose_sink_was_never_written_starts_again(rules, client, topics, kafka):
    deployed = deploy(client, topics, rules)
    victim = next(item for item in deployed if item.statement.path.name.startswith("02_"))
    client.execute(f"TERMINATE {victim.query_id};")
    again = deploy(client, topics, rules)
    assert [item.action for item in again].count(Action.REPLACE) == 1
    query_ids = [item.query_id for item in again if item.query_id]
    assert victim.query_id not in query_ids
    send(kafka, rules, count=3)
    wait_until_routed(client, kafka, query_ids)
    assert len(offsets_in(kafka, rules.topic("T2.2_Centro_de_mando"))) == 3


def test_changed_sink_topic_is_refused(rules, client, topics):
    deploy(client, topics, rules)
    rules.edit("12_", "T3.6_", "T3.7_")
    with pytest.raises(DeployConflictError, match=r"topic would change from .*T3\.6_.* to .*T3\.7"):
        deploy(client, topics, rules)


def test_missing_topic_names_the_task_that_creates_it(rules, client, topics):
    rules.edit("01_", "T1_Recepcion", "T1_Nada")
    with pytest.raises(DeployConflictError, match=r"T1_Nada_avisos does not exist.*create_topics"):
        deploy(client, topics, rules)


def test_two_deployments_at_the_same_time_both_succeed(rules, client, topics):
    folder = load_folder(rules.folder)
    plans = [plan(client, topics, folder) for _ in range(2)]
    results: list[list[str | None]] = []

    def run(planned) -> None:
        results.append([item.query_id for item in apply(client, topics, planned)])

    threads = [threading.Thread(target=run, args=(planned,)) for planned in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0] == results[1]
