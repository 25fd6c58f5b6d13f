from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from emergencias import export, model
from emergencias.export import (
    ALERTS_JSON,
    ALERTS_PARQUET,
    DELIVERIES_PARQUET,
    MEDICAL_JSON,
    ExportResult,
    export_run,
    export_window,
    object_text,
)
from emergencias.files import replacing
from emergencias.window import Window

ReadWindow = Callable[..., AbstractContextManager[Window]]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture
def write(read_window: ReadWindow, folder: UPath) -> Callable[..., ExportResult]:
    def run(corpus: Any, formats: tuple[str, ...] = ("json", "parquet")) -> ExportResult:
        with read_window(corpus) as window:
            return export_window(window, folder, formats)

    return run


@given(
    st.dictionaries(
        TEXT,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_an_element_is_what_json_dumps_makes_of_it(record: dict[str, Any]) -> None:
    whole = json.dumps([record], indent=4, ensure_ascii=False)
    assert f"[\n{object_text(record)}\n]" == whole


def test_alerts_have_the_originals_shape(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(corpus)
    text = (folder / ALERTS_JSON).read_text(encoding="utf-8")
    alerts = json.loads(text)

    assert text == json.dumps(alerts, indent=4, ensure_ascii=False)
    assert "Cádiz «centro»" in text
    assert list(alerts[0])[:7] == [
        "tipo_emergencia",
        "cuerpo_necesario",
        "grado",
        "localizacion",
        "fecha",
        "requiere_medico",
        "contacto",
    ]
    assert list(alerts[0])[7:] == [
        "id_aviso",
        "id_ejecucion",
        "codigo_provincia",
        "latitud",
        "longitud",
        "precision_m",
        "id_incidente",
        "t1_particion",
        "t1_offset",
    ]
    sent = [
        (model.encode_alert(alert, corpus.plan.id_ejecucion), alert["id_aviso"].encode())
        for alert in alerts
    ]
    assert sorted(sent) == sorted((record.value, record.key) for record in corpus.t1)


def test_medical_alerts_have_the_originals_shape(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(corpus)
    text = (folder / MEDICAL_JSON).read_text(encoding="utf-8")
    alerts = json.loads(text)

    assert text == json.dumps(alerts, indent=4, ensure_ascii=False)
    assert list(alerts[0]) == [
        "TIPO_EMERGENCIA",
        "GRADO",
        "CUERPO_NECESARIO",
        "LOCALIZACION",
        "FECHA",
        "REQUIERE_MEDICO",
        "CONTACTO",
        "DIRECCION",
        "ID_AVISO",
        "ID_EJECUCION",
        "CODIGO_PROVINCIA",
        "LATITUD",
        "LONGITUD",
        "PRECISION_M",
        "ID_INCIDENTE",
        "DIRECCION_FUENTE",
        "DIRECCION_MOTIVO",
        "T1_PARTICION",
        "T1_OFFSET",
    ]
    topic = {record.key.decode(): orjson.loads(record.value) for record in corpus.on(model.T2_1)}
    assert {alert.pop("ID_AVISO"): alert for alert in alerts} == topic


def test_order_is_instant_then_partition_then_offset_unreadable_last(
    new_corpus: Callable[..., Any], write: Callable[..., ExportResult], folder: UPath
) -> None:
    fechas = [
        "ayer",
        "2024-06-01T10:00:00+02:00",
        None,
        "2024-06-01T08:59:59+01:00",
        "2024-06-01T08:00:00+00:00",
        "2024-06-01T10:00:00+02:00",
        "2024-06-01 10:00:01",
        "",
    ]
    alert = {"grado": "Urgente", "requiere_medico": "Si", "cuerpo_necesario": "Ambulancia"}
    write(new_corpus([{**alert, "fecha": fecha} for fecha in fechas]))
    rows = json.loads((folder / ALERTS_JSON).read_bytes())

    # Record n is at partition n % 3, offset n // 3.
    order = [row["t1_offset"] * 3 + row["t1_particion"] for row in rows]
    assert order == [3, 1, 4, 5, 6, 0, 7, 2]
    medical = json.loads((folder / MEDICAL_JSON).read_bytes())
    assert [row["T1_OFFSET"] * 3 + row["T1_PARTICION"] for row in medical] == order
    table = pq.read_table(str(folder / ALERTS_PARQUET)).to_pylist()
    assert [row["t1_offset"] * 3 + row["t1_particion"] for row in table] == order
    assert [row["fecha"] for row in table][-3:] == [None, None, None]
    assert [row["fecha_texto"] for row in table][-3:] == ["ayer", "", None]


def test_parquet_is_typed_and_tells_routes_and_address(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(corpus)
    table = pq.read_table(str(folder / ALERTS_PARQUET))

    assert table.schema.field("fecha").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("latitud").type == pa.float64()
    assert table.schema.field("rutas").type.value_type == pa.string()
    rows = {row["id_aviso"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows == 70
    for record in corpus.on(model.T2_1):
        row, value = rows[record.key.decode()], orjson.loads(record.value)
        assert row["direccion"] == value["DIRECCION"]
        assert row["direccion_fuente"] == "simulada"
        assert {model.T2, model.T2_1} <= set(row["rutas"])
    for record in corpus.downstream:
        assert record.topic in rows[record.key.decode()]["rutas"]
    assert sum(len(row["rutas"]) for row in rows.values()) == len(corpus.downstream)
    first = rows[corpus.plan.alert_id(0)]
    assert first["fecha"] == datetime(2024, 6, 28, 8, tzinfo=UTC)
    assert first["fecha_texto"] == "2024-06-28T10:00:00+02:00"
    assert (first["latitud"], first["longitud"], first["precision_m"]) == (36.5, -6.25, 18.0)
    assert first["id_incidente"] == rows[corpus.plan.alert_id(1)]["id_incidente"] == "0" * 16
    assert first["t1_marca"] == datetime(2026, 3, 1, tzinfo=UTC)


def test_coordinates_that_are_no_numbers_are_null_in_parquet_and_kept_in_json(
    new_corpus: Callable[..., Any], write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(new_corpus([{"grado": "Urgente", "latitud": "37,1", "longitud": {"x": 1}}]))

    (row,) = pq.read_table(str(folder / ALERTS_PARQUET)).to_pylist()
    assert (row["latitud"], row["longitud"]) == (None, None)
    (alert,) = json.loads((folder / ALERTS_JSON).read_bytes())
    assert (alert["latitud"], alert["longitud"]) == ("37,1", {"x": 1})


def test_deliveries_are_one_row_per_alert_and_topic(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(corpus)
    rows = pq.read_table(str(folder / DELIVERIES_PARQUET)).to_pylist()

    assert sorted((row["topic"], row["id_aviso"]) for row in rows) == sorted(
        (record.topic, record.key.decode()) for record in corpus.downstream
    )


def test_a_reviewed_alert_has_its_reason(
    new_corpus: Callable[..., Any], write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(new_corpus([{"grado": "Crítica"}]))

    (alert,) = pq.read_table(str(folder / ALERTS_PARQUET)).to_pylist()
    assert (alert["rutas"], alert["motivo"]) == ([model.T4], "grado desconocido")
    (delivery,) = pq.read_table(str(folder / DELIVERIES_PARQUET)).to_pylist()
    assert (delivery["motivo"], delivery["origen"]) == ("grado desconocido", model.T1)


def test_nothing_of_others_is_exported(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    write(corpus)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for value in (b"nada", b"\xff", None, b'{"grado":"Urgente","requiere_medico":"Si"}'):
        corpus.receive(value)
    write(corpus)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_without_alerts_on_t1_has_empty_files(
    new_corpus: Callable[..., Any], write: Callable[..., ExportResult], folder: UPath
) -> None:
    result = write(new_corpus([]))

    assert (folder / ALERTS_JSON).read_bytes() == (folder / MEDICAL_JSON).read_bytes() == b"[]"
    assert pq.read_table(str(folder / ALERTS_PARQUET)).num_rows == 0
    assert [file.rows for file in result.files] == [0, 0, 0, 0]


def test_the_result_tells_rows_size_and_digest(
    corpus: Any, write: Callable[..., ExportResult], folder: UPath
) -> None:
    result = write(corpus)

    assert [(file.name, file.rows) for file in result.files] == [
        (ALERTS_JSON, 70),
        (MEDICAL_JSON, 22),
        (ALERTS_PARQUET, 70),
        (DELIVERIES_PARQUET, len(corpus.downstream)),
    ]
    for file in result.files:
        data = (folder / file.name).read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_order_of_arrival_on_other_partitions_changes_no_json(
    corpus: Any, write: Callable[..., ExportResult]
) -> None:
    before = [file.sha256 for file in write(corpus, ("json",)).files]
    corpus.downstream.reverse()
    assert [file.sha256 for file in write(corpus, ("json",)).files] == before


def test_row_groups_do_not_depend_on_how_batches_are_cut(
    corpus: Any,
    write: Callable[..., ExportResult],
    folder: UPath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "_ROW_GROUP", 32)
    first = write(corpus, ("parquet",))
    cut = Window.batches
    monkeypatch.setattr(
        Window,
        "batches",
        lambda self, sql, rows=0: (
            batch.slice(start, 7) for batch in cut(self, sql) for start in range(0, len(batch), 7)
        ),
    )
    assert write(corpus, ("parquet",)) == first
    groups = pq.ParquetFile(str(folder / ALERTS_PARQUET)).metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert sizes == [32, 32, 6]


@pytest.mark.parametrize("formats", [("csv",), ("json", "xml"), ()])
def test_an_unknown_format_is_refused_before_anything_is_read(
    corpus: Any, folder: UPath, formats: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="choose from json, parquet"):
        export_run({}, corpus.plan, folder, formats)


class TestReplacing:
    @pytest.fixture(params=["local", "memory"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
        root = tmp_path if request.param == "local" else f"memory://{tmp_path}"
        return UPath(root) / "run" / "file.json"

    def test_the_file_appears_whole(self, path: UPath) -> None:
        with replacing(path) as sink:
            sink.write(b"new")
            assert not path.exists()
        assert path.read_bytes() == b"new"
        assert sink.sha256 == hashlib.sha256(b"new").hexdigest()

    def test_the_old_file_stays_if_writing_fails(self, path: UPath) -> None:
        with replacing(path) as sink:
            sink.write(b"old")

        def fail() -> None:
            with replacing(path) as sink:
                sink.write(b"half")
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            fail()
        assert path.read_bytes() == b"old"
        assert [other.name for other in path.parent.iterdir()] == ["file.json"]

    def test_two_writers_at_once_do_not_disturb_each_other(self, path: UPath) -> None:
        with replacing(path) as one:
            one.write(b"one, ")
            with replacing(path) as two:
                two.write(b"two")
            assert path.read_bytes() == b"two"
            one.write(b"whole")
        assert path.read_bytes() == b"one, whole"
        assert [other.name for other in path.parent.iterdir()] == ["file.json"]

    def test_a_failing_writer_leaves_the_others_file_alone(self, path: UPath) -> None:
        def fail() -> None:
            with replacing(path) as sink:
                sink.write(b"half")
                raise OSError("disk full")

        with replacing(path) as other:
            other.write(b"whole")
            with pytest.raises(OSError, match="disk full"):
                fail()
        assert path.read_bytes() == b"whole"
        assert [found.name for found in path.parent.iterdir()] == ["file.json"]

    def test_an_old_file_is_replaced(self, path: UPath) -> None:
        for content in (b"first", b"second"):
            with replacing(path) as sink:
                sink.write(content)
        assert path.read_bytes() == b"second"
