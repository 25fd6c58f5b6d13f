"""A plan, the pipeline's topics and readers for the tests of the domain on a real broker."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from emergencias.params import RunParams
from emergencias.plan import Plan, make_plan
from emergencias.settings import PROJECT_ROOT, Settings
from kafka_io import (
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
