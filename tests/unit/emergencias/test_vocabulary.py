from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emergencias.vocabulary import DATA_FOLDER, DataFileError, load_vocabulary

ORIGINAL_MAP = {
    "Accidentes de tráfico": {"Policia", "Ambulancia", "Bomberos"},
    "Problemas médicos agudos": {"Ambulancia"},
    "Incendios": {"Bomberos"},
    "Delitos en progreso": {"Policia", "GEOs", "Ejercito"},
    "Situaciones de peligro para la seguridad pública": {"Policia", "GEOs", "Ejercito"},
    "Desastres naturales": {"Bomberos", "UME", "Servicios de emergencia"},
    "Emergencias químicas o radiológicas": {"Bomberos", "Servicios de emergencia"},
    "Personas desaparecidas": {"Policia"},
    "Rescates": {"Bomberos", "Forestales"},
    "Emergencias en el mar o montañas": {"Guardia Costera", "Forestales"},
    "Accidentes laborales": {"Ambulancia", "Bomberos"},
    "Emergencias ambientales": {"Servicios de emergencia", "Bomberos"},
}


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(DATA_FOLDER, tmp_path / "data"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_the_map_from_types_to_bodies_is_the_original_one_with_equal_weights():
    types = load_vocabulary().types

    assert {kind.name: {body.name for body, _ in kind.bodies} for kind in types} == ORIGINAL_MAP
    assert {weight for kind in types for _, weight in kind.bodies} == {1}


def test_degrees_have_the_original_probabilities():
    assert [(d.name, d.probability, d.urgent) for d in load_vocabulary().degrees] == [
        ("Leve", 0.35, False),
        ("Moderado", 0.35, False),
        ("Urgente", 0.20, True),
        ("Urgencia extrema", 0.10, True),
    ]


def test_bodies_that_are_always_urgent_medical_or_only_at_the_coast_are_marked():
    bodies = load_vocabulary().bodies

    assert len(bodies) == 9
    assert {b.name for b in bodies if b.always_urgent} == {"GEOs", "Ejercito", "UME"}
    assert {b.name for b in bodies if b.always_medical} == {"Ambulancia"}
    assert {b.name for b in bodies if b.coast_only} == {"Guardia Costera"}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "cuerpos.csv",
            "UME,si",
            "UME,yes",
            "line 10: siempre_urgente is 'yes'; it must be si or no",
        ),
        ("cuerpos.csv", "UME,", "GEOs,", "cuerpo is 'GEOs'; it must be there only once"),
        ("cuerpos.csv", "UME,si,no,no", "UME,si,no", "line 10: 3 cells; the header has 4 columns"),
        ("cuerpos.csv", "solo_costa", "costa", "the columns are"),
        ("grados.csv", "0.10", "0.20", "add up to 1.1; it must be 1"),
        ("grados.csv", "0.10", "mucho", "probabilidad is 'mucho'; it must be a number from 0 to 1"),
        ("grados.csv", "0.10", "nan", "probabilidad is 'nan'; it must be a number from 0 to 1"),
        ("grados.csv", "Moderado", "Leve", "grado is 'Leve'; it must be there only once"),
        ("tipos_cuerpos.csv", ",Policia,", ",Policía,", "cuerpo is 'Policía'; it must be one of"),
        ("tipos_cuerpos.csv", "Ambulancia,1", "Ambulancia,0", "peso is '0'; it must be a whole"),
        ("tipos_cuerpos.csv", "Rescates,Forestales", "Rescates,Bomberos", "only once for its type"),
        ("tipos_cuerpos.csv", "Incendios,", ",", "tipo_emergencia is ''; it must be a text"),
        ("tipos_cuerpos.csv", "Incendios,", '"Incendios"x,', "line 6: "),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_file_and_line(
    folder, file, old, new, message
):
    edit(folder / file, old, new)

    with pytest.raises(DataFileError) as error:
        load_vocabulary(folder)

    assert message in str(error.value)
    assert str(folder / file) in str(error.value)


def test_a_vocabulary_without_an_urgent_degree_is_refused(folder):
    path = folder / "grados.csv"
    path.write_text(path.read_text("utf-8").replace(",si", ",no"), "utf-8")

    with pytest.raises(DataFileError, match="no degree is urgent"):
        load_vocabulary(folder)


@pytest.mark.parametrize("content", [b"", b"grado,probabilidad,urgente\n", b"\xff\xfe"])
def test_an_empty_or_unreadable_file_is_refused(folder, content):
    (folder / "grados.csv").write_bytes(content)

    with pytest.raises(DataFileError, match=r"grados\.csv"):
        load_vocabulary(folder)


def test_a_missing_file_is_refused_by_name(folder):
    (folder / "cuerpos.csv").unlink()

    with pytest.raises(DataFileError, match=r"cuerpos\.csv cannot be read"):
        load_vocabulary(folder)
