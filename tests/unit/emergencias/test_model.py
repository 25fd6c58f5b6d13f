from __future__ import annotations

import uuid
from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from emergencias import model
from emergencias.settings import PROJECT_ROOT
from kafka_io import load_catalogue

NAMES = [model.T1, model.T2, model.T2_1, model.T2_2, model.T2_3, model.T3, model.T4]


def test_the_fields_are_the_contracts_in_its_order() -> None:
    encoded = model.encode_alert(dict.fromkeys(reversed(model.ALERT_FIELDS), "x"), "local/d/r")

    assert list(orjson.loads(encoded)) == [
        "tipo_emergencia",
        "cuerpo_necesario",
        "grado",
        "localizacion",
        "fecha",
        "requiere_medico",
        "contacto",
        "id_ejecucion",
        "codigo_provincia",
        "latitud",
        "longitud",
        "precision_m",
        "id_incidente",
    ]


def test_a_replayed_alert_belongs_to_the_run_that_replays_it() -> None:
    encoded = model.encode_alert({"id_ejecucion": "old", "extra": 1}, "local/d/new")

    assert orjson.loads(encoded)["id_ejecucion"] == "local/d/new"
    assert "extra" not in orjson.loads(encoded)


def test_a_field_without_a_value_is_left_out() -> None:
    encoded = model.encode_alert({"grado": "Leve", "latitud": None}, "r")

    assert orjson.loads(encoded) == {"grado": "Leve", "id_ejecucion": "r"}


@given(st.text(), st.integers(0, 10**9))
def test_an_id_depends_on_the_run_and_the_number_alone(run: str, sequence: int) -> None:
    first = model.alert_id(run, sequence)

    assert first == model.alert_id(run, sequence)
    assert first != model.alert_id(run, sequence + 1)
    assert uuid.UUID(first).version == 5


def test_an_id_never_changes_between_versions() -> None:
    assert model.alert_id("local/emergencias_112/r", 0) == "a2109140-17fd-5158-ad16-1babb3276746"


def test_every_topic_named_in_code_is_in_the_catalogue_and_in_the_sql() -> None:
    catalogue = {spec.name for spec in load_catalogue(PROJECT_ROOT / "include/kafka/topics.yaml")}
    sql = "".join(
        path.read_text() for path in sorted(Path(PROJECT_ROOT / "include/ksql").glob("*.sql"))
    )

    assert set(NAMES) <= catalogue
    # T2.1 is the one topic that Python writes.
    assert {name for name in NAMES if f"'{name}'" not in sql} == {model.T2_1}
