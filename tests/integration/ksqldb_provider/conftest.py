"""The project's routing rules on topics and streams of their own, so that tests do not meet."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kafka_io import TopicSpec, ensure_topics
from ksqldb_provider.client import KsqlDbClient
from ksqldb_provider.sql import load_folder
from ksqldb_provider.topics import KafkaTopics

RULES = Path(__file__).parents[3] / "include" / "ksql"


@dataclass(frozen=True)
class Rules:
    """A copy of the rules: every topic and stream has `prefix` in front of its name."""

    folder: Path
    prefix: str

    def topic(self, name: str) -> str:
        return self.prefix + name

    def edit(self, file_start: str, old: str, new: str) -> None:
        (path,) = self.folder.glob(f"{file_start}*.sql")
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def kafka(bootstrap_servers: str) -> dict[str, str]:
    return {"bootstrap.servers": bootstrap_servers}


class TaskInstance:
    """Keeps what a task pushes."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def task_instance() -> TaskInstance:
    return TaskInstance()


@pytest.fixture
def connections(monkeypatch, ksqldb_url: str, bootstrap_servers: str) -> None:
    host, port = ksqldb_url.removeprefix("http://").split(":")
    ksqldb = {"conn_type": "ksqldb", "schema": "http", "host": host, "port": int(port)}
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap_servers}}
    monkeypatch.setenv("AIRFLOW_CONN_KSQLDB_DEFAULT", json.dumps(ksqldb))
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))


@pytest.fixture
def client(ksqldb_url: str) -> Iterator[KsqlDbClient]:
    with KsqlDbClient(ksqldb_url) as made:
        yield made


@pytest.fixture
def topics(kafka) -> KafkaTopics:
    return KafkaTopics(kafka)


@pytest.fixture
def rules(tmp_path: Path, kafka, client) -> Iterator[Rules]:
    prefix = f"p{uuid.uuid4().hex[:8]}_"
    originals = load_folder(RULES)
    names = re.compile(
        r"\b(" + "|".join(statement.name for statement in originals) + r")\b", re.IGNORECASE
    )
    folder = tmp_path / "ksql"
    folder.mkdir()
    for statement in originals:
        assert statement.path is not None
        text = statement.path.read_text(encoding="utf-8")
        text = names.sub(lambda match: prefix + match[0], text)
        text = text.replace("KAFKA_TOPIC = '", f"KAFKA_TOPIC = '{prefix}")
        (folder / statement.path.name).write_text(text, encoding="utf-8")
    specs = [
        TopicSpec(name=prefix + statement.topic, partitions=3, retention_ms=2_592_000_000)
        for statement in originals
    ]
    ensure_topics(kafka, specs)
    yield Rules(folder, prefix)
    for statement in reversed(originals):
        client.execute(f"DROP STREAM IF EXISTS {prefix}{statement.name};")
