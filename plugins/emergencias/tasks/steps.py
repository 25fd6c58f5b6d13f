"""The pipeline's steps as Airflow runs them: find the run, call the domain, say what was done.

Every step reads the run's plan from its folder and can be killed, retried, cleared or run twice.
Imports of the domain are inside the steps: this module is imported when the DAG is parsed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from emergencias.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

    from emergencias.plan import Plan

log = logging.getLogger(__name__)


def create_topics(settings: Settings) -> dict[str, list[str]]:
    """Create the topics of the catalogue that the cluster lacks.

    Raises:
        kafka_io.TopicMismatchError: A topic exists with other settings than the catalogue's.
    """
    from kafka_io import ensure_topics, load_catalogue
    from ksqldb_provider.hooks import kafka_config

    result = ensure_topics(
        kafka_config(settings.kafka_conn_id), load_catalogue(settings.topics_file)
    )
    log.info("Topics created: %s", ", ".join(result.created) or "none")
    log.info("Topics found as they should be: %d", len(result.unchanged))
    return {"created": list(result.created), "unchanged": list(result.unchanged)}


def plan_run(
    settings: Settings,
    *,
    params: dict[str, Any],
    dag_run: DagRunProtocol,
    data_interval_end: datetime | None = None,
) -> dict[str, Any]:
    """Write down what the run will send, once, before anything is sent.

    A run without a data interval (triggered by an asset) tells the day before it may start.

    Raises:
        emergencias.params.RunParamsError: A parameter is not allowed.
        emergencias.sources.SourceError: The input file cannot be replayed.
        emergencias.sources.MappingError: The mapping cannot be used.
        emergencias.plan.PlanConflictError: See `emergencias.plan.make_plan`.
    """
    from emergencias import model
    from emergencias.params import RunParams
    from emergencias.plan import make_plan, run_folder
    from emergencias.sources import REFUSED_FILE, render_report
    from kafka_io import load_catalogue
    from ksqldb_provider.hooks import kafka_config

    t1 = next(spec for spec in load_catalogue(settings.topics_file) if spec.name == model.T1)
    plan = make_plan(
        kafka_config(settings.kafka_conn_id),
        settings,
        dag_id=dag_run.dag_id,
        run_id=dag_run.run_id,
        params=RunParams.parse(dict(params)),
        interval_end=data_interval_end or dag_run.run_after,
        retention_ms=t1.retention_ms,
    )
    log.info(
        "Run %s sends %d alerts (%s, seed %d)",
        plan.id_ejecucion,
        plan.alerts,
        plan.source,
        plan.seed,
    )
    done = {"id_ejecucion": plan.id_ejecucion, "alerts": plan.alerts, "seed": plan.seed}
    if plan.input is None:
        return done
    report = plan.input.report
    log.info("%s", render_report(report))
    if report.unreadable_dates or report.unreadable_coordinates:
        log.warning(
            "%d dates and %d coordinates cannot be read; those alerts are sent all the same",
            report.unreadable_dates,
            report.unreadable_coordinates,
        )
    if report.refused:
        log.warning(
            "%d of %d rows are no alerts and are not sent. Which and why: %s. Mend those rows and "
            "send them as a file of their own.",
            report.refused,
            report.rows,
            run_folder(settings.export_root, plan.dag_id, plan.run_id) / REFUSED_FILE,
        )
    return done | {"rows": report.rows, "refused": report.refused}


def produce_alerts(
    settings: Settings, *, dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol
) -> dict[str, int]:
    """Send the planned alerts that T1 lacks.

    Raises:
        See `emergencias.intake.send_planned_alerts`.
    """
    from emergencias.intake import send_planned_alerts
    from ksqldb_provider.hooks import kafka_config

    plan = _plan(settings, dag_run)
    result = send_planned_alerts(
        kafka_config(settings.kafka_conn_id),
        plan,
        data_dir=settings.data_dir,
        map_index=_map_index(ti),
        timeout_s=settings.read_timeout_s,
        on_progress=_progress("alerts sent"),
    )
    log.info("Sent %d alerts; %d were there already", result.sent, result.already_there)
    return {"sent": result.sent, "already_there": result.already_there}


def enrich_medical_alerts(
    settings: Settings, *, dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol
) -> dict[str, int]:
    """Give every medical alert on T2 an address, whichever run it belongs to.

    Raises:
        See `emergencias.enrichment.enrich`.
    """
    from emergencias.enrichment import enrich
    from emergencias.places import SimulatedAddressBook
    from ksqldb_provider.hooks import kafka_config

    plan = _plan(settings, dag_run)
    result = enrich(
        kafka_config(settings.kafka_conn_id),
        SimulatedAddressBook(settings.data_dir),
        group_id=settings.enrichment_group,
        transactional_id=f"{settings.enrichment_group}/{plan.id_ejecucion}#{_map_index(ti)}",
        timeout_s=settings.read_timeout_s,
    )
    log.info("Read %d records of T2, wrote %d to T2.1", result.consumed, result.produced)
    if result.dead_lettered:
        log.warning(
            "%d records of T2 cannot be read: a person looks at them in T4", result.dead_lettered
        )
    return {
        "consumed": result.consumed,
        "produced": result.produced,
        "dead_lettered": result.dead_lettered,
    }


def export_results(settings: Settings, *, dag_run: DagRunProtocol) -> dict[str, Any]:
    """Write the run's files.

    Raises:
        kafka_io.KafkaIoError: A topic could not be read to its end.
    """
    from emergencias.export import export_run
    from emergencias.plan import run_folder
    from ksqldb_provider.hooks import kafka_config

    plan = _plan(settings, dag_run)
    folder = run_folder(settings.export_root, plan.dag_id, plan.run_id)
    result = export_run(
        kafka_config(settings.kafka_conn_id),
        plan,
        folder,
        formats=plan.params.formats,
        timeout_s=settings.read_timeout_s,
    )
    for file in result.files:
        log.info("%s: %d rows", folder / file.name, file.rows)
    return {file.name: file.rows for file in result.files}


def reconcile(
    settings: Settings, *, dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol
) -> None:
    """Prove that no alert of the run was lost or doubled, and say what a person must look at.

    Raises:
        emergencias.manifest.ReconciliationError: Something is missing, doubled or in the
            wrong place; names topics, counts and the first ids.
    """
    from emergencias import model
    from emergencias.manifest import render_table
    from emergencias.plan import run_folder
    from emergencias.reconciliation import reconcile_run
    from ksqldb_provider.hooks import kafka_config

    plan = _plan(settings, dag_run)
    folder = run_folder(settings.export_root, plan.dag_id, plan.run_id)
    manifest = reconcile_run(
        kafka_config(settings.kafka_conn_id), plan, folder, timeout_s=settings.read_timeout_s
    )
    log.info("\n%s", render_table(manifest))
    waiting = next(count for count in manifest.topics if count.topic == model.T4)
    if waiting.run or waiting.ajenos:
        log.warning(
            "A person must look at %d alerts of this run and %d of others in %s",
            waiting.run,
            waiting.ajenos + waiting.otras_ejecuciones,
            model.T4,
        )
    # Pushed, not returned: the numbers of a red run are wanted most.
    ti.xcom_push(key="result", value=manifest.summary())
    manifest.raise_if_failed()


def _plan(settings: Settings, dag_run: DagRunProtocol) -> Plan:
    from emergencias.plan import load_plan

    return load_plan(settings, dag_run.dag_id, dag_run.run_id)


def _map_index(ti: RuntimeTaskInstanceProtocol) -> int:
    return max(ti.map_index or 0, 0)


def _progress(what: str) -> Callable[[int, int], None]:
    def say(done: int, planned: int) -> None:
        log.info("%d of %d %s", done, planned, what)

    return say
