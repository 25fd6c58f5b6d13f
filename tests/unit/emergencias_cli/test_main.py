from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from emergencias_cli.main import app
from local_stack.preflight import free_ports

cli = CliRunner()


@pytest.fixture(autouse=True)
def _a_stack_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("EMERGENCIAS_HOME", str(tmp_path))
    names = ("KAFKA_PORT", "KAFKA_CONTROLLER_PORT", "KSQLDB_PORT", "AIRFLOW_PORT")
    for name, port in zip(names, free_ports(4), strict=True):
        monkeypatch.setenv(f"EMERGENCIAS_{name}", str(port))


def commands() -> list[list[str]]:
    def walk(command, path):
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, [*path, name])
        else:
            yield path

    return list(walk(typer.main.get_command(app), []))


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path):
    result = cli.invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output


def test_a_setting_that_cannot_be_used_is_named_with_its_value(monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_KAFKA_PORT", "many")
    result = cli.invoke(app, ["stack", "status"])
    assert result.exit_code == 1
    assert "EMERGENCIAS_KAFKA_PORT=many" in result.output
    assert "Traceback" not in result.output


def test_status_of_a_stack_that_was_never_started_says_how_to_start_it():
    result = cli.invoke(app, ["stack", "status"])
    assert result.exit_code == 1
    assert result.output.count("stopped") == 2
    assert "emergencias stack up" in result.output


def test_down_of_a_stack_that_was_never_started_is_no_error():
    result = cli.invoke(app, ["stack", "down"])
    assert result.exit_code == 0
    assert "Nothing was running" in result.output


def test_data_are_removed_only_after_a_yes(tmp_path):
    alerts = tmp_path / "kafka" / "data"
    alerts.mkdir(parents=True)
    assert cli.invoke(app, ["stack", "down", "--purge"], input="n\n").exit_code == 1
    assert alerts.exists()
    assert cli.invoke(app, ["stack", "down", "--purge"], input="y\n").exit_code == 0
    assert not alerts.exists()


def test_logs_of_an_unknown_service_are_refused_with_the_known_ones():
    result = cli.invoke(app, ["stack", "logs", "zookeeper"])
    assert result.exit_code == 1
    assert "kafka, ksqldb" in result.output


def test_logs_show_the_end_of_the_file(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "kafka.log").write_text("one\ntwo [three]\nfour\n")
    result = cli.invoke(app, ["stack", "logs", "kafka", "-n", "2"])
    assert result.output.splitlines()[-2:] == ["two [three]", "four"]


def test_a_broken_state_file_is_told_without_a_traceback(tmp_path):
    (tmp_path / "stack.json").write_text("{")
    result = cli.invoke(app, ["stack", "status"])
    assert result.exit_code == 1
    assert "stack.json" in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
