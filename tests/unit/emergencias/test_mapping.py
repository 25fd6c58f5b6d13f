from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emergencias.model import ORIGINAL_FIELDS
from emergencias.settings import PROJECT_ROOT, Settings
from emergencias.sources import Mapping, MappingError, SourceError, inspect, load_mapping, read
from emergencias.sources.binding import bind
from emergencias.sources.mapping import FIELDS, Rule
from emergencias.sources.names import fold
from emergencias.words import load_words

DATA = Settings().data_dir
WORDS = load_words(DATA)
FILES = PROJECT_ROOT / "tests" / "data" / "intake"
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def load(tmp_path):
    def write_and_load(text):
        path = tmp_path / "m.yaml"
        path.write_text(text, encoding="utf-8")
        return load_mapping(str(path), DATA)[0]

    return write_and_load


@pytest.fixture
def taken_in(tmp_path, load):
    """Take in a CSV by a mapping; both are given as text."""

    def take_in(mapping, text):
        path = tmp_path / "a.csv"
        path.write_text(text, encoding="utf-8", newline="")
        return list(read(path, mapping=load(mapping), words=WORDS))

    return take_in


def test_a_column_named_in_short_or_at_length_gives_its_value_in_any_case_and_accents(taken_in):
    mapping = "fields:\n  grado: Prioridad\n  localizacion: {column: población}\n"

    (alert,) = taken_in(mapping, "POBLACION, prioridad ,otra\nSoria,Leve,x\n")

    assert alert == dict.fromkeys(ORIGINAL_FIELDS) | {"grado": "Leve", "localizacion": "Soria"}
    assert tuple(alert) == ORIGINAL_FIELDS


def test_a_template_joins_columns_and_is_empty_when_all_of_them_are(taken_in):
    mapping = "fields: {localizacion: {template: '{calle} {n}, {pueblo}'}}"

    alerts = taken_in(mapping, "calle,n,pueblo\nMayor,3,Soria\n,,Soria\n,,\n")

    assert [alert["localizacion"] for alert in alerts] == ["Mayor 3, Soria", ", Soria", None]


def test_a_table_knows_its_keys_whatever_case_accents_and_blanks_and_passes_the_rest(taken_in):
    mapping = "fields: {grado: {column: p, table: {Crítica: Urgencia extrema, Baja: Leve}}}"

    alerts = taken_in(mapping, "p\nCRITICA\n baja\nEspecial\n")

    assert [alert["grado"] for alert in alerts] == ["Urgencia extrema", "Leve", "Especial"]


def test_the_first_pattern_that_is_found_counts_and_no_pattern_leaves_the_value(taken_in):
    mapping = """
    fields:
      tipo_emergencia:
        column: t
        patterns:
          "^EMS:": Problemas médicos agudos
          tráfico|ROAD: Accidentes de tráfico
    """
    alerts = taken_in(mapping, "t\nEMS: ROAD\nfire: road\nTRAFICO\nother\n")

    assert [alert["tipo_emergencia"] for alert in alerts] == [
        "Problemas médicos agudos",
        "Accidentes de tráfico",
        "Accidentes de tráfico",
        "other",
    ]


def test_words_that_yaml_takes_for_booleans_stay_words(taken_in):
    mapping = "fields: {requiere_medico: {column: d, table: {Yes: Si, No: No, 1: Si, on: Si}}}"

    alerts = taken_in(mapping, "d\nyes\nno\n1\non\n")

    assert [alert["requiere_medico"] for alert in alerts] == ["Si", "No", "Si", "Si"]


def test_a_default_is_for_empty_cells_alone(taken_in):
    mapping = "fields: {grado: {column: g, default: Urgente}, cuerpo_necesario: {value: Bomberos}}"

    alerts = taken_in(mapping, 'g,h\n,1\nLeve,2\n"  ",3\nraro,4\n')

    assert [alert["grado"] for alert in alerts] == ["Urgente", "Leve", "Urgente", "raro"]
    assert {alert["cuerpo_necesario"] for alert in alerts} == {"Bomberos"}


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("31/12/202223:59", "2022-12-31T23:59:00+01:00"),
        ("01/07/2022 08:05", "2022-07-01T08:05:00+02:00"),
        ("2022-07-01 08:05:09", "2022-07-01T08:05:09+02:00"),
        ("2022-07-01T08:05:09Z", "2022-07-01T08:05:09Z"),
        ("2022-13-01 08:05:09", "2022-13-01 08:05:09"),
        ("ayer", "ayer"),
    ],
)
def test_a_date_is_read_by_its_formats_then_as_iso_and_else_left(taken_in, written, read_as):
    mapping = 'fields: {fecha: {column: f, formats: ["%d/%m/%Y%H:%M", "%d/%m/%Y %H:%M"]}}'

    assert [alert["fecha"] for alert in taken_in(mapping, f"f,x\n{written},1\n")] == [read_as]


def test_date_and_hour_columns_are_one_moment_in_the_mappings_zone(taken_in):
    mapping = """
    fields:
      fecha: {template: "{DIA} {HORA}", formats: ["%d/%m/%Y %H:%M"], zone: Atlantic/Canary}
    """
    (alert,) = taken_in(mapping, "DIA,HORA\n01/07/2023,10:00\n")

    assert alert["fecha"] == "2023-07-01T10:00:00+01:00"


def test_columns_are_named_by_the_mapping_where_the_file_has_no_header(taken_in):
    mapping = "columns: [lat, lng, que]\nfields: {latitud: lat, longitud: lng, grado: que}"

    alerts = taken_in(mapping, "40.5;-3,5;Leve\n41;-4;Urgente\n")

    assert [(a["latitud"], a["longitud"], a["grado"]) for a in alerts] == [
        (40.5, -3.5, "Leve"),
        (41.0, -4.0, "Urgente"),
    ]


def test_a_file_that_lacks_a_mapped_column_is_refused_with_the_columns_that_it_has(taken_in):
    with pytest.raises(SourceError, match=r"lacks prioridad; it has a, b\. Needed.*: prioridad"):
        taken_in("fields: {grado: prioridad}", "a,b\n1,2\n")


def test_a_mapping_is_kept_whole_by_a_plan():
    mapping, _ = load_mapping("despachos_ambulancia", DATA)

    assert Mapping.model_validate_json(mapping.model_dump_json()) == mapping


# What is refused ---------------------------------------------------------------------------------

REFUSED = {
    "unknown field": ("fields: {gravedad: x}", "'gravedad' is no field of an alert; allowed: ti"),
    "id of the run": ("fields: {id_ejecucion: x}", "'id_ejecucion' is no field"),
    "unknown part": ("fields: {grado: {columna: x}}", "fields.grado.columna: unknown; allowed: c"),
    "unknown top": ("field: {grado: x}", "field: unknown; allowed: description, fields, columns"),
    "no origin": ("fields: {grado: {table: {a: Leve}}}", "exactly one of column, template, value"),
    "two origins": ("fields: {grado: {column: x, value: Leve}}", "it has column and value"),
    "word unknown": ("fields: {grado: {column: x, table: {a: Grave}}}", "fields.grado.table.a: "
                     "'Grave' is no grado; allowed: Leve, Moderado, Urgencia extrema, Urgente"),
    "word misspelt": ("fields: {cuerpo_necesario: {value: Policía}}", "fields.cuerpo_necesario."
                      "value: 'Policía' is no cuerpo_necesario; allowed: Ambulancia"),
    "guessed degree": ("fields: {grado: {column: x, default: Leve}}", "fields.grado.default: "
                       "'Leve' would guess that an alert without a degree can wait"),
    "bad pattern": ("fields: {grado: {column: x, patterns: {'(': Leve}}}", "no regular expression"),
    "bad template": ("fields: {grado: {template: abc}}", "names of columns in braces"),
    "open template": ("fields: {grado: {template: '{a} {'}}", "names of columns in braces"),
    "key twice": ("fields: {grado: {column: x, table: {a: Leve, Á: Urgente}}}", "are the same"),
    "name twice": ("fields: {grado: x, grado: y}", "Line 1: 'grado' is there a second time"),
    "bad zone": ("fields: {fecha: {column: x, zone: Madrid}}", "'Madrid' is no IANA time zone"),
    "zone elsewhere": ("fields: {grado: {column: x, zone: UTC}}", "formats and zone belong to"),
    "bad encoding": ("encoding: spanish\nfields: {grado: x}", "'spanish' is no encoding"),
    "long delimiter": ("delimiter: '||'\nfields: {grado: x}", "delimiter: "),
    "unknown column": ("columns: [a]\nfields: {grado: b}", "fields.grado: 'b' is not among the"),
    "column twice": ("columns: [a, Á]\nfields: {grado: a}", "'a' is there twice"),
    "no fields": ("description: x", "fields: Field required"),
    "nothing": ("", "valid dictionary"),
    "no YAML": ("fields: [", "is not YAML"),
    "key in brackets": ("fields: {grado: {column: x, patterns: {[ab]: Urgente}}}",
                        "Line 1: a key that begins with [ or {; put it into quotes"),
    "loop": ("fields: &a {grado: *a}", "Line 1: an alias (*) of what it stands in"),
    "accented range": ("fields: {grado: {column: x, patterns: {'[z-ñ]': Urgente}}}",
                       "range z-ñ: name the signs one by one"),
    "pattern for all": ("fields: {grado: {column: x, patterns: {'verde|': Leve}}}",
                        "fields.grado.patterns.verde|: it fits an empty or any text"),
    "pattern for anything": ("fields: {grado: {column: x, patterns: {'.+': Leve}}}",
                             "fields.grado.patterns..+: it fits an empty or any text"),
    "pattern for all but": ("fields: {grado: {column: x, patterns: {'[^u]': Leve}}}",
                            "fields.grado.patterns.[^u]: it fits an empty or any text"),
    "format of nothing": ("fields: {fecha: {column: x, formats: ['%Q']}}", "'%Q' is no strptime"),
    "format with a part twice": ("fields: {fecha: {column: x, formats: ['%d %d %Y']}}",
                                 "'%d %d %Y' is no strptime format"),
    "format of a day": ("fields: {fecha: {column: x, formats: ['%d/%m/%Y']}}",
                        "'%d/%m/%Y' has no hour"),
    "nested without end": ("[" * 5000, "nested too deeply"),
    "empty key": ("fields: {grado: {column: x, table: {' ': Leve}}}",
                  "fields.grado.table. : it fits an empty or any text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_mapping_with_a_fault_is_refused_naming_file_field_and_what_is_allowed(load, case):
    text, message = REFUSED[case]

    with pytest.raises(MappingError) as error:
        load(text)

    assert message in str(error.value)
    assert "m.yaml" in str(error.value)


@pytest.mark.parametrize("name", ["nada", "../grados", "/no/such.yaml", "nowhere://a/b.yaml"])
def test_an_unknown_mapping_is_refused_with_the_ready_ones(name):
    with pytest.raises(MappingError, match="despachos_ambulancia, llamadas_911, original"):
        load_mapping(name, DATA)


# The ready ones ----------------------------------------------------------------------------------


def alerts_of(name, file):
    mapping, _ = load_mapping(name, DATA)
    return list(read(file, mapping=mapping, words=WORDS)), inspect(
        file, mapping=mapping, words=WORDS
    )


def test_every_ready_mapping_is_valid_and_says_what_it_is_for():
    assert Settings().mapping_names == ["despachos_ambulancia", "llamadas_911", "original"]
    for name in Settings().mapping_names:
        assert load_mapping(name, DATA)[0].description


def test_a_draft_of_the_original_comes_out_in_todays_words_and_dates():
    alerts, report = alerts_of("original", FILES / "original.json")

    assert (report.rows, report.alerts, report.unreadable_dates) == (30, 30, 0)
    assert report.unknown == {"grado": 1}
    assert all(re.fullmatch(r"2023-\d\d-\d\dT\d\d:00:00\+0[12]:00", a["fecha"]) for a in alerts)
    bodies = {alert["cuerpo_necesario"] for alert in alerts}
    assert bodies <= set(WORDS["cuerpo_necesario"].values())
    assert [alert["grado"] for alert in alerts if alert["grado"] == "Grave"] == ["Grave"]


def test_an_export_of_the_ambulance_service_comes_back_although_its_names_are_upper_case(tmp_path):
    row = (
        '{"TIPO_EMERGENCIA": "Incendios", "GRADO": "Urgente", "CUERPO_NECESARIO": "Policía", '
        '"LOCALIZACION": "Soria", "FECHA": "2023-01-02 04:35:48", "REQUIERE_MEDICO": "Si", '
        '"CONTACTO": "+34 600", "DIRECCION": "Calle Mayor 1 "}'
    )
    file = tmp_path / "TOTAL_AVISOS_SANITARIOS_112.json"
    file.write_text(f"[{row}]", encoding="utf-8")

    (alert,), report = alerts_of("original", file)

    assert alert == {
        "tipo_emergencia": "Incendios",
        "cuerpo_necesario": "Policia",
        "grado": "Urgente",
        "localizacion": "Soria",
        "fecha": "2023-01-02T04:35:48+01:00",
        "requiere_medico": "Si",
        "contacto": "+34 600",
    }
    assert report.omitted_columns == ("DIRECCION",)


def test_a_911_log_without_header_keeps_its_places_and_its_local_time():
    alerts, report = alerts_of("llamadas_911", FILES / "llamadas_911.csv")

    assert (report.rows, report.alerts) == (30, 30)
    assert alerts[0] == {
        "tipo_emergencia": "Problemas médicos agudos",
        "cuerpo_necesario": "Ambulancia",
        "grado": "Urgencia extrema",
        "localizacion": "STREET 75 & AVENUE 69, BERLIN",
        "fecha": "2016-01-15T12:06:00-05:00",
        "requiere_medico": "Si",
        "contacto": None,
        "latitud": 40.32,
        "longitud": -75.4,
    }
    unknown = {alert["grado"] for alert in alerts} - set(WORDS["grado"].values())
    assert unknown == {"Fire: TRANSFERRED CALL", "EMS: EMS SPECIAL SERVICE"}


@pytest.mark.parametrize(
    "call",
    [
        *("EMS: DISABLED VEHICLE", "EMS: HAZARDOUS ROAD CONDITIONS"),
        *("Fire: UNCONSCIOUS SUBJECT", "Traffic: RESPIRATORY EMERGENCY -"),
    ],
)
def test_a_911_call_for_somebody_in_need_is_medical_and_an_ambulances_never_waits(tmp_path, call):
    file = tmp_path / "911.csv"
    file.write_text(f"40.1,-75.2,{call},2016-01-15 12:06:00,TOWN,STREET\n")

    ((alert,), _) = alerts_of("llamadas_911", file)

    assert alert["requiere_medico"] == "Si"
    assert alert["grado"] not in ("Leve", "Moderado")


def test_a_dispatch_log_in_windows_spanish_gets_its_degrees_from_the_priorities():
    alerts, report = alerts_of("despachos_ambulancia", FILES / "despachos_ambulancia.csv")

    assert (report.encoding, report.delimiter) == ("cp1252", ";")
    assert alerts[0] == {
        "tipo_emergencia": "Accidentes de tráfico",
        "cuerpo_necesario": "Ambulancia",
        "grado": "Urgencia extrema",
        "localizacion": "Suba, Bogotá",
        "fecha": "2023-03-01T00:12:00-05:00",
        "requiere_medico": "Si",
        "contacto": None,
    }
    degrees = {alert["grado"] for alert in alerts}
    assert degrees == {"Urgencia extrema", "Urgente", "Moderado", "Leve", "Sin clasificar", None}


# Whatever the mapping and the values -------------------------------------------------------------

TEXT = st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
NAME = st.from_regex(r"[a-z]{3,8}", fullmatch=True)


@PROPERTY
@given(
    names=st.lists(NAME, min_size=len(FIELDS), max_size=12, unique=True),
    rows=st.lists(st.lists(TEXT, min_size=12, max_size=12), min_size=1, max_size=3),
)
def test_any_names_and_values_reach_the_fields_that_the_mapping_says(tmp_path, names, rows):
    wanted = [field for field in FIELDS if field not in ("fecha", "latitud", "longitud")]
    mapping = Mapping.model_validate({"fields": dict(zip(wanted, names, strict=False))})
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";")
    writer.writerow(names)
    writer.writerows(row[: len(names)] for row in rows)
    path = tmp_path / "a.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")

    for alert, row in zip(read(path, mapping=mapping), rows, strict=True):
        for field, value in zip(wanted, row, strict=False):
            assert alert[field] == (value or None)


@given(value=TEXT, table=st.dictionaries(TEXT, st.sampled_from(["Leve", "Urgente"]), max_size=4))
def test_a_value_that_a_table_does_not_know_is_never_changed(value, table):
    unique = {fold(key): (key, word) for key, word in table.items()}
    rule = {"column": "x", "table": dict(unique.values())}
    binding = bind(Mapping.model_validate({"fields": {"grado": rule}}), ["x"])

    payload, *_ = binding.payload([value])

    known = unique.get(fold(value))
    assert payload["grado"] == (known[1] if known else value)


def test_the_guides_example_is_valid_and_shows_every_part(load):
    guide = (PROJECT_ROOT / "docs" / "intake.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)

    mapping = load(example)

    assert mapping.model_fields_set == set(Mapping.model_fields)
    shown = {part for rule in mapping.fields.values() for part in rule.model_fields_set}
    assert shown == set(Rule.model_fields)
