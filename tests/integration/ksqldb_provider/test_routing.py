"""The routing rules, deployed by the provider, on odd records: who gets what, and how often."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from kafka_io import CheckedProducer, OutRecord, high_watermarks, log_start_offsets, read_range
from ksqldb_provider.caught_up import CaughtUp, watch
from ksqldb_provider.deploy import apply, plan
from ksqldb_provider.sql import load_folder

T1 = "T1_Recepcion_avisos"
T2 = "T2_Centro_112"
T22 = "T2.2_Centro_de_mando"
T23 = "T2.3_Cuerpos_112"
T3 = "T3_No_Urgencias"
T31 = "T3.1_Medicos"
T4 = "T4_Revision_manual"
BODIES = {
    "Bomberos": "T3.2_Bomberos",
    "Forestales": "T3.3_Forestales",
    "Guardia Costera": "T3.4_Guardia_Costera",
    "Policia": "T3.5_Policia",
    "Servicios de emergencia": "T3.6_Servicios_de_emergencia",
}
ALL = (T2, T22, T23, T3, T31, *BODIES.values(), T4)

BAD_JSON = "JSON no valido"
NO_OBJECT = "no es un objeto JSON"
DEGREE = "grado desconocido"
DOCTOR = "requiere_medico desconocido"
NOBODY = "ningun cuerpo lo atiende"

# value on T1 -> where it goes (with the reason for T4)
ODD: list[tuple[bytes, dict[str, str | None]]] = [
    (b"nada", {T4: BAD_JSON}),
    (b"", {T4: BAD_JSON}),
    (b'{"grado":"Urgente"', {T4: BAD_JSON}),
    (b"\xff\xfe", {T4: BAD_JSON}),
    (b'\xef\xbb\xbf{"grado":"Urgente"}', {T4: BAD_JSON}),
    (b'{"a":NaN,"grado":"Urgente"}', {T4: BAD_JSON}),
    (b"[1]", {T4: NO_OBJECT}),
    (b'"x"', {T4: NO_OBJECT}),
    (b"5", {T4: NO_OBJECT}),
    (b"null", {T4: NO_OBJECT}),
    (b"{}", {T4: DEGREE}),
    (b'{"grado":null}', {T4: DEGREE}),
    (b'{"grado":"URGENTE"}', {T4: DEGREE}),
    (b'{"grado":" Urgente "}', {T4: DEGREE}),
    (b'{"grado":["Urgente"]}', {T4: DEGREE}),
    (b'{"grado":{"grado":"Urgente"}}', {T4: DEGREE}),
    (b'{"Grado":"Urgente"}', {T4: DEGREE}),
    (b'{"GRADO":"Urgente"}', {T4: DEGREE}),
    (b'{"grado":"Moderado"}', {T4: DOCTOR}),
    (
        '{"grado":"Leve","cuerpo_necesario":"Bomberos","requiere_medico":"Sí"}'.encode(),
        {T4: DOCTOR},
    ),
    (b'{"grado":"Leve","cuerpo_necesario":"GEOs","requiere_medico":"No"}', {T4: NOBODY}),
    (b'{"grado":"Urgente"} basura', {T2: None, T22: None}),
    (b'{"grado":"Leve","grado":"Urgente"}', {T2: None, T22: None}),
    (b'{"grado":"Urgente","localizacion":"C\xe1diz"}', {T2: None, T22: None}),
    (b'{"grado":"Urgente","requiere_medico":null,"latitud":"37,1"}', {T2: None, T22: None}),
    (
        b'{"grado":"Urgente","cuerpo_necesario":"Bomberos","requiere_medico":"Si",'
        b'"latitud":{"grados":37}}',
        {T2: None, T23: None},
    ),
    (
        b'{"grado":"Leve","requiere_medico":"Si","cuerpo_necesario":null}',
        {T3: None, T31: None},
    ),
]


def alert(grado: str, cuerpo: str | None, medico: str) -> bytes:
    return json.dumps(
        {"grado": grado, "cuerpo_necesario": cuerpo, "requiere_medico": medico}
    ).encode()


ORDINARY: list[tuple[bytes, dict[str, str | None]]] = [
    (alert("Urgente", "Policia", "No"), {T2: None, T22: None}),
    (alert("Urgencia extrema", "Policia", "Si"), {T2: None, T23: None}),
    (alert("Urgente", "Ambulancia", "Si"), {T2: None}),
    (alert("Urgente", "Medicos", "No"), {T2: None}),
    (alert("Urgente", None, "Si"), {T2: None, T23: None}),
    (b'{"grado":"Urgente","requiere_medico":"Si"}', {T2: None, T23: None}),
    (alert("Leve", "Ambulancia", "No"), {T3: None, T31: None}),
    (alert("Moderado", "GEOs", "Si"), {T3: None, T31: None}),
    *((alert("Leve", body, "No"), {T3: None, topic: None}) for body, topic in BODIES.items()),
    *(
        (alert("Moderado", body, "Si"), {T3: None, T31: None, topic: None})
        for body, topic in BODIES.items()
    ),
]


@pytest.fixture
def deployed(rules, client, topics) -> list[str]:
    done = apply(client, topics, plan(client, topics, load_folder(rules.folder)))
    return [item.query_id for item in done if item.query_id]


@pytest.fixture
def wait_until_routed(client, kafka, deployed) -> Callable[[], None]:
    def wait() -> None:
        caught_up = CaughtUp(client, kafka, watch(client, deployed))
        for _ in range(300):
            if caught_up.check():
                return
            threading.Event().wait(0.1)
        pytest.fail(f"not caught up: {[str(lag) for lag in caught_up.lags]}")

    return wait


def records(kafka, names: Iterable[str]):
    topics = list(names)
    start, end = log_start_offsets(kafka, topics), high_watermarks(kafka, topics)
    for batch in read_range(kafka, start, end, timeout_s=20):
        yield from batch


def test_every_record_goes_where_the_rules_say_once_with_key_headers_and_timestamp(
    rules, kafka, wait_until_routed
):
    cases = ODD + ORDINARY
    start = time.time_ns() // 1_000_000 - 60_000
    with CheckedProducer(kafka) as producer:
        for number, (value, _) in enumerate(cases):
            producer.send(
                OutRecord(
                    topic=rules.topic(T1),
                    value=value,
                    key=f"k{number}".encode(),
                    headers=[("n", str(number).encode())],
                    timestamp_ms=start + number,
                )
            )
        producer.send(OutRecord(topic=rules.topic(T1), value=None, key=b"tombstone"))
        producer.flush()
    wait_until_routed()

    coordinates = {
        bytes(message.key()).decode(): (message.partition(), message.offset())
        for message in records(kafka, [rules.topic(T1)])
    }
    arrived: dict[int, list[tuple[str, str | None]]] = {n: [] for n in range(len(cases))}
    for message in records(kafka, [rules.topic(name) for name in ALL]):
        row = json.loads(message.value())
        key = bytes(message.key()).decode()
        number = int(key.removeprefix("k"))
        arrived[number].append((message.topic().removeprefix(rules.prefix), row.get("MOTIVO")))
        assert (row["T1_PARTICION"], row["T1_OFFSET"]) == coordinates[key]
        assert message.headers() == [("n", str(number).encode())]
        assert message.timestamp()[1] == start + number
    expected = {number: sorted(goes.items()) for number, (_, goes) in enumerate(cases)}
    assert {number: sorted(found) for number, found in arrived.items()} == expected


def test_records_without_a_key_and_in_aborted_transactions(rules, kafka, wait_until_routed):
    topic = rules.topic(T1)
    with CheckedProducer(kafka, transactional_id=f"{rules.prefix}tx") as producer:
        producer.begin()
        producer.send(OutRecord(topic=topic, value=alert("Urgente", "Policia", "No")))
        producer.commit()
        producer.begin()
        producer.send(OutRecord(topic=topic, value=alert("Urgente", "GEOs", "No")))
        producer.flush()
        producer.abort()
    wait_until_routed()
    found = Counter(
        (message.topic().removeprefix(rules.prefix), message.key())
        for message in records(kafka, [rules.topic(name) for name in ALL])
    )
    assert found == {(T2, None): 1, (T22, None): 1}


def test_columns_come_out_in_the_agreed_order(rules, kafka, wait_until_routed):
    with CheckedProducer(kafka) as producer:
        producer.send(OutRecord(topic=rules.topic(T1), value=alert("Urgente", "GEOs", "No")))
        producer.send(OutRecord(topic=rules.topic(T1), value=b"nada \xc3\xb1"))
        producer.flush()
    wait_until_routed()
    (routed,) = records(kafka, [rules.topic(T22)])
    assert list(json.loads(routed.value())) == [
        "TIPO_EMERGENCIA",
        "GRADO",
        "CUERPO_NECESARIO",
        "LOCALIZACION",
        "FECHA",
        "REQUIERE_MEDICO",
        "CONTACTO",
        "ID_EJECUCION",
        "CODIGO_PROVINCIA",
        "LATITUD",
        "LONGITUD",
        "T1_PARTICION",
        "T1_OFFSET",
        "PRECISION_M",
        "ID_INCIDENTE",
    ]
    (odd,) = records(kafka, [rules.topic(T4)])
    row = json.loads(odd.value())
    assert list(row) == ["MOTIVO", "ORIGEN", "TEXTO", "T1_PARTICION", "T1_OFFSET"]
    assert (row["MOTIVO"], row["TEXTO"]) == (BAD_JSON, "nada ñ")
    assert row["ORIGEN"] == "T1_Recepcion_avisos"
