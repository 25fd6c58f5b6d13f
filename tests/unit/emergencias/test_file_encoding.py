from __future__ import annotations

import csv
import io
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emergencias.sources import Mapping, SourceError, csv_rows, inspect, read, stored

MAPPING = Mapping.model_validate({"fields": {"localizacion": "lugar", "grado": "prioridad"}})
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PLACES = ["Ávila", "La Coruña", "Móstoles", "Alcalá de Guadaíra", "Peñíscola", "Castellón"]
SIGNS = [*sorted(set(string.punctuation) - set("\"'_")), "\t", "¦", "\x1f"]


def write(folder, rows, delimiter=";", encoding="utf-8"):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["lugar", "prioridad"])
    writer.writerows(rows)
    path = folder / "a.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def rows_of(path, mapping=MAPPING):
    return [[alert["localizacion"], alert["grado"]] for alert in read(path, mapping=mapping)]


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        *(
            (name, "\ufeff")
            for name in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        ),
        *((name, "") for name in ("utf-8", "utf-16-le", "utf-16-be")),
    ],
)
def test_unicode_is_known_by_its_mark_and_utf_8_and_16_without_one(tmp_path, encoding, mark):
    path = write(tmp_path, [[place, "x"] for place in PLACES])
    text = path.read_text("utf-8")
    path.write_bytes((mark + text).encode(encoding))

    assert rows_of(path) == [[place, "x"] for place in PLACES]


@PROPERTY
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp850"])
@given(places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=9))
def test_old_spanish_encodings_are_told_apart(tmp_path, encoding, places):
    path = write(tmp_path, [[place, "x"] for place in places], encoding=encoding)

    assert rows_of(path) == [[place, "x"] for place in places]
    told = inspect(path, mapping=MAPPING).encoding
    assert told == ("cp850" if encoding == "cp850" else "cp1252")


def test_an_old_macs_text_is_known_by_a_few_rows(tmp_path):
    path = write(tmp_path, [[place, "x"] for place in PLACES], encoding="mac-roman")

    assert rows_of(path) == [[place, "x"] for place in PLACES]
    assert inspect(path, mapping=MAPPING).encoding == "mac-roman"


def test_a_mapping_may_say_encoding_and_delimiter_for_certain(tmp_path):
    path = write(tmp_path, [["Ávila", "x"]], delimiter="~", encoding="cp1250")
    mapping = MAPPING.model_copy(update={"encoding": "cp1250", "delimiter": "~"})

    assert rows_of(path, mapping) == [["Ávila", "x"]]
    report = inspect(path, mapping=mapping)
    assert (report.encoding, report.delimiter) == ("cp1250", "~")


@pytest.mark.parametrize(
    ("given", "encoding"),
    [("utf-8", "utf-8"), ("UTF8", "utf-8"), ("utf-16-le", "utf-16-le"), ("UTF-16", "utf-16-le")],
)
def test_a_mark_is_no_text_although_the_encoding_was_given(tmp_path, given, encoding):
    path = write(tmp_path, [["Ávila", "x"]])
    path.write_bytes(("\ufeff" + path.read_text("utf-8")).encode(encoding))

    assert rows_of(path, MAPPING.model_copy(update={"encoding": given})) == [["Ávila", "x"]]


def test_a_given_utf_8_refuses_damaged_rows_alone_however_it_is_written(tmp_path):
    path = write(tmp_path, [[place, "x"] for place in PLACES])
    path.write_bytes(path.read_bytes().replace("Á".encode(), b"\xc3", 1))
    mapping = MAPPING.model_copy(update={"encoding": "UTF-8"})

    assert inspect(path, mapping=mapping).refused == 1


def test_the_first_letter_that_tells_the_encoding_may_come_late(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "CHUNK", 1000)
    rows = [["Soria", str(n)] for n in range(2000)] + [["Ávila", "x"], ["Móstoles", "y"]]
    path = write(tmp_path, rows, encoding="cp1252")

    assert rows_of(path)[-2:] == [["Ávila", "x"], ["Móstoles", "y"]]


def test_a_few_damaged_bytes_do_not_turn_utf_8_into_something_else(tmp_path):
    path = write(tmp_path, [[place, "x"] for place in PLACES])
    path.write_bytes(path.read_bytes().replace("Á".encode(), b"\xc3", 1))

    report = inspect(path, mapping=MAPPING)

    assert (report.encoding, report.damaged_bytes, report.refused) == ("utf-8", 1, 1)
    assert rows_of(path) == [[place, "x"] for place in PLACES[1:]]


def test_utf_16_that_is_cut_off_is_refused_whole(tmp_path):
    path = write(tmp_path, [["Ávila", "x"]], encoding="utf-16")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(SourceError, match="is not utf-16 text"):
        inspect(path, mapping=MAPPING)


CELL = st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


@PROPERTY
@given(
    delimiter=st.sampled_from(SIGNS),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4),
)
def test_any_delimiter_and_encoding_bring_back_what_was_written(
    tmp_path, delimiter, encoding, rows
):
    path = write(tmp_path, rows, delimiter, encoding)

    assert rows_of(path) == [[cell or None for cell in row] for row in rows]
    assert inspect(path, mapping=MAPPING).delimiter == delimiter


@PROPERTY
@given(delimiter=st.sampled_from(csv_rows.USUAL), rows=st.lists(st.tuples(CELL, CELL), min_size=2))
@example(delimiter=",", rows=[("", ":\n:\n"), (":\n:\n", ":")])  # ':' gives more rows of two cells
def test_without_a_header_the_delimiter_is_the_one_that_gives_the_columns(
    tmp_path, delimiter, rows
):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    path = tmp_path / "a.txt"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    mapping = MAPPING.model_copy(update={"columns": ("lugar", "prioridad")})

    assert rows_of(path, mapping) == [[cell or None for cell in row] for row in rows]


def test_without_a_header_a_damaged_row_hides_no_delimiter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text('Lugo;"x\nVigo;b:c\nAvila;d:e;f\nSoria;g\n', encoding="utf-8")
    mapping = MAPPING.model_copy(update={"columns": ("lugar", "prioridad")})

    assert rows_of(path, mapping) == [["Vigo", "b:c"], ["Soria", "g"]]
