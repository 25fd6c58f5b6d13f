"""Checks that a run's written files tell what the topics hold."""

# ruff: noqa: S608 (the SQL is built of constants and quoted names, for a private database)

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from emergencias import model
from emergencias.export import ALERTS_JSON, ALERTS_PARQUET, DELIVERIES_PARQUET, MEDICAL_JSON
from emergencias.manifest import Check, FileEntry
from emergencias.window import RUN, Window

if TYPE_CHECKING:
    from upath import UPath

    from emergencias.routes import Routes


def check_file(window: Window, routes: Routes, path: UPath) -> tuple[FileEntry | None, Check]:
    """Read a file of the run back, with a reader of another make than its writer.

    Args:
        window: What the topics hold.
        routes: The routing table.
        path: One of the files that `emergencias.export` writes.

    Returns:
        The file's entry for the manifest, None if it cannot be read; and whether it tells each
        alert, or delivery, of the window once and nothing else.
    """
    run = (
        "SELECT particion AS p, posicion AS o, '' AS t, clave AS id FROM avisos "
        f"WHERE clase = '{RUN}'"
    )
    sent = "SELECT t1_particion AS p, t1_offset AS o, {} AS t, clave AS id FROM entregas"
    medical = f"{sent.format(repr(''))} WHERE topic = '{model.T2_1}'"
    parquet = (
        "SELECT t1_particion AS p, t1_offset AS o, {} AS t, id_aviso AS id FROM read_parquet(?)"
    )
    array = (
        "SELECT {0} AS p, {1} AS o, '' AS t, {2} AS id FROM read_json(?, format = 'array', "
        "columns = {{'{0}': 'BIGINT', '{1}': 'BIGINT', '{2}': 'VARCHAR'}})"
    )
    names = ("t1_particion", "t1_offset", "id_aviso")
    topics, expected, reading = {
        ALERTS_JSON: ((routes.source_topic,), run, array.format(*names)),
        MEDICAL_JSON: ((model.T2_1,), medical, array.format(*map(str.upper, names))),
        ALERTS_PARQUET: ((routes.source_topic,), run, parquet.format(repr(""))),
        DELIVERIES_PARQUET: (window.topics[1:], sent.format("topic"), parquet.format("topic")),
    }[path.name]
    wanted = window.scalar(f"SELECT count(*) FROM ({expected})")

    def failed(found: int, detail: str, first_ids: tuple[str, ...] = ()) -> Check:
        return Check(
            name=f"{path.name} tells every alert once",
            ok=False,
            expected=wanted,
            found=found,
            topics=topics,
            first_ids=first_ids,
            detail=detail,
        )

    with tempfile.TemporaryDirectory(prefix="emergencias-") as folder:
        # A local copy: DuckDB would take some characters of the folder's name for wildcards.
        copy = Path(folder) / "file"
        try:
            size, sha256, last = _copy(path, copy)
        except FileNotFoundError:
            return None, failed(0, f"{path} is missing; clear the task export_results")
        try:
            window.db.execute(f"CREATE OR REPLACE TEMP TABLE fichero AS {reading}", [str(copy)])
        except duckdb.Error as error:
            reason = str(error).replace(str(copy), path.name).splitlines()[0]
            return None, failed(0, f"cannot be read back: {reason}")
    rows = window.scalar("SELECT count(*) FROM fichero")
    entry = FileEntry(name=path.name, rows=rows, size=size, sha256=sha256)
    if path.suffix == ".json" and last != b"]":
        return entry, failed(rows, "is cut off: the list does not end")
    wrong = f"""
        SELECT p, o FROM (
          SELECT p, o, t, hash(id) AS h, 1 AS n FROM ({expected})
          UNION ALL SELECT p, o, t, hash(id), -1 FROM fichero
        ) GROUP BY p, o, t, h HAVING sum(n) <> 0
    """
    differences = window.scalar(f"SELECT count(*) FROM ({wrong})")
    if differences or rows != wanted:
        return entry, failed(
            rows,
            f"{differences} alert(s) missing, twice or not this run's",
            window.first_ids(wrong),
        )
    check = Check(
        name=f"{path.name} tells every alert once",
        ok=True,
        expected=wanted,
        found=rows,
        topics=topics,
    )
    return entry, check


def _copy(source: UPath, target: Path) -> tuple[int, str, bytes]:
    """Copy a file; return its size, SHA-256 and last byte."""
    digest, size, last = hashlib.sha256(), 0, b""
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(1 << 20):
            digest.update(block)
            writing.write(block)
            size += len(block)
            last = block[-1:]
    return size, digest.hexdigest(), last
