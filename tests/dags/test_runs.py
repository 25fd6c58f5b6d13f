"""The whole pipeline as a user runs it: `airflow dags test` on a real broker."""

from __future__ import annotations

import csv
import hashlib
import json
import textwrap
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from emergencias import model
from emergencias.settings import PROJECT_ROOT
from emergencias.simulator import simulate
from kafka_io import (
    CheckedProducer,
    OutRecord,
    high_watermarks,
    load_catalogue,
    log_start_offsets,
    read_range,
)

TOPICS = [spec.name for spec in load_catalogue(PROJECT_ROOT / "include/kafka/topics.yaml")]
BODIES = {
    "Bomberos": "T3.2_Bomberos",
    "Forestales": "T3.3_Forestales",
    "Guardia Costera": "T3.4_Guardia_Costera",
    "Policia": "T3.5_Policia",
    "Servicios de emergencia": "T3.6_Servicios_de_emergencia",
}
RUN_FILES = [
    "plan.json",
    "TOTAL_AVISOS.json",
    "TOTAL_AVISOS_SANITARIOS_112.json",
    "avisos.parquet",
    "entregas.parquet",
]

MOTIVO_JSON, MOTIVO_OBJECT = "JSON no valido", "no es un objeto JSON"
MOTIVO_DEGREE, MOTIVO_DOCTOR = "grado desconocido", "requiere_medico desconocido"
ODD: list[tuple[bytes, list[str], str | None]] = [
    (b"nada", [model.T4], MOTIVO_JSON),
    (b"", [model.T4], MOTIVO_JSON),
    (b'{"grado":"Urgente"', [model.T4], MOTIVO_JSON),
    (b"\xff\xfe", [model.T4], MOTIVO_JSON),
    (b'\xef\xbb\xbf{"grado":"Urgente"}', [model.T4], MOTIVO_JSON),
    (b'{"a":NaN,"grado":"Urgente"}', [model.T4], MOTIVO_JSON),
    (b"[1]", [model.T4], MOTIVO_OBJECT),
    (b'"x"', [model.T4], MOTIVO_OBJECT),
    (b"5", [model.T4], MOTIVO_OBJECT),
    (b"null", [model.T4], MOTIVO_OBJECT),
    (b"{}", [model.T4], MOTIVO_DEGREE),
    (b'{"grado":null}', [model.T4], MOTIVO_DEGREE),
    (b'{"grado":"URGENTE"}', [model.T4], MOTIVO_DEGREE),
    (b'{"grado":" Urgente "}', [model.T4], MOTIVO_DEGREE),
    (b'{"grado":["Urgente"]}', [model.T4], MOTIVO_DEGREE),
    (b'{"grado":{"a":"Urgente"}}', [model.T4], MOTIVO_DEGREE),
    (b'{"Grado":"Urgente"}', [model.T4], MOTIVO_DEGREE),
    (b'{"GRADO":"Urgente"}', [model.T4], MOTIVO_DEGREE),
    (b'{"grado":"Moderado"}', [model.T4], MOTIVO_DOCTOR),
    (
        '{"grado":"Leve","cuerpo_necesario":"Bomberos","requiere_medico":"Sí"}'.encode(),
        [model.T4],
        MOTIVO_DOCTOR,
    ),
    (
        b'{"grado":"Leve","cuerpo_necesario":"GEOs","requiere_medico":"No"}',
        [model.T4],
        "ningun cuerpo lo atiende",
    ),
    (b'{"grado":"Urgente"} basura', [model.T2, model.T2_2], None),
    (b'{"grado":"Leve","grado":"Urgente"}', [model.T2, model.T2_2], None),
    (b'{"grado":"Urgente","contacto":"\xff"}', [model.T2, model.T2_2], None),
    (rb'{"grado":"Urgente","contacto":"\ud800"}', [model.T2, model.T2_2], None),
    (
        b'{"grado":"Urgente","requiere_medico":null,"latitud":"37,1"}',
        [model.T2, model.T2_2],
        None,
    ),
    (
        b'{"grado":"Urgente","requiere_medico":"Si","cuerpo_necesario":"Bomberos","latitud":{"g":37}}',
        [model.T2, model.T2_1, model.T2_3],
        None,
    ),
    (
        b'{"grado":"Leve","requiere_medico":"Si","cuerpo_necesario":null}',
        [model.T3, "T3.1_Medicos"],
        None,
    ),
]


@pytest.fixture
def kafka(bootstrap_servers: str) -> dict[str, Any]:
    return {"bootstrap.servers": bootstrap_servers}


def expected_topics(alert: dict[str, Any]) -> list[str]:
    """Say in plain Python where an alert with known values goes."""
    doctor, body = alert["requiere_medico"], alert["cuerpo_necesario"]
    medical = doctor == "Si" or body in ("Ambulancia", "Medicos")
    if alert["grado"] in ("Urgente", "Urgencia extrema"):
        if not medical:
            return [model.T2, model.T2_2]
        asked = [] if body in ("Ambulancia", "Medicos") else [model.T2_3]
        return [model.T2, model.T2_1, *asked]
    own = [BODIES[body]] if body in BODIES else []
    return [model.T3, *(["T3.1_Medicos"] if medical else []), *own]


def counts(manifest: dict[str, Any], whose: str = "run") -> dict[str, int]:
    return {entry["topic"]: entry[whose] for entry in manifest["topics"]}


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in RUN_FILES}


def original_shaped(alerts: int, seed: int = 5) -> list[dict[str, Any]]:
    """Alerts with the seven fields of the first version, naive local times, chronological."""
    start, end = (datetime.fromisoformat(f"2023-{m}-01T00:00:00+00:00") for m in ("02", "12"))
    rows = []
    for payload in simulate(seed, alerts, start, end):
        row = {name: payload[name] for name in model.ORIGINAL_FIELDS}
        row["fecha"] = row["fecha"][:19].replace("T", " ")
        rows.append(row)
    return rows


def test_a_fresh_run_is_green_exports_its_alerts_and_shows_one_table(airflow: Any) -> None:
    run = airflow.run({"seed": 7})

    assert run.status == 0, run.log
    alerts = json.loads((run.folder / "TOTAL_AVISOS.json").read_text())
    assert len(alerts) == 250
    expected = Counter(topic for alert in alerts for topic in expected_topics(alert))
    found = counts(run.manifest)
    assert {topic: found[topic] for topic in TOPICS} == {
        topic: 250 if topic == model.T1 else expected[topic] for topic in TOPICS
    }
    assert all(topic in run.log for topic in TOPICS)


def test_the_same_run_again_whole_and_task_by_task_changes_nothing(
    airflow: Any, kafka: dict[str, Any]
) -> None:
    when, conf = "2026-01-02T00:00:00+00:00", {"alerts": 60}
    first = airflow.run(conf, when=when)
    assert first.status == 0, first.log
    ends, files = high_watermarks(kafka, TOPICS), digests(first.folder)

    # await_routing alone would miss the XCom that `dag.test` drops with the run.
    for only in (
        None,
        "create_topics",
        "deploy_streams",
        "plan_run",
        "produce_alerts",
        "enrich_medical_alerts",
        "export_results",
        "reconcile",
    ):
        again = airflow.run(conf, when=when, only=only)
        assert again.status == 0, again.log
        assert high_watermarks(kafka, TOPICS) == ends
        assert digests(first.folder) == files


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_file_in_the_originals_shape_arrives_whole_and_every_urgent_medical_alert_with_it(
    airflow: Any, tmp_path: Path, kind: str
) -> None:
    rows = original_shaped(120)
    rows[3]["localizacion"] = "Ciudad"  # the original's truncated name: no such place
    file = tmp_path / f"avisos.{kind}"
    if kind == "json":
        file.write_text(json.dumps(rows, indent=4))
    else:
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    run = airflow.run({"source": "file", "input_path": str(file)})

    assert run.status == 0, run.log
    exported = json.loads((run.folder / "TOTAL_AVISOS_SANITARIOS_112.json").read_text())
    medical = [row for row in rows if model.T2_1 in expected_topics(row)]
    assert [
        {name: alert[name.upper()] for name in row}
        for alert, row in zip(exported, medical, strict=True)
    ] == [row | {"fecha": alert["FECHA"]} for alert, row in zip(exported, medical, strict=True)]
    for alert, row in zip(exported, medical, strict=True):
        assert alert["FECHA"][:19].replace("T", " ") == row["fecha"]
        known = row["localizacion"] != "Ciudad"
        assert bool(alert["DIRECCION"]) is known
        assert bool(alert["DIRECCION_MOTIVO"]) is not known


def test_garbage_by_another_client_during_a_run_is_routed_once_and_the_run_stays_green(
    airflow: Any, kafka: dict[str, Any]
) -> None:
    recorded = json.loads(
        (PROJECT_ROOT / "tests/contract/recordings/100-data-in-out.json").read_text()
    )
    more = [
        None if case["in"]["value"] is None else case["in"]["value"].encode()
        for case in recorded["cases"]
    ]
    values: list[bytes | None] = [value for value, _, _ in ODD] + more + [None]
    with ThreadPoolExecutor(1) as pool:
        before = high_watermarks(kafka, [model.T1])
        running = pool.submit(airflow.run, {"alerts": 60, "rate_per_second": 20})
        while high_watermarks(kafka, [model.T1]) == before and not running.done():
            Event().wait(0.1)
        middle = high_watermarks(kafka, [model.T1])
        with CheckedProducer(kafka) as producer:
            for value in values:
                producer.send(OutRecord(model.T1, value))
            producer.flush()
        run = running.result()

    assert run.status == 0, run.log
    ours: dict[tuple[int, int], bytes | None] = {}
    for batch in read_range(kafka, middle, high_watermarks(kafka, [model.T1]), timeout_s=30):
        ours |= {(m.partition(), m.offset()): m.value() for m in batch if m.key() is None}
    assert len(ours) == len(values)
    landed: dict[tuple[int, int], list[tuple[str, str | None]]] = {at: [] for at in ours}
    rest = [topic for topic in TOPICS if topic != model.T1]
    for batch in read_range(
        kafka, log_start_offsets(kafka, rest), high_watermarks(kafka, rest), timeout_s=30
    ):
        for message in batch:
            record = json.loads(message.value())
            at = (record["T1_PARTICION"], record["T1_OFFSET"])
            if at in landed:
                landed[at].append((message.topic(), record.get("MOTIVO")))
    expected = {value: (topics, motivo) for value, topics, motivo in ODD}
    for at, value in ours.items():
        if value is None:
            assert landed[at] == []
            continue
        topics = sorted(topic for topic, _ in landed[at])
        assert sum(topic in (model.T2, model.T3, model.T4) for topic in topics) == 1, value
        if value in expected:
            assert topics == sorted(expected[value][0]), value
            assert next((m for _, m in landed[at] if m), None) == expected[value][1], value
    ajenos = counts(run.manifest, "ajenos")[model.T1]
    assert ajenos == sum(value is not None for value in values)
    assert counts(run.manifest)[model.T1] == 60


def test_two_runs_at_the_same_time_mix_nothing(airflow: Any, another_airflow: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        # Refused by its first step, with Airflow loaded afterwards: the next runs start together.
        list(pool.map(lambda process: process.run({"source": "file"}), [airflow, another_airflow]))
        one, other = pool.map(
            lambda process: process.run({"alerts": 160, "rate_per_second": 20}),
            [airflow, another_airflow],
        )

    assert (one.status, other.status) == (0, 0), one.log + other.log
    seen = [counts(run.manifest, "otras_ejecuciones")[model.T1] for run in (one, other)]
    assert sum(seen) > 0, "the runs did not overlap"
    ids = []
    for run in (one, other):
        alerts = json.loads((run.folder / "TOTAL_AVISOS.json").read_text())
        plan = json.loads((run.folder / "plan.json").read_text())
        assert {alert["id_ejecucion"] for alert in alerts} == {plan["id_ejecucion"]}
        assert counts(run.manifest)[model.T1] == len(alerts) == 160
        ids.append({alert["id_aviso"] for alert in alerts})
    assert not ids[0] & ids[1]


def test_a_red_reconciliation_stays_red_whatever_follows_it(
    airflow: Any, kafka: dict[str, Any], tmp_path: Path
) -> None:
    when, conf = "2026-01-09T00:00:00+00:00", {"alerts": 40, "seed": 3}
    first = airflow.run(conf, when=when)
    assert first.status == 0, first.log
    told_twice = _copy_one_medical_record(kafka, first.folder)

    red = airflow.run(conf, when=when, env=_with_a_report_after_reconcile(tmp_path))

    assert red.status == 1
    assert "REPORT PUBLISHED" in red.log
    assert "ReconciliationError" in red.log
    assert told_twice in red.log
    assert model.T2_1 in red.log
    assert red.manifest["ok"] is False


def test_the_command_exits_with_1_when_a_run_is_red(
    dags_test: Callable[..., Any], tmp_path: Path
) -> None:
    breach = "raise __import__('airflow.sdk').exceptions.AirflowFailException('planted')"
    env = _with_a_report_after_reconcile(tmp_path, breach)

    red = dags_test({"alerts": 3}, env=env)

    assert red.status == 1
    assert "REPORT PUBLISHED" in red.log


def _with_a_report_after_reconcile(tmp_path: Path, breach: str = "") -> dict[str, str]:
    """Make a copy of the DAG with a teardown after reconcile and, if wanted, a breach in it."""
    dags = tmp_path / "dags"
    dags.mkdir()
    original = (PROJECT_ROOT / "dags/emergencias_112.py").read_text()
    if breach:
        original = original.replace("steps.reconcile(settings, dag_run=dag_run, ti=ti)", breach)
        assert breach in original
    (dags / "emergencias_112.md").write_text("What it does")
    (dags / "emergencias_112.py").write_text(
        original
        + textwrap.dedent(
            """
            with dag:
                @task
                def publish_report():
                    print("REPORT PUBLISHED")

                dag.get_task("reconcile") >> publish_report().as_teardown()
            """
        )
    )
    return {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}


def _copy_one_medical_record(kafka: dict[str, Any], folder: Path) -> str:
    """Tell the ambulance service one alert of the run a second time; return its id."""
    alert = json.loads((folder / "TOTAL_AVISOS_SANITARIOS_112.json").read_text())[0]
    topics = [model.T2_1]
    for batch in read_range(
        kafka, log_start_offsets(kafka, topics), high_watermarks(kafka, topics), timeout_s=30
    ):
        for message in batch:
            if message.key() == alert["ID_AVISO"].encode():
                with CheckedProducer(kafka) as producer:
                    producer.send(
                        OutRecord(
                            model.T2_1,
                            message.value(),
                            key=message.key(),
                            timestamp_ms=message.timestamp()[1],
                        )
                    )
                    producer.flush()
                return str(alert["ID_AVISO"])
    raise AssertionError("the run has no medical alert")


@pytest.mark.parametrize("down", ["kafka", "ksqldb"])
def test_with_a_server_down_the_wait_fails_in_time_naming_address_and_next_step(
    airflow: Any, down: str
) -> None:
    nobody = {
        "kafka": {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:9"}},
        "ksqldb": {"conn_type": "ksqldb", "host": "127.0.0.1", "port": 9},
    }
    run = airflow.run(
        env={
            f"AIRFLOW_CONN_{down.upper()}_DEFAULT": json.dumps(nobody[down]),
            "EMERGENCIAS_WAIT_TIMEOUT_S": "4",
        }
    )

    assert run.status == 1
    assert "127.0.0.1:9" in run.log
    assert "Check that" in run.log
    assert "AirflowSensorTimeout" in run.log
    assert not (run.folder / "plan.json").exists()


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"alerts": 0}, ["alerts", "0 is less than the minimum of 1"]),
        ({"rate_per_second": -1}, ["rate_per_second", "-1 is less than the minimum of 0"]),
        ({"source": "file", "input_path": "{tmp}/none.json"}, ["none.json"]),
        ({"source": "file", "input_path": "{tmp}/columns.csv"}, ["columns.csv", "requiere_medico"]),
        ({"source": "file", "input_path": "{tmp}/cut.json"}, ["cut.json"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_bad_parameter_or_file_is_refused_before_anything_is_sent(
    airflow: Any,
    kafka: dict[str, Any],
    tmp_path: Path,
    conf: dict[str, Any],
    said: list[str],
) -> None:
    (tmp_path / "columns.csv").write_text("grado,fecha\nLeve,2023-01-01 00:00:00\n")
    (tmp_path / "cut.json").write_text(json.dumps(original_shaped(3))[:-20])
    conf = {
        name: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for name, value in conf.items()
    }
    before = high_watermarks(kafka, [model.T1])

    run = airflow.run(conf)

    assert run.status != 0
    for part in said:
        assert part in run.log
    assert high_watermarks(kafka, [model.T1]) == before


@pytest.mark.parametrize(
    ("mapping", "file", "for_a_person"),
    [
        ("original", "original.json", 1),
        ("llamadas_911", "llamadas_911.csv", 2),
        ("despachos_ambulancia", "despachos_ambulancia.csv", 6),
    ],
)
def test_a_file_of_another_producer_goes_through_the_whole_dag_by_its_ready_mapping(
    airflow: Any, mapping: str, file: str, for_a_person: int
) -> None:
    path = PROJECT_ROOT / "tests/data/intake" / file

    run = airflow.run({"source": "file", "input_path": str(path), "mapping": mapping})

    assert run.status == 0, run.log
    assert run.manifest["ok"] is True
    assert counts(run.manifest)[model.T1] == run.manifest["input"]["rows"] == 30
    assert run.manifest["review"]["motivos"] == {MOTIVO_DEGREE: for_a_person}
    exported = json.loads((run.folder / "TOTAL_AVISOS.json").read_text())
    expected = Counter(
        topic
        for alert in exported
        if alert["grado"] in ("Leve", "Moderado", "Urgente", "Urgencia extrema")
        for topic in expected_topics(alert)
    )
    found = counts(run.manifest)
    del found[model.T1], found[model.T4]
    assert found == {topic: expected[topic] for topic in found}


def test_a_bad_row_is_told_and_costs_no_good_one(airflow: Any, tmp_path: Path) -> None:
    file = tmp_path / "avisos.jsonl"
    lines = [json.dumps(row) for row in original_shaped(20)]
    file.write_text("\n".join([*lines[:7], "{oops", *lines[7:]]))

    run = airflow.run({"source": "file", "input_path": str(file)})

    assert run.status == 0, run.log
    assert counts(run.manifest)[model.T1] == 20
    assert (run.manifest["input"]["refused"], run.manifest["input"]["rows"]) == (1, 21)
    (refused,) = (run.folder / "refused.jsonl").read_text().splitlines()
    assert json.loads(refused) | {"reason": ""} == {
        "file": str(file),
        "line": 8,
        "row": 8,
        "reason": "",
        "text": "{oops",
    }
    assert "refused.jsonl" in run.log
