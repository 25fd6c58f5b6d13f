"""A real Airflow, with its own database, over the tests' broker and stream engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    """Run the DAG with the command `airflow dags test`: each call is a run of its own."""

    def run(conf: dict[str, Any], *, env: dict[str, str] | None = None) -> DagRun:
        env = connected_env | (env or {})
        done = subprocess.run(
            ["airflow", "dags", "test", DAG_ID, "--conf", json.dumps(conf)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=170,
        )
        return _dag_run(done.returncode, done.stdout, env)

    return run


class Airflow:
    """A process in which Airflow stays loaded: what `airflow dags test` does, run after run."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("airflow_process.py"))],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(
        self,
        conf: dict[str, Any] | None = None,
        *,
        when: str | None = None,
        only: str | None = None,
        env: dict[str, str] | None = None,
    ) -> DagRun:
        """Run the DAG: a run of its own, or with `when` the same run as the last time.

        Args:
            conf: The run's parameters.
            when: Date from which the run's id is made.
            only: Run this task alone, the others count as done.
            env: Environment of this run.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"conf": conf or {}, "when": when, "only": only, "env": env or {}}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        log = []
        for line in self._process.stdout:
            if line.startswith("@@status "):
                return _dag_run(int(line.split()[1]), "".join(log), self._env | (env or {}))
            log.append(line)
        raise AssertionError("Airflow's process ended:\n" + "".join(log))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def airflow(connected_env: dict[str, str]) -> Iterator[Airflow]:
    process = Airflow(connected_env)
    yield process
    process.close()


@pytest.fixture(scope="session")
def another_airflow(connected_env: dict[str, str]) -> Iterator[Airflow]:
    process = Airflow(connected_env)
    yield process
    process.close()


def _dag_run(status: int, log: str, env: dict[str, str]) -> DagRun:
    planned = re.search(rf"Run local/{DAG_ID}/(\S+) sends", log)
    run_id = planned[1] if planned else "not planned"
    folder = run_folder(env["EMERGENCIAS_EXPORT_ROOT"], DAG_ID, run_id)
    return DagRun(status, log, Path(folder.path))
