"""Airflow on the embedded stack: its environment variables and its database."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from local_stack.errors import StackError
from local_stack.process import tail
from local_stack.settings import LOOPBACK, PROJECT_ROOT, StackSettings

AIRFLOW = (sys.executable, "-m", "airflow")
_VENV_BIN = Path(sys.executable).parent


def airflow_variables(settings: StackSettings) -> dict[str, str]:
    """Return the environment variables that make Airflow run this project on the embedded stack.

    Database, configuration file and executor are set although they are defaults: a shell that
    points at another Airflow must not have that one's database migrated by us.
    """
    home = settings.airflow_home
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": settings.bootstrap_servers}}
    ksqldb = {
        "conn_type": "ksqldb",
        "schema": "http",
        "host": LOOPBACK,
        "port": settings.ksqldb_port,
    }
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # SQLite has one writer and a development machine few cores.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The default is 0.0.0.0:8080; the tasks' API moves with it or every task is refused.
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__BASE_URL": settings.airflow_url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_KAFKA_DEFAULT": json.dumps(kafka),
        "AIRFLOW_CONN_KSQLDB_DEFAULT": json.dumps(ksqldb),
    }
    if export_root := os.environ.get("EMERGENCIAS_EXPORT_ROOT"):
        variables["EMERGENCIAS_EXPORT_ROOT"] = export_root
    return variables


def shell_exports(variables: Mapping[str, str]) -> str:
    """Return lines that a POSIX shell evaluates: the variables, and the project's programs first.

    Every value is quoted, so that whatever it holds it stays one value and runs nothing.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(_VENV_BIN))}:"$PATH"')
    return "\n".join(lines)


def airflow_environment(settings: StackSettings) -> dict[str, str]:
    """Return the whole environment for an Airflow process."""
    path = f"{_VENV_BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **airflow_variables(settings), "PATH": path}


def ensure_database(settings: StackSettings) -> bool:
    """Create or migrate Airflow's database unless this version of Airflow did so before.

    Asking Airflow itself takes 10 s, so a note beside the database says who migrated it.

    Returns:
        Whether there was anything to do.

    Raises:
        StackError: The migration failed; the message shows the end of its log.
    """
    home = settings.airflow_home
    home.mkdir(parents=True, exist_ok=True)
    note = home / "migrated-by"
    current = f"apache-airflow {version('apache-airflow')}"
    with FileLock(home / "migrate.lock"):
        noted = note.read_text(encoding="utf-8") if note.exists() else None
        if noted == current and (home / "airflow.db").exists():
            return False
        log = settings.logs / "airflow-db-migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            result = subprocess.run(
                [*AIRFLOW, "db", "migrate"],
                env=airflow_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if result.returncode != 0:
            end = "\n  ".join(tail(log, 15))
            raise StackError(
                f"`airflow db migrate` failed with exit status {result.returncode}. If the "
                f"database is beyond repair, delete {home / 'airflow.db'} (Airflow's record of "
                f"past runs; no alert is in it). The whole log: {log}\n  {end}"
            )
        note.write_text(current, encoding="utf-8")
        return True
