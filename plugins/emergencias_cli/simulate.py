"""`emergencias simulate`: alerts of a profile onto the intake topic, into a file or onto stdout."""

from __future__ import annotations

import gzip
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emergencias.params import MAX_ALERTS, MAX_SEED, Profile
from emergencias_cli.console import errors, fail, load_settings

if TYPE_CHECKING:
    from emergencias.settings import Settings
    from kafka_io import ClientConfig

TOPIC, STDOUT = "topic", "-"
MADRID = ZoneInfo("Europe/Madrid")

Sink = Callable[[bytes], None]
"""Takes some lines of JSON, each ended by a newline."""


def simulate(
    alerts: Annotated[
        int, typer.Option(min=1, max=MAX_ALERTS, help="How many alerts there are to be.")
    ] = 250,
    profile: Annotated[
        Profile, typer.Option(help="What a day is like; see docs/profiles.md.")
    ] = Profile.ORIGINAL,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_SEED,
            help="The same seed, profile, number and period give the same bytes.",
            show_default="a new one, which is shown",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Begin of the period (ISO 8601, Madrid's time unless it says otherwise).",
            show_default="a day before the end",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(help="End of the period, not in the future.", show_default="now"),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            help=f"'{TOPIC}': the intake topic; '{STDOUT}': standard output; else a file of JSON "
            "Lines (compressed if it ends in .gz), which appears when it is complete."
        ),
    ] = STDOUT,
) -> None:
    """Invent alerts that are like those of a 112 centre.

    On the topic they belong to no run of the DAG: they are routed like all others.

    Example: emergencias simulate --alerts 1000 --profile realistic --seed 7 --to alerts.jsonl

    Example: emergencias simulate --alerts 20000 --profile surge --to topic

    Example: emergencias simulate --start 2024-10-29 --end 2024-10-30 --profile surge | head -3
    """
    # Imported here: every other command starts without numpy.
    from emergencias.settings import Settings
    from emergencias.simulator import simulate_lines

    settings = Settings()
    seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    period = _period(start, end, datetime.now(UTC))
    id_ejecucion = None
    if to == TOPIC:
        id_ejecucion = f"{settings.instance}/simulate/{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    try:
        blocks = simulate_lines(
            seed,
            alerts,
            *period,
            id_ejecucion,
            profile=profile.value,
            data_folder=settings.data_dir,
        )
    except ValueError as error:  # a data file that somebody edited says where it is wrong
        raise fail(str(error)) from error
    with _sink(to, id_ejecucion, settings) as sink:
        for lines in _with_progress(blocks, alerts):
            sink(lines)
    errors.print(
        f"{alerts:,} alerts to {escape('standard output' if to == STDOUT else to)}. Once more: "
        f"--alerts {alerts} --profile {profile} --seed {seed} "
        f"--start {period[0].isoformat()} --end {period[1].isoformat()}",
        soft_wrap=True,
    )


def _period(start: str | None, end: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the period that the options ask for.

    Raises:
        typer.BadParameter: A moment cannot be read, is in the future, or the two do not fit.
    """
    last = now.replace(microsecond=0) if end is None else _moment("--end", end)
    if last > now:
        raise typer.BadParameter(
            f"{last.isoformat()} is in the future; nobody reports what has not happened",
            param_hint="--end",
        )
    first = last - timedelta(days=1) if start is None else _moment("--start", start)
    if last - first < timedelta(seconds=1):
        raise typer.BadParameter(
            f"{first.isoformat()} is not before the end ({last.isoformat()})", param_hint="--start"
        )
    return first, last


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no moment in ISO 8601, e.g. 2024-10-29 or 2024-10-29T17:00+01:00",
            param_hint=option,
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=MADRID)


@contextmanager
def _sink(to: str, id_ejecucion: str | None, settings: Settings) -> Iterator[Sink]:
    """Open where the alerts go; failures end the command with a plain message."""
    from kafka_io import KafkaIoError

    if id_ejecucion is not None:
        stack = load_settings()
        config = {"bootstrap.servers": stack.bootstrap_servers}
        try:
            with _topic(config, id_ejecucion, settings) as sink:
                yield sink
        except KafkaIoError as error:
            raise fail(f"{error} 'emergencias stack up' starts the embedded broker.") from error
        return
    try:
        if to == STDOUT:
            yield _write_to_stdout
            sys.stdout.buffer.flush()
        else:
            with _file(to) as sink:
                yield sink
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except OSError as error:
        raise fail(f"{to} cannot be written: {error}") from error


def _write_to_stdout(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)


@contextmanager
def _file(name: str) -> Iterator[Sink]:
    from upath import UPath

    from emergencias.files import replacing

    with replacing(UPath(name)) as raw:
        if not name.endswith(".gz"):
            yield lambda lines: _ignore(raw.write(lines))
            return
        # Without a name and a time inside, so that the same alerts give the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield lambda lines: _ignore(packed.write(lines))


def _ignore(_: int) -> None:
    """Drop what a write returns: these writers take all or raise."""


@contextmanager
def _topic(config: ClientConfig, id_ejecucion: str, settings: Settings) -> Iterator[Sink]:
    """Send in transactions, some thousands of alerts each: seen whole by readers, or not at all."""
    from emergencias import model
    from kafka_io import CheckedProducer, OutRecord, ensure_topics, load_catalogue

    topics = [spec for spec in load_catalogue(settings.topics_file) if spec.name == model.T1]
    ensure_topics(config, topics)
    sent = 0
    with CheckedProducer(config, transactional_id=id_ejecucion) as producer:

        def send(lines: bytes) -> None:
            nonlocal sent
            producer.begin()
            for value in lines.splitlines():
                key = model.alert_id(id_ejecucion, sent).encode()
                producer.send(OutRecord(topic=model.T1, key=key, value=value))
                sent += 1
            producer.commit()

        yield send


def _with_progress(blocks: Iterable[bytes], alerts: int) -> Iterator[bytes]:
    columns = (
        TextColumn("Alerts"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=alerts)
        for lines in blocks:
            yield lines
            bar.advance(task, lines.count(b"\n"))
