"""A file sent to T1 by hand: a run that is named after what the file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from emergencias import model, sources
from emergencias.params import RunParams, Source
from emergencias.plan import make_plan

if TYPE_CHECKING:
    from emergencias.plan import Plan
    from emergencias.settings import Settings
    from kafka_io import ClientConfig

DAG_ID = "intake"
"""What such runs have in place of a DAG in id_ejecucion and among the exports."""


def plan_file(
    config: ClientConfig,
    settings: Settings,
    path: str,
    mapping: str | None,
    *,
    run_id: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Plan:
    """Return the plan by which a file is sent; the same for the same content and mapping.

    Args:
        config: Settings of the Kafka clients.
        settings: The pipeline's settings.
        path: The file.
        mapping: Name or path of a mapping, or None.
        run_id: A name for the run, to send the same content again as other alerts.
        on_progress: Called now and then with the number of alerts read so far.

    Raises:
        See `emergencias.plan.make_plan`.

    Guarantees that T1 exists when it returns.
    """
    from kafka_io import ensure_topics, load_catalogue

    digest = sources.sha256(path)
    if mapping is not None:
        digest += sources.load_mapping(mapping, settings.data_dir)[1]
    catalogue = load_catalogue(settings.topics_file)
    t1 = next(spec for spec in catalogue if spec.name == model.T1)
    ensure_topics(config, catalogue)
    return make_plan(
        config,
        settings,
        dag_id=DAG_ID,
        run_id=run_id or hashlib.sha256(digest.encode()).hexdigest()[:32],
        params=RunParams(source=Source.FILE, input_path=path, mapping=mapping),
        interval_end=datetime.now(UTC),
        retention_ms=t1.retention_ms,
        named_by_content=True,
        on_progress=on_progress,
    )
