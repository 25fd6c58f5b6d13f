"""The `emergencias` command."""

from __future__ import annotations

import typer

from emergencias_cli import compose, intake, run, simulate, stack, ui

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold credentials of a connection
    help="Emergency alerts (112) on Kafka and ksqlDB, run by Airflow.",
)
app.add_typer(stack.app, name="stack")
app.add_typer(compose.app, name="compose")
app.command()(run.run)
app.command()(simulate.simulate)
app.command()(intake.intake)
app.command()(ui.ui)
