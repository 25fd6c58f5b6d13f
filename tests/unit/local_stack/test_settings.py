from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from local_stack.settings import PROJECT_ROOT, StackSettings


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch):
    for name in StackSettings.model_fields:
        monkeypatch.delenv(f"EMERGENCIAS_{name.upper()}", raising=False)


def test_everything_is_in_one_ignored_folder_of_the_project():
    settings = StackSettings()
    assert settings.home == PROJECT_ROOT / ".emergencias"
    for folder in (settings.kafka_data, settings.airflow_home, settings.logs):
        assert folder.is_relative_to(settings.home)
    assert ".emergencias/" in (PROJECT_ROOT / ".gitignore").read_text().splitlines()


def test_addresses_follow_the_environment(monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_KAFKA_PORT", "19092")
    monkeypatch.setenv("EMERGENCIAS_KSQLDB_PORT", "18088")
    monkeypatch.setenv("EMERGENCIAS_AIRFLOW_PORT", "18080")
    settings = StackSettings()
    assert settings.bootstrap_servers == "127.0.0.1:19092"
    assert settings.ksqldb_url == "http://127.0.0.1:18088"
    assert settings.airflow_url == "http://127.0.0.1:18080"


def test_a_relative_home_stays_the_same_folder_wherever_a_process_works(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMERGENCIAS_HOME", "data")
    assert StackSettings().home == Path(tmp_path, "data").resolve()


def test_settings_of_other_packages_are_not_ours_to_refuse(monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_EXPORT_ROOT", "s3://bucket/112")
    StackSettings()


@pytest.mark.parametrize("port", ["0", "65536", "kafka"])
def test_what_is_no_port_is_refused(monkeypatch, port):
    monkeypatch.setenv("EMERGENCIAS_KAFKA_PORT", port)
    with pytest.raises(ValidationError, match="kafka_port"):
        StackSettings()


def test_two_services_on_one_port_are_refused_naming_the_variables(monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_KSQLDB_PORT", "9092")
    with pytest.raises(ValidationError, match=r"EMERGENCIAS_KAFKA_PORT=9092.*KSQLDB_PORT=9092"):
        StackSettings()
