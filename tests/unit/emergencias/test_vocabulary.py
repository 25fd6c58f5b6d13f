from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emergencias.vocabulary import DATA_FOLDER, DataFileError, load_vocabulary

ORIGINAL_TYPES = {
    "Accidentes de tráfico",
    "Problemas médicos agudos",
    "Incendios",
    "Delitos en progreso",
    "Situaciones de peligro para la seguridad pública",
    "Desastres naturales",
    "Emergencias químicas o radiológicas",
    "Personas desaparecidas",
    "Rescates",
    "Emergencias en el mar o montañas",
    "Accidentes laborales",
    "Emergencias ambientales",
}


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(DATA_FOLDER, tmp_path / "data"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_types_are_the_originals_and_calls_that_open_no_incident():
    types = load_vocabulary().types

    assert {kind.name for kind in types if kind.is_incident} == ORIGINAL_TYPES
    assert [kind.name for kind in types if not kind.is_incident] == [
        "Llamada vacía",
        "Llamada equivocada",
        "Llamada maliciosa",
        "Consulta informativa",
    ]


def test_degrees_are_the_originals_from_the_mildest_on():
    assert [(d.name, d.urgent) for d in load_vocabulary().degrees] == [
        ("Leve", False),
        ("Moderado", False),
        ("Urgente", True),
        ("Urgencia extrema", True),
    ]


def test_bodies_that_are_always_urgent_medical_or_bound_to_a_place_are_marked():
    bodies = load_vocabulary().bodies

    assert len(bodies) == 9
    assert {b.name for b in bodies if b.always_urgent} == {"GEOs", "Ejercito", "UME"}
    assert {b.name for b in bodies if b.always_medical} == {"Ambulancia"}
    assert {b.name for b in bodies if b.coast_only} == {"Guardia Costera"}
    assert {b.name for b in bodies if b.forest_only} == {"Forestales"}


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
        ("cuerpos.csv", "UME,si,no,no", "UME,si,no", "line 10: 4 cells; the header has 5 columns"),
        ("cuerpos.csv", "solo_costa", "costa", "the columns are"),
        ("grados.csv", "Moderado", "Leve", "grado is 'Leve'; it must be there only once"),
        ("tipos.csv", "Incendios,", "Rescates,", "tipo_emergencia is 'Rescates'; it must be there"),
        ("tipos.csv", "Incendios,si", "Incendios,", "incidente is ''; it must be si or no"),
        ("tipos.csv", "Incendios,", ",", "tipo_emergencia is ''; it must be a text"),
        ("tipos.csv", "Incendios,", '"Incendios"x,', "line 4: "),
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(",si", ",no", "no degree is urgent"), (",no", ",si", "no degree is not urgent")],
)
def test_a_vocabulary_without_an_urgent_or_a_calm_degree_is_refused(folder, old, new, message):
    path = folder / "grados.csv"
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")

    with pytest.raises(DataFileError, match=message):
        load_vocabulary(folder)


@pytest.mark.parametrize("content", [b"", b"grado,urgente\n", b"\xff\xfe"])
def test_an_empty_or_unreadable_file_is_refused(folder, content):
    (folder / "grados.csv").write_bytes(content)

    with pytest.raises(DataFileError, match=r"grados\.csv"):
        load_vocabulary(folder)


def test_a_missing_file_is_refused_by_name(folder):
    (folder / "cuerpos.csv").unlink()

    with pytest.raises(DataFileError, match=r"cuerpos\.csv cannot be read"):
        load_vocabulary(folder)
