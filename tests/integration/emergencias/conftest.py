"""A plan, the pipeline's topics and readers for the tests of the domain on a real broker."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaError, Message, Producer
from upath import UPath

from emergencias import model
from emergencias.params import RunParams
from emergencias.plan import PLAN_FILE, Interval, Plan, make_plan, run_folder
from emergencias.settings import PROJECT_ROOT, Settings
from kafka_io import (
    BrokerUnavailableError,
    ensure_topics,
    high_watermarks,
    load_catalogue,
    log_start_offsets,
    read_range,
)

INTERVAL_END = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def kafka(bootstrap_servers: str) -> dict[str, Any]:
    """Client settings of a broker that has the catalogue's topics."""
    config = {"bootstrap.servers": bootstrap_servers}
    ensure_topics(config, load_catalogue(PROJECT_ROOT / "include/kafka/topics.yaml"))
    return config


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(export_root=str(tmp_path / "exports"))


@pytest.fixture
def new_plan(kafka: dict[str, Any], settings: Settings) -> Callable[..., Plan]:
    """Plan a run of its own id."""

    def plan(run_id: str | None = None, retention_ms: int = 2_592_000_000, **params: Any) -> Plan:
        return make_plan(
            kafka,
            settings,
            dag_id="emergencias_112",
            run_id=run_id or f"test-{uuid.uuid4()}",
            params=RunParams.parse(params),
            interval_end=INTERVAL_END,
            retention_ms=retention_ms,
        )

    return plan


@pytest.fixture
def keys_on(kafka: dict[str, Any]) -> Callable[[str], Counter[str]]:
    """Count the keys of all committed records of a topic."""

    def count(topic: str) -> Counter[str]:
        batches = read_range(
            kafka, log_start_offsets(kafka, [topic]), high_watermarks(kafka, [topic]), timeout_s=30
        )
        return Counter((m.key() or b"").decode() for batch in batches for m in batch)

    return count


def _wait_for_leaders(bootstrap_servers: str, topics: list[str]) -> None:
    """Return when every partition answers: metadata may name a leader that is not one yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            high_watermarks({"bootstrap.servers": bootstrap_servers}, topics)
        except BrokerUnavailableError:
            if time.monotonic() > deadline:
                raise
        else:
            return


@pytest.fixture
def own_topics(bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make topics that no stream query reads.

    What a test routes by hand would otherwise be routed again by the engine, if one runs.
    Returns the name that a topic of the catalogue has here.
    """
    tag = uuid.uuid4().hex[:8]
    catalogue = load_catalogue(PROJECT_ROOT / "include/kafka/topics.yaml")
    names = {spec.name: f"{spec.name}-{tag}" for spec in catalogue}
    ensure_topics(
        {"bootstrap.servers": bootstrap_servers},
        [replace(spec, name=names[spec.name]) for spec in catalogue],
    )
    _wait_for_leaders(bootstrap_servers, list(names.values()))
    for constant in ("T1", "T2", "T2_1", "T2_2", "T2_3", "T3", "T4"):
        monkeypatch.setattr(model, constant, names[getattr(model, constant)])
    return names.__getitem__


ALERTS: list[tuple[str, str, str, tuple[str, ...]]] = [
    # grado, requiere_medico, cuerpo_necesario, and where the alert goes after T1
    ("Urgente", "Si", "Ambulancia", ("T2_Centro_112", "T2.1_Sanitarios_112")),
    (
        "Urgencia extrema",
        "Si",
        "Bomberos",
        ("T2_Centro_112", "T2.1_Sanitarios_112", "T2.3_Cuerpos_112"),
    ),
    ("Urgente", "No", "GEOs", ("T2_Centro_112", "T2.2_Centro_de_mando")),
    ("Leve", "Si", "Policia", ("T3_No_Urgencias", "T3.1_Medicos", "T3.5_Policia")),
    ("Moderado", "No", "Bomberos", ("T3_No_Urgencias", "T3.2_Bomberos")),
    ("Moderado", "No", "Ambulancia", ("T3_No_Urgencias", "T3.1_Medicos")),
    ("Leve", "No", "UME", ("T4_Revision_manual",)),
]


class HandRouted:
    """A run that a test sends to T1 and, in the engine's stead, to the topics after it."""

    def __init__(self, config: dict[str, Any], own: Callable[[str], str], tmp_path: Path) -> None:
        self.config = config
        self._own = own
        self._exports = str(tmp_path / "exports")

    @cached_property
    def routing_sql(self) -> dict[str, str]:
        """The project's SQL over the topics of this test."""
        return {
            path.name: re.sub(
                r"'(T\d[\w.]*)'", lambda name: f"'{self._own(name[1])}'", path.read_text("utf-8")
            )
            for path in (PROJECT_ROOT / "include" / "ksql").glob("*.sql")
        }

    def plan(self, run_id: str, alerts: int = 3 * len(ALERTS)) -> tuple[Plan, UPath]:
        """Plan a run at T1's present end and write its plan."""
        now = datetime.now(UTC)
        plan = Plan(
            id_ejecucion=f"local/emergencias_112/{run_id}",
            instance="local",
            dag_id="emergencias_112",
            run_id=run_id,
            created_at=now,
            created_ms=int(now.timestamp() * 1000),
            params=RunParams(alerts=alerts),
            seed=1,
            interval=Interval(start=INTERVAL_END - timedelta(days=1), end=INTERVAL_END),
            alerts=alerts,
            input=None,
            id_recipe=model.ID_RECIPE,
            t1_start_offsets={
                str(partition): offset
                for (_, partition), offset in high_watermarks(self.config, [model.T1]).items()
            },
            routing_sql=self.routing_sql,
        )
        folder = run_folder(self._exports, plan.dag_id, run_id)
        folder.mkdir(parents=True)
        (folder / PLAN_FILE).write_text(plan.model_dump_json(indent=2) + "\n")
        return plan, folder

    def send(
        self, plan: Plan, sequences: Iterable[int], lose: tuple[int, str] | None = None
    ) -> None:
        """Send these alerts of the plan; `lose` is a sequence and a topic that will not get it."""
        for n in sequences:
            grado, doctor, body, topics = ALERTS[n % len(ALERTS)]
            alert = {
                "tipo_emergencia": "Rescates",
                "cuerpo_necesario": body,
                "grado": grado,
                "localizacion": "Cádiz",
                "fecha": f"2026-02-28T{23 - n % 24:02}:00:00+01:00",
                "requiere_medico": doctor,
                "contacto": "+34600000000",
                "latitud": 36.5,
                "longitud": -6.25,
            }
            key = plan.alert_id(n).encode()
            partition, offset, timestamp = self.put(
                model.T1, model.encode_alert(alert, plan.id_ejecucion), key
            )
            coordinates = {"T1_PARTICION": partition, "T1_OFFSET": offset}
            routed = {name.upper(): value for name, value in alert.items()} | coordinates
            routed["ID_EJECUCION"] = plan.id_ejecucion
            address = {"DIRECCION": None, "DIRECCION_FUENTE": None, "DIRECCION_MOTIVO": "sin datos"}
            review = {"MOTIVO": "ningun cuerpo lo atiende", "ORIGEN": model.T1} | coordinates
            values = {"T2.1_Sanitarios_112": routed | address, "T4_Revision_manual": review}
            for topic in topics:
                if (n, topic) != lose:
                    value = orjson.dumps(values.get(topic, routed))
                    self.put(self._own(topic), value, key, timestamp)

    def put(
        self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int | None = None
    ) -> tuple[int, int, int]:
        """Write one record and return its partition, offset and timestamp."""
        delivered: list[Message] = []

        def keep(error: KafkaError | None, message: Message) -> None:
            assert error is None
            delivered.append(message)

        options = {} if timestamp_ms is None else {"timestamp": timestamp_ms}
        self._producer.produce(topic, value, key, on_delivery=keep, **options)
        assert self._producer.flush(30) == 0
        (message,) = delivered
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return partition, offset, message.timestamp()[1]

    @cached_property
    def _producer(self) -> Producer:
        return Producer({**self.config, "enable.idempotence": True})


@pytest.fixture
def hand_routed(
    bootstrap_servers: str, own_topics: Callable[[str], str], tmp_path: Path
) -> HandRouted:
    return HandRouted({"bootstrap.servers": bootstrap_servers}, own_topics, tmp_path)
