"""`emergencias simulate`: alerts of a profile onto the intake topic, into a file or onto stdout."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape

from emergencias.params import MAX_ALERTS, MAX_SEED, Profile
from emergencias_cli.broker import reachable_kafka
from emergencias_cli.console import errors, fail, progress
from emergencias_cli.output import STDOUT, Sink, lines_to

if TYPE_CHECKING:
    from emergencias.settings import Settings
    from kafka_io import ClientConfig

TOPIC = "topic"
MADRID = ZoneInfo("Europe/Madrid")
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""Clocks before it have offsets with seconds, which ISO 8601 cannot say."""
LONGEST = timedelta(days=3660)
"""Ten years: the simulator weighs each quarter of an hour of the period."""


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
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Kafka brokers.", show_default="the embedded stack's")
    ] = None,
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
    with (
        _sink(to, id_ejecucion, settings, bootstrap_servers) as sink,
        progress("Alerts", alerts) as on_done,
    ):
        done = 0
        for lines in blocks:
            sink(lines)
            done += lines.count(b"\n")
            on_done(done)
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
    if last < EARLIEST:
        raise typer.BadParameter(
            f"{last.isoformat()} is before {EARLIEST.isoformat()}", param_hint="--end"
        )
    if last > now:
        raise typer.BadParameter(
            f"{last.isoformat()} is in the future; nobody reports what has not happened",
            param_hint="--end",
        )
    first = last - timedelta(days=1) if start is None else _moment("--start", start)
    if last - first > LONGEST:
        raise typer.BadParameter(
            f"{first.isoformat()} is more than {LONGEST.days} days before the end "
            f"({last.isoformat()})",
            param_hint="--start",
        )
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
def _sink(
    to: str, id_ejecucion: str | None, settings: Settings, brokers: str | None
) -> Iterator[Sink]:
    """Open where the alerts go; failures end the command with a plain message."""
    from kafka_io import KafkaIoError

    if id_ejecucion is None:
        with lines_to(to) as sink:
            yield sink
        return
    try:
        with _topic(reachable_kafka(brokers), id_ejecucion, settings) as sink:
            yield sink
    except KafkaIoError as error:
        raise fail(f"{error} 'emergencias stack up' starts the embedded broker.") from error


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
