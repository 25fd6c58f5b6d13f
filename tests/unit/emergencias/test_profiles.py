from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from emergencias.params import Profile
from emergencias.profiles import load_profile, profile_names
from emergencias.scenario import load_scenario
from emergencias.vocabulary import DATA_FOLDER, DataFileError


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(DATA_FOLDER, tmp_path / "data"))


def edit(folder: Path, name: str, change: Any) -> Path:
    """Apply a change to a profile's content and write it back."""
    path = folder / "profiles" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def test_the_dags_profiles_are_those_that_have_a_file():
    assert sorted(profile_names()) == sorted(profile.value for profile in Profile)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_can_be_drawn_from(name):
    assert load_profile(name).perfil == name
    assert load_scenario(name).flows


def test_every_figure_names_its_source():
    # A mapping with figures has a fuente itself or is part of one that has.
    def check(where: str, node: Any, covered: bool) -> None:
        if isinstance(node, dict):
            covered = covered or any(key.startswith("fuente") for key in node)
            for key, value in node.items():
                check(f"{where}.{key}", value, covered)
        elif isinstance(node, list):
            for item in node:
                check(where, item, covered)
        elif isinstance(node, int | float) and not isinstance(node, bool):
            assert covered, f"{where}: {node}"

    for name in profile_names():
        path = DATA_FOLDER / "profiles" / f"{name}.yaml"
        check(name, yaml.safe_load(path.read_text("utf-8")), False)


def test_the_original_has_the_first_versions_types_bodies_and_degrees():
    profile = load_profile("original")
    bodies = {kind.tipo: [team.cuerpos[0] for team in kind.equipos] for kind in profile.tipos}

    assert bodies == {
        "Accidentes de tráfico": ["Policia", "Ambulancia", "Bomberos"],
        "Problemas médicos agudos": ["Ambulancia"],
        "Incendios": ["Bomberos"],
        "Delitos en progreso": ["Policia", "GEOs", "Ejercito"],
        "Situaciones de peligro para la seguridad pública": ["Policia", "GEOs", "Ejercito"],
        "Desastres naturales": ["Bomberos", "UME", "Servicios de emergencia"],
        "Emergencias químicas o radiológicas": ["Bomberos", "Servicios de emergencia"],
        "Personas desaparecidas": ["Policia"],
        "Rescates": ["Bomberos", "Forestales"],
        "Emergencias en el mar o montañas": ["Guardia Costera", "Forestales"],
        "Accidentes laborales": ["Ambulancia", "Bomberos"],
        "Emergencias ambientales": ["Servicios de emergencia", "Bomberos"],
    }
    for kind in profile.tipos:
        assert kind.proporcion == pytest.approx(1 / 12)
        assert kind.medico == 0.5
        assert list(kind.grados.values()) == [0.35, 0.35, 0.20, 0.10]
        for team in kind.equipos:
            assert team.proporcion == pytest.approx(1 / len(kind.equipos))
            always = team.cuerpos[0] in ("GEOs", "Ejercito", "UME")
            assert team.grados == ({"Urgente": 0.5, "Urgencia extrema": 0.5} if always else None)


def put(*path: Any, value: Any) -> Any:
    def change(content: Any) -> None:
        *way, last = path
        for step in way:
            content = content[step]
        content[last] = value

    return change


def drop(*path: Any) -> Any:
    def change(content: Any) -> None:
        *way, last = path
        for step in way:
            content = content[step]
        del content[last]

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("realistic", put("perfil", value="other"), "perfil is 'other'; it must be 'realistic'"),
        ("realistic", put("typo", value=1), "typo: Extra inputs are not permitted"),
        ("realistic", drop("lugar", "fuente"), "lugar.fuente: Field required"),
        ("realistic", put("horas", "viernes", value=[1] * 23), "horas.viernes: "),
        ("realistic", put("horas", "viernes", 3, value=0), "horas.viernes.3: "),
        ("realistic", put("meses", "llamadas", value=[1]), "meses.llamadas: "),
        (
            "realistic",
            put("tipos", 0, "proporcion", value=0.6),
            "tipos: Value error, tipos: the shares add up to 1.095; it must be 1",
        ),
        (
            "realistic",
            put("tipos", 1, "grados", "Leve", value=0.4),
            "tipos.[Delitos en progreso]: Value error, grados: the shares add up to 1.1",
        ),
        ("realistic", put("tipos", 0, "tipo", value="Incendio"), "'Incendio' must be one of"),
        ("realistic", put("tipos", 0, "tipo", value="Llamada vacía"), "'Llamada vacía' must be"),
        (
            "realistic",
            put("tipos", 0, "equipos", 0, "cuerpos", value=["Policía"]),
            "tipos (Problemas médicos agudos).equipos.cuerpos: 'Policía' must be one of",
        ),
        (
            "realistic",
            put("tipos", 0, "equipos", 0, "cuerpos", value=["GEOs"]),
            "'Leve' has a share of 0.3, but 'GEOs' is always urgent",
        ),
        (
            "realistic",
            put("cuerpos_por_incidente", "media", value=2),
            "cuerpos_por_incidente.media is 2, but the shares given make 1.520",
        ),
        (
            "realistic",
            put("llamadas_por_incidente", "media", value=2),
            "media is 2, but the shares given make 1.320",
        ),
        ("realistic", put("precision_m", "tramos", 0, "hasta", value=10), "hasta is 10, below"),
        (
            "realistic",
            put("sin_incidente", "tipos", 0, "tipo", value="Incendios"),
            "sin_incidente.tipos (Incendios): 'Incendios' must be one of",
        ),
        (
            "realistic",
            put("sin_incidente", "tipos", 0, "cuerpo", value="UME"),
            "sin_incidente.tipos (Llamada vacía).cuerpo: 'UME' must be one of",
        ),
        ("surge", put("fondo", "perfil", value="other"), "fondo.perfil is 'other'; it must be"),
        ("surge", put("fondo", "perfil", value="surge"), "fondo.perfil is 'surge'; it must be"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_with_file_and_field(folder, name, change, message):
    path = edit(folder, name, change)

    with pytest.raises(DataFileError) as error:
        load_profile(name, folder)

    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("lugar", "provincias", value=["99"]), "provincias ['99'] not in provincias.csv"),
        (
            put("lugar", "provincias", value=["28"]),
            "a team needs sea, which no municipality of its provinces has",
        ),
        (
            put("lugar", "provincias", value=["51"]),
            "a team needs forest, which no municipality of its provinces has",
        ),
    ],
)
def test_a_profile_whose_teams_have_no_place_is_refused(folder, change, message):
    edit(folder, "realistic", change)

    with pytest.raises(DataFileError) as error:
        load_scenario("realistic", folder)

    assert message in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "", "[]", "\x00"])
def test_a_file_that_is_no_profile_is_refused_naming_it(folder, content):
    path = folder / "profiles" / "original.yaml"
    path.write_text(content)

    with pytest.raises(DataFileError, match=r"original\.yaml"):
        load_profile("original", folder)


def test_an_unknown_profile_is_refused_naming_those_there_are():
    with pytest.raises(DataFileError, match="there are: original, realistic, surge"):
        load_profile("../realistic")
