"""`ksqldb_local` makes of records what the recorded servers made of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROUTING_SQL = Path(__file__).parents[2] / "include" / "ksql"
RECORDED = json.loads(
    (Path(__file__).parent / "recordings" / "100-data-in-out.json").read_text(encoding="utf-8")
)["cases"]
COLUMNS = (
    "tipo_emergencia VARCHAR, grado VARCHAR, cuerpo_necesario VARCHAR, localizacion VARCHAR, "
    "fecha VARCHAR, requiere_medico VARCHAR, contacto VARCHAR"
)
EARLIEST = {"ksql.streams.auto.offset.reset": "earliest"}


def raw(value: str | None) -> bytes | None:
    # The recording shows a byte that is not UTF-8 as U+FFFD.
    return None if value is None else value.encode().replace("\ufffd".encode(), b"\xe1")


def ok(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    answer = response.json()[0]
    assert answer["commandStatus"]["status"] == "SUCCESS", answer
    return answer


def headers(message: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or []}


@pytest.fixture(scope="module")
def routed(make_local: Any) -> dict[str, Any]:
    """Every recorded record sent through the recorded stream: cases by sink and processing log."""
    local = make_local()
    # The recorded timestamps are older than a retention of days: the broker would delete them.
    local.create_topic("T1_Recepcion_avisos", 1, retention_ms=-1)
    local.produce("T1_Recepcion_avisos", {"value": b'{"grado":"Urgente","contacto":"before"}'})
    ok(
        local.ksql(
            f"CREATE STREAM emergencias_stream ({COLUMNS}) WITH "
            "(KAFKA_TOPIC='T1_Recepcion_avisos', VALUE_FORMAT='JSON');"
        )
    )
    ok(
        local.ksql(
            "CREATE STREAM urg WITH (KAFKA_TOPIC='T2_Centro_112', VALUE_FORMAT='JSON') AS SELECT * "
            "FROM emergencias_stream WHERE grado IN ('Urgencia extrema','Urgente') EMIT CHANGES;"
        )
    )
    for case in RECORDED:
        record = case["in"]
        key = record["key"]
        local.produce(
            "T1_Recepcion_avisos",
            {
                "value": raw(record["value"]),
                "key": None if key is None else key.encode(),
                "headers": list(record["headers"].items()),
                "timestamp": record["timestamp"],
            },
        )
    expected = sum(len(case["out"] or []) for case in RECORDED)
    messages = local.read("T2_Centro_112", until=lambda m: len(m) >= expected)
    local.prefix, prefix = local.service_id, local.prefix
    entries = local.read("ksql_processing_log", until=lambda m: len(m) >= 8)
    local.prefix = prefix
    return {
        "messages": messages,
        "log": [json.loads(m.value()) for m in entries],
        "topic": local.topic("T1_Recepcion_avisos"),
    }


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: c["case"])
def test_record_comes_out_as_recorded(
    case: dict[str, Any], routed: dict[str, Any], record_property: Any
) -> None:
    record_property("recording", "100-data-in-out")
    timestamp = case["in"]["timestamp"]
    out = [m for m in routed["messages"] if m.timestamp()[1] == timestamp]

    assert [{"key": m.key(), "headers": headers(m), "value": m.value().decode()} for m in out] == [
        {"key": o["key"], "headers": o["headers"], "value": o["value"]} for o in case["out"] or []
    ]


def test_query_without_property_starts_at_latest(routed: dict[str, Any]) -> None:
    assert not [m for m in routed["messages"] if b"before" in m.value()]


def test_each_unreadable_record_gives_one_processing_log_entry(routed: dict[str, Any]) -> None:
    unreadable = [
        c
        for c in RECORDED
        if c["case"].split()[0] in ("07", "08", "10", "11", "13", "28", "29", "32")
    ]
    assert len(unreadable) == 8
    assert len(routed["log"]) == 8
    for entry in routed["log"]:
        assert entry["level"] == "ERROR"
        assert entry["logger"] == "processing.CSAS_URG_3.KsqlTopic.Source.deserializer"
        assert entry["message"]["type"] == 0
        error = entry["message"]["deserializationError"]
        assert error["target"] == "value"
        assert error["topic"] == routed["topic"]
        assert error["errorMessage"]
        assert error["recordB64"] is None
        others = entry["message"].keys() - {"type", "deserializationError"}
        assert all(entry["message"][k] is None for k in others)
        assert len(others) == 4


NOT_JSON, NOT_OBJECT = "JSON no valido", "no es un objeto JSON"
DEGREE, DOCTOR, NOBODY = (
    "grado desconocido",
    "requiere_medico desconocido",
    "ningun cuerpo lo atiende",
)
T4 = "T4_Revision_manual"
T2, T22, T23 = "T2_Centro_112", "T2.2_Centro_de_mando", "T2.3_Cuerpos_112"
T3, T31 = "T3_No_Urgencias", "T3.1_Medicos"
ODD: list[tuple[bytes, tuple[str, ...], str | None]] = [
    (b"nada", (T4,), NOT_JSON),
    (b"", (T4,), NOT_JSON),
    (b'{"grado":"Urgente"', (T4,), NOT_JSON),
    (b"\xff\xfe", (T4,), NOT_JSON),
    (b'\xef\xbb\xbf{"grado":"Urgente"}', (T4,), NOT_JSON),
    (b'{"a":NaN,"grado":"Urgente"}', (T4,), NOT_JSON),
    (b"[1]", (T4,), NOT_OBJECT),
    (b'"x"', (T4,), NOT_OBJECT),
    (b"5", (T4,), NOT_OBJECT),
    (b"null", (T4,), NOT_OBJECT),
    (b"{}", (T4,), DEGREE),
    (b'{"grado":null}', (T4,), DEGREE),
    (b'{"grado":"URGENTE"}', (T4,), DEGREE),
    (b'{"grado":" Urgente "}', (T4,), DEGREE),
    (b'{"grado":["Urgente"]}', (T4,), DEGREE),
    (b'{"grado":{"x":"Urgente"}}', (T4,), DEGREE),
    (b'{"Grado":"Urgente"}', (T4,), DEGREE),
    (b'{"GRADO":"Urgente"}', (T4,), DEGREE),
    (b'{"grado":"Moderado"}', (T4,), DOCTOR),
    (
        '{"grado":"Leve","cuerpo_necesario":"Bomberos","requiere_medico":"Sí"}'.encode(),
        (T4,),
        DOCTOR,
    ),
    (b'{"grado":"Leve","cuerpo_necesario":"GEOs","requiere_medico":"No"}', (T4,), NOBODY),
    (b'{"grado":"Urgente"} basura', (T2, T22), None),
    (b'{"grado":"Leve","grado":"Urgente"}', (T2, T22), None),
    (b'{"grado":"Urgente","localizacion":"C\xe1diz"}', (T2, T22), None),
    (b'{"grado":"Urgente","requiere_medico":null,"latitud":"37,1"}', (T2, T22), None),
    (
        b'{"grado":"Urgente","requiere_medico":"Si","cuerpo_necesario":"Bomberos",'
        b'"latitud":{"x":1.50}}',
        (T2, T23),
        None,
    ),
    (b'{"grado":"Leve","requiere_medico":"Si","cuerpo_necesario":null}', (T3, T31), None),
]
SINKS = (
    *(T4, T2, T22, T23, T3, T31),
    *("T3.2_Bomberos", "T3.3_Forestales", "T3.4_Guardia_Costera", "T3.5_Policia"),
    "T3.6_Servicios_de_emergencia",
)


@pytest.fixture(scope="module")
def destinations(make_local: Any) -> dict[int, list[tuple[str, dict[str, Any]]]]:
    """The odd records (and a tombstone) through `include/ksql`: by T1 offset, topic and value."""
    local = make_local()
    for name in ("T1_Recepcion_avisos", *SINKS):
        local.create_topic(name, 1, retention_ms=2_592_000_000)
    local.produce("T1_Recepcion_avisos", *({"value": value} for value, _, _ in ODD))
    local.produce("T1_Recepcion_avisos", {"value": None, "key": b"tombstone"})
    files = sorted(ROUTING_SQL.glob("*.sql"))
    assert len(files) == 12
    for file in files:
        ok(local.ksql(file.read_text(encoding="utf-8"), EARLIEST))
    wanted = Counter(topic for _, topics, _ in ODD for topic in topics)
    found: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for sink in SINKS:
        count = wanted[sink]
        for message in local.read(sink, until=lambda m, n=count: len(m) >= n):
            value = json.loads(message.value())
            found.setdefault(value["T1_OFFSET"], []).append((sink, value))
    return found


@pytest.mark.parametrize(
    ("offset", "topics", "reason"),
    [(i, topics, reason) for i, (_, topics, reason) in enumerate(ODD)],
    ids=lambda v: None,
)
def test_odd_record_goes_where_a_real_server_sends_it(
    offset: int,
    topics: tuple[str, ...],
    reason: str | None,
    destinations: dict[int, list[tuple[str, dict[str, Any]]]],
) -> None:
    found = destinations.get(offset, [])

    assert sorted(topic for topic, _ in found) == sorted(topics)
    if reason is not None:
        assert [value["MOTIVO"] for _, value in found] == [reason]


def test_tombstone_goes_nowhere(
    destinations: dict[int, list[tuple[str, dict[str, Any]]]],
) -> None:
    assert len(ODD) not in destinations


def test_text_is_kept_and_fields_are_texts(
    destinations: dict[int, list[tuple[str, dict[str, Any]]]],
) -> None:
    by_value = {value: i for i, (value, _, _) in enumerate(ODD)}
    invalid = destinations[by_value[b"\xff\xfe"]][0][1]
    place = destinations[by_value[ODD[23][0]]][0][1]
    point = destinations[by_value[ODD[25][0]]][0][1]

    assert invalid["TEXTO"] == "\ufffd\ufffd"
    assert place["LOCALIZACION"] == "C\ufffddiz"
    assert point["LATITUD"] == '{"x":1.50}'
