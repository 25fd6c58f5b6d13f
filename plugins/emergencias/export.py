"""Writes a run's alerts and deliveries into its folder, as JSON and Parquet."""

# ruff: noqa: S608 (the SQL is built of constants and quoted names, for a private database)

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from emergencias import model
from emergencias.files import replacing
from emergencias.routes import load_routes
from emergencias.window import RUN, Window, known_runs, open_window

if TYPE_CHECKING:
    from upath import UPath

    from emergencias.plan import Plan
    from kafka_io import ClientConfig

ALERTS_JSON = "TOTAL_AVISOS.json"
MEDICAL_JSON = "TOTAL_AVISOS_SANITARIOS_112.json"
ALERTS_PARQUET = "avisos.parquet"
DELIVERIES_PARQUET = "entregas.parquet"

FILES = {
    "json": (ALERTS_JSON, MEDICAL_JSON),
    "parquet": (ALERTS_PARQUET, DELIVERIES_PARQUET),
}
"""The files of each format."""

MEDICAL_FIELDS = (
    "TIPO_EMERGENCIA",
    "GRADO",
    "CUERPO_NECESARIO",
    "LOCALIZACION",
    "FECHA",
    "REQUIERE_MEDICO",
    "CONTACTO",
    "DIRECCION",
    "ID_EJECUCION",
    "CODIGO_PROVINCIA",
    "LATITUD",
    "LONGITUD",
    "PRECISION_M",
    "ID_INCIDENTE",
    "DIRECCION_FUENTE",
    "DIRECCION_MOTIVO",
)
"""T2.1's fields in the medical export; the first eight are the original file's, in its order."""

_ROW_GROUP = 50_000

_INSTANT = pa.timestamp("us", tz="UTC")
_AVISOS = pa.schema(
    [
        ("id_aviso", pa.string()),
        ("id_ejecucion", pa.string()),
        ("tipo_emergencia", pa.string()),
        ("cuerpo_necesario", pa.string()),
        ("grado", pa.string()),
        ("localizacion", pa.string()),
        ("fecha", _INSTANT),
        ("fecha_texto", pa.string()),
        ("requiere_medico", pa.string()),
        ("contacto", pa.string()),
        ("codigo_provincia", pa.string()),
        ("latitud", pa.float64()),
        ("longitud", pa.float64()),
        ("precision_m", pa.float64()),
        ("id_incidente", pa.string()),
        ("direccion", pa.string()),
        ("direccion_fuente", pa.string()),
        ("direccion_motivo", pa.string()),
        ("rutas", pa.list_(pa.string())),
        ("motivo", pa.string()),
        ("t1_particion", pa.int32()),
        ("t1_offset", pa.int64()),
        ("t1_marca", _INSTANT),
    ]
)
_ENTREGAS = pa.schema(
    [
        ("id_aviso", pa.string()),
        ("topic", pa.string()),
        ("particion", pa.int32()),
        ("posicion", pa.int64()),
        ("marca", _INSTANT),
        ("motivo", pa.string()),
        ("origen", pa.string()),
        ("t1_particion", pa.int64()),
        ("t1_offset", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ExportedFile:
    """A file of a run: name, rows, bytes and SHA-256."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    files: tuple[ExportedFile, ...]


def export_run(
    config: ClientConfig,
    plan: Plan,
    folder: UPath,
    formats: Sequence[str],
    *,
    is_known: Callable[[str], bool] | None = None,
    timeout_s: float = 60,
) -> ExportResult:
    """Write the run's files.

    Args:
        config: Settings of the Kafka clients.
        plan: The run's plan; its routing SQL says which topics there are.
        folder: The run's folder.
        formats: "json", "parquet" or both.
        is_known: Whether an id_ejecucion is another run's; by default, if it has a plan.
        timeout_s: How long a read may make no progress.

    Raises:
        ValueError: An unknown format.
        emergencias.routes.RoutingSqlError: The plan's routing SQL cannot be read.
        kafka_io.KafkaIoError: A topic cannot be read to its end.

    Guarantees that each file holds all the run's records of its topics, sorted by instant, T1
    partition and T1 offset, and that the same topics give the same bytes. A file appears under
    its name only when it is complete.
    """
    unknown = sorted(set(map(str, formats)) - FILES.keys())
    if unknown or not formats:
        raise ValueError(f"formats {unknown or 'is empty'}: choose from {', '.join(FILES)}.")
    routes = load_routes(plan.routing_sql)
    known = is_known or known_runs(plan, folder)
    with open_window(config, plan, routes, known, timeout_s=timeout_s) as window:
        return export_window(window, folder, formats)


def export_window(window: Window, folder: UPath, formats: Sequence[str]) -> ExportResult:
    """Write the files of a window that was read already; see `export_run`."""
    files: list[ExportedFile] = []
    if "json" in formats:
        files.append(_write_json(folder / ALERTS_JSON, _alert_texts(window)))
        files.append(_write_json(folder / MEDICAL_JSON, _medical_texts(window)))
    if "parquet" in formats:
        files.append(
            _write_parquet(folder / ALERTS_PARQUET, _AVISOS, window, _avisos_sql(window.topics))
        )
        files.append(
            _write_parquet(folder / DELIVERIES_PARQUET, _ENTREGAS, window, _entregas_sql())
        )
    return ExportResult(tuple(files))


def object_text(record: Mapping[str, Any]) -> str:
    """Return one element of a JSON list, as `json.dumps(…, indent=4, ensure_ascii=False)` does.

    That function needs the whole list in memory and is several times slower.
    """
    if not record:
        return "    {}"
    lines = [
        f"        {encode_basestring(name)}: {_value_text(value)}" for name, value in record.items()
    ]
    return "    {\n" + ",\n".join(lines) + "\n    }"


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        nested = json.dumps(value, indent=4, ensure_ascii=False)
        return nested.replace("\n", "\n        ")
    return json.dumps(value)


def _write_json(path: UPath, elements: Iterable[str]) -> ExportedFile:
    rows = 0
    with replacing(path) as sink:
        for element in elements:
            sink.write(((",\n" if rows else "[\n") + element).encode())
            rows += 1
        sink.write(b"\n]" if rows else b"[]")
    return ExportedFile(path.name, rows, sink.size, sink.sha256)


def _alert_texts(window: Window) -> Iterator[str]:
    sql = f"""
        SELECT clave, json, particion, posicion FROM avisos WHERE clase = '{RUN}'
        ORDER BY fecha_us NULLS LAST, particion, posicion
    """
    for key, text, partition, offset in _rows(window, sql):
        alert = _object(text)
        record = {name: alert.get(name) for name in model.ORIGINAL_FIELDS}
        record["id_aviso"] = key
        record.update((name, alert.get(name)) for name in model.EXTRA_FIELDS)
        record.update(t1_particion=partition, t1_offset=offset)
        yield object_text(record)


def _medical_texts(window: Window) -> Iterator[str]:
    sql = f"""
        SELECT e.clave, e.campos, e.t1_particion, e.t1_offset
        FROM entregas e JOIN avisos a ON a.particion = e.t1_particion AND a.posicion = e.t1_offset
        WHERE e.topic = '{model.T2_1}'
        ORDER BY a.fecha_us NULLS LAST, a.particion, a.posicion, e.particion, e.posicion
    """
    for key, text, partition, offset in _rows(window, sql):
        alert = _object(text)
        record: dict[str, Any] = {}
        for name in MEDICAL_FIELDS:
            if name == "ID_EJECUCION":
                record["ID_AVISO"] = key
            record[name] = alert.get(name)
        record.update(T1_PARTICION=partition, T1_OFFSET=offset)
        yield object_text(record)


def _rows(window: Window, sql: str) -> Iterator[tuple[Any, ...]]:
    for batch in window.batches(sql, rows=5_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _object(text: str | None) -> dict[str, Any]:
    # A value that is no object is exported too, its fields null: the row counts must tell all.
    parsed = orjson.loads(text) if text else None
    return parsed if isinstance(parsed, dict) else {}


def _fields(column: str, names: Sequence[str]) -> str:
    paths = ", ".join(f"'$.\"{name}\"'" for name in names)
    return f"json_extract_string({column}, [{paths}])"


def _avisos_sql(topics: Sequence[str]) -> str:
    names = [name for name in model.ALERT_FIELDS if name != "id_ejecucion"]
    field = {name: f"c[{position}]" for position, name in enumerate(names, 1)}
    listed = ", ".join(f"'{topic}'" for topic in sorted(topics))
    address = ("DIRECCION", "DIRECCION_FUENTE", "DIRECCION_MOTIVO")
    # A bit a topic: lists gathered by GROUP BY cannot be spilled to disk.
    return f"""
        WITH rutas AS (
          SELECT t1_particion, t1_offset,
            bit_or(1::BIGINT << (list_position([{listed}], topic) - 1)) AS bits
          FROM entregas GROUP BY ALL
        ), direcciones AS (
          SELECT t1_particion, t1_offset, {_fields("campos", address)} AS d
          FROM entregas WHERE topic = '{model.T2_1}'
          QUALIFY row_number() OVER (
            PARTITION BY t1_particion, t1_offset ORDER BY particion, posicion) = 1
        ), motivos AS (
          SELECT t1_particion, t1_offset, min(motivo) AS motivo
          FROM entregas WHERE topic = '{model.T4}' GROUP BY ALL
        )
        SELECT clave AS id_aviso, id_ejecucion, {field["tipo_emergencia"]} AS tipo_emergencia,
          {field["cuerpo_necesario"]} AS cuerpo_necesario, {field["grado"]} AS grado,
          {field["localizacion"]} AS localizacion, make_timestamptz(fecha_us) AS fecha,
          {field["fecha"]} AS fecha_texto, {field["requiere_medico"]} AS requiere_medico,
          {field["contacto"]} AS contacto, {field["codigo_provincia"]} AS codigo_provincia,
          TRY_CAST({field["latitud"]} AS DOUBLE) AS latitud,
          TRY_CAST({field["longitud"]} AS DOUBLE) AS longitud,
          TRY_CAST({field["precision_m"]} AS DOUBLE) AS precision_m,
          {field["id_incidente"]} AS id_incidente,
          d[1] AS direccion, d[2] AS direccion_fuente, d[3] AS direccion_motivo,
          list_filter([{listed}], lambda t, n: coalesce(bits, 0) >> (n - 1) & 1 = 1) AS rutas,
          motivo, particion AS t1_particion, posicion AS t1_offset,
          make_timestamptz(marca_ms * 1000) AS t1_marca
        FROM (
          SELECT * EXCLUDE (texto, json), {_fields("json", names)} AS c
          FROM avisos WHERE clase = '{RUN}'
        ) a
        LEFT JOIN rutas r ON a.particion = r.t1_particion AND a.posicion = r.t1_offset
        LEFT JOIN direcciones u ON a.particion = u.t1_particion AND a.posicion = u.t1_offset
        LEFT JOIN motivos m ON a.particion = m.t1_particion AND a.posicion = m.t1_offset
        ORDER BY fecha_us NULLS LAST, a.particion, a.posicion
    """


def _entregas_sql() -> str:
    return """
        SELECT a.clave AS id_aviso, e.topic, e.particion, e.posicion,
          make_timestamptz(e.marca_ms * 1000) AS marca, e.motivo, e.origen,
          e.t1_particion, e.t1_offset
        FROM entregas e JOIN avisos a ON a.particion = e.t1_particion AND a.posicion = e.t1_offset
        ORDER BY a.fecha_us NULLS LAST, a.particion, a.posicion, e.topic, e.particion, e.posicion
    """


def _write_parquet(path: UPath, schema: pa.Schema, window: Window, sql: str) -> ExportedFile:
    rows = 0
    with (
        replacing(path) as sink,
        pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer,
    ):
        for table in _row_groups(window, sql):
            writer.write_table(table, row_group_size=_ROW_GROUP)
            rows += table.num_rows
    return ExportedFile(path.name, rows, sink.size, sink.sha256)


def _row_groups(window: Window, sql: str) -> Iterator[pa.Table]:
    """Yield tables of equal size: the file's bytes must not depend on how DuckDB cuts batches."""
    pending: pa.Table | None = None
    for batch in window.batches(sql):
        table = pa.Table.from_batches([batch])
        pending = table if pending is None else pa.concat_tables([pending, table])
        while pending.num_rows >= _ROW_GROUP:
            yield pending.slice(0, _ROW_GROUP).combine_chunks()
            pending = pending.slice(_ROW_GROUP)
    if pending is not None and pending.num_rows:
        yield pending.combine_chunks()
