"""A real Airflow, with its own database, over the tests' broker and stream engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from emergencias.plan import run_folder
from emergencias.settings import PROJECT_ROOT

DAG_ID = "emergencias_112"


@dataclass(frozen=True)
class DagRun:
    """One run as `airflow dags test` leaves it."""

    status: int
    log: str
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text())


@pytest.fixture(scope="session")
def airflow_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for Airflow's commands: a fresh home, no connections yet."""
    home = tmp_path_factory.mktemp("airflow")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "EMERGENCIAS_EXPORT_ROOT": str(home / "exports"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
    }
    subprocess.run(
        ["airflow", "db", "migrate"], env=env, check=True, capture_output=True, timeout=120
    )
    return env


@pytest.fixture(scope="session")
def connected_env(
    airflow_env: dict[str, str], bootstrap_servers: str, ksqldb_url: str
) -> dict[str, str]:
    """The same with connections to a running broker and stream engine."""
    return airflow_env | connections(bootstrap_servers, ksqldb_url)


def connections(bootstrap_servers: str, ksqldb_url: str) -> dict[str, str]:
    """Environment variables of the two connections."""
    url = urlsplit(ksqldb_url)
    return {
        "AIRFLOW_CONN_KAFKA_DEFAULT": json.dumps(
            {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap_servers}}
        ),
        "AIRFLOW_CONN_KSQLDB_DEFAULT": json.dumps(
            {"conn_type": "ksqldb", "schema": url.scheme, "host": url.hostname, "port": url.port}
        ),
    }


@pytest.fixture(scope="session")
def dags_test(connected_env: dict[str, str]) -> Callable[..., DagRun]:
    """Run the DAG with `airflow dags test`: each call is a run of its own."""

    def run(conf: dict[str, Any] | None = None, *, env: dict[str, str] | None = None) -> DagRun:
        command = ["airflow", "dags", "test", DAG_ID]
        if conf is not None:
            command += ["--conf", json.dumps(conf)]
        return _execute(command, connected_env | (env or {}))

    return run


RERUN = """
import json, sys
from datetime import datetime
from airflow.dag_processing.dagbag import DagBag
when, conf, only = datetime.fromisoformat(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
dag = DagBag(dag_folder=sys.argv[4]).dags["emergencias_112"]
others = None if only == "all" else f"^(?!{only}$).*"
run = dag.test(run_after=when, logical_date=when, run_conf=conf, mark_success_pattern=others)
sys.exit(run.state != "success")
"""


@pytest.fixture(scope="session")
def same_run(connected_env: dict[str, str]) -> Callable[..., DagRun]:
    """Run one run id again and again with `dag.test`, as after a clear: wholly, or one task."""

    def run(
        when: str,
        conf: dict[str, Any],
        *,
        only: str = "all",
        env: dict[str, str] | None = None,
    ) -> DagRun:
        env = connected_env | (env or {})
        folder = env["AIRFLOW__CORE__DAGS_FOLDER"]
        return _execute([sys.executable, "-c", RERUN, when, json.dumps(conf), only, folder], env)

    return run


def _execute(command: list[str], env: dict[str, str]) -> DagRun:
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=170
    )
    planned = re.search(rf"Run local/{DAG_ID}/(\S+) sends", done.stdout)
    run_id = planned[1] if planned else "not planned"
    folder = run_folder(env["EMERGENCIAS_EXPORT_ROOT"], DAG_ID, run_id)
    return DagRun(done.returncode, done.stdout, Path(folder.path))
