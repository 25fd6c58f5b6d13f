from __future__ import annotations

import pytest
from rich.console import Console

from emergencias_cli import compose
from emergencias_cli.airflow_api import TaskState
from emergencias_cli.compose import Compose, addresses
from local_stack.errors import StackError


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_plugin_of_docker_is_preferred(path):
    program(path, "docker", "echo 2.40.3")
    program(path, "docker-compose", "echo 5.6.1")
    assert Compose.find().program == ("docker", "compose")


def test_a_program_of_its_own_serves_where_docker_has_no_plugin(path):
    program(path, "docker", "echo 'unknown command: docker compose' >&2; exit 1")
    program(path, "docker-compose", "echo v2.23.1")
    assert Compose.find().program == ("docker-compose",)


def test_a_compose_that_is_too_old_is_named(path):
    program(path, "docker-compose", "echo 1.29.2")
    with pytest.raises(StackError, match=r"2\.23\.1 or later.*found: docker-compose 1\.29\.2"):
        Compose.find()


def test_no_compose_at_all_is_said(path):
    with pytest.raises(StackError, match="found: none"):
        Compose.find()


def test_a_missing_secret_is_told_with_how_to_make_it(path):
    program(path, "docker", 'echo "required variable X is missing a value" >&2; exit 1')
    with pytest.raises(StackError, match=r"variable X is missing.*make compose-init"):
        Compose(("docker", "compose")).configuration()


def test_the_table_shows_the_ports_in_use_and_no_password():
    def port(published):
        return {"ports": [{"host_ip": "127.0.0.1", "published": published}]}

    configuration = {
        "services": {
            "airflow-api-server": port("18080"),
            "kafka": port("19092"),
            "ksqldb": port("18088"),
            "kafka-ui": port("18081"),
        }
    }
    screen = Console(record=True, width=100)
    screen.print(addresses(configuration, ui=True))
    shown = screen.export_text()
    for address in ("http://127.0.0.1:18080", " 127.0.0.1:19092", "http://127.0.0.1:18081"):
        assert address in shown


class Airflow:
    """A run that goes through the given states, with one task's state each."""

    def __init__(self, *states):
        self.states = list(states)

    def run_state(self, dag_id, run_id):
        return self.states[0][0]

    def tasks(self, dag_id, run_id):
        return [TaskState("plan_run", self.states.pop(0)[1], 1.5)]


def test_a_run_is_followed_to_its_end_and_each_change_is_told_once(monkeypatch):
    monkeypatch.setattr(compose, "_POLL_S", 0)
    screen = Console(record=True, width=100)
    monkeypatch.setattr(compose, "console", screen)
    states = [("queued", None), ("running", "running"), ("running", "up_for_retry")]
    states += [("running", "failed"), ("running", "failed"), ("failed", "failed")]
    assert compose._follow(Airflow(*states), "run") == "failed"
    told = [line.split() for line in screen.export_text().splitlines() if "plan_run " in line]
    assert [line[-1] for line in told] == ["again", "FAILED"]


def test_a_run_that_nobody_starts_is_told_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(compose, "_POLL_S", 0)
    monkeypatch.setattr(compose, "_QUEUED_S", -1)

    with pytest.raises(StackError, match="still queued"):
        compose._follow(Airflow(*[("queued", None)] * 3), "run")
