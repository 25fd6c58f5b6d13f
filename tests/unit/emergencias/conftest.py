"""A run as it looks on the topics, routed by hand, for the tests of export and reconciliation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Message
from upath import UPath

from emergencias import model
from emergencias.params import RunParams
from emergencias.plan import PLAN_FILE, Interval, Plan
from emergencias.routes import Routes, load_routes
from emergencias.settings import PROJECT_ROOT
from emergencias.window import Loader, Window, empty_window

BODIES = {
    "Bomberos": "T3.2_Bomberos",
    "Forestales": "T3.3_Forestales",
    "Guardia Costera": "T3.4_Guardia_Costera",
    "Policia": "T3.5_Policia",
    "Servicios de emergencia": "T3.6_Servicios_de_emergencia",
}
MEDICAL = ("Ambulancia", "Medicos")


@dataclass
class Record:
    """A record to be; what it becomes is a `Message`."""

    topic: str
    value: bytes | None
    key: bytes | None
    timestamp_ms: int
    partition: int = 0


@dataclass
class Corpus:
    """T1's records and what follows from them downstream; tests break it on purpose."""

    plan: Plan
    t1: list[Record] = field(default_factory=list)
    downstream: list[Record] = field(default_factory=list)

    def receive(self, value: bytes | None, key: bytes | None = None, *, route: bool = True) -> None:
        """Put a record on T1 and, as the SQL and the enrichment would, on the topics after it."""
        partition = len(self.t1) % 3
        offset = sum(record.partition == partition for record in self.t1)
        record = Record(model.T1, value, key, self.plan.created_ms + len(self.t1), partition)
        self.t1.append(record)
        if route and value is not None:
            self.downstream.extend(routed_by_hand(record, partition, offset))

    def receive_plan(self, alerts: list[dict[str, Any]]) -> None:
        """Put the planned alerts on T1."""
        for n, alert in enumerate(alerts):
            value = model.encode_alert(alert, self.plan.id_ejecucion)
            self.receive(value, self.plan.alert_id(n).encode())

    def on(self, topic: str) -> list[Record]:
        return [record for record in self.downstream if record.topic == topic]

    def drop(self, topic: str, position: int = 0) -> Record:
        """Lose one record of a topic."""
        record = self.on(topic)[position]
        # By identity: a doubled record is equal to its original.
        index = next(i for i, other in enumerate(self.downstream) if other is record)
        return self.downstream.pop(index)


def routed_by_hand(record: Record, partition: int, offset: int) -> list[Record]:
    """Say where a record of T1 goes, in plain Python; no code of the product is used."""
    text = (record.value or b"").decode("utf-8", "replace")
    try:
        alert = orjson.loads(text)
    except orjson.JSONDecodeError:
        alert = None
    alert = alert if isinstance(alert, dict) else {}

    def to(topic: str, value: dict[str, Any]) -> Record:
        return Record(topic, orjson.dumps(value), record.key, record.timestamp_ms)

    names = (
        "tipo_emergencia",
        "grado",
        "cuerpo_necesario",
        "localizacion",
        "fecha",
        "requiere_medico",
        "contacto",
        "id_ejecucion",
        "codigo_provincia",
        "latitud",
        "longitud",
        "precision_m",
        "id_incidente",
    )
    columns = {
        name.upper(): None if alert.get(name) is None else str(alert[name]) for name in names
    }
    coordinates = {"T1_PARTICION": partition, "T1_OFFSET": offset}
    routed = {**columns, **coordinates}
    grado, doctor, body = (columns[n] for n in ("GRADO", "REQUIERE_MEDICO", "CUERPO_NECESARIO"))
    ambulance = doctor == "Si" or body in MEDICAL
    if grado in ("Urgente", "Urgencia extrema"):
        found = [to(model.T2, routed)]
        if ambulance:
            address = {
                "DIRECCION": f"Calle Mayor {offset + 1}, 28013 Madrid",
                "DIRECCION_FUENTE": "simulada",
                "DIRECCION_MOTIVO": None,
            }
            found.append(to(model.T2_1, {**routed, **address}))
            if body is not None and body not in MEDICAL:
                found.append(to(model.T2_3, routed))
        else:
            found.append(to(model.T2_2, routed))
        return found
    served = doctor == "Si" or body in BODIES or body in MEDICAL
    if grado in ("Leve", "Moderado") and doctor in ("Si", "No") and served:
        found = [to(model.T3, routed)]
        if ambulance:
            found.append(to("T3.1_Medicos", routed))
        if body in BODIES:
            found.append(to(BODIES[str(body)], routed))
        return found
    motivo = "grado desconocido" if alert else "JSON no valido"
    review = {"MOTIVO": motivo, "ORIGEN": model.T1, "TEXTO": text, **coordinates}
    return [to(model.T4, review)]


def messages(records: list[Record]) -> Iterator[list[Message]]:
    """Give the records offsets, as a broker does, and yield them in batches."""
    ends: dict[tuple[str, int], int] = {}
    batch = []
    for record in records:
        offset = ends.get((record.topic, record.partition), 0)
        ends[record.topic, record.partition] = offset + 1
        batch.append(
            Message(
                topic=record.topic,
                partition=record.partition,
                offset=offset,
                key=record.key,
                value=record.value,
                timestamp=(1, record.timestamp_ms),
                headers=[],
            )
        )
    for start in range(0, len(batch), 7):
        yield batch[start : start + 7]


ALERTS: list[dict[str, Any]] = [
    {
        "tipo_emergencia": "Incendios",
        "cuerpo_necesario": body,
        "grado": grado,
        "localizacion": "Cádiz «centro»",
        # Later alerts come first: what is exported must be sorted.
        "fecha": f"2024-06-{28 - n % 28:02}T10:00:00+02:00",
        "requiere_medico": doctor,
        "contacto": "+34600000000",
        "codigo_provincia": "11",
        "latitud": 36.5,
        "longitud": -6.25,
        "precision_m": 18,
        "id_incidente": f"{n // 2:016x}",
    }
    for n, (grado, doctor, body) in enumerate(
        (grado, doctor, body)
        for grado in ("Leve", "Moderado", "Urgente", "Urgencia extrema")
        for doctor in ("Si", "No")
        for body in ("Ambulancia", "Medicos", "Policia", "GEOs", *BODIES)
        if not (grado in ("Leve", "Moderado") and doctor == "No" and body == "GEOs")
    )
]


@pytest.fixture(scope="session")
def routing_sql() -> dict[str, str]:
    """The project's own SQL files."""
    folder = PROJECT_ROOT / "include" / "ksql"
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.sql")}


@pytest.fixture(scope="session")
def routes(routing_sql: dict[str, str]) -> Routes:
    """The project's own routing."""
    return load_routes(routing_sql)


@pytest.fixture(scope="session")
def new_corpus(routing_sql: dict[str, str]) -> Callable[..., Corpus]:
    """Plan a run of the given alerts and put them where they belong."""

    def make(alerts: list[dict[str, Any]] | None = None, run_id: str = "run/1", **params: Any):
        alerts = ALERTS if alerts is None else alerts
        plan = Plan(
            id_ejecucion=f"local/emergencias_112/{run_id}",
            instance="local",
            dag_id="emergencias_112",
            run_id=run_id,
            created_at=datetime(2026, 3, 1, tzinfo=UTC),
            created_ms=1_772_323_200_000,
            params=RunParams(alerts=len(alerts) or 1, **params),
            seed=1,
            interval=Interval(
                start=datetime(2026, 2, 28, tzinfo=UTC), end=datetime(2026, 3, 1, tzinfo=UTC)
            ),
            alerts=len(alerts),
            input=None,
            id_recipe=model.ID_RECIPE,
            t1_start_offsets={"0": 0, "1": 0, "2": 0},
            routing_sql=routing_sql,
        )
        corpus = Corpus(plan)
        corpus.receive_plan(alerts)
        return corpus

    return make


@pytest.fixture
def corpus(new_corpus: Callable[..., Corpus]) -> Corpus:
    """A run without fault that has every kind of alert."""
    return new_corpus()


@pytest.fixture(scope="session")
def read_window(routes: Routes) -> Callable[..., AbstractContextManager[Window]]:
    """Read a corpus as a window is read from the broker."""

    @contextmanager
    def read(corpus: Corpus, is_known: Callable[[str], bool] = lambda _: False) -> Iterator[Window]:
        topics = (model.T1, *dict.fromkeys((*routes.sinks, model.T2_1)))
        with empty_window(topics) as window:
            loader = Loader(window, corpus.plan, routes, is_known)
            loader.load_t1(messages(corpus.t1))
            loader.load_downstream(messages(corpus.downstream))
            yield window

    return read


@pytest.fixture
def folder(tmp_path: Path, corpus: Corpus) -> UPath:
    """The run's folder, with its plan."""
    folder = UPath(tmp_path / "exports" / "emergencias_112" / "run%2F1")
    folder.mkdir(parents=True)
    (folder / PLAN_FILE).write_text(corpus.plan.model_dump_json(indent=2) + "\n")
    return folder
