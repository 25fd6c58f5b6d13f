"""The routing rules of the project, as text; what they do is tested where they can run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ksqldb_provider.sql import Statement, load_folder

FOLDER = Path(__file__).parents[3] / "include" / "ksql"

T2_COLUMNS = [
    "ID_AVISO",
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

STREAMS = {
    "EMERGENCIAS_STREAM": ("T1_Recepcion_avisos", ()),
    "REDIRECCION_URGENCIAS": ("T2_Centro_112", ("EMERGENCIAS_STREAM",)),
    "REDIRECCION_NO_URGENCIAS": ("T3_No_Urgencias", ("EMERGENCIAS_STREAM",)),
    "REVISION_MANUAL": ("T4_Revision_manual", ("EMERGENCIAS_STREAM",)),
    "REDIRECCION_CENTRO_MANDO": ("T2.2_Centro_de_mando", ("REDIRECCION_URGENCIAS",)),
    "REDIRECCION_CUERPOS": ("T2.3_Cuerpos_112", ("REDIRECCION_URGENCIAS",)),
    "REDIRECCION_MEDICOS": ("T3.1_Medicos", ("REDIRECCION_NO_URGENCIAS",)),
    "REDIRECCION_BOMBEROS": ("T3.2_Bomberos", ("REDIRECCION_NO_URGENCIAS",)),
    "REDIRECCION_FORESTALES": ("T3.3_Forestales", ("REDIRECCION_NO_URGENCIAS",)),
    "REDIRECCION_GUARDIA_COSTERA": ("T3.4_Guardia_Costera", ("REDIRECCION_NO_URGENCIAS",)),
    "REDIRECCION_POLICIA": ("T3.5_Policia", ("REDIRECCION_NO_URGENCIAS",)),
    "REDIRECCION_SERVICIOS_DE_EMERGENCIA": (
        "T3.6_Servicios_de_emergencia",
        ("REDIRECCION_NO_URGENCIAS",),
    ),
}


@pytest.fixture(scope="module")
def rules() -> dict[str, Statement]:
    return {statement.name: statement for statement in load_folder(FOLDER)}


def condition(statement: Statement) -> str:
    """Return the text of a statement's WHERE, on one line."""
    found = re.search(r"\bWHERE\b(.*)\bEMIT CHANGES\s*;", statement.text, re.DOTALL)
    assert found is not None
    return " ".join(found[1].split())


def test_streams_topics_and_sources_are_those_of_the_design(rules):
    assert {name: (rule.topic, rule.sources) for name, rule in rules.items()} == STREAMS


def test_sources_are_deployed_before_what_reads_them(rules):
    seen: set[str] = set()
    for name, rule in rules.items():
        assert set(rule.sources) <= seen
        seen.add(name)


@pytest.mark.parametrize("name", ["REDIRECCION_URGENCIAS", "REDIRECCION_NO_URGENCIAS"])
def test_t2_and_t3_have_the_agreed_columns_in_order(rules, name):
    assert [column for column, _ in rules[name].definition.select] == T2_COLUMNS


def test_t4_has_the_agreed_columns_in_order(rules):
    assert [column for column, _ in rules["REVISION_MANUAL"].definition.select] == [
        "ID_AVISO",
        "MOTIVO",
        "ORIGEN",
        "TEXTO",
        "T1_PARTICION",
        "T1_OFFSET",
    ]


def test_t4_is_the_literal_complement_of_t2_and_t3(rules):
    t2 = condition(rules["REDIRECCION_URGENCIAS"])
    t3 = condition(rules["REDIRECCION_NO_URGENCIAS"])
    assert condition(rules["REVISION_MANUAL"]) == (
        f"NOT IS_JSON_STRING(texto) OR NOT ( ({t2}) OR ({t3}) )"
    )


def test_t22_is_the_literal_complement_of_what_needs_an_ambulance(rules):
    needs_ambulance = condition(rules["REDIRECCION_MEDICOS"])
    assert condition(rules["REDIRECCION_CENTRO_MANDO"]) == f"NOT ({needs_ambulance})"
    assert condition(rules["REDIRECCION_CUERPOS"]).startswith(f"({needs_ambulance}) AND ")


def test_topics_are_created_beforehand_so_no_rule_repeats_their_settings(rules):
    given = {name for rule in rules.values() for name in rule.definition.properties}
    assert given == {"KAFKA_TOPIC", "VALUE_FORMAT", "KEY_FORMAT"}


def test_every_file_begins_with_a_sentence_about_who_gets_what():
    for path in FOLDER.glob("*.sql"):
        assert re.match(r"-- [A-Z].*\.\n(--|CREATE)", path.read_text(encoding="utf-8"), re.DOTALL)
