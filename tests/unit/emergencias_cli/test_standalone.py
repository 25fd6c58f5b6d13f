from __future__ import annotations

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.cli.commands.standalone_command import StandaloneCommand

from emergencias_cli.standalone import WITH_LOG_SERVER, SubCommand


@pytest.mark.parametrize("name", sorted(WITH_LOG_SERVER))
def test_components_with_a_log_server_are_told_not_to_start_it_in_words_airflow_knows(name):
    component = SubCommand(StandaloneCommand(), name=name, command=[name], env={})
    assert get_parser().parse_args(component.command).skip_serve_logs is True


@pytest.mark.parametrize("name", ["api-server", "dag-processor"])
def test_other_components_are_started_as_airflow_starts_them(name):
    assert SubCommand(StandaloneCommand(), name=name, command=[name], env={}).command == [name]
