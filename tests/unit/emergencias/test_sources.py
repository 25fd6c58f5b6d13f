from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from zoneinfo import ZoneInfo

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from emergencias.model import ORIGINAL_FIELDS
from emergencias.sources import (
    SourceError,
    alerts,
    csv_rows,
    inspect,
    json_rows,
    names,
    read,
    sha256,
    stored,
)
from emergencias.sources.refused import refused_rows
from emergencias.sources.rows import Place, Refused

ALERT = {
    "tipo_emergencia": "Accidentes de tráfico",
    "cuerpo_necesario": "Policia",
    "grado": "Urgencia extrema",
    "localizacion": "Ávila",
    "fecha": "2023-07-01 08:05:09",
    "requiere_medico": "Si",
    "contacto": "+34 600 11 22 33",
}
OTHER = ALERT | {"grado": "Leve", "localizacion": "Soria", "fecha": "2023-12-31 23:59:59"}
READ = [
    ALERT | {"fecha": "2023-07-01T08:05:09+02:00"},
    OTHER | {"fecha": "2023-12-31T23:59:59+01:00"},
]
NAMES = ", ".join(ORIGINAL_FIELDS)


def as_json(rows):
    return json.dumps(rows, indent=4, ensure_ascii=False).encode()


def as_jsonl(rows):
    return b"\n".join(json.dumps(row).encode() for row in rows) + b"\n"


def as_csv(rows, delimiter=",", encoding="utf-8", quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def as_parquet(rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WRITERS = {"json": as_json, "jsonl": as_jsonl, "csv": as_csv, "parquet": as_parquet}


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


@pytest.mark.parametrize("format", WRITERS)
def test_each_format_is_recognised_and_gives_the_alerts_in_order(write, format):
    content = WRITERS[format]([ALERT, OTHER])
    path = write(f"alerts.{format}", content)

    summary = inspect(path)

    assert (summary.format, summary.alerts) == (format, 2)
    assert summary.sha256 == hashlib.sha256(content).hexdigest() == sha256(path)
    assert list(read(path)) == READ
    assert [tuple(alert) for alert in read(path)] == [ORIGINAL_FIELDS] * 2


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("name", ["alerts", "alerts.dat", "alerts.txt"])
def test_the_content_tells_the_format_when_the_name_does_not(write, format, name):
    path = write(name, WRITERS[format]([ALERT]))

    assert inspect(path).format == format
    assert list(read(path)) == READ[:1]


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_may_be_gzipped(write, format):
    path = write(f"alerts.{format}.gz", gzip.compress(WRITERS[format]([ALERT, OTHER])))

    assert (inspect(path).format, inspect(path).alerts) == (format, 2)
    assert inspect(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read(path)) == READ


@pytest.mark.parametrize("format", WRITERS)
def test_names_match_in_any_case_order_and_with_blanks(write, format):
    row = {f" {name.upper()}": value for name, value in reversed(ALERT.items())}
    path = write(f"alerts.{format}", WRITERS[format]([row]))

    assert inspect(path).alerts == 1
    assert list(read(path)) == READ[:1]
    assert tuple(next(read(path))) == ORIGINAL_FIELDS


@pytest.mark.parametrize("format", WRITERS)
def test_only_province_code_and_coordinates_are_kept_of_other_columns(write, format):
    row = ALERT | {"DIRECCION": "x", "LATITUD": 40.5, "longitud": -4, "codigo_provincia": "05"}
    path = write(f"alerts.{format}", WRITERS[format]([row | {"id_ejecucion": "old run"}]))

    (alert,) = read(path)

    assert tuple(alert) == (*ORIGINAL_FIELDS, "codigo_provincia", "latitud", "longitud")
    assert (alert["codigo_provincia"], alert["latitud"], alert["longitud"]) == ("05", 40.5, -4.0)
    assert inspect(path).omitted_columns == ("DIRECCION", "id_ejecucion")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_may_use_any_usual_delimiter_and_a_byte_order_mark(write, delimiter, encoding):
    path = write("alerts.csv", as_csv([ALERT, OTHER], delimiter, encoding))

    assert (inspect(path).delimiter, inspect(path).encoding) == (delimiter, encoding)
    assert list(read(path)) == READ


def test_the_delimiter_is_the_one_that_separates_our_names_not_the_most_frequent(write):
    row = ALERT | {"a,b,c,d,e,f,g,h,i,j,k": "1"}
    path = write("alerts.csv", as_csv([row], ";"))

    assert inspect(path).delimiter == ";"


def test_a_csv_that_is_not_utf_8_is_read_as_windows_text_and_the_summary_says_so(write):
    path = write("alerts.csv", as_csv([ALERT, OTHER], ";", "cp1252"))

    assert inspect(path).encoding == "cp1252"
    assert list(read(path)) == READ


def test_json_may_begin_with_a_byte_order_mark(write):
    assert list(read(write("a.json", b"\xef\xbb\xbf" + as_json([ALERT])))) == READ[:1]


def test_an_empty_csv_cell_is_null_and_blank_lines_are_no_alerts(write):
    path = write("alerts.csv", as_csv([ALERT | {"grado": "", "contacto": ""}]) + b"\r\n\r\n")

    (alert,) = read(path)

    assert (alert["grado"], alert["contacto"]) == (None, None)


@pytest.mark.parametrize(
    "value",
    [None, "", "URGENTE", " Leve ", 3, -1.5, True, [1, "a"], {"a": None}, 2**64 - 1, -(2**63)],
)
@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_odd_values_pass_unchanged(write, format, value):
    path = write(f"a.{format}", WRITERS[format]([ALERT | {"grado": value}]))

    assert inspect(path).alerts == 1
    (alert,) = read(path)
    assert alert["grado"] == value
    assert type(alert["grado"]) is type(value)


@pytest.mark.parametrize("number", [str(2**64), "-" + "9" * 40, "1e999", "-1E+400"])
def test_a_number_that_json_writers_cannot_hold_becomes_its_digits_as_text(write, number):
    text = as_json([ALERT]).replace(b'"Urgencia extrema"', number.encode())
    (alert,) = read(write("a.json", text))

    assert alert["grado"] == number


def test_a_row_that_lacks_a_field_which_others_have_gets_null(write):
    short = {name: value for name, value in ALERT.items() if name != "grado"}
    path = write("a.jsonl", as_jsonl([short, ALERT]))

    assert inspect(path).alerts == 2
    assert [alert["grado"] for alert in read(path)] == [None, "Urgencia extrema"]
    assert tuple(next(read(path))) == ORIGINAL_FIELDS


@pytest.mark.parametrize(
    ("fecha", "expected"),
    [
        ("2023-01-15 10:00:00", "2023-01-15T10:00:00+01:00"),
        ("2023-07-15 10:00:00", "2023-07-15T10:00:00+02:00"),
        ("2023-07-15T10:00:00", "2023-07-15T10:00:00+02:00"),
        ("2023-07-15 10:00", "2023-07-15T10:00:00+02:00"),
        ("2023-07-15 10:00:00.250", "2023-07-15T10:00:00.250000+02:00"),
        ("2023-10-29 02:30:00", "2023-10-29T02:30:00+02:00"),  # comes twice: the first
        ("2023-03-26 02:30:00", "2023-03-26T02:30:00+01:00"),  # does not exist: winter time
        ("2024-02-29 00:00:00", "2024-02-29T00:00:00+01:00"),
        ("2023-07-15T10:00:00+00:00", "2023-07-15T10:00:00+00:00"),
        ("2023-07-15T10:00:00Z", "2023-07-15T10:00:00Z"),
        ("2023-07-15 10:00:00-05:30", "2023-07-15 10:00:00-05:30"),
        (" 2023-07-15 10:00:00\u00a0", "2023-07-15T10:00:00+02:00"),
        ("2023-07-15T10:00:00Z ", "2023-07-15T10:00:00Z"),
    ],
)
def test_a_date_without_offset_gains_madrids_and_keeps_its_local_time(write, fecha, expected):
    path = write("a.json", as_json([ALERT | {"fecha": fecha}]))

    assert next(read(path))["fecha"] == expected
    assert inspect(path).unreadable_dates == 0


@pytest.mark.parametrize(
    "fecha",
    [None, "", "ayer", "2023-02-29 10:00:00", "15/07/2023 10:00", "2023-07-15", 1689415200, [],
     "2023-07-15 25:00:00", "1850-01-01 00:00:00", "20230715T100000"],
)  # fmt: skip
def test_an_unreadable_date_stays_as_it_is_and_is_counted(write, fecha):
    path = write("a.json", as_json([ALERT, ALERT | {"fecha": fecha}]))

    assert [alert["fecha"] for alert in read(path)][1] == fecha
    assert inspect(path).unreadable_dates == 1


@pytest.mark.parametrize(
    ("value", "expected", "unread"),
    [
        (40, 40.0, 0),
        ("40.5", 40.5, 0),
        ("40,5", 40.5, 0),
        (None, None, 0),
        ("norte", None, 1),
        (95.0, None, 1),
        (True, None, 1),
        ([40], None, 1),
    ],
)
def test_coordinates_are_degrees_or_null_and_what_is_lost_is_counted(
    write, value, expected, unread
):
    path = write("a.json", as_json([ALERT | {"latitud": value, "longitud": -3.7}]))

    (alert,) = read(path)

    assert (alert["latitud"], alert["longitud"]) == (expected, -3.7)
    assert inspect(path).unreadable_coordinates == unread


def test_parquet_values_come_as_json_knows_them(write):
    madrid = ZoneInfo("Europe/Madrid")
    rows = {
        "tipo_emergencia": pa.array(["a"]).dictionary_encode(),
        "cuerpo_necesario": pa.array([b"UME"]),
        "grado": pa.array([Decimal("12.50")]),
        "localizacion": pa.array([float("nan")]),
        "fecha": pa.array(
            [datetime(2023, 7, 1, 10, tzinfo=madrid)], pa.timestamp("ns", "Europe/Madrid")
        ),
        "requiere_medico": pa.array([True]),
        "contacto": pa.array([34600112233], pa.uint64()),
        "latitud": pa.array([float("nan")]),
        "longitud": pa.array([-3], pa.int8()),
    }
    path = write("a.parquet", b"")
    pq.write_table(pa.table(rows), path)

    assert list(read(path)) == [
        {
            "tipo_emergencia": "a",
            "cuerpo_necesario": "UME",
            "grado": 12.5,
            "localizacion": None,
            "fecha": "2023-07-01T10:00:00+02:00",
            "requiere_medico": True,
            "contacto": 34600112233,
            "latitud": None,
            "longitud": -3.0,
        }
    ]
    assert inspect(path).unreadable_coordinates == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_parquet_time_without_zone_is_madrids(write, unit):
    table = pa.table({name: [value] for name, value in ALERT.items()})
    naive = pa.array([datetime.fromisoformat(ALERT["fecha"])], pa.timestamp(unit))
    path = write("a.parquet", b"")
    pq.write_table(table.set_column(4, "fecha", naive), path)

    assert list(read(path)) == READ[:1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2023, 7, 1), "2023-07-01"),
        (timedelta(seconds=90), "0:01:30"),
        (Decimal(7), 7),
        ([1, None, float("nan")], [1, None, None]),
        ({"a": b"x"}, {"a": "x"}),
        (float("inf"), "inf"),
    ],
)
def test_other_parquet_types_are_written_as_text_or_json(write, value, expected):
    path = write("a.parquet", as_parquet([ALERT | {"grado": value}]))

    assert next(read(path))["grado"] == expected


def test_it_reads_any_place_that_fsspec_knows(write, tmp_path):
    local = write("a.json", as_json([ALERT]))
    with fsspec.open("memory://sources/a.csv", "wb") as file:
        file.write(as_csv([ALERT, OTHER]))
    with fsspec.open("memory://sources/a.parquet", "wb") as file:
        file.write(as_parquet([ALERT, OTHER]))

    assert list(read(f"file://{local}")) == READ[:1]
    assert list(read("memory://sources/a.csv")) == READ
    assert list(read("memory://sources/a.parquet")) == READ
    assert inspect("memory://sources/a.csv").path == "memory://sources/a.csv"


# What is refused ---------------------------------------------------------------------------------

NEWLINE = b"\n"
LINE = json.dumps(ALERT, ensure_ascii=False)
END = len(LINE)
REFUSED = {
    "empty file": ("a.json", b"", "is empty"),
    "only blanks": ("a.csv", b" \r\n\t", "is empty"),
    "only a byte order mark": ("a.csv", b"\xef\xbb\xbf", "is empty"),
    "empty list": ("a.json", b"[ ]", "holds no alerts; it must hold 1 or more"),
    "only a header": ("a.csv", as_csv([ALERT]).split(b"\r\n")[0], "holds no alerts"),
    "no rows in Parquet": ("a.parquet", None, "holds no alerts"),
    "no good row": ("a.csv", as_csv([ALERT]).split(b"\r\n")[0] + b"\r\na\r\nb\r\n", "holds no "
                    "alerts: all 2 rows are refused, the first (line 2) because of: 1 cells, but"),
    "list cut off": ("a.json", f"[{LINE}".encode(), f"line 1, character {END + 2}: not valid JSON: "
                     "expected ',' or ']'; the text ends: is it cut off?"),
    "list cut off after a comma": ("a.json", f"[{LINE},\n".encode(), "is it cut off?"),
    "object cut off": ("a.json", f"[{LINE},\n{LINE[:30]}".encode(),
                       f"line 2, character {END + 24}: not valid JSON: row 2: Unterminated str"),
    "comma after the last": ("a.json", f"[{LINE},]".encode(), "row 2: Expecting value"),
    "comma forgotten": ("a.json", f"[{LINE}{LINE}]".encode(), "expected ',' or ']'; there is '{"),
    "more after the list": ("a.json", f"[{LINE}]\n[]".encode(),
                            f"line 2, character {END + 4}: not valid JSON: there is more after "
                            "the list's end; there is '[]'"),
    "too deep": ("a.json", b"[" * 100_000, "nested too deeply"),
    "one object of another kind": ("a.json", b'{"type": "x", "a": []}', "lacks " + NAMES +
                                   "; it has a, type. Needed, in any case and order: " + NAMES),
    "columns missing": ("a.csv", as_csv([{"grado": 1, "Fecha": 2, "y": 3}]), "lacks "
                        "tipo_emergencia, cuerpo_necesario, localizacion, requiere_medico, "
                        "contacto; it has Fecha, grado, y."),
    "column twice": ("a.csv", as_csv([ALERT | {"GRADO": 1}]), "has grado "
                     "twice ('grado' and 'GRADO')"),
    "header that is no CSV": ("a.csv", b'grado,"fecha"x\r\na,b\r\n', "header: not CSV: ',' expect"),
    "UTF-16 cut off": ("a.csv", as_csv([ALERT], encoding="utf-16")[:-1], "is not utf-16 text"),
    "unknown format": ("a.xml", b"<alerts/>", "has an unknown format: it begins with '<alerts/>'. "
                       "A file can be a JSON list, JSON Lines, CSV"),
    "rubbish": ("a", bytes(range(1, 256)), "has an unknown format"),
    "rubbish called CSV": ("a.csv", bytes(range(1, 256)) * 9, "lacks " + NAMES),
    "rubbish called JSON": ("a.json", b"\x01\x02\x03", "expected '['"),
    "rubbish called Parquet": ("a.parquet", b"\x00" * 99, "is not readable Parquet"),
    "Parquet cut off": ("a.parquet", as_parquet([ALERT])[:-9], "is not readable Parquet"),
    "Parquet of another kind": ("a.parquet", as_parquet([{"a": 1}]), f"lacks {NAMES}; it has a."),
    "Parquet column twice": ("a.parquet", as_parquet([ALERT | {"Grado": 1}]), "has grado twice"),
    "gzip cut off": ("a.csv.gz", gzip.compress(as_csv([ALERT, OTHER]))[:-20], "cut off gzip"),
    "gzip damaged": ("a.csv.gz", b"\x1f\x8b\x08\x00rubbish", "is damaged or cut off gzip data"),
}  # fmt: skip


def empty_parquet():
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([ALERT]).slice(0, 0), file)
    return file.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_list_of_alerts_is_refused_saying_where_and_why(write, case):
    name, content, message = REFUSED[case]
    path = write(name, empty_parquet() if content is None else content)

    with pytest.raises(SourceError) as error:
        inspect(path)

    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_number_that_is_missing_is_null(write):
    path = write("a.json", LINE.replace("{", '{"latitud": NaN, ').encode())

    (alert,) = read(path)
    assert alert["latitud"] is None
    assert inspect(path).refused == 0


BAD_ROWS = {
    "infinity": ("json", LINE.replace('"Si"', "Infinity"), "has Infinity, which is no JSON"),
    "lone surrogate": ("json", LINE.replace("Policia", r"\ud800"), "cannot be written as JSON"),
    "name twice": ("json", LINE.replace("{", '{"grado": 1, '), "has 'grado' twice"),
    "name twice in other case": ("json", LINE.replace("{", '{"GRADO": 1, '), "has grado twice ("),
    "name twice further in": ("json", LINE.replace('"Si"', '{"a":1,"a":2}'), "has 'a' twice"),
    "number": ("json", "12", "is 12; it must be a JSON object"),
    "list": ("json", f"[{LINE}]", "is [{"),
    "null": ("json", "null", "is None; it must be a JSON object"),
    "text": ("json", '"x"', "is x; it must be a JSON object"),
    "too large for Kafka": ("json", LINE.replace("Si", "é" * 450_000), "an alert of 900,211 bytes"),
    "too deep to write": ("json", LINE.replace('"Si"', "[" * 300 + "]" * 300), "cannot be written"),
    "line cut off": ("jsonl", LINE[:-1], "Expecting ',' delimiter; the text ends: is it"),
    "text cut off": ("jsonl", LINE[:30], "not valid JSON: Unterminated string"),
    "no JSON": ("jsonl", "{oops}", "not valid JSON: Expecting property name"),
    "line too deep": ("jsonl", "[" * 100_000, "nested too deeply"),
    "too many cells": ("csv", "1,2,3,4,5,6,7,8", "8 cells, but the header has 7 columns"),
    "too few cells": ("csv", "a,b", "2 cells"),
    "quote left open": ("csv", 'a,b,"c,d,e,f,g', "not CSV: "),
    "text after a quote": ("csv", '"a"b,c,d,e,f,g,h', "not CSV: ',' expected"),
    "huge cell": ("csv", "x" * 200_000, "field larger than field limit"),
    "NUL": ("csv", "a,b,c,d,e,f,\0", "NUL byte"),
}  # fmt: skip


def around(format, row):
    """A file with a good row before and after this one."""
    if format == "json":
        return f"[{LINE},\n{row},\n{LINE}]".encode()
    if format == "jsonl":
        return f"{LINE}\n{row}\n{LINE}\n".encode()
    header, good = as_csv([ALERT]).decode().split("\r\n")[:2]
    return f"{header}\n{good}\n{row}\n{good}\n".encode()


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_that_is_no_alert_is_refused_alone_naming_line_and_reason(write, case):
    format, row, reason = BAD_ROWS[case]
    path = write(f"a.{format}", around(format, row))
    refused = []

    report = inspect(path, on_refused=refused.append)

    assert (report.rows, report.alerts, report.refused) == (3, 2, 1)
    assert list(read(path)) == [READ[0]] * 2
    assert refused[0].place == (3 if format == "csv" else 2, 2)
    assert reason in refused[0].reason
    assert report.first_refused[0].reason == refused[0].reason
    assert refused[0].text.rstrip() == row or format == "json"


def test_bytes_that_are_no_text_cost_their_row_alone(write):
    rows = [ALERT | {"contacto": n} for n in "abc"]
    path = write("a.csv", as_csv(rows).replace(b"Policia,Urgencia extrema,", b"Pol\xedcia,x,", 1))

    report = inspect(path)

    assert (report.encoding, report.damaged_bytes) == ("utf-8", 1)
    assert (report.alerts, report.refused) == (2, 1)
    assert [alert["contacto"] for alert in read(path)] == ["b", "c"]


def test_a_parquet_row_with_bytes_that_are_no_text_is_refused_alone(write):
    rows = [ALERT | {"grado": value} for value in (b"Leve", b"\xff", b"Leve")]
    path = write("a.parquet", as_parquet(rows))

    report = inspect(path)

    assert (report.alerts, report.first_refused[0].line, report.first_refused[0].row) == (
        2,
        None,
        2,
    )
    assert "not UTF-8 text" in report.first_refused[0].reason


def test_a_cell_of_several_lines_is_one_row_and_the_lines_after_it_keep_their_numbers(write):
    good = as_csv([ALERT | {"contacto": "a\nb\nc"}])
    report = inspect(write("a.csv", good + b"x,y\r\n"))

    assert (report.alerts, report.first_refused[0].line) == (1, 5)


@PROPERTY
@pytest.mark.parametrize("format", ["csv", "jsonl"])
@given(noise=st.lists(st.text(alphabet='",{}[]x\n\\', max_size=12), min_size=1, max_size=5))
def test_no_noise_between_the_rows_costs_a_good_one(write, format, noise):
    rows = [ALERT | {"contacto": str(n)} for n in range(len(noise) + 1)]
    lines = [as_csv([row], quoting=csv.QUOTE_NONE).split(b"\r\n") for row in rows]
    if format == "jsonl":
        lines = [[b"", json.dumps(row).encode()] for row in rows]
    parts = [lines[0][0]] if format == "csv" else []
    for (_, line, *_), junk in zip(lines, [*noise, ""], strict=True):
        parts += [line, junk.encode()]
    path = write(f"a.{format}", b"\n".join(parts) + b"\n")

    assert [row for row in read(path) if row["contacto"] in {r["contacto"] for r in rows}] == [
        READ[0] | {"contacto": row["contacto"]} for row in rows
    ]


@pytest.mark.parametrize("use", [inspect, sha256, lambda path: list(read(path))])
def test_a_path_that_is_no_file_is_refused(tmp_path, use):
    for path, message in [
        (tmp_path / "missing.json", "missing.json does not exist"),
        (tmp_path, "is a directory; it must be a file"),
        ("", "input_path is ''; it must be the path of a file"),
        ("nowhere://a/b", "Input file nowhere://a/b cannot be read"),
    ]:
        with pytest.raises(SourceError) as error:
            use(path)
        assert message in str(error.value)


def test_damaged_parquet_data_is_refused(write):
    rows = [ALERT | {"contacto": str(n)} for n in range(5000)]
    content = bytearray(as_parquet(rows))
    content[4:400] = bytes(396)

    with pytest.raises(SourceError, match="is not readable Parquet"):
        inspect(write("a.parquet", bytes(content)))


def test_a_file_that_changes_while_it_is_inspected_is_refused(write, monkeypatch):
    path = write("a.json", as_json([ALERT]))
    payloads = alerts._payloads

    def change_meanwhile(*args):
        yield from payloads(*args)
        path.write_bytes(as_json([OTHER]))

    monkeypatch.setattr(alerts, "_payloads", change_meanwhile)

    with pytest.raises(SourceError, match="changed while it was read"):
        inspect(path)


# Whatever the size and the text ------------------------------------------------------------------


def test_an_object_may_lie_across_any_two_reads(write, monkeypatch):
    rows = [ALERT | {"grado": 'é€😀\\"\n' * n, "contacto": n * 10**9} for n in range(9)]
    files = [write(f"a.{format}", WRITERS[format](rows)) for format in ("json", "jsonl")]
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr(stored, "CHUNK", size)
        for path in files:
            assert [alert["grado"] for alert in read(path)] == [row["grado"] for row in rows]
            assert [alert["contacto"] for alert in read(path)] == [row["contacto"] for row in rows]


def test_an_error_far_into_a_file_is_found_at_its_line(write, monkeypatch):
    monkeypatch.setattr(stored, "CHUNK", 50)
    rows = as_json([ALERT] * 40)
    path = write("a.json", rows[:-2] + b",\n{oops}]")

    with pytest.raises(
        SourceError, match=f"line {rows.count(NEWLINE) + 1}, char.*row 41: Expecting"
    ):
        inspect(path)


def test_an_object_beyond_all_measure_is_refused_without_reading_on(write, monkeypatch):
    monkeypatch.setattr(stored, "CHUNK", 100)
    monkeypatch.setattr(json_rows, "MAX_ROW_CHARS", 1000)
    path = write("a.json", b'[{"grado": "' + b"x" * 10_000 + b'"}]')

    with pytest.raises(SourceError, match=r"row 1: .*; no whole object in 1,000 char"):
        inspect(path)


@pytest.mark.parametrize("format", WRITERS)
def test_memory_does_not_grow_with_the_file(write, format):
    rows = [ALERT | {"contacto": f"{n:09}", "grado": "x" * 1000} for n in range(12_000)]
    content = WRITERS[format](rows)
    path = write(f"big.{format}", content)
    list(islice(read(path), 1))  # whatever is loaded once

    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path)) == 12_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Text is read by the mebibyte, Parquet by the batch; the rows as a list take 20 MB.
    assert peak < 8 * 2**20


ANY_TEXT = st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"))
ANY_ROW = st.fixed_dictionaries(
    {name: st.just("2023-07-01T08:05:09Z") if name == "fecha" else ANY_TEXT for name in ALERT}
)


@PROPERTY
@pytest.mark.parametrize("format", WRITERS)
@given(rows=st.lists(ANY_ROW, min_size=1, max_size=4))
def test_any_text_comes_through_unchanged(write, format, rows):
    path = write(f"a.{format}", WRITERS[format](rows))
    expected = [
        {name: value or None if format == "csv" else value for name, value in row.items()}
        for row in rows
    ]

    assert inspect(path).alerts == len(rows)
    assert list(read(path)) == expected


@PROPERTY
@pytest.mark.parametrize("delimiter", csv_rows.USUAL)
@given(rows=st.lists(ANY_ROW, min_size=1, max_size=3))
def test_any_text_comes_through_a_csv_of_any_delimiter(write, delimiter, rows):
    path = write("a.csv", as_csv(rows, delimiter, "utf-8-sig"))

    assert list(read(path)) == [{k: v or None for k, v in row.items()} for row in rows]


ANY_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        ANY_TEXT,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@PROPERTY
@pytest.mark.parametrize("format", ["json", "jsonl"])
@given(value=ANY_JSON)
def test_any_json_value_comes_through_unchanged_and_can_be_written_again(write, format, value):
    (alert,) = read(write(f"a.{format}", WRITERS[format]([ALERT | {"grado": value}])))

    assert alert["grado"] == value
    assert orjson.loads(orjson.dumps(alert)) == alert


@PROPERTY
@given(content=st.binary(max_size=200), name=st.sampled_from(["a", "a.json", "a.csv", "a.parquet"]))
def test_rubbish_is_refused_and_never_anything_else(write, content, name):
    with pytest.raises(SourceError):
        inspect(write(name, content))


@PROPERTY
@pytest.mark.parametrize("format", WRITERS)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_breaks(write, format, data):
    content = bytearray(WRITERS[format]([ALERT, OTHER]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(f"a.{format}", bytes(content))
    try:
        summary = inspect(path)
    except SourceError:
        pass  # refused: nothing was produced
    else:
        assert summary.alerts == sum(1 for _ in read(path))


def test_what_is_read_is_in_utc_terms_the_original_moment(write):
    (alert, _) = read(write("a.json", as_json([ALERT, OTHER])))

    assert datetime.fromisoformat(alert["fecha"]).astimezone(UTC) == datetime(
        2023, 7, 1, 6, 5, 9, tzinfo=UTC
    )


def test_a_message_tells_nobodys_telephone_number(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(",".join(ORIGINAL_FIELDS) + "\nx,+34 612 34 56 78,Leve\n")

    with pytest.raises(SourceError) as refused:
        inspect(file)

    assert "612" not in str(refused.value)
    assert "(number)" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "{'contacto': 612345678, 'grado': 'Leve'}",
        "Lugo,Incendio,612345678,Leve",
        '{"a": "x"} ["a", "(+1) (610) 555-1234"]',
        "x 612\u00a0345\u2009678",
        '["612\u2013345\u2013678"]',
        '["612 - 345 - 678", "612_345_678", "612,345,678"]',
        '{"612345678": 1, "612345678": 2}',
        '[{"612 345 678": 1, "grado": "Leve"}]',
    ],
)
def test_no_message_and_no_report_has_a_part_of_a_telephone_number(tmp_path, text):
    file = tmp_path / "a.jsonl"
    file.write_text(text)

    with pytest.raises(SourceError) as refused:
        inspect(file)

    assert not re.search("61234|612.{0,6}34|610|555", str(refused.value))


def test_a_column_named_like_a_telephone_number_is_masked_in_the_report(write):
    report = inspect(write("a.json", as_json([ALERT | {"612345678": 1}])))

    assert report.omitted_columns == ("(number)",)


def test_long_texts_are_not_kept_in_memory():
    before = names._fold_short.cache_info().currsize

    assert names.fold("Á" * 1_000) == "a" * 1_000
    assert names._fold_short.cache_info().currsize == before


def test_refused_rows_of_an_earlier_reading_do_not_stay(tmp_path):
    path = UPath(tmp_path / "refused.jsonl")
    with refused_rows(path, "a.csv") as write:
        write(Refused(Place(2, 1), "not CSV", "x"))
    assert path.exists()

    with refused_rows(path, "a.csv"):
        pass

    assert not path.exists()


def test_a_parquet_time_beyond_pythons_is_told(tmp_path):
    file = tmp_path / "a.parquet"
    far = pa.array([2**62], pa.int64()).cast(pa.timestamp("us"))
    columns = {name: pa.array(["x"]) for name in ORIGINAL_FIELDS} | {"fecha": far}
    pq.write_table(pa.table(columns), file)

    with pytest.raises(SourceError, match="cannot be read"):
        inspect(file)
