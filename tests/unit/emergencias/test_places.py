from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergencias.places import (
    Address,
    NoAddress,
    SimulatedAddressBook,
    load_gazetteer,
    normalise,
    parse_degrees,
)
from emergencias.vocabulary import DATA_FOLDER, DataFileError

ORIGINAL_NAMES = [
    "Álava",
    "Albacete",
    "Alicante",
    "Almería",
    "Asturias",
    "Ávila",
    "Badajoz",
    "Baleares",
    "Barcelona",
    "Burgos",
    "Cáceres",
    "Cádiz",
    "Cantabria",
    "Castellón",
    "Ceuta",
    "Ciudad Real",
    "Córdoba",
    "Cuenca",
    "Girona",
    "Granada",
    "Guadalajara",
    "Guipúzcoa",
    "Huelva",
    "Huesca",
    "Jaén",
    "La Coruña",
    "La Rioja",
    "Las Palmas",
    "León",
    "Lleida",
    "Lugo",
    "Madrid",
    "Málaga",
    "Melilla",
    "Murcia",
    "Navarra",
    "Ourense",
    "Palencia",
    "Pontevedra",
    "Salamanca",
    "Santa Cruz de Tenerife",
    "Segovia",
    "Sevilla",
    "Soria",
    "Tarragona",
    "Teruel",
    "Toledo",
    "Valencia",
    "Valladolid",
    "Vizcaya",
    "Zamora",
    "Zaragoza",
]

# South, north, west, east: the extent of each province, rounded outwards to a tenth of a degree.
EXTENTS = {
    "01": (42.4, 43.3, -3.4, -2.2),
    "02": (38.0, 39.5, -3.0, -0.8),
    "03": (37.8, 38.9, -1.2, 0.3),
    "04": (36.6, 37.9, -3.2, -1.6),
    "05": (40.0, 41.2, -5.8, -4.1),
    "06": (37.9, 39.5, -7.4, -4.6),
    "07": (38.6, 40.2, 1.1, 4.4),
    "08": (41.1, 42.4, 1.3, 2.8),
    "09": (41.4, 43.3, -4.4, -2.5),
    "10": (39.0, 40.5, -7.6, -4.9),
    "11": (35.9, 37.1, -6.5, -5.0),
    "12": (39.7, 40.8, -0.9, 0.6),
    "13": (38.3, 39.6, -5.1, -2.6),
    "14": (37.1, 38.8, -5.6, -3.9),
    "15": (42.4, 43.9, -9.4, -7.6),
    "16": (39.2, 40.7, -3.2, -1.1),
    "17": (41.6, 42.5, 1.7, 3.4),
    "18": (36.6, 38.1, -4.4, -2.2),
    "19": (40.1, 41.4, -3.6, -1.5),
    "20": (42.8, 43.4, -2.7, -1.7),
    "21": (36.7, 38.3, -7.6, -6.1),
    "22": (41.3, 43.0, -1.0, 0.8),
    "23": (37.3, 38.6, -4.3, -2.4),
    "24": (42.0, 43.3, -7.1, -4.7),
    "25": (41.2, 42.9, 0.3, 1.9),
    "26": (41.9, 42.7, -3.2, -1.6),
    "27": (42.3, 43.8, -8.0, -6.8),
    "28": (39.8, 41.2, -4.6, -3.0),
    "29": (36.3, 37.3, -5.7, -3.7),
    "30": (37.3, 38.8, -2.4, -0.6),
    "31": (41.9, 43.4, -2.5, -0.7),
    "32": (41.8, 42.6, -8.4, -6.7),
    "33": (42.8, 43.7, -7.2, -4.5),
    "34": (41.7, 43.1, -5.1, -3.8),
    "35": (27.7, 29.5, -15.9, -13.3),
    "36": (41.8, 42.9, -9.0, -7.8),
    "37": (40.2, 41.4, -7.0, -5.0),
    "38": (27.6, 28.9, -18.2, -16.1),
    "39": (42.7, 43.6, -4.9, -3.1),
    "40": (40.6, 41.6, -4.8, -3.2),
    "41": (36.8, 38.2, -6.6, -4.6),
    "42": (41.0, 42.2, -3.6, -1.7),
    "43": (40.5, 41.6, 0.1, 1.7),
    "44": (39.8, 41.4, -1.9, 0.4),
    "45": (39.2, 40.4, -5.5, -2.9),
    "46": (38.6, 40.3, -1.6, 0.0),
    "47": (41.1, 42.4, -5.6, -4.0),
    "48": (42.9, 43.5, -3.5, -2.4),
    "49": (41.0, 42.3, -7.0, -5.2),
    "50": (40.9, 42.8, -2.2, 0.4),
    "51": (35.8, 36.0, -5.4, -5.2),
    "52": (35.2, 35.4, -3.0, -2.9),
}

SPANISH_ADDRESS = re.compile(
    r"(?P<street>\S.*\S) (?P<number>[1-9][0-9]*), (?P<postcode>[0-9]{5}) (?P<town>.+) "
    r"\((?P<province>.+)\)"
)


@pytest.fixture(scope="module")
def book():
    return SimulatedAddressBook()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(DATA_FOLDER, tmp_path / "data"))


def test_the_gazetteer_has_the_52_provinces_of_ine():
    provinces = load_gazetteer().provinces

    assert [p.code for p in provinces] == [f"{n:02}" for n in range(1, 53)]
    assert sum(p.population for p in provinces) == 46_722_980  # Spain, Padrón 2018
    assert {p.name for p in provinces} == set(ORIGINAL_NAMES)


def test_every_province_begins_with_its_capital():
    capitals = {p.name: p.capital.name for p in load_gazetteer().provinces}

    assert capitals["Vizcaya"] == "Bilbao"
    assert capitals["Álava"] == "Vitoria-Gasteiz"
    assert capitals["Asturias"] == "Oviedo"
    assert capitals["La Rioja"] == "Logroño"
    assert capitals["Pontevedra"] == "Pontevedra"


def test_every_municipality_lies_within_its_province():
    astray = [
        (province.name, town.name)
        for province in load_gazetteer().provinces
        for south, north, west, east in [EXTENTS[province.code]]
        for town in province.municipalities
        if not (south <= town.latitude <= north and west <= town.longitude <= east)
    ]

    assert astray == []


def test_no_municipality_is_there_twice_and_no_two_share_a_name():
    towns = [town for p in load_gazetteer().provinces for town in p.municipalities]
    names = Counter(
        name
        for town in towns
        for name in {normalise(other) for other in (town.name, *town.other_names)}
    )

    assert len(towns) == 517
    assert len({town.geoname_id for town in towns}) == len(towns)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_province_has_fewer_people_than_its_municipalities_could_explain():
    # A municipality assigned to a neighbour would show here for the small provinces.
    for province in load_gazetteer().provinces:
        people = sum(town.population for town in province.municipalities)
        assert people < 1.15 * province.population, province.name


def test_only_the_canaries_have_another_clock():
    zones = {p.code: p.zone.key for p in load_gazetteer().provinces}

    assert {code for code, zone in zones.items() if zone == "Atlantic/Canary"} == {"35", "38"}
    assert set(zones.values()) == {"Atlantic/Canary", "Europe/Madrid"}


def test_coastal_provinces_are_those_with_a_sea_coast():
    coast = {p.name for p in load_gazetteer().provinces if p.coastal}

    assert len(coast) == 24
    assert {"Huelva", "Lugo", "Guipúzcoa", "Granada", "Ceuta", "Baleares"} <= coast
    assert coast.isdisjoint({"Madrid", "Sevilla", "Toledo", "Albacete", "Álava", "Navarra"})


def test_coastal_municipalities_are_on_the_sea():
    gazetteer = load_gazetteer()
    coast = {
        town.name: province.code
        for province in gazetteer.provinces
        for town in province.municipalities
        if town.coastal
    }

    assert set(coast.values()) == {p.code for p in gazetteer.provinces if p.coastal}
    assert {"Barcelona", "Getxo", "Viveiro", "Motril", "Palma", "Arrecife", "Ceuta"} <= set(coast)
    inland = {
        "Lugo",
        "Granada",
        "Murcia",
        "Oviedo",
        "Girona",
        "Manacor",
        "Elche",
        "Jerez de la Frontera",
    }
    assert inland.isdisjoint(coast)


def test_mountains_or_forests_are_everywhere_but_in_the_two_cities():
    assert {p.name for p in load_gazetteer().provinces if not p.forest} == {"Ceuta", "Melilla"}


@pytest.mark.parametrize("name", ORIGINAL_NAMES)
def test_every_province_name_of_the_original_gets_an_address_in_that_province(book, name):
    found = book.find(name, None, f"key of {name}")

    assert isinstance(found, Address)
    assert found.provincia == name
    province = load_gazetteer().province(name)
    assert found.codigo_postal[:2] == province.code
    assert found.municipio in {town.name for town in province.municipalities}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("A Coruña", "15"),
        ("a coruna", "15"),
        ("CORUÑA,  A", "15"),
        ("Bizkaia", "48"),
        ("Gipuzkoa", "20"),
        ("Araba/Álava", "01"),
        ("Illes Balears", "07"),
        ("Gerona", "17"),
        ("Lérida", "25"),
        ("Orense", "32"),
        ("València", "46"),
        (" \tciudad   REAL\n", "13"),
        ("Ma\u0301laga", "29"),
    ],
)
def test_names_are_found_in_any_spelling_case_and_accents(book, name, code):
    assert book.find(name, None, "k").codigo_postal[:2] == code


@pytest.mark.parametrize(
    ("name", "town", "code"),
    [
        ("Getxo", "Getxo", "48"),
        ("jerez de la frontera", "Jerez de la Frontera", "11"),
        ("San Sebastián", "Donostia/San Sebastián", "20"),
        ("Vitoria", "Vitoria-Gasteiz", "01"),
        ("Palma de Mallorca", "Palma", "07"),
        ("Las Palmas de Gran Canaria", "Las Palmas de Gran Canaria", "35"),
        ("Gijón", "Gijón", "33"),
    ],
)
def test_a_municipality_is_its_own_address_whatever_the_coordinates_say(book, name, town, code):
    found = book.find(name, "28", "k", 40.4, -3.7)

    assert (found.municipio, found.codigo_postal[:2]) == (town, code)


def test_an_address_is_complete_and_says_that_it_is_simulated(book):
    for n in range(500):
        found = book.find("Sevilla", "41", f"alert {n}")
        parts = SPANISH_ADDRESS.fullmatch(found.direccion)
        assert parts, found.direccion
        assert "  " not in found.direccion
        assert (parts["postcode"], parts["town"], parts["province"]) == (
            found.codigo_postal,
            found.municipio,
            "Sevilla",
        )
        assert found.fuente == "simulada"


def test_a_province_gives_its_municipality_nearest_to_the_coordinates(book):
    assert book.find("Cádiz", "11", "k", 36.14, -5.45).municipio == "Algeciras"
    assert book.find("Cádiz", "11", "k", "36.69", "-6,14").municipio == "Jerez de la Frontera"


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (None, None),
        (36.14, None),
        ("x", "y"),
        (float("nan"), 0.0),
        (True, True),
        (95, 200),
        ([], {}),
    ],
)
def test_unusable_coordinates_are_as_good_as_none(book, latitude, longitude):
    assert book.find("Cádiz", "11", "k", latitude, longitude) == book.find("Cádiz", "11", "k")


def test_without_coordinates_municipalities_come_by_population(book):
    towns = Counter(book.find("Zaragoza", "50", f"alert {n}").municipio for n in range(2000))

    people = {
        town.name: town.population for town in load_gazetteer().province("Zaragoza").municipalities
    }
    for name, population in people.items():
        assert towns[name] / 2000 == pytest.approx(population / sum(people.values()), abs=0.02), (
            name
        )


def test_a_town_has_one_postcode_and_a_big_capital_several(book):
    assert len({book.find("Getafe", None, str(n)).codigo_postal for n in range(50)}) == 1
    capital = {book.find("Sevilla", None, str(n), 37.38, -5.97).codigo_postal for n in range(300)}
    assert capital == {f"410{n:02}" for n in range(1, 13)}


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (None, "localizacion sin informar"),
        ("", "localizacion sin informar"),
        (" \n", "localizacion sin informar"),
        ("Ciudad", "localizacion desconocida: 'Ciudad'"),
        ("Atlantis", "localizacion desconocida: 'Atlantis'"),
        (28, "localizacion no es un texto: 28"),
        (True, "localizacion no es un texto: True"),
        ({"a": 1}, "localizacion no es un texto: {'a': 1}"),
        ("x" * 500, "localizacion desconocida: '" + "x" * 59 + "..."),
    ],
)
def test_an_unknown_place_gets_the_reason_and_no_invented_address(book, place, reason):
    # The province's code is known: it must not be guessed from.
    assert book.find(place, "13", "k", 39.0, -3.9) == NoAddress(reason)


def test_namesakes_are_told_apart_by_the_province_or_not_at_all(folder):
    with (folder / "municipios.csv").open("a", encoding="utf-8") as file:
        file.write("17,Mieres,42.12100,2.63700,16000,no,,1\n")
    book = SimulatedAddressBook(folder)

    assert book.find("Mieres", "33", "k").provincia == "Asturias"
    assert book.find("Mieres", "17", "k").provincia == "Girona"
    assert book.find("Mieres", "28", "k") == NoAddress("localizacion ambigua: 'Mieres'")
    assert book.find("Mieres", None, "k") == NoAddress("localizacion ambigua: 'Mieres'")


def test_the_same_alert_gets_the_same_address_in_any_order_and_book(book):
    keys = [f"alert {n}" for n in range(50)]
    once = [book.find("Madrid", "28", key) for key in keys]
    again = [SimulatedAddressBook().find("Madrid", "28", key) for key in reversed(keys)]

    assert once == again[::-1]
    assert len({address.direccion for address in once}) == 50


def test_an_address_never_changes_between_machines_and_versions(book):
    assert book.find("Sevilla", "41", "00000000-0000-0000-0000-000000000001") == Address(
        direccion="Paseo de Maximiliano Ballesteros 98, 41218 Carmona (Sevilla)",
        municipio="Carmona",
        codigo_postal="41218",
        provincia="Sevilla",
        fuente="simulada",
    )


@given(
    localizacion=st.one_of(
        st.none(),
        st.text(alphabet=st.characters()),
        st.integers(),
        st.floats(),
        st.sampled_from(ORIGINAL_NAMES),
        st.lists(st.text()),
    ),
    codigo=st.one_of(st.none(), st.text(), st.integers()),
    key=st.text(alphabet=st.characters()),
    latitude=st.one_of(st.none(), st.floats(), st.integers(), st.text()),
    longitude=st.one_of(st.none(), st.floats(), st.integers(), st.text()),
)
def test_no_alert_makes_it_raise(book, localizacion, codigo, key, latitude, longitude):
    found = book.find(localizacion, codigo, key, latitude, longitude)

    assert isinstance(found, Address | NoAddress)
    assert found == book.find(localizacion, codigo, key, latitude, longitude)


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none()))
def test_degrees_are_within_the_limit_or_none(value):
    degrees = parse_degrees(value, 90)

    assert degrees is None or -90 <= degrees <= 90


def test_importing_and_making_a_book_reads_nothing_and_loads_no_faker():
    code = (
        "import sys, json; from emergencias.places import SimulatedAddressBook, load_gazetteer;"
        "SimulatedAddressBook();"
        "print(json.dumps(['faker' in sys.modules, load_gazetteer.cache_info().misses]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(out.stdout) == [False, 0]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "provincias.csv",
            "\n02,",
            "\n2,",
            "line 3: codigo_provincia is '2'; it must be two digits",
        ),
        (
            "provincias.csv",
            "\n02,",
            "\n01,",
            "line 3: capital is 'Albacete'; it must be the name of",
        ),
        ("provincias.csv", "Europe/Madrid", "Europe/Bilbao", "zona is 'Europe/Bilbao'; it must be"),
        ("provincias.csv", ",Bilbao,", ",Bilbo,", "capital is 'Bilbo'; it must be the name of"),
        ("provincias.csv", ",no,", ",false,", "costa is 'false'; it must be si or no"),
        ("provincias.csv", "Albacete,no,si", "Albacete,si,si", "costa is 'si'; it must be si if"),
        (
            "provincias.csv",
            "Albacete,no,si",
            "Albacete,no,ja",
            "monte is 'ja'; it must be si or no",
        ),
        ("municipios.csv", ",no,,", ",nein,,", "costa is 'nein'; it must be si or no"),
        (
            "provincias.csv",
            "02,Albacete",
            "02,Álava",
            "without the name 'Álava' of another province",
        ),
        ("municipios.csv", "\n01,Laudio", "\n60,Laudio", "['60'] not in provincias.csv"),
        ("municipios.csv", ",42.", ",422.", "latitud is '422."),
    ],
)
def test_a_gazetteer_that_does_not_fit_is_refused_with_file_and_place(
    folder, file, old, new, message
):
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), "utf-8")

    with pytest.raises(DataFileError) as error:
        load_gazetteer(folder)

    assert message in str(error.value)
    assert str(folder / file) in str(error.value)
