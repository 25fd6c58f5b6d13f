"""`emergencias ui`: Airflow's web interface on the embedded stack."""

from __future__ import annotations

import os
import sys

from rich.markup import escape

from emergencias_cli.airflow_home import airflow_environment
from emergencias_cli.console import console, load_settings, plain_errors
from emergencias_cli.stack import bring_up
from local_stack.preflight import require_free_port


def ui() -> None:
    """Start the stack and Airflow with its UI, scheduler and triggerer; Ctrl-C stops Airflow.

    The stack goes on running: `emergencias stack down` stops it.

    Example: EMERGENCIAS_AIRFLOW_PORT=8081 emergencias ui
    """
    settings = load_settings()
    with plain_errors():
        require_free_port(settings.airflow_port, "Airflow", "EMERGENCIAS_AIRFLOW_PORT")
        bring_up(settings)
    passwords = settings.airflow_home / "simple_auth_manager_passwords.json.generated"
    console.print(
        f"Airflow will be at [bold]{settings.airflow_url}[/] in about half a minute. Log in as "
        f"[bold]admin[/]; its password is in {escape(str(passwords))}, written at the first start.",
        soft_wrap=True,
    )
    command = [sys.executable, "-m", "emergencias_cli.standalone"]
    os.execvpe(command[0], command, airflow_environment(settings))  # noqa: S606
