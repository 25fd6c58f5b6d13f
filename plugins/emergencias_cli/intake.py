"""`emergencias intake`: a file of anybody's, as alerts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from emergencias_cli.broker import reachable_kafka
from emergencias_cli.console import errors, fail, progress
from emergencias_cli.output import STDOUT, file_path, lines_to

if TYPE_CHECKING:
    from emergencias.plan import InputFile
    from emergencias.settings import Settings
    from emergencias.sources import SourceReport

TOPIC = "topic"
SOME_REFUSED = 3
"""Exit status when the good rows were taken in and others were refused."""


def intake(
    file: Annotated[str, typer.Argument(help="JSON, JSON Lines, CSV or Parquet, also gzipped.")],
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="Ready mapping (original, llamadas_911, despachos_ambulancia) or path of a YAML "
            "file; without it the columns have the fields' names.",
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(help="topic: send to T1. Or a file, or - for standard output: JSON Lines."),
    ] = TOPIC,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only read and report; send and write nothing.")
    ] = False,
    run_id: Annotated[
        str | None,
        typer.Option(help="With a name of its own the same file is sent again as other alerts."),
    ] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Kafka brokers.", show_default="the embedded stack's")
    ] = None,
) -> None:
    """Take in a file of any producer: map its columns, normalise its words, send its alerts.

    The same file by the same mapping is sent once, however often this is called. What is unknown
    is sent on unchanged and reaches manual review. Rows that are no alerts are refused and told by
    line; the others are sent all the same, and the exit status is 3.

    Example: emergencias intake 911.csv --map llamadas_911 --dry-run

    Example: emergencias intake old.json.gz --map original

    Example: emergencias intake log.csv --map my_mapping.yaml --to alerts.jsonl
    """
    from emergencias.settings import Settings

    settings = Settings()
    mapping = None if mapping is None else absolute_mapping(mapping)
    with _told():
        if dry_run:
            report = _inspect(file, mapping, settings, None).report
        elif to == TOPIC:
            report = _send(file, mapping, settings, run_id, reachable_kafka(bootstrap_servers))
        else:
            report = _write(file, mapping, settings, to)
    if report.refused:
        raise typer.Exit(SOME_REFUSED)


def absolute_mapping(mapping: str) -> str:
    """Return a mapping's path from the root, for tasks run elsewhere; a name stays as it is."""
    from emergencias.sources.mapping import is_path

    if not is_path(mapping) or "://" in mapping:
        return mapping
    return str(Path(mapping).expanduser().resolve())


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a user can do something about into its message and exit status 1."""
    from emergencias.params import RunParamsError
    from emergencias.plan import PlanConflictError
    from emergencias.sources import MappingError, SourceError
    from emergencias.vocabulary import DataFileError
    from kafka_io import BrokerUnavailableError, KafkaIoError

    try:
        yield
    except PlanConflictError as error:
        raise fail(f"{error} Here that is: --run-id with a new name.") from error
    except BrokerUnavailableError as error:
        raise fail(f"{error}\n`emergencias stack up` starts the embedded broker.") from error
    except (SourceError, MappingError, DataFileError, RunParamsError, KafkaIoError) as error:
        raise fail(str(error)) from error


@contextmanager
def _reading(file: str) -> Iterator[Callable[[int], None]]:
    with errors.status(f"Reading {escape(file)}") as spinner:
        yield lambda alerts: spinner.update(f"Reading {escape(file)}: {alerts:,} alerts")


def _inspect(file: str, mapping: str | None, settings: Settings, refused: str | None) -> InputFile:
    from upath import UPath

    from emergencias.plan import inspect_input

    with _reading(file) as on_progress:
        found = inspect_input(
            file,
            mapping,
            settings.data_dir,
            None if refused is None else UPath(refused),
            on_progress,
        )
    _show(found.report, refused)
    return found


def _show(report: SourceReport, refused: str | None) -> None:
    from emergencias.sources import report_table

    errors.print(f"{escape(report.path)}: {escape(report.how_read)}", soft_wrap=True)
    errors.print(report_table(report))
    if report.refused:
        where = (
            "with --to topic or a file all of them are written down"
            if refused is None
            else f"all of them with their text: {escape(refused)}"
        )
        errors.print(f"[yellow]{report.refused:,} row(s) refused[/]; {where}", soft_wrap=True)


def _send(
    file: str, mapping: str | None, settings: Settings, run_id: str | None, config: dict[str, Any]
) -> SourceReport:
    from emergencias.file_run import DAG_ID, plan_file
    from emergencias.intake import send_planned_alerts
    from emergencias.plan import run_folder
    from emergencias.sources import REFUSED_FILE

    path = file if "://" in file else str(Path(file).expanduser().resolve())
    with _reading(file) as on_progress:
        plan = plan_file(config, settings, path, mapping, run_id=run_id, on_progress=on_progress)
    if plan.input is None:
        raise AssertionError("a file's plan has a file")
    with progress("Sending", plan.alerts) as on_sent:
        result = send_planned_alerts(
            config,
            plan,
            data_dir=settings.data_dir,
            timeout_s=settings.read_timeout_s,
            on_progress=lambda done, _: on_sent(done),
        )
    folder = run_folder(settings.export_root, DAG_ID, plan.run_id)
    _show(plan.input.report, str(folder / REFUSED_FILE))
    errors.print(
        f"Sent {result.sent:,} alerts to T1; {result.already_there:,} were there already. "
        f"Run {escape(plan.id_ejecucion)}, its plan: {escape(str(folder))}",
        soft_wrap=True,
    )
    return plan.input.report


def _same_file(one: str, other: str) -> bool:
    from upath import UPath

    def place(name: str) -> tuple[str, str]:
        path = UPath(name)
        is_local = path.protocol in ("", "file", "local")
        return ("", os.path.realpath(path.path)) if is_local else (path.protocol, path.path)

    return place(one) == place(other)


def _write(file: str, mapping: str | None, settings: Settings, to: str) -> SourceReport:
    import orjson

    from emergencias import sources

    refused = None if to == STDOUT else f"{to}.{sources.REFUSED_FILE}"
    for written in () if refused is None else (to, refused):
        file_path(written)
        if _same_file(written, file):
            raise fail(f"--to {to} would write over {written}, the file that is read; give another")
    found = _inspect(file, mapping, settings, refused)
    if sources.sha256(file) != found.sha256:
        raise fail(f"{file} changed while it was read; try again once it is complete")
    alerts = sources.read(file, mapping=found.mapping, words=found.words)
    with progress("Writing", found.report.alerts) as on_written, lines_to(to) as write:
        for number, alert in enumerate(alerts, 1):
            write(orjson.dumps(alert, option=orjson.OPT_APPEND_NEWLINE))
            if number % 10_000 == 0:
                on_written(number)
    if to != STDOUT:
        errors.print(f"Wrote {found.report.alerts:,} alerts to {escape(to)}", soft_wrap=True)
    return found.report
