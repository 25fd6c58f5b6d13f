from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from emergencias_cli import airflow_home
from emergencias_cli.airflow_home import (
    airflow_environment,
    airflow_variables,
    ensure_database,
    shell_exports,
)
from local_stack.errors import StackError
from local_stack.settings import PROJECT_ROOT, StackSettings


@pytest.fixture
def settings(tmp_path):
    return StackSettings(
        home=tmp_path / "a home's $HOME",
        kafka_port=19092,
        kafka_controller_port=19093,
        ksqldb_port=18088,
        airflow_port=18080,
    )


def evaluated(exports: str, name: str) -> str:
    """Return a variable's value in a shell that evaluated the exports."""
    script = f'eval "$1"; printf %s "${name}"'
    command = ["sh", "-euc", script, "sh", exports]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_shell_gets_every_value_as_it_is(settings):
    variables = airflow_variables(settings)
    exports = shell_exports(variables)
    for name, value in variables.items():
        assert evaluated(exports, name) == value


@pytest.mark.parametrize("value", ["$(touch x)", "`touch x`", "'; touch x; '", 'a "b" \\ c\n d'])
def test_no_value_can_run_anything(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    assert evaluated(shell_exports({"NAME": value}), "NAME") == value
    assert list(tmp_path.iterdir()) == []


def test_the_projects_programs_come_first_and_the_shells_own_stay():
    path = evaluated(shell_exports({}), "PATH").split(":")
    assert path[0] == str(Path(sys.executable).parent)
    assert len(path) > 1


def test_connections_lead_to_the_stack(settings):
    variables = airflow_variables(settings)
    assert json.loads(variables["AIRFLOW_CONN_KAFKA_DEFAULT"]) == {
        "conn_type": "kafka",
        "extra": {"bootstrap.servers": "127.0.0.1:19092"},
    }
    assert json.loads(variables["AIRFLOW_CONN_KSQLDB_DEFAULT"]) == {
        "conn_type": "ksqldb",
        "schema": "http",
        "host": "127.0.0.1",
        "port": 18088,
    }


def test_tasks_find_their_api_where_the_ui_listens(settings):
    variables = airflow_variables(settings)
    assert variables["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert variables["AIRFLOW__API__PORT"] == "18080"
    url = "http://127.0.0.1:18080"
    assert variables["AIRFLOW__API__BASE_URL"] == url
    assert variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{url}/execution/"


def test_another_airflow_of_this_shell_is_left_alone(settings, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production/airflow")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/etc/airflow.cfg")
    environment = airflow_environment(settings)
    home = settings.airflow_home
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{home}/airflow.db"
    assert environment["AIRFLOW_CONFIG"] == str(home / "airflow.cfg")


def test_dags_and_plugins_are_those_of_the_project(settings):
    variables = airflow_variables(settings)
    assert Path(variables["AIRFLOW__CORE__DAGS_FOLDER"], "emergencias_112.py").is_file()
    assert variables["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(PROJECT_ROOT / "plugins")
    assert variables["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"


def test_the_export_root_travels_along_only_if_it_is_set(settings, monkeypatch):
    monkeypatch.delenv("EMERGENCIAS_EXPORT_ROOT", raising=False)
    assert "EMERGENCIAS_EXPORT_ROOT" not in airflow_variables(settings)
    monkeypatch.setenv("EMERGENCIAS_EXPORT_ROOT", "s3://bucket/112")
    assert airflow_variables(settings)["EMERGENCIAS_EXPORT_ROOT"] == "s3://bucket/112"


@pytest.fixture
def airflow(tmp_path, monkeypatch):
    """Put a program in Airflow's place that notes its calls; yields the note.

    The real migration takes half a minute; the whole-pipeline test runs it.
    """
    calls = tmp_path / "calls"
    code = (
        "import os, pathlib, sys\n"
        f"with open({str(calls)!r}, 'a') as file: print(*sys.argv[1:], file=file)\n"
        "pathlib.Path(os.environ['AIRFLOW_HOME'], 'airflow.db').touch()\n"
        "print('no such revision'); sys.exit(int(os.environ.get('AIRFLOW_EXIT', '0')))\n"
    )
    monkeypatch.setattr(airflow_home, "AIRFLOW", (sys.executable, "-c", code))
    return calls


def test_the_database_is_migrated_once(settings, airflow):
    assert ensure_database(settings) is True
    assert ensure_database(settings) is False
    assert airflow.read_text() == "db migrate\n"


def test_a_deleted_database_is_made_again(settings, airflow):
    ensure_database(settings)
    (settings.airflow_home / "airflow.db").unlink()
    assert ensure_database(settings) is True


def test_another_version_of_airflow_migrates_again(settings, airflow, monkeypatch):
    ensure_database(settings)
    real = version("apache-airflow")
    monkeypatch.setattr(airflow_home, "version", lambda name: f"{real}.post1")
    assert ensure_database(settings) is True


def test_a_failed_migration_is_an_error_and_tried_again_next_time(settings, airflow, monkeypatch):
    monkeypatch.setenv("AIRFLOW_EXIT", "4")
    with pytest.raises(StackError, match=r"(?s)exit status 4.*no such revision"):
        ensure_database(settings)
    monkeypatch.setenv("AIRFLOW_EXIT", "0")
    assert ensure_database(settings) is True
