from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergencias import model
from emergencias.enrichment import (
    T2_NUMBER_FIELDS,
    Enricher,
    UnreadableAlertError,
    dead_letter,
    read_t2,
)
from emergencias.places import Address, NoAddress


class FakeMessage:
    """A consumed record, as confluent-kafka gives it."""

    def __init__(self, value: bytes | None, key: bytes | None = b"k") -> None:
        self._value, self._key = value, key

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [("traceparent", b"00")]

    def timestamp(self) -> tuple[int, int]:
        return (1, 1700000000123)

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 7


class OneStreet:
    """Knows Sevilla."""

    def find(self, localizacion: object, *_: object, **__: object) -> Address | NoAddress:
        if localizacion == "Sevilla":
            return Address("Calle Sol 1", "Sevilla", "41001", "Sevilla", "simulada")
        return NoAddress(f"localizacion desconocida: {localizacion!r}")


def t2(**fields: Any) -> bytes:
    row = {"GRADO": "Urgente", "LOCALIZACION": "Sevilla", "T1_PARTICION": 1, "T1_OFFSET": 5}
    return orjson.dumps(row | fields)


def enriched(value: bytes | None, key: bytes | None = b"k") -> list[Any]:
    return Enricher(OneStreet())(FakeMessage(value, key))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("doctor", "body", "medical"),
    [
        ("Si", "Bomberos", True),
        ("Si", None, True),
        ("No", "Ambulancia", True),
        (None, "Medicos", True),
        ("No", "Bomberos", False),
        ("Sí", "Policia", False),
        (None, None, False),
    ],
)
def test_whoever_needs_an_ambulance_goes_to_t2_1_and_nobody_else(
    doctor: str | None, body: str | None, medical: bool
) -> None:
    records = enriched(t2(REQUIERE_MEDICO=doctor, CUERPO_NECESARIO=body))

    assert [record.topic for record in records] == ([model.T2_1] if medical else [])


def test_key_headers_and_time_are_kept_and_the_address_comes_last() -> None:
    (record,) = enriched(t2(REQUIERE_MEDICO="Si"))

    assert (record.key, record.headers, record.timestamp_ms) == (
        b"k",
        [("traceparent", b"00")],
        1700000000123,
    )
    value = orjson.loads(record.value)
    assert list(value)[-3:] == ["DIRECCION", "DIRECCION_FUENTE", "DIRECCION_MOTIVO"]
    assert (value["DIRECCION"], value["DIRECCION_FUENTE"]) == ("Calle Sol 1", "simulada")
    assert (value["T1_PARTICION"], value["T1_OFFSET"]) == (1, 5)


def test_an_unknown_place_goes_out_without_an_invented_address_but_with_the_reason() -> None:
    (record,) = enriched(t2(REQUIERE_MEDICO="Si", LOCALIZACION="Ciudad"))

    value = orjson.loads(record.value)
    assert value["DIRECCION"] is None
    assert "Ciudad" in value["DIRECCION_MOTIVO"]


def test_a_tombstone_is_told_to_nobody() -> None:
    assert enriched(None) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"nada", "JSON no valido"),
        (b"", "JSON no valido"),
        (b'{"a":NaN}', "JSON no valido"),
        (b'{"a":"\xff"}', "JSON no valido"),
        (b"[1]", "no es un objeto JSON"),
        (b"5", "no es un objeto JSON"),
        (b"null", "no es un objeto JSON"),
        (b'{"T1_OFFSET":"x"}', "T1_OFFSET no es un numero"),
        (b'{"T1_OFFSET":1180591620717411303424}', "T1_OFFSET no es un numero"),
        (b'{"T1_OFFSET":1e300}', "T1_OFFSET no es un numero"),
        (b'{"T1_PARTICION":1e400}', "T1_PARTICION no es un numero"),
    ],
)
def test_what_cannot_be_read_is_quarantined_with_the_reason_and_the_text(
    value: bytes, reason: str
) -> None:
    message = FakeMessage(value)
    with pytest.raises(UnreadableAlertError) as refused:
        read_t2(value)

    record = dead_letter(message, refused.value)  # type: ignore[arg-type]

    assert record.topic == model.T4
    letter = orjson.loads(record.value or b"")
    assert (letter["MOTIVO"], letter["ORIGEN"]) == (reason, model.T2)
    assert letter["TEXTO"] == value.decode("utf-8", "replace")


def test_names_match_in_any_case_and_the_upper_case_one_wins() -> None:
    alert = read_t2(b'{"grado":"Leve","GRADO":"Urgente","Localizacion":"Sevilla"}')

    assert (alert["GRADO"], alert["LOCALIZACION"]) == ("Urgente", "Sevilla")


def test_what_ksqldb_also_reads_is_read_a_bom_and_text_after_the_object() -> None:
    assert read_t2(b'\xef\xbb\xbf{"GRADO":"Urgente"} basura')["GRADO"] == "Urgente"


@pytest.mark.parametrize(
    "value",
    [
        rb'{"REQUIERE_MEDICO":"Si","CONTACTO":"\ud800"}',
        rb'{"REQUIERE_MEDICO":"Si","CONTACTO":["\ud800"]} after',
        b'{"REQUIERE_MEDICO":"Si","CONTACTO":[1180591620717411303424]} after',
    ],
)
def test_odd_text_keeps_no_ambulance_waiting(value: bytes) -> None:
    (record,) = enriched(value)

    assert record.topic == model.T2_1
    assert orjson.loads(record.value.replace(b"\\ud800", b""))["REQUIERE_MEDICO"] == "Si"


@given(st.binary())
def test_the_dead_letter_never_raises(value: bytes) -> None:
    assert dead_letter(FakeMessage(value), RuntimeError()).topic == model.T4  # type: ignore[arg-type]


@given(st.binary())
def test_no_bytes_whatever_escape_the_quarantine(value: bytes) -> None:
    try:
        read_t2(value)
    except UnreadableAlertError as error:
        dead_letter(FakeMessage(value), error)  # type: ignore[arg-type]


@given(
    st.dictionaries(
        st.sampled_from(["REQUIERE_MEDICO", "requiere_medico", "LOCALIZACION", "LATITUD", "x"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False)
            | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_value_in_any_field_is_read_as_text(fields: dict[str, Any]) -> None:
    alert = read_t2(orjson.dumps(fields))

    assert all(
        value is None or isinstance(value, str)
        for name, value in alert.items()
        if name not in T2_NUMBER_FIELDS
    )


def test_a_failure_of_our_own_is_quarantined_too_with_its_coordinates() -> None:
    record = dead_letter(FakeMessage(t2()), RuntimeError("boom"))  # type: ignore[arg-type]

    letter = orjson.loads(record.value or b"")
    assert letter["MOTIVO"] == "el enriquecimiento fallo: RuntimeError"
    assert (letter["T1_PARTICION"], letter["T1_OFFSET"]) == (1, 5)
