"""`emergencias stack …`: the embedded broker and stream engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from emergencias_cli.airflow_home import airflow_variables, ensure_database, shell_exports
from emergencias_cli.console import console, fail, load_settings, plain_errors
from local_stack.jars import LockedJar, fetch, read_lock
from local_stack.process import previous_log, tail
from local_stack.services import Service
from local_stack.settings import StackSettings
from local_stack.stack import Report, ServiceState, Stack

app = typer.Typer(
    no_args_is_help=True,
    help="Start, stop and look at the embedded stack: Apache Kafka and ksqldb_local on loopback.",
)

_STYLES = {
    ServiceState.READY: "green",
    ServiceState.NOT_READY: "yellow",
    ServiceState.DIED: "bold red",
    ServiceState.STOPPED: "dim",
}


@app.command()
def up() -> None:
    """Start what does not run and wait until everything answers.

    A second call finds everything up and does nothing.

    Example: EMERGENCIAS_KAFKA_PORT=19092 emergencias stack up
    """
    with plain_errors():
        bring_up(load_settings())


def bring_up(settings: StackSettings) -> None:
    """Start the stack and prepare Airflow's database, with progress on the console.

    Raises:
        StackError: Something cannot start; the message says what to do.
    """
    stack = Stack(settings)
    with _progress() as report:
        started = stack.up(report)
    if not started:
        console.print(
            "The stack is up already: "
            + ", ".join(f"{service.title} at {service.address}" for service in stack.services),
            soft_wrap=True,
        )
    with console.status("Airflow: preparing its database, once"):
        if ensure_database(settings):
            console.print("Airflow: database ready")


@app.command()
def down(
    purge: Annotated[
        bool, typer.Option(help="Also remove the broker's data (every alert) and the logs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Stop what `up` started and nothing else; data stay for the next `up`.

    Example: emergencias stack down
    """
    settings = load_settings()
    if purge and not yes:
        typer.confirm(
            f"Remove every alert and topic in {settings.kafka_data} and the logs? The files of "
            "past runs and Airflow's database stay.",
            abort=True,
        )
    with plain_errors(), _progress() as report:
        stopped = Stack(settings).down(report, purge=purge)
    if not stopped:
        console.print("Nothing was running.")
    if purge:
        console.print(f"Removed the data in {settings.home}.", soft_wrap=True)


@app.command()
def status() -> None:
    """Show each service: address, process, state; exit status 1 unless all are ready.

    Example: emergencias stack status
    """
    settings = load_settings()
    with plain_errors():
        rows = Stack(settings).status()
    table = Table(box=None, pad_edge=False)
    for column in ("service", "address", "pid", "state", "since"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row.service.title,
            row.address,
            str(row.pid) if row.pid is not None else "-",
            f"[{_STYLES[row.state]}]{row.state}[/]",
            f"{row.since.astimezone():%Y-%m-%d %H:%M:%S}" if row.since else "-",
        )
    console.print(table)
    for row in rows:
        if row.detail:
            console.print(f"{row.service.title}: {escape(row.detail)}", soft_wrap=True)
    if any(row.state is not ServiceState.READY for row in rows):
        console.print("Next: `emergencias stack up` starts what does not run.")
        raise typer.Exit(1)


@app.command()
def logs(
    service: Annotated[
        str | None, typer.Argument(help="kafka or ksqldb; both when left out.")
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="How many lines of each.")
    ] = 50,
    previous: Annotated[
        bool, typer.Option("--previous", help="The log of the service's former life.")
    ] = False,
) -> None:
    """Print the end of what the services logged.

    Example: emergencias stack logs kafka --lines 200
    """
    stack = Stack(load_settings())
    names = [known.name for known in stack.services]
    if service is not None and service not in names:
        raise fail(f"there is no service {service!r}; choose one of: {', '.join(names)}")
    for known in stack.services:
        if service not in (None, known.name):
            continue
        path = stack.log_path(known)
        path = previous_log(path) if previous else path
        console.print(f"[bold]{known.title}[/] {escape(str(path))}", soft_wrap=True)
        for line in tail(path, lines) or ["(nothing yet)"]:
            typer.echo(line)


@app.command()
def env() -> None:
    """Print shell exports so that plain `airflow` commands use the stack.

    Example: eval "$(emergencias stack env)" && airflow dags test emergencias_112
    """
    typer.echo(shell_exports(airflow_variables(load_settings())))


@app.command()
def jars() -> None:
    """Download Kafka's jars if they are missing and check each against the lock's SHA-256.

    Example: emergencias stack jars
    """
    with plain_errors(), console.status("Checking Kafka's jars") as spinner:

        def downloading(jar: LockedJar) -> None:
            spinner.update(f"Downloading {jar}")

        paths = fetch(read_lock(), on_fetch=downloading)
    console.print(f"{len(paths)} jars are there and are the ones that the lock describes.")


@contextmanager
def _progress() -> Iterator[Report]:
    """Give a reporter that shows what goes on as a spinner and keeps what came out of it."""
    with console.status("") as spinner:

        def report(service: Service, event: str) -> None:
            spinner.update(f"{service.title}: {escape(event)}")
            if event.startswith(("ready", "stopped", "killed", "had ended")):
                console.print(f"{service.title}: {escape(event)}", soft_wrap=True)

        yield report
