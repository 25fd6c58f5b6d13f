"""`ksqldb_local` answers as the recorded servers did: the same requests, in the same order."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import TopicPartition

from local_stack.services import Service, kafka_service
from local_stack.stack import Stack

HERE = Path(__file__).parent
COLUMNS = (
    "tipo_emergencia VARCHAR, grado VARCHAR, cuerpo_necesario VARCHAR, localizacion VARCHAR, "
    "fecha VARCHAR, requiere_medico VARCHAR, contacto VARCHAR"
)
AVISO = {"value": b'{"grado":"Urgente","contacto":"r00"}'}


def sql(*texts: str) -> Callable[[Any], None]:
    def run(local: Any) -> None:
        for text in texts:
            response = local.ksql(text)
            assert response.status_code == 200, response.text

    return run


def topic(name: str, partitions: int, *records: dict[str, Any], **settings: int) -> Any:
    def run(local: Any) -> None:
        local.create_topic(name, partitions, **settings)
        local.produce(name, *records)

    return run


def traffic(name: str, stream: str, records: int, end: int) -> Any:
    """Send records, and wait until the query that writes a stream has handled them."""

    def run(local: Any) -> None:
        local.produce(name, *({"value": b'{"grado":"x"}', "key": b"k"} for _ in range(records)))
        deadline = time.monotonic() + 30
        while True:
            described = local.ksql(f"DESCRIBE {stream} EXTENDED;").json()[0]["sourceDescription"]
            summaries = described["queryOffsetSummaries"][0]["topicSummaries"]
            if summaries and summaries[0]["offsets"][0]["consumerOffset"] == end:
                return
            assert time.monotonic() < deadline, f"{stream} does not reach {end}: {summaries}"
            time.sleep(0.05)

    return run


def source_deleted(local: Any) -> None:
    """Delete the source topic of running queries, and wait until it shows."""
    local.delete_topic("T_key")
    deadline = time.monotonic() + 60
    while True:
        explained = local.ksql("EXPLAIN CSAS_K2_117;").json()[0]["queryDescription"]
        if explained["queryErrors"]:
            return
        assert time.monotonic() < deadline, "the deleted topic does not show"
        time.sleep(0.2)


def old_records(local: Any) -> None:
    """Leave T1 as retention had left it when the queries were recorded: beginning at offset 35."""
    name = "T1_Recepcion_avisos"
    local.create_topic(name, 1, retention_ms=-1)
    local.produce(name, *({"value": b"{}"} for _ in range(35)))
    begin = TopicPartition(local.topic(name), 0, 35)
    local.admin.delete_records([begin])[begin].result()
    rest = (
        '"grado":"Urgente","cuerpo_necesario":"Bomberos","localizacion":"Sevilla",'
        '"fecha":"2024-01-01 10:00:00","requiere_medico":"Si"}'
    )
    times = {"r35": 1795567152190, "r36": 1600000000000}
    for contact in ("r35", "r36", "q0", "q1", "q2", "q3"):
        value = f'{{"contacto":"{contact}","tipo_emergencia":"Incendio",{rest}'.encode()
        local.produce(name, {"value": value, "timestamp": times.get(contact, 1795567152190)})


def restart(local: Any) -> None:
    local.stop()
    local.start()


# The recordings of one server's life, and between them (callables) what else was done to it:
# statements that are not among the recordings but that later ones build upon.
LIFE: list[str | Callable[[Any], None]] = [
    "001-info",
    "002-healthcheck",
    "003-clusterStatus-heartbeat-disabled",
    "004-root",
    "005-metadata",
    "006-metadata-id",
    "007-is_valid_property",
    "008-is_valid_property-bad",
    "009-lag",
    "010-status-all-initial",
    "011-unknown-path",
    "012-get-on-ksql",
    "020-show-streams-initial",
    "021-list-streams-extended",
    "022-show-tables",
    "023-show-queries-initial",
    "030-create-stream-missing-topic",
    topic("T1_Recepcion_avisos", 1, AVISO),
    "031-create-stream",
    "040-csas-default-latest",
    "041-show-streams",
    "042-show-queries",
    "043-describe-urg",
    "044-describe-urg-extended",
    "045-describe-source-extended",
    "046-explain-query",
    "047-show-queries-extended",
    "048-status-all",
    "049-status-one",
    "050-status-one-no-backticks",
    "201-csas-existing",
    "202-create-table-existing-name-stream",
    "204-csas-if-not-exists",
    "205-create-or-replace-identical",
    sql(
        f"CREATE OR REPLACE STREAM emergencias_stream ({COLUMNS}, extra VARCHAR) "
        "WITH (KAFKA_TOPIC='T1_Recepcion_avisos', VALUE_FORMAT='JSON');"
    ),
    "207-create-or-replace-drop-column",
    "208-create-or-replace-change-type",
    "210-csas-or-replace-identical",
    "211-csas-or-replace-other-filter",
    "211c-status-after-replace",
    "212-csas-or-replace-other-columns",
    sql(
        "CREATE OR REPLACE STREAM nuevo WITH (KAFKA_TOPIC='T9_nuevo', VALUE_FORMAT='JSON') AS "
        "SELECT * FROM emergencias_stream WHERE grado = 'Urgente' EMIT CHANGES;"
    ),
    "214-show-queries-after-replace",
    "215-both-or-replace-and-if-not-exists",
    "220-syntax-error",
    "221-syntax-error-missing-semicolon",
    "223-empty-statement",
    "224-only-comment",
    "226-unknown-column",
    "227-unknown-source",
    "229-type-mismatch",
    "230-in-type-mismatch",
    "231-stream-over-missing-topic",
    "232-stream-missing-topic-with-partitions",
    "234-no-value-format",
    "235-avro-without-schema-registry",
    "237-bad-value-format",
    "238-select-on-ksql-endpoint",
    sql(
        "CREATE STREAM sin_emit WITH (KAFKA_TOPIC='T8_sin_emit', VALUE_FORMAT='JSON') AS "
        "SELECT * FROM emergencias_stream;"
    ),
    "240-describe-unknown",
    topic("T_three", 3),
    "241-csas-into-existing-topic-other-partitions",
    "243-csas-into-own-source-topic",
    "244-two-csas-same-sink-topic",
    "300-drop-stream-in-use",
    "301-drop-stream-in-use-delete-topic",
    "303-drop-stream-unknown",
    "304-drop-stream-if-exists-unknown",
    sql("DROP STREAM urg_b;"),
    "306-show-queries-after-drop",
    "307-terminate-unknown",
    sql("TERMINATE csas_z_15;"),
    "309-terminate",
    "310-terminate-again",
    "312-show-queries",
    "313-show-streams-after-terminate",
    "315-drop-after-terminate",
    "316-drop-delete-topic",
    sql("PAUSE CSAS_URG_3;"),
    "318-show-queries-paused",
    "319-resume",
    sql("TERMINATE ALL;"),
    "321-show-queries-after-terminate-all",
    "322-terminate-all-again",
    "324-recreate-csas-after-terminate",
    "325-if-not-exists-after-terminate",
    sql(
        "CREATE OR REPLACE STREAM urg WITH (KAFKA_TOPIC='T2_Centro_112', VALUE_FORMAT='JSON') AS "
        "SELECT * FROM emergencias_stream WHERE grado IN ('Urgencia extrema','Urgente') "
        "EMIT CHANGES;"
    ),
    "327-show-queries",
    "328-drop-source-while-read",
    sql("DROP STREAM urg; DROP STREAM sin_emit; DROP STREAM bucle; DROP STREAM w;"),
    "330-drop-source",
    "331-drop-if-exists-existing-none",
    "333-show-queries",
    "334-status-all",
    "400-source",
    "401-csas-earliest",
    "402-csas-earliest-short-name",
    "403-csas-eos-v2",
    "404-csas-eos-v2-prefixed",
    "405-csas-eos-old-name",
    "406-bad-offset-value",
    "407-none-offset-value",
    "408-bad-guarantee-value",
    "409-unknown-property",
    "410-unknown-ksql-streams-property",
    "411-immutable-property",
    "412-number-typed-property",
    "413-properties-null",
    "414-no-streamsProperties",
    "420-explain-e1",
    "421-explain-e2",
    "422-explain-e3",
    "423-explain-e4",
    "424-explain-e5",
    "425-explain-e10",
    "430-set-statement-alone",
    "431-csas-after-set",
    "432-set-in-batch",
    "433-unset",
    sql("TERMINATE ALL;", *(f"DROP STREAM e{n};" for n in (1, 2, 3, 4, 5, 10, 11, 12))),
    "500-batch-ok",
    "501-batch-last-invalid",
    "503-batch-syntax-error",
    "504-describe-b4",
    "506-describe-b6",
    "507-batch-if-not-exists-mixed",
    sql("TERMINATE ALL;"),
    "509b-show-queries-after",
    "510-define-variable",
    "511-sessionVariables",
    sql(
        "CREATE STREAM probe_1 (a VARCHAR) WITH (KAFKA_TOPIC='T_three', VALUE_FORMAT='JSON');",
        "DROP STREAM probe_1;",
        "DROP STREAM b8;",
        "TERMINATE ALL;",
        "CREATE STREAM s1 (a VARCHAR) WITH (KAFKA_TOPIC='T_three', VALUE_FORMAT='JSON');",
    ),
    "521-seq-wait-current",
    "522-seq-future",
    "524-seq-next",
    "525-seq-string",
    "531-accept-ksql-v1",
    "532-accept-xml",
    "534-no-accept-star",
    "535-body-not-json",
    "537-body-empty-object",
    "538-body-unknown-field",
    "540-put",
    "541-trailing-slash",
    "543-body-broken-json",
    "544-unicode-statement",
    "546-print-topic",
    "547-run-script",
    "549-insert-values-unknown-col",
    "631-inserts-stream-h1",
    topic("T_key", 1),
    "700-source-with-key",
    "701-csas-with-key",
    "702-source-quoted",
    "703-csas-quoted",
    "704-csas-alias-lower",
    "705-csas-alias-with-key",
    "706-source-with-headers",
    "707-csas-with-headers",
    "708-csas-partition-by",
    traffic("T_key", "k2", 4, 4),
    "800-show-queries-before-restart",
    restart,
    "802-show-queries-after-restart",
    "803-status-after-restart",
    "804-create-after-restart-seq",
    "805-status-after-restart-2",
    "710-csas-alias-lower-partition-by-null",
    "711-source-nokey",
    "712-csas-alias",
    topic("T_ret", 1, retention_ms=86_400_000),
    "810-csas-sink-other-retention",
    "811-csas-sink-retention-given",
    "812-csas-sink-other-partitions-given",
    traffic("T_key", "k2", 1, 5),
    "813-describe-extended-with-traffic",
    source_deleted,
    "820-show-queries-source-topic-deleted",
    "821-describe-source-deleted",
    "822-healthcheck-source-deleted",
    "823-explain-failed-query",
    "824-terminate-all",
]
# Another server, without the processing log's stream, from its first statement on.
OTHER_LIFE: list[str | Callable[[Any], None]] = [
    "902-show-streams-no-processing-log",
    topic("T1_Recepcion_avisos", 1),
    "903-first-statement-seq",
    "904-csas",
    "906-show-queries",
    "907-terminate-all",
    "901-lag-enabled",
]
SOURCE = f"""CREATE STREAM emergencias_stream ({COLUMNS})
    WITH (KAFKA_TOPIC='T1_Recepcion_avisos', VALUE_FORMAT='JSON');"""
# Push and pull queries.
QUERIES: list[str | Callable[[Any], None]] = [
    old_records,
    sql(SOURCE),
    "600-query-stream-push-limit-h1",
    "601-query-stream-streamsProperties-h1",
    "603-query-stream-accept-ksql-v1",
    "604-query-stream-no-accept",
    "606-query-stream-pull-on-stream",
    "607-query-stream-pull-limit",
    "609-query-stream-unknown-stream",
    "610-query-stream-statement",
    "612-query-stream-missing-sql",
    "613-query-stream-rowtime-headers",
    "615-query-old-endpoint",
    "616-close-query-unknown",
    "618-query-stream-limit-0",
    "624-show-queries-later",
]
# Several partitions, and the processing log as a stream.
PARTITIONS: list[str | Callable[[Any], None]] = [
    topic("T1_Recepcion_avisos", 3),
    topic("T2_Centro_112", 3),
    sql(SOURCE),
    "920-csas-3-partitions-earliest-eos",
    "923-select-processing-log",
    lambda local: local.produce("T1_Recepcion_avisos", {"value": b'{"grado":"Urgente"'}),
    "924-query-processing-log",
]
# A broker of its own: before anything else was there, and after it was stopped.
BEFORE_OUTAGE: list[str | Callable[[Any], None]] = [
    "024-show-topics",
    topic("T1_Recepcion_avisos", 1),
    sql(
        SOURCE,
        "CREATE STREAM urg WITH (KAFKA_TOPIC='T2_Centro_112', VALUE_FORMAT='JSON') AS SELECT * "
        "FROM emergencias_stream;",
    ),
]
OUTAGE: list[str | Callable[[Any], None]] = [
    "910-healthcheck-kafka-down",
    "911-info-kafka-down",
    "912-show-streams-kafka-down",
    "914-healthcheck-kafka-down-later",
]

# Where answers differ, and are meant to.
DIFFERENT = {
    # Nothing rebalances here: the answer need not say EXECUTING first.
    "211-csas-or-replace-other-filter": (".commandStatus.",),
    "824-terminate-all": (".commandStatus.",),
    # When the record was logged, and the JSON parser's own words.
    "924-query-processing-log": ("[1][2]: ", ".CAUSE[0]: ", ".ERRORMESSAGE: "),
}


def names(life: list[str | Callable[[Any], None]]) -> list[str]:
    return [step for step in life if isinstance(step, str)]


def live(
    local: Any,
    life: list[str | Callable[[Any], None]],
    compare: Callable[[str, httpx.Response, Any], list[str]],
) -> dict[str, list[str]]:
    results = {}
    for step in life:
        if isinstance(step, str):
            results[step] = compare(step, local.replay(step), local)
        else:
            step(local)
    return results


@pytest.fixture(scope="module")
def answers(make_local: Any, compare: Any) -> dict[str, list[str]]:
    return (
        live(make_local(), LIFE, compare)
        | live(make_local("--no-processing-log-stream"), OTHER_LIFE, compare)
        | live(make_local(), QUERIES, compare)
        | live(make_local(), PARTITIONS, compare)
    )


@pytest.fixture(scope="module")
def outage_answers(make_local: Any, make_stack_settings: Any, compare: Any) -> dict[str, list[str]]:
    settings = make_stack_settings()
    broker = Stack(settings, [kafka_service(settings)])
    broker.up(unreported)
    try:
        local = make_local("--no-processing-log-stream", bootstrap=settings.bootstrap_servers)
        before = live(local, BEFORE_OUTAGE, compare)
    finally:
        broker.down(unreported)
    return before | live(local, OUTAGE, compare)


def unreported(service: Service, event: str) -> None:
    """Take the stack's progress reports."""


def check(name: str, found: list[str], record_property: Any) -> None:
    record_property("recording", name)
    found = [d for d in found if not any(part in d for part in DIFFERENT.get(name, ()))]
    assert found == []


IN_LIFE = [n for life in (LIFE, OTHER_LIFE, QUERIES, PARTITIONS) for n in names(life)]
AROUND_OUTAGE = [*names(BEFORE_OUTAGE), *names(OUTAGE)]


@pytest.mark.parametrize("name", IN_LIFE)
@pytest.mark.timeout(400)
def test_answers_as_recorded(
    name: str, answers: dict[str, list[str]], record_property: Any
) -> None:
    check(name, answers[name], record_property)


@pytest.mark.parametrize("name", AROUND_OUTAGE)
@pytest.mark.timeout(400)
def test_answers_as_recorded_around_an_outage(
    name: str, outage_answers: dict[str, list[str]], record_property: Any
) -> None:
    check(name, outage_answers[name], record_property)


def test_every_recording_is_replayed_or_has_its_reason() -> None:
    recorded = {p.stem for p in (HERE / "recordings").glob("*.json")}
    reasons = tomllib.loads((HERE / "not_replayed.toml").read_text(encoding="utf-8"))
    replayed = {*IN_LIFE, *AROUND_OUTAGE, "100-data-in-out"}

    assert recorded - replayed == reasons.keys()
    assert replayed <= recorded
    assert all(reasons.values())
