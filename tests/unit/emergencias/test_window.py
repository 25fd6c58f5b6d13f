from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from upath import UPath

from emergencias import model
from emergencias.plan import PLAN_FILE, run_folder
from emergencias.window import Window, instant_us, known_runs, read_json

ReadWindow = Callable[..., AbstractContextManager[Window]]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        normal, parsed = read_json(text.encode())
        assert parsed == value
        assert normal is not None
        assert json.loads(normal) == value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES), st.binary())
def test_what_follows_an_object_is_passed_over(value: dict[str, Any], rest: bytes) -> None:
    assert read_json(json.dumps(value).encode() + b" " + rest)[1] == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"[" * 100_000)
@example(b'{"a":' * 300 + b"1" + b"}" * 300)
@example(b"1" * 5_000)
@example(b"1e400")
@example(b'{"a":1e400}')
@example(b'"\\ud800"')
@example(b"-")
@example(b"\x00")
def test_no_bytes_can_break_it(value: bytes) -> None:
    normal, _ = read_json(value)
    if normal is not None:
        orjson.loads(normal)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"  ",
        b"nada",
        b'{"a":1',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":NaN}',
        b"-Infinity",
        b"{'a':1}",
        b"5x",
        b"nullx",
        b'{"a":1,}',
        b'{"a":"\n"}',
    ],
)
def test_what_ksqldb_does_not_take_for_json_is_not(value: bytes) -> None:
    assert read_json(value) == (None, None)


def test_the_last_of_two_equal_names_wins() -> None:
    assert read_json(b'{"a":1,"a":2}') == ('{"a":2}', {"a": 2})
    assert read_json(b'{"a":1,"a":2} x') == ('{"a": 2}', {"a": 2})


def test_a_broken_byte_in_a_string_is_replaced() -> None:
    assert read_json(b'{"a":"C\xe1diz"}')[1] == {"a": "C\ufffddiz"}


@pytest.mark.parametrize(
    ("fecha", "instant"),
    [
        ("2024-06-01T10:00:00+02:00", datetime(2024, 6, 1, 8, tzinfo=UTC)),
        ("2024-06-01T08:00:00Z", datetime(2024, 6, 1, 8, tzinfo=UTC)),
        ("2024-06-01T09:00:00+01:00", datetime(2024, 6, 1, 8, tzinfo=UTC)),
        # Without offset: peninsular time, summer and winter.
        ("2024-06-01 10:00:00", datetime(2024, 6, 1, 8, tzinfo=UTC)),
        ("2024-01-01 10:00:00", datetime(2024, 1, 1, 9, tzinfo=UTC)),
        ("2024-06-01T10:00:00.25+02:00", datetime(2024, 6, 1, 8, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_fecha_is_an_instant(fecha: str, instant: datetime) -> None:
    assert instant_us(fecha) == int(instant.timestamp() * 1_000_000)


@pytest.mark.parametrize(
    "fecha", [None, "", "ayer", 12, ["2024"], "31/12/2024 10:00", "0001-01-01T00:00:00+14:00"]
)
def test_an_unreadable_fecha_has_no_instant(fecha: Any) -> None:
    assert instant_us(fecha) is None


@given(st.text())
def test_no_text_breaks_the_reading_of_fecha(fecha: str) -> None:
    assert isinstance(instant_us(fecha), int | None)


def test_records_are_sorted_into_classes(corpus: Any, read_window: ReadWindow) -> None:
    corpus.receive(b'{"grado":"Urgente","id_ejecucion":"local/emergencias_112/otra"}')
    corpus.receive(b'{"grado":"Urgente","id_ejecucion":"ni/idea/1"}')
    corpus.receive(b"\xff", b"\xff")
    corpus.receive(None, b"k")
    with read_window(corpus, is_known=lambda i: i.endswith("/otra")) as window:
        classes = dict(
            window.db.execute("SELECT clase, count(*) FROM avisos GROUP BY clase").fetchall()
        )
        urgent = dict(
            window.db.execute("SELECT clase, n FROM conteos WHERE topic = ?", [model.T2]).fetchall()
        )
    assert classes == {"run": 70, "otra_ejecucion": 1, "ajeno": 2, "tombstone": 1}
    assert urgent == {"run": 36, "otra_ejecucion": 1, "ajeno": 1}


@settings(max_examples=25, deadline=None)
@given(value=st.binary(), key=st.none() | st.binary())
def test_no_record_breaks_the_window_or_is_missed(
    new_corpus: Callable[..., Any], read_window: ReadWindow, value: bytes, key: bytes | None
) -> None:
    corpus = new_corpus([])
    corpus.receive(value, key, route=False)
    corpus.downstream = [
        type(corpus.t1[0])(topic, value, key, 1) for topic in (model.T2, model.T2_1, model.T4)
    ]
    with read_window(corpus) as window:
        rows = window.db.execute("SELECT topic, clase, n FROM conteos").fetchall()
    topics = (model.T1, model.T2, model.T2_1, model.T4)
    assert sorted(rows) == sorted((topic, "ajeno", 1) for topic in topics)


@pytest.mark.parametrize(
    "coordinates",
    [
        {},
        {"T1_PARTICION": "0", "T1_OFFSET": "0"},
        {"T1_PARTICION": 0, "T1_OFFSET": 2**70},
        {"T1_PARTICION": True, "T1_OFFSET": 0.0},
        {"T1_PARTICION": None, "T1_OFFSET": [0]},
    ],
)
def test_a_record_with_odd_coordinates_is_nobodys(
    corpus: Any, read_window: ReadWindow, coordinates: dict[str, Any]
) -> None:
    record = corpus.on(model.T2)[0]
    corpus.downstream.append(type(record)(model.T2, json.dumps(coordinates).encode(), None, 1))
    with read_window(corpus) as window:
        n = window.scalar("SELECT n FROM conteos WHERE topic = ? AND clase = 'ajeno'", [model.T2])
    assert n == 1


def test_a_run_is_known_by_its_plan(corpus: Any, folder: UPath) -> None:
    root = str(folder.parent.parent)
    other = run_folder(root, "otro_dag", "manual__2024-01-01T00:00:00+00:00")
    other.mkdir(parents=True)
    (other / PLAN_FILE).write_text("{}")
    is_known = known_runs(corpus.plan, folder)

    assert is_known("local/emergencias_112/run/1")
    assert is_known("local/otro_dag/manual__2024-01-01T00:00:00+00:00")
    assert not is_known("local/otro_dag/manual__2024-01-02T00:00:00+00:00")
    assert not is_known("otra/otro_dag/manual__2024-01-01T00:00:00+00:00")


@given(st.text())
@example("ñ" * 200)
@example("..")
@example("a/../..")
@example("\0")
def test_no_id_breaks_the_look_for_plans(
    tmp_path_factory: pytest.TempPathFactory, new_corpus: Callable[..., Any], id_ejecucion: str
) -> None:
    folder = UPath(tmp_path_factory.getbasetemp() / "x" / "dag" / "run")
    is_known = known_runs(new_corpus([]).plan, folder)
    for candidate in (id_ejecucion, f"local/{id_ejecucion}", f"local/dag/{id_ejecucion}"):
        assert not is_known(candidate)
