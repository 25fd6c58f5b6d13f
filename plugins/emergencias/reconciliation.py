"""Proves that a run lost no alert and doubled none, from the plan to the written files."""

# ruff: noqa: S608 (the SQL is built of constants and quoted names, for a private database)

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emergencias import model
from emergencias.export import FILES
from emergencias.file_check import check_file
from emergencias.manifest import (
    FIRST_IDS,
    Check,
    FileEntry,
    Manifest,
    OffsetRange,
    Review,
    TopicCount,
    software_versions,
    write_manifest,
)
from emergencias.plan import PLAN_FILE
from emergencias.routes import IS_JSON, JSON_KEYS, Route, Routes, load_routes
from emergencias.window import (
    FOREIGN,
    ID,
    ORPHAN,
    OTHER_RUN,
    RUN,
    TOMBSTONE,
    Window,
    known_runs,
    open_window,
)

if TYPE_CHECKING:
    from upath import UPath

    from emergencias.plan import Plan
    from kafka_io import ClientConfig


def reconcile_run(
    config: ClientConfig,
    plan: Plan,
    folder: UPath,
    *,
    is_known: Callable[[str], bool] | None = None,
    timeout_s: float = 60,
) -> Manifest:
    """Check a run against its plan and write its manifest, whether the checks hold or not.

    Args:
        config: Settings of the Kafka clients.
        plan: The run's plan; everything is counted from it, and the conditions of the routing SQL
            in it are evaluated again by a second engine.
        folder: The run's folder, with the files that `export_run` wrote.
        is_known: Whether an id_ejecucion is another run's; by default, if it has a plan.
        timeout_s: How long a read may make no progress.

    Returns:
        The manifest; call its `raise_if_failed`.

    Raises:
        emergencias.routes.RoutingSqlError: A condition of the routing SQL cannot be checked.
        kafka_io.KafkaIoError: A topic cannot be read to its end.

    Guarantees that it changes no topic and may be repeated. Records of others in the window are
    counted and break nothing. An alert of the run that a person corrected and sent to T1 again is
    one of them ("ajeno") if it has neither the key nor the id_ejecucion of the old record; with
    either it is the run's, and an alert too many.
    """
    routes = load_routes(plan.routing_sql)
    known = is_known or known_runs(plan, folder)
    with open_window(config, plan, routes, known, timeout_s=timeout_s) as window:
        manifest = reconcile_window(window, plan, routes, folder)
    write_manifest(manifest, folder)
    return manifest


def reconcile_window(window: Window, plan: Plan, routes: Routes, folder: UPath) -> Manifest:
    """Check a window that was read already and the files in `folder`; see `reconcile_run`."""
    checks = _Checks(window, plan, routes).run()
    files: list[FileEntry] = []
    for name in (name for kind in plan.params.formats for name in FILES[kind.value]):
        entry, check = check_file(window, routes, folder / name)
        files += [] if entry is None else [entry]
        checks.append(check)
    return Manifest(
        generated_at=datetime.now(UTC),
        ok=all(check.ok for check in checks),
        id_ejecucion=plan.id_ejecucion,
        instance=plan.instance,
        dag_id=plan.dag_id,
        run_id=plan.run_id,
        plan_sha256=hashlib.sha256((folder / PLAN_FILE).read_bytes()).hexdigest(),
        alerts=plan.alerts,
        input=None if plan.input is None else plan.input.report,
        topics=_topic_counts(window, checks),
        review=_review(window),
        checks=tuple(checks),
        files=tuple(files),
        offsets=tuple(
            OffsetRange(topic=topic, partition=partition, start=start, end=end)
            for (topic, partition), (start, end) in sorted(window.ranges.items())
        ),
        versions=software_versions(),
    )


@dataclass
class _Checks:
    window: Window
    plan: Plan
    routes: Routes

    def run(self) -> list[Check]:
        self._prepare()
        t1, t2, t3 = self.routes.source_topic, model.T2, model.T3
        first = tuple(route.sink_topic for route in self.routes.reading(t1))
        third = tuple(route.sink_topic for route in self.routes.reading(t3))
        checks = self._intake()
        checks += self._one_of(t1, "SELECT particion AS p, posicion AS o FROM del_run", first)
        checks += self._one_of(
            t2,
            f"SELECT p, o FROM llegadas WHERE etiqueta = '{t2}'",
            (model.T2_1, model.T2_2, _t4_from_t2()),
        )
        checks.append(
            self._never(
                f"every {t3} alert reaches somebody",
                f"""
                SELECT p, o FROM llegadas WHERE etiqueta = '{t3}'
                EXCEPT SELECT p, o FROM llegadas WHERE {_in("etiqueta", third)}
                """,
                (t3, *third),
                "in none of them",
            )
        )
        for source in dict.fromkeys(route.source_topic for route in self.routes.routes):
            checks += self._complete(source, self.routes.reading(source))
        checks += self._no_duplicates()
        checks.append(self._addresses())
        checks.append(self._orphans())
        return checks

    def _prepare(self) -> None:
        db = self.window.db
        db.execute(
            f"CREATE OR REPLACE TEMP VIEW del_run AS SELECT * FROM avisos WHERE clase = '{RUN}'"
        )
        db.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE llegadas AS
            SELECT t1_particion AS p, t1_offset AS o,
              CASE WHEN topic = '{model.T4}' AND origen = '{model.T2}'
                THEN '{_t4_from_t2()}' ELSE topic END AS etiqueta,
              count(*) AS n
            FROM entregas GROUP BY ALL
            """
        )

    def _intake(self) -> list[Check]:
        t1 = (self.routes.source_topic,)
        missing = """
            SELECT id_aviso AS id, n FROM planificados
            WHERE id_aviso NOT IN (SELECT clave FROM del_run WHERE clave IS NOT NULL)
        """
        repeated = """
            SELECT clave AS id, min(n) AS n, count(*) - 1 AS extra
            FROM del_run JOIN planificados ON id_aviso = clave GROUP BY clave HAVING count(*) > 1
        """
        lost = self.window.scalar(f"SELECT count(*) FROM ({missing})")
        doubled = self.window.scalar(f"SELECT coalesce(sum(extra), 0) FROM ({repeated})")
        return [
            Check(
                name="every planned alert was received",
                ok=lost == 0,
                expected=self.plan.alerts,
                found=self.plan.alerts - lost,
                topics=t1,
                first_ids=self._ids(f"SELECT id FROM ({missing}) ORDER BY n"),
                detail=f"{lost} missing" if lost else "",
            ),
            Check(
                name="no planned alert was received twice",
                ok=doubled == 0,
                expected=0,
                found=int(doubled),
                topics=t1,
                first_ids=self._ids(f"SELECT id FROM ({repeated}) ORDER BY n"),
                detail=f"{doubled} record(s) too many" if doubled else "",
            ),
            self._never(
                "nothing but planned alerts was received",
                "SELECT particion AS p, posicion AS o FROM del_run "
                "WHERE clave IS NULL OR clave NOT IN (SELECT id_aviso FROM planificados)",
                t1,
                "with the run's id_ejecucion, but not planned",
            ),
        ]

    def _one_of(self, source: str, base: str, labels: Sequence[str]) -> list[Check]:
        """Every record of `base` is in exactly one of the labels."""
        counted = f"""
            SELECT b.p, b.o, count(l.etiqueta) AS k
            FROM ({base}) b LEFT JOIN llegadas l
              ON l.p = b.p AND l.o = b.o AND {_in("l.etiqueta", labels)}
            GROUP BY b.p, b.o
        """
        names = ", ".join(labels)
        topics = (source, *_topics_of(labels))
        return [
            self._never(
                f"every {source} record is in one of {names}",
                f"SELECT p, o FROM ({counted}) WHERE k = 0",
                topics,
                "in none of them",
            ),
            self._never(
                f"no {source} record is in two of {names}",
                f"SELECT p, o FROM ({counted}) WHERE k > 1",
                topics,
                "in several of them",
            ),
        ]

    def _complete(self, source: str, routes: Sequence[Route]) -> list[Check]:
        """Each route's sink holds what the route's condition picks from the source, no more."""
        answers = ", ".join(
            f"bool_or({route.predicate.sql}) AS r{n}" for n, route in enumerate(routes)
        )
        self.window.db.execute(
            f"CREATE OR REPLACE TEMP TABLE esperadas AS "
            f"SELECT p, o, {answers} FROM ({source_rows(self.routes, source)}) GROUP BY p, o"
        )
        checks = []
        for n, route in enumerate(routes):
            expected = f"SELECT p, o FROM esperadas WHERE r{n}"
            found = f"SELECT p, o FROM llegadas WHERE etiqueta = '{route.sink_topic}'"
            missing, extra = f"{expected} EXCEPT {found}", f"{found} EXCEPT {expected}"
            lost = self.window.scalar(f"SELECT count(*) FROM ({missing})")
            added = self.window.scalar(f"SELECT count(*) FROM ({extra})")
            wrong = f"({missing}) UNION ALL ({extra})"
            checks.append(
                Check(
                    name=f"{route.sink_topic} holds what {route.file} picks",
                    ok=lost == 0 and added == 0,
                    expected=self.window.scalar(f"SELECT count(*) FROM ({expected})"),
                    found=self.window.scalar(f"SELECT count(*) FROM ({found})"),
                    topics=(route.sink_topic,),
                    first_ids=self.window.first_ids(wrong) if lost or added else (),
                    detail=f"{lost} missing, {added} not expected" if lost or added else "",
                )
            )
        return checks

    def _no_duplicates(self) -> list[Check]:
        checks = []
        for topic in self.window.topics[1:]:
            where = _in("etiqueta", (topic, _t4_from_t2()) if topic == model.T4 else (topic,))
            rows, alerts = self.window.db.execute(
                f"SELECT coalesce(sum(n), 0), count(*) FROM llegadas WHERE {where}"
            ).fetchall()[0]
            checks.append(
                Check(
                    name=f"no alert is twice in {topic}",
                    ok=rows == alerts,
                    expected=alerts,
                    found=int(rows),
                    topics=(topic,),
                    first_ids=self.window.first_ids(
                        f"SELECT p, o FROM llegadas WHERE n > 1 AND {where}"
                    ),
                    detail="" if rows == alerts else f"{rows - alerts} record(s) too many",
                )
            )
        return checks

    def _addresses(self) -> Check:
        rows = f"""
            SELECT t1_particion AS p, t1_offset AS o, json_extract_string(campos,
              ['$."DIRECCION"', '$."DIRECCION_FUENTE"', '$."DIRECCION_MOTIVO"']) AS d
            FROM entregas WHERE topic = '{model.T2_1}'
        """
        told = (
            "coalesce((trim(d[1]) <> '' AND trim(d[2]) <> '') "
            "OR (d[1] IS NULL AND trim(d[3]) <> ''), FALSE)"
        )
        expected = self.window.scalar(f"SELECT count(*) FROM ({rows})")
        found = self.window.scalar(f"SELECT count(*) FROM ({rows}) WHERE {told}")
        return Check(
            name="every medical alert has an address or the reason why not",
            ok=expected == found,
            expected=expected,
            found=found,
            topics=(model.T2_1,),
            first_ids=self.window.first_ids(f"SELECT p, o FROM ({rows}) WHERE NOT {told}"),
            detail=""
            if expected == found
            else f"{expected - found} without DIRECCION and DIRECCION_FUENTE, or DIRECCION_MOTIVO",
        )

    def _orphans(self) -> Check:
        found = self.window.scalar("SELECT count(*) FROM huerfanos")
        topics = self.window.db.execute(
            "SELECT DISTINCT topic FROM huerfanos ORDER BY topic"
        ).fetchall()
        return Check(
            name="every routed record comes from a received alert",
            ok=found == 0,
            expected=0,
            found=found,
            topics=tuple(topic for (topic,) in topics) or self.window.topics[1:],
            first_ids=self._ids(
                f"SELECT topic || ' ' || {ID} FROM huerfanos ORDER BY topic, particion, posicion"
            ),
            detail="they claim this run but point to none of its alerts" if found else "",
        )

    def _never(self, name: str, wrong: str, topics: tuple[str, ...], problem: str) -> Check:
        found = self.window.scalar(f"SELECT count(*) FROM ({wrong})")
        return Check(
            name=name,
            ok=found == 0,
            expected=0,
            found=found,
            topics=topics,
            first_ids=self.window.first_ids(wrong) if found else (),
            detail=f"{found} {problem}" if found else "",
        )

    def _ids(self, sql: str) -> tuple[str, ...]:
        return tuple(
            str(i) for (i,) in self.window.db.execute(f"{sql} LIMIT {FIRST_IDS}").fetchall()
        )


def source_rows(routes: Routes, source: str) -> str:
    """Return the query for the run's records on a topic, as the topic's routes see them.

    Args:
        routes: The routing table.
        source: T1 or a topic that the SQL writes.

    Returns:
        SQL over a window's tables, with the T1 coordinates p and o and every column that a
        condition over this topic reads.
    """
    columns = sorted({name for route in routes.reading(source) for name in route.predicate.columns})
    given = {"ROWTIME": "marca_ms", "ROWPARTITION": "particion", "ROWOFFSET": "posicion"}
    if source == routes.source_topic:
        key, text = routes.source_columns
        given |= {
            key: "clave",
            text: "texto",
            IS_JSON: "json IS NOT NULL",
            JSON_KEYS: "CASE WHEN json_type(json) = 'OBJECT' THEN json_keys(json) END",
        }
        table, coordinates, value = "avisos", "particion AS p, posicion AS o", "json"
        where = f"clase = '{RUN}'"
    else:
        given["ID_AVISO"] = "clave"
        table, coordinates, value = "entregas", "t1_particion AS p, t1_offset AS o", "campos"
        where = f"topic = {_text(source)}"
    paths = [name for name in columns if name not in given]
    listed = ", ".join(_text(name if name.startswith("$") else f'$."{name}"') for name in paths)
    # One look into the JSON a record, however many fields.
    fields = f", json_extract_string({value}, [{listed}]) AS c" if paths else ""
    selected = [f"{given[name]} AS {_quoted(name)}" for name in columns if name in given]
    selected += [f"c[{n}] AS {_quoted(name)}" for n, name in enumerate(paths, 1)]
    return (
        f"SELECT {', '.join([coordinates, *selected])} "
        f"FROM (SELECT *{fields} FROM {table} WHERE {where})"
    )


def _topic_counts(window: Window, checks: Sequence[Check]) -> tuple[TopicCount, ...]:
    counted = {
        (topic, kind): n
        for topic, kind, n in window.db.execute("SELECT topic, clase, n FROM conteos").fetchall()
    }
    return tuple(
        TopicCount(
            topic=topic,
            run=counted.get((topic, RUN), 0),
            otras_ejecuciones=counted.get((topic, OTHER_RUN), 0),
            # An orphan is nobody's alert; a check of its own makes the run red.
            ajenos=counted.get((topic, FOREIGN), 0) + counted.get((topic, ORPHAN), 0),
            tombstones=counted.get((topic, TOMBSTONE), 0),
            ok=all(check.ok for check in checks if topic in check.topics),
        )
        for topic in sorted(window.topics, key=lambda name: name.split("_")[0])
    )


def _review(window: Window) -> Review:
    where = f"FROM entregas WHERE topic = '{model.T4}'"
    motivos = window.db.execute(
        f"SELECT coalesce(motivo, 'sin motivo') AS m, count(*) {where} GROUP BY m ORDER BY m"
    ).fetchall()
    return Review(
        alerts=sum(n for _, n in motivos),
        first_ids=window.first_ids(f"SELECT t1_particion AS p, t1_offset AS o {where}"),
        motivos=dict(motivos),
    )


def _t4_from_t2() -> str:
    """Return the label of T4's records that the enrichment wrote; the SQL writes the others."""
    return f"{model.T4} from {model.T2}"


def _in(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(_text, values))})"


def _topics_of(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(model.T4 if label == _t4_from_t2() else label for label in labels)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
