"""The plan of a run: what it will send, written down before the first alert is sent."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict
from upath import UPath

from emergencias import model, sources
from emergencias.params import RunParams, Source
from emergencias.words import Words, load_words

if TYPE_CHECKING:
    from emergencias.settings import Settings
    from kafka_io import ClientConfig, Offsets

PLAN_FILE = "plan.json"


class PlanConflictError(RuntimeError):
    """The run has a plan already, and what is asked for now differs from it."""

    retryable = False


class Interval(BaseModel):
    """Half-open span of the simulated events' times."""

    model_config = ConfigDict(frozen=True)
    start: AwareDatetime
    end: AwareDatetime


class InputFile(BaseModel):
    """The file that a run replays, as it was when the plan was made, and how it is read.

    The mapping and the words are kept whole, so that a retry reads the same alerts although
    somebody has edited them since.

    Attributes:
        report: What the file holds and what came of its rows.
        mapping: How its columns become fields; None if they have the fields' names.
        mapping_sha256: Of the mapping's file, hexadecimal.
        words: The contract's words by what is written (`emergencias.words`).
    """

    model_config = ConfigDict(frozen=True)
    report: sources.SourceReport
    mapping: sources.Mapping | None = None
    mapping_sha256: str | None = None
    words: Words

    @property
    def path(self) -> str:
        """The file."""
        return self.report.path

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes as stored, hexadecimal."""
        return self.report.sha256


class Plan(BaseModel):
    """What a run sends, from where on T1 it is to be looked for, and how its ids are made.

    A cleared, retried or repeated run goes on from this file. Without it a retry could not tell
    the alerts that it still owes from those already sent. Where `t1_start_offsets` lacks a
    partition, the run is looked for on all of it.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    id_ejecucion: str
    instance: str
    dag_id: str
    run_id: str
    created_at: AwareDatetime
    created_ms: int
    params: RunParams
    seed: int
    interval: Interval
    alerts: int
    input: InputFile | None
    id_recipe: str
    t1_start_offsets: dict[str, int]
    routing_sql: dict[str, str]

    @property
    def source(self) -> Source:
        """Where the alerts come from."""
        return self.params.source

    def alert_id(self, sequence: int) -> str:
        """Return the id of the plan's `sequence`-th alert, from 0."""
        return model.alert_id(self.id_ejecucion, sequence)


def execution_id(instance: str, dag_id: str, run_id: str) -> str:
    """Return id_ejecucion, the run's identity on every topic."""
    return f"{instance}/{dag_id}/{run_id}"


def run_folder(export_root: str, dag_id: str, run_id: str) -> UPath:
    """Return the folder of a run's files.

    Each part is percent-encoded whole, so that a run id with a slash or dots cannot leave it.
    """
    return UPath(export_root) / _segment(dag_id) / _segment(run_id)


def seed_of(run_id: str) -> int:
    """Return the seed that a run without one gets: the same for every retry of it."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8]) >> 1


def make_plan(
    config: ClientConfig,
    settings: Settings,
    *,
    dag_id: str,
    run_id: str,
    params: RunParams,
    interval_end: datetime,
    retention_ms: int,
    named_by_content: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Plan:
    """Return the run's plan, writing it if this is the run's first try.

    Args:
        config: Settings of the Kafka clients.
        settings: The pipeline's settings.
        dag_id: The DAG.
        run_id: The run; together with the DAG and the instance its identity.
        params: What the run was asked for.
        interval_end: End of the day whose events a simulated run tells.
        retention_ms: How long T1 keeps a record; an older plan cannot be gone on with.
        named_by_content: The run is named after what its file and mapping hold: they may now lie
            elsewhere than when it was planned, and it has no beginning on T1.
        on_progress: Called now and then with the number of alerts read from the file so far.

    Raises:
        PlanConflictError: The run's plan was made for other parameters, another content of the
            file or another T1, or is older than T1's retention.
        emergencias.params.RunParamsError: The pace is too slow for the number of alerts.
        sources.SourceError: The input file cannot be replayed.
        sources.MappingError: The mapping cannot be used.
        kafka_io.KafkaIoError: T1's offsets cannot be read.

    Guarantees that the plan is on disk before it returns, and that of two tries at once both
    return the same one. If rows of the input file are refused, they are in `refused.jsonl` beside
    the plan.
    """
    from kafka_io import high_watermarks

    folder = run_folder(settings.export_root, dag_id, run_id)
    path = folder / PLAN_FILE
    if path.exists():
        plan = Plan.model_validate_json(path.read_text())
        if named_by_content:
            plan = _moved(plan, params, settings.data_dir)
        _check_same(plan, params, retention_ms, path)
        check_t1(plan, high_watermarks(config, [model.T1]))
        return plan
    # What such a run sends may be on T1 already, sent by a plan that was lost or lies elsewhere.
    ends = {} if named_by_content else high_watermarks(config, [model.T1])
    source_file = None
    if params.input_path is not None:
        source_file = inspect_input(
            params.input_path,
            params.mapping,
            settings.data_dir,
            folder / sources.REFUSED_FILE,
            on_progress,
        )
    plan = _new_plan(settings, dag_id, run_id, params, interval_end, ends, source_file)
    _write_once(path, plan.model_dump_json(indent=2) + "\n")
    return Plan.model_validate_json(path.read_text())


def inspect_input(
    path: str,
    mapping: str | None,
    data_dir: Path,
    refused_file: UPath | None,
    on_progress: Callable[[int], None] | None = None,
) -> InputFile:
    """Read a file wholly, and write down the rows that are refused, if there are any.

    Args:
        path: The file.
        mapping: Name or path of a mapping, or None.
        data_dir: Folder of the vocabulary and the ready mappings.
        refused_file: Where the refused rows go; None writes nothing.
        on_progress: Called now and then with the number of alerts so far.

    Raises:
        sources.SourceError: The file cannot be taken in as a whole.
        sources.MappingError: The mapping cannot be used.
    """
    words = load_words(data_dir)
    found, digest = (None, None) if mapping is None else sources.load_mapping(mapping, data_dir)
    with sources.refused_rows(refused_file, path) as write:
        report = sources.inspect(
            path, mapping=found, words=words, on_refused=write, on_progress=on_progress
        )
    return InputFile(report=report, mapping=found, mapping_sha256=digest, words=words)


def load_plan(settings: Settings, dag_id: str, run_id: str) -> Plan:
    """Return the plan that `make_plan` wrote.

    Raises:
        PlanConflictError: There is none; the message says to run `plan_run` first.
    """
    path = run_folder(settings.export_root, dag_id, run_id) / PLAN_FILE
    if not path.exists():
        raise PlanConflictError(
            f"Run {run_id!r} has no plan at {path}. Clear the task plan_run and run again from it; "
            "if the folder was deleted by hand, start a new run."
        )
    return Plan.model_validate_json(path.read_text())


def check_t1(plan: Plan, ends: Offsets) -> None:
    """Check that T1 is the topic that the plan was made for, as far as its end tells.

    Raises:
        PlanConflictError: T1 ends before the plan's offsets: it was deleted and made anew, and
            what was sent to the old one can be neither found nor proven.
    """
    for partition, offset in plan.t1_start_offsets.items():
        end = ends.get((model.T1, int(partition)), 0)
        if end < offset:
            raise PlanConflictError(
                f"{model.T1} partition {partition} ends at {end}, before offset {offset} where run "
                f"{plan.run_id!r} began: the topic is not the one that the run was planned for. "
                "Start a new run."
            )


def _new_plan(
    settings: Settings,
    dag_id: str,
    run_id: str,
    params: RunParams,
    interval_end: datetime,
    ends: Offsets,
    source_file: InputFile | None,
) -> Plan:
    alerts = params.alerts if source_file is None else source_file.report.alerts
    params.check_duration(alerts)
    now = datetime.now(UTC)
    # Airflow's own datetime class loses its zone in Pydantic's JSON; nobody reports the future.
    end = min(datetime.fromtimestamp(interval_end.timestamp(), UTC), now)
    return Plan(
        id_ejecucion=execution_id(settings.instance, dag_id, run_id),
        instance=settings.instance,
        dag_id=dag_id,
        run_id=run_id,
        created_at=now,
        created_ms=int(now.timestamp() * 1000),
        params=params,
        seed=seed_of(run_id) if params.seed is None else params.seed,
        interval=Interval(start=end - timedelta(days=1), end=end),
        alerts=alerts,
        input=source_file,
        id_recipe=model.ID_RECIPE,
        routing_sql={
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(settings.sql_dir.glob("*.sql"))
        },
        t1_start_offsets={str(partition): offset for (_, partition), offset in ends.items()},
    )


def _moved(plan: Plan, params: RunParams, data_dir: Path) -> Plan:
    """Return the plan with the place where its file and mapping are now."""
    if plan.input is None or params.input_path is None:
        return plan
    digest = None if params.mapping is None else sources.load_mapping(params.mapping, data_dir)[1]
    if digest != plan.input.mapping_sha256:
        raise PlanConflictError(
            f"Run {plan.run_id!r} was planned with mapping {plan.params.mapping or '(none)'} as it "
            f"was then; now it is {params.mapping or '(none)'} or was edited since, and part of "
            "the file may be sent already. Give the run its old mapping, or start a new run."
        )
    now = {"input_path": params.input_path, "mapping": params.mapping}
    report = plan.input.report.model_copy(update={"path": params.input_path})
    return plan.model_copy(
        update={
            "params": plan.params.model_copy(update=now),
            "input": plan.input.model_copy(update={"report": report}),
        }
    )


def _check_same(plan: Plan, params: RunParams, retention_ms: int, path: UPath) -> None:
    if plan.params != params:
        before, now = plan.params.model_dump(mode="json"), params.model_dump(mode="json")
        changed = ", ".join(
            f"{name}: {before[name]!r} -> {now[name]!r}"
            for name in before
            if before[name] != now[name]
        )
        raise PlanConflictError(
            f"Run {plan.run_id!r} was planned with other parameters ({changed}), and part of it "
            f"may be sent already. Start a new run, or give the run its old parameters. "
            f"Plan: {path}"
        )
    age_ms = int(datetime.now(UTC).timestamp() * 1000) - plan.created_ms
    if age_ms >= retention_ms:
        age, kept = timedelta(milliseconds=age_ms), timedelta(milliseconds=retention_ms)
        raise PlanConflictError(
            f"The plan of run {plan.run_id!r} is {age.days} days old and {model.T1} keeps records "
            f"for {kept.days} days: what was sent can no longer be told from what was not. "
            "Start a new run."
        )
    if plan.input is not None:
        found = sources.sha256(plan.input.path)
        if found != plan.input.sha256:
            raise PlanConflictError(
                f"{plan.input.path} changed since run {plan.run_id!r} was planned "
                f"(SHA-256 {plan.input.sha256[:12]}… then, {found[:12]}… now). "
                "Put the old file back, or start a new run for the new one."
            )


def _segment(name: str) -> str:
    encoded = quote(name, safe="")
    return encoded.replace(".", "%2E") if not encoded.strip(".") else encoded


def _write_once(path: UPath, text: str) -> None:
    """Write the file unless it exists, never leaving half of it under its final name.

    On a local disk the file is there after a power cut, and of two tries at once one wins. An
    object store has no such step: there the second of two copies of the same plan stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    local = path.protocol in ("", "file", "local")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            if local:
                file.flush()
                os.fsync(file.fileno())
        if local:
            with suppress(FileExistsError):
                os.link(beside.path, path.path)
            folder = os.open(path.parent.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        elif not path.exists():
            path.fs.copy(beside.path, path.path)
    finally:
        beside.unlink(missing_ok=True)
