"""What every DAG here keeps to; no database, no broker."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from emergencias.settings import PROJECT_ROOT

STEPS = [
    "create_topics",
    "deploy_streams",
    "plan_run",
    "produce_alerts",
    "await_routing",
    "enrich_medical_alerts",
    "export_results",
    "reconcile",
]


@pytest.fixture(scope="module")
def dagbag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(PROJECT_ROOT / "dags"))


@pytest.fixture(scope="module")
def dag(dagbag: Any) -> Any:
    return dagbag.dags["emergencias_112"]


def test_every_dag_file_imports(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    assert list(dagbag.dags) == ["emergencias_112"]


def test_the_steps_come_in_the_order_that_keeps_the_promise(dag: Any) -> None:
    order = [task.task_id for task in dag.topological_sort()]

    assert set(order[:2]) == {"wait_for_kafka", "wait_for_ksqldb"}
    assert order[2:] == STEPS
    for before, after in pairwise(STEPS):
        assert after in dag.get_task(before).downstream_task_ids


def test_every_task_has_an_owner_retries_a_policy_and_an_end(dag: Any) -> None:
    for task in dag.tasks:
        assert task.owner == "emergencias-112"
        assert task.retries >= 2
        assert task.retry_policy is not None
        assert task.execution_timeout <= timedelta(hours=6)


@pytest.mark.parametrize(
    "path",
    [
        "emergencias.params.RunParamsError",
        "emergencias.plan.PlanConflictError",
        "emergencias.sources.SourceError",
        "emergencias.sources.MappingError",
        "emergencias.intake.InputChangedError",
        "emergencias.manifest.ReconciliationError",
        "kafka_io.CatalogueError",
        "kafka_io.TopicMismatchError",
        "kafka_io.OffsetsLostError",
        "airflow.sdk.exceptions.AirflowNotFoundException",
    ],
)
def test_what_a_retry_cannot_mend_fails_at_once(dag: Any, path: str) -> None:
    from airflow.sdk import RetryAction
    from airflow.sdk.module_loading import import_string

    error = import_string(path).__new__(import_string(path))
    decision = dag.get_task("reconcile").retry_policy.evaluate(error, 1, 3)

    assert decision.action is RetryAction.FAIL


@pytest.mark.parametrize(
    "path",
    [
        "kafka_io.BrokerUnavailableError",
        "kafka_io.ReadTimeoutError",
        "kafka_io.ProducerFencedError",
    ],
)
def test_connectivity_is_retried(dag: Any, path: str) -> None:
    from airflow.sdk import RetryAction
    from airflow.sdk.module_loading import import_string

    error = import_string(path).__new__(import_string(path))
    decision = dag.get_task("reconcile").retry_policy.evaluate(error, 1, 3)

    assert decision.action is RetryAction.DEFAULT


def test_the_dag_is_documented_tagged_and_starts_paused_without_catching_up(dag: Any) -> None:
    assert "What it does" in dag.doc_md
    assert {"112", "kafka", "ksqldb"} <= set(dag.tags)
    assert dag.catchup is False
    assert dag.is_paused_upon_creation is True


def test_the_form_offers_what_the_run_accepts(dag: Any) -> None:
    from emergencias.params import RunParams

    assert set(dag.params) == set(RunParams.model_fields)
    assert RunParams.parse(dag.params.dump()) == RunParams()
    assert all(dag.params.get_param(name).description for name in dag.params)


def test_topics_are_assets_under_the_connections_name(dag: Any) -> None:
    outlets = {asset.uri for task in dag.tasks for asset in task.outlets}

    assert "kafka://kafka_default/T1_Recepcion_avisos" in outlets
    assert "kafka://kafka_default/T2.1_Sanitarios_112" in outlets


def test_parsing_loads_no_client_and_is_quick() -> None:
    heavy = "confluent_kafka", "duckdb", "pyarrow", "faker", "httpx", "sqlglot", "ksqldb_local"
    script = (
        "import sys; sys.path.insert(0, 'dags'); import airflow.sdk; before = set(sys.modules)\n"
        "import emergencias_112\n"
        f"print(sorted(set({heavy!r}) & (set(sys.modules) - before)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_parsing_twice_gives_the_same_dag(dag: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    time.sleep(0.01)
    again = DagBag(dag_folder=str(PROJECT_ROOT / "dags")).dags["emergencias_112"]

    assert DagSerialization.serialize_dag(again) == DagSerialization.serialize_dag(dag)
