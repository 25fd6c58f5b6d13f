"""`emergencias run`: the whole pipeline once, with its result as one table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from emergencias_cli.airflow_home import airflow_environment
from emergencias_cli.console import console, errors, load_settings, plain_errors
from emergencias_cli.dag_test import (
    Finished,
    LogReader,
    TaskEnded,
    TaskOutcome,
    TaskStarted,
    run_dag,
)
from emergencias_cli.intake import absolute_mapping
from emergencias_cli.stack import bring_up
from local_stack.process import tail
from local_stack.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from emergencias.manifest import Manifest

DAG_ID = "emergencias_112"

_MARKS = {
    TaskOutcome.SUCCESS: "[green]ok[/]",
    TaskOutcome.RETRY: "[yellow]failed, will be tried again[/]",
    TaskOutcome.RESCHEDULE: "[yellow]waits[/]",
    TaskOutcome.SKIPPED: "[dim]skipped[/]",
    TaskOutcome.FAILED: "[bold red]FAILED[/]",
    TaskOutcome.UNKNOWN: "ended",
}


def run(
    alerts: Annotated[
        int | None, typer.Option(help="How many alerts the simulator sends.", show_default="250")
    ] = None,
    input_path: Annotated[
        Path | None,
        typer.Option("--input", help="Replay this file (JSON, JSON Lines, CSV, Parquet) instead."),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option("--map", help="With --input: ready mapping or YAML file for its columns."),
    ] = None,
    conf: Annotated[
        str | None, typer.Option(help="Any params of the DAG as JSON; the other options win.")
    ] = None,
) -> None:
    """Start the stack, run the pipeline once by `airflow dags test` and show what it did.

    Each call is a run of its own. The exit status is that of the run.

    Example: emergencias run --alerts 1000

    Example: emergencias run --input alerts.csv

    Example: emergencias run --input 911.csv --map llamadas_911

    Example: emergencias run --conf '{"seed": 7, "formats": ["json"]}'
    """
    params = run_params(conf, alerts, input_path, mapping)
    settings = load_settings()
    with plain_errors():
        bring_up(settings)
    log = settings.logs / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"
    reader = LogReader()
    ended = _follow(
        reader,
        run_dag(
            DAG_ID,
            json.dumps(params) if params else None,
            env=airflow_environment(settings),
            cwd=PROJECT_ROOT,
            log=log,
        ),
    )
    shown = show_result(reader.run_id)
    if ended.exit_status != 0:
        reason = reader.error or "\n".join(tail(log, 15))
        errors.print(
            f"[bold red]The run failed[/] (exit status {ended.exit_status}):\n{escape(reason)}",
            soft_wrap=True,
        )
        errors.print(f"Everything that Airflow logged: {escape(str(log))}", soft_wrap=True)
        raise typer.Exit(ended.exit_status if ended.exit_status > 0 else 1)
    if not shown:
        errors.print(
            "[bold red]The run ended well, but its manifest is not where it should be[/]; look for "
            f"the reason in Airflow's log: {escape(str(log))}",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(
        f"Done in {ended.seconds:.1f} s. Airflow's log: {escape(str(log))}", soft_wrap=True
    )


def run_params(
    conf: str | None, alerts: int | None, input_path: Path | None, mapping: str | None = None
) -> dict[str, Any]:
    """Return the DAG's params that the options ask for.

    Raises:
        typer.BadParameter: `conf` is not a JSON object, both a file and a number are given, or a
            mapping without a file.
    """
    try:
        params = json.loads(conf) if conf is not None else {}
    except ValueError as error:
        raise typer.BadParameter(f"{conf!r} is not JSON: {error}", param_hint="--conf") from error
    if not isinstance(params, dict):
        raise typer.BadParameter(
            f"{conf!r} is not a JSON object, e.g. '{{\"alerts\": 250}}'", param_hint="--conf"
        )
    if alerts is not None and input_path is not None:
        raise typer.BadParameter(
            "a file holds as many alerts as it holds; give --alerts or --input, not both",
            param_hint="--alerts",
        )
    if mapping is not None and input_path is None:
        raise typer.BadParameter("a mapping is for a file; give --input too", param_hint="--map")
    if alerts is not None:
        params["alerts"] = alerts
    if input_path is not None:
        # Tasks may run in another folder than the one in which the user typed the path.
        params |= {"source": "file", "input_path": str(input_path.expanduser().resolve())}
    if mapping is not None:
        params["mapping"] = absolute_mapping(mapping)
    return params


def _follow(reader: LogReader, output: Iterator[str | Finished]) -> Finished:
    """Show the tasks of a run as they go and return how it ended."""
    with console.status("Airflow is loading") as spinner:
        for item in output:
            if isinstance(item, Finished):
                return item
            for event in reader.feed([item]):
                match event:
                    case TaskStarted(task):
                        spinner.update(f"{escape(task)} is running")
                    case TaskEnded(task, outcome, seconds, error):
                        mark = _MARKS[outcome]
                        console.print(f"  {escape(task):<24} {seconds:6.1f} s  {mark}")
                        if error and outcome is TaskOutcome.RETRY:
                            console.print(f"    {escape(error.splitlines()[0])}", soft_wrap=True)
    raise AssertionError("the output of a run ends with how it ended")


def show_result(run_id: str | None, export_root: str | None = None) -> bool:
    """Show what the run's manifest says and return True, or False where there is none.

    Args:
        run_id: The run, None where it is not known.
        export_root: Where its files are; that of the settings by default.
    """
    # Imported here: every other command starts in half the time without them.
    from emergencias.manifest import describe, read_manifest
    from emergencias.plan import run_folder
    from emergencias.settings import Settings
    from emergencias.sources import REFUSED_FILE

    if run_id is None:
        return False
    folder = run_folder(export_root or Settings().export_root, DAG_ID, run_id)
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return False  # the run failed before it could count; its error follows
    console.print(result_table(manifest))
    for check in manifest.failed:
        console.print(f"[bold red]FAILED[/] {escape(describe(check))}", soft_wrap=True)
    held = len(manifest.checks) - len(manifest.failed)
    console.print(f"{held} of {len(manifest.checks)} checks hold.")
    if manifest.review.alerts:
        first = ", ".join(manifest.review.first_ids)
        console.print(
            f"[yellow]{manifest.review.alerts} alert(s) need a person[/] "
            f"(T4_Revision_manual); first: {escape(first)}",
            soft_wrap=True,
        )
    if manifest.input is not None and manifest.input.refused:
        console.print(
            f"[yellow]{manifest.input.refused:,} row(s) of the file were refused[/]; which and "
            f"why: {escape(str(folder / REFUSED_FILE))}",
            soft_wrap=True,
        )
    console.print(f"Files: {escape(str(folder))}", soft_wrap=True)
    for file in manifest.files:
        console.print(f"  {escape(file.name)} ({file.rows:,} rows)")
    return True


def result_table(manifest: Manifest) -> Table:
    """Return the run's counts: topic, alerts, check; strangers' records only if there are any."""
    strangers = any(count.ajenos for count in manifest.topics)
    table = Table(box=box.SIMPLE_HEAD, title=f"Run {escape(manifest.run_id)}")
    table.add_column("topic")
    table.add_column("alerts", justify="right")
    if strangers:
        table.add_column("ajenos", justify="right")
    table.add_column("check")
    for count in manifest.topics:
        check = "[green]ok[/]" if count.ok else "[bold red]FAILED[/]"
        ajenos = [f"{count.ajenos:,}"] if strangers else []
        table.add_row(count.topic, f"{count.run:,}", *ajenos, check)
    return table
