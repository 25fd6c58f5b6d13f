"""A run's window on the topics, read into DuckDB so that memory stays bounded.

T1 is read from the plan's offsets, everything downstream from the run's first timestamp, both up to
the high watermarks of now. A record downstream is recognised by the T1 coordinates that it carries.
"""

# ruff: noqa: S608 (the SQL is built of constants and quoted names, for a private database)

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

import duckdb
import orjson
import pyarrow as pa

from emergencias import model
from emergencias.manifest import FIRST_IDS
from emergencias.plan import PLAN_FILE, run_folder
from kafka_io import (
    Offsets,
    OffsetsLostError,
    Partition,
    high_watermarks,
    log_start_offsets,
    offsets_for_time,
    read_range,
)

if TYPE_CHECKING:
    from confluent_kafka import Message
    from upath import UPath

    from emergencias.plan import Plan
    from emergencias.routes import Routes
    from kafka_io import ClientConfig

RUN = "run"
OTHER_RUN = "otra_ejecucion"
FOREIGN = "ajeno"
TOMBSTONE = "tombstone"
ORPHAN = "huerfano"
"""Classes of records: the run's, another known run's, anybody else's, null values; and records
downstream that claim the run but come from none of its records on T1."""

ID = "coalesce(clave, particion || ':' || posicion)"
"""SQL for how a record is named: id_aviso, or its coordinates if it has no key."""

MEMORY_LIMIT = "256MB"
_CHUNK_ROWS = 10_000
_MADRID = ZoneInfo("Europe/Madrid")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)

_AVISOS = pa.schema(
    [
        ("particion", pa.int32()),
        ("posicion", pa.int64()),
        ("marca_ms", pa.int64()),
        ("clave", pa.string()),
        ("texto", pa.string()),
        ("json", pa.string()),
        ("id_ejecucion", pa.string()),
        ("fecha_us", pa.int64()),
        ("clase", pa.string()),
    ]
)
_ENTREGAS = pa.schema(
    [
        ("topic", pa.string()),
        ("particion", pa.int32()),
        ("posicion", pa.int64()),
        ("marca_ms", pa.int64()),
        ("clave", pa.string()),
        ("t1_particion", pa.int64()),
        ("t1_offset", pa.int64()),
        ("motivo", pa.string()),
        ("origen", pa.string()),
        ("campos", pa.string()),
        ("clase", pa.string()),
    ]
)


@dataclass
class Window:
    """A run's records, in tables of `db`.

    - `avisos`: every record of T1 in the window: coordinates (particion, posicion), marca_ms,
      clave, texto (as ksqlDB decodes it), json (the first JSON value in it, rewritten so that
      names are unique; NULL if ksqlDB does not take the text for JSON), id_ejecucion, fecha_us
      (instant of fecha, NULL if unreadable), clase.
    - `entregas`: the records downstream that belong to the run, with its T1 coordinates; campos is
      the value as JSON, kept only of the topics whose fields are asked for later.
    - `conteos`: topic, clase, n over everything that was read.
    - `huerfanos`: topic, particion, posicion, clave of orphans.
    - `planificados`: id_aviso and n of the plan.

    Attributes:
        db: Connection to a database in a temporary folder.
        topics: T1, then the topics downstream.
        ranges: Per partition the offsets read, from (inclusive) and to (exclusive).
    """

    db: duckdb.DuckDBPyConnection
    topics: tuple[str, ...]
    ranges: dict[Partition, tuple[int, int]] = field(default_factory=dict)

    def scalar(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the one value of a query for one row."""
        # All rows: a result that was not fetched to its end keeps the connection busy.
        return self.db.execute(sql, list(parameters)).fetchall()[0][0]

    def batches(self, sql: str, rows: int = 20_000) -> Iterator[pa.RecordBatch]:
        """Run the query and yield its rows a batch at a time."""
        reader: Any = self.db.sql(sql).to_arrow_reader(rows)
        yield from reader

    def first_ids(self, coordinates: str) -> tuple[str, ...]:
        """Name the first alerts, in T1's order, that a query for T1 coordinates p and o finds."""
        found = self.db.execute(
            f"""
            SELECT {ID} FROM avisos
            SEMI JOIN ({coordinates}) w ON particion = w.p AND posicion = w.o
            ORDER BY particion, posicion LIMIT {FIRST_IDS}
            """
        ).fetchall()
        return tuple(id_ for (id_,) in found)


@contextmanager
def empty_window(topics: Sequence[str], *, memory_limit: str = MEMORY_LIMIT) -> Iterator[Window]:
    """Open a window without records, for `load`.

    Args:
        topics: T1 first.
        memory_limit: What DuckDB may use before it spills to its temporary folder.
    """
    with (
        tempfile.TemporaryDirectory(prefix="emergencias-") as folder,
        duckdb.connect(
            str(Path(folder) / "window.duckdb"),
            config={
                "memory_limit": memory_limit,
                "temp_directory": str(Path(folder) / "spill"),
                "TimeZone": "UTC",
                "autoinstall_known_extensions": "false",
                "threads": "2",
                # Every query that needs an order says so; keeping one costs memory.
                "preserve_insertion_order": "false",
            },
        ) as db,
    ):
        yield Window(db, tuple(topics))


@contextmanager
def open_window(
    config: ClientConfig,
    plan: Plan,
    routes: Routes,
    is_known: Callable[[str], bool],
    *,
    timeout_s: float = 60,
) -> Iterator[Window]:
    """Read the run's window.

    Args:
        config: Settings of the Kafka clients.
        plan: The run's plan.
        routes: The routing table; its topics and the enrichment's are read.
        is_known: Says whether an id_ejecucion is that of another run of this pipeline.
        timeout_s: How long a read may make no progress.

    Raises:
        kafka_io.OffsetsLostError: Records that the plan's offsets point to are gone.
        kafka_io.KafkaIoError: A topic cannot be read to its end.

    Guarantees that every committed record between the window's ends is in the tables, whatever
    its bytes are.
    """
    downstream = tuple(dict.fromkeys((*routes.sinks, model.T2_1)))
    with empty_window((routes.source_topic, *downstream)) as window:
        ends = high_watermarks(config, [routes.source_topic])
        log_starts = log_start_offsets(config, [routes.source_topic])
        starts: Offsets = {
            # A partition that was added after the plan is read whole.
            part: plan.t1_start_offsets.get(str(part[1]), log_starts[part])
            for part in ends
        }
        _refuse_recreated_topic(plan, starts, ends)
        loader = Loader(window, plan, routes, is_known)
        loader.load_t1(_read(config, window, starts, ends, timeout_s))
        first_ms = window.scalar("SELECT min(marca_ms) FROM avisos WHERE clase = ?", [RUN])
        starts = offsets_for_time(
            config, list(downstream), plan.created_ms if first_ms is None else first_ms
        )
        ends = high_watermarks(config, list(downstream))
        loader.load_downstream(_read(config, window, starts, ends, timeout_s))
        yield window


def known_runs(plan: Plan, folder: UPath) -> Callable[[str], bool]:
    """Return a test for the ids of the other runs that this pipeline planned.

    A run is known by its plan, found beside this run's folder.

    Args:
        plan: This run's plan; runs of another instance export elsewhere and stay unknown.
        folder: This run's folder.
    """
    root = str(folder.parent.parent)

    @lru_cache(maxsize=4096)
    def is_known(id_ejecucion: str) -> bool:
        instance, _, rest = id_ejecucion.partition("/")
        dag_id, _, run_id = rest.partition("/")
        if instance != plan.instance or not dag_id or not run_id:
            return False
        other = run_folder(root, dag_id, run_id)
        # A run whose folder no file system takes has no plan; asking for it would raise.
        if max(len(other.name), len(other.parent.name)) > 255:
            return False
        return (other / PLAN_FILE).exists()

    return is_known


def _refuse_recreated_topic(plan: Plan, starts: Offsets, ends: Offsets) -> None:
    for (topic, partition), start in starts.items():
        if start > ends[topic, partition]:
            raise OffsetsLostError(
                f"{topic}-{partition} ends at offset {ends[topic, partition]}, but the plan of "
                f"{plan.id_ejecucion} starts at {start}: the topic was deleted and created anew "
                "after the run was planned, and with it the run's alerts. Start a new run."
            )


def _read(
    config: ClientConfig, window: Window, starts: Offsets, ends: Offsets, timeout_s: float
) -> Iterator[list[Message]]:
    for part, end in ends.items():
        window.ranges[part] = (starts[part], end)
    return read_range(config, starts, ends, timeout_s=timeout_s)


class Loader:
    """Fills a window's tables from records, which may be anything."""

    def __init__(
        self, window: Window, plan: Plan, routes: Routes, is_known: Callable[[str], bool]
    ) -> None:
        self._window = window
        self._id_ejecucion = plan.id_ejecucion
        self._is_known = is_known
        self._t1 = routes.source_topic
        # Only their fields are asked for later; the others are told by their coordinates.
        self._keep_fields = {model.T2_1} | {
            route.source_topic for route in routes.routes if route.source_topic != self._t1
        }
        db = window.db
        db.execute(f"CREATE TABLE avisos ({_columns(_AVISOS)})")
        db.execute(f"CREATE TABLE leidas ({_columns(_ENTREGAS)})")
        db.execute("CREATE TABLE planificados (id_aviso VARCHAR, n BIGINT)")
        planned = pa.schema([("id_aviso", pa.string()), ("n", pa.int64())])
        self._insert("planificados", planned, ((plan.alert_id(n), n) for n in range(plan.alerts)))

    def load_t1(self, batches: Iterable[Sequence[Message]]) -> None:
        """Read T1's records into `avisos`."""
        self._insert("avisos", _AVISOS, (self._aviso(m) for batch in batches for m in batch))
        # An id of the plan belongs to the run, whatever the value says: a second record with it
        # is a doubled alert and must be seen.
        self._window.db.execute(
            "UPDATE avisos SET clase = ? WHERE clase NOT IN (?, ?) "
            "AND clave IN (SELECT id_aviso FROM planificados)",
            [RUN, RUN, TOMBSTONE],
        )

    def load_downstream(self, batches: Iterable[Sequence[Message]]) -> None:
        """Read the other topics' records into `entregas`, `huerfanos` and `conteos`."""
        self._insert("leidas", _ENTREGAS, (self._entrega(m) for batch in batches for m in batch))
        db = self._window.db
        db.execute(
            f"""
            CREATE TABLE repartidas AS
            SELECT e.* EXCLUDE (clase), coalesce(a.clase, e.clase) AS clase,
              e.clase = '{RUN}' AND a.clase IS DISTINCT FROM '{RUN}' AS suelta
            FROM leidas e
            LEFT JOIN avisos a ON a.particion = e.t1_particion AND a.posicion = e.t1_offset
            """
        )
        # A join of its own: two at once would not fit into the memory limit.
        db.execute(
            f"""
            UPDATE repartidas SET clase = '{ORPHAN}'
            WHERE suelta OR (
              clase NOT IN ('{RUN}', '{TOMBSTONE}')
              AND clave IN (SELECT id_aviso FROM planificados)
            )
            """
        )
        db.execute("DROP TABLE leidas")
        db.execute(
            f"""
            CREATE TABLE conteos AS
            SELECT '{self._t1}' AS topic, clase, count(*) AS n FROM avisos GROUP BY ALL
            UNION ALL SELECT topic, clase, count(*) FROM repartidas GROUP BY ALL
            """
        )
        db.execute(
            "CREATE TABLE huerfanos AS SELECT topic, particion, posicion, clave "
            f"FROM repartidas WHERE clase = '{ORPHAN}'"
        )
        db.execute(f"DELETE FROM repartidas WHERE clase <> '{RUN}'")
        db.execute("ALTER TABLE repartidas RENAME TO entregas")

    def _insert(self, table: str, schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> None:
        db = self._window.db
        chunk: list[tuple[Any, ...]] = []

        def flush() -> None:
            if not chunk:
                return
            columns = zip(*chunk, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            db.register("trozo", pa.Table.from_arrays(arrays, schema=schema))
            db.execute(f"INSERT INTO {table} SELECT * FROM trozo")
            db.unregister("trozo")
            chunk.clear()

        # Each chunk commits: one transaction for all would keep every chunk in memory.
        for row in rows:
            chunk.append(row)
            if len(chunk) == _CHUNK_ROWS:
                flush()
        flush()

    def _aviso(self, message: Message) -> tuple[Any, ...]:
        value = message.value()
        head = (message.partition(), message.offset(), message.timestamp()[1], _key(message))
        if value is None:
            return (*head, None, None, None, None, TOMBSTONE)
        normal, parsed = read_json(value)
        alert = parsed if isinstance(parsed, dict) else {}
        id_ejecucion = alert.get("id_ejecucion")
        if not isinstance(id_ejecucion, str):
            id_ejecucion = None
        return (
            *head,
            value.decode("utf-8", "replace"),
            normal,
            id_ejecucion,
            instant_us(alert.get("fecha")),
            self._class_of(id_ejecucion),
        )

    def _entrega(self, message: Message) -> tuple[Any, ...]:
        topic, value = message.topic(), message.value()
        head = (
            topic,
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            _key(message),
        )
        if value is None:
            return (*head, None, None, None, None, None, TOMBSTONE)
        normal, parsed = read_json(value, rewrite=topic in self._keep_fields)
        record = parsed if isinstance(parsed, dict) else {}
        return (
            *head,
            _int64(record.get("T1_PARTICION")),
            _int64(record.get("T1_OFFSET")),
            _text(record.get("MOTIVO")),
            _text(record.get("ORIGEN")),
            normal,
            self._class_of(_text(record.get("ID_EJECUCION"))),
        )

    def _class_of(self, id_ejecucion: str | None) -> str:
        if not id_ejecucion:
            return FOREIGN
        if id_ejecucion == self._id_ejecucion:
            return RUN
        return OTHER_RUN if self._is_known(id_ejecucion) else FOREIGN


def read_json(value: bytes, *, rewrite: bool = True) -> tuple[str | None, Any]:
    """Read a value as ksqlDB's JSON functions do.

    Like them it takes what follows a complete value, lets the last of two equal names win, and
    refuses NaN, a byte-order mark and what is cut off.

    Args:
        value: Any bytes.
        rewrite: Whether the text is wanted, or only the value.

    Returns:
        The JSON value written anew (valid UTF-8, unique names) and parsed; (None, None) for what
        is not JSON.
    """
    try:
        parsed = orjson.loads(value)
        return orjson.dumps(parsed).decode() if rewrite else None, parsed
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    try:
        text = value.decode("utf-8", "replace").lstrip(" \t\r\n")
        parsed, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)
        if not isinstance(parsed, dict | list | str) and text[end : end + 1].strip(" \t\r\n,]}:"):
            return None, None
        # Half a surrogate pair is valid in JSON text but not in UTF-8; Java writes '?' for it too.
        normal = (
            json.dumps(parsed, ensure_ascii=False, allow_nan=False)
            .encode("utf-8", "replace")
            .decode()
        )
        return normal if rewrite else None, json.loads(normal)
    except (ValueError, RecursionError):
        return None, None


def instant_us(fecha: Any) -> int | None:
    """Return fecha's instant in microseconds since 1970, None if it cannot be read.

    A time without offset, as the original system sent them, is Spanish peninsular time.
    """
    if not isinstance(fecha, str):
        return None
    try:
        moment = datetime.fromisoformat(fecha)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=_MADRID)
        return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _key(message: Message) -> str | None:
    key = message.key()
    if key is None:
        return None
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _int64(value: Any) -> int | None:
    return value if type(value) is int and value in _INT64 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _columns(schema: pa.Schema) -> str:
    kinds = {pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.string(): "VARCHAR"}
    return ", ".join(f"{column.name} {kinds[column.type]}" for column in schema)
