"""Sends a run's planned alerts to T1, each exactly once however often it is tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from emergencias import model, simulator, sources
from emergencias.params import Source
from emergencias.plan import check_t1
from kafka_io import (
    CheckedProducer,
    Offsets,
    OutRecord,
    high_watermarks,
    log_start_offsets,
    read_range,
)

if TYPE_CHECKING:
    from emergencias.plan import Plan
    from kafka_io import ClientConfig

COMMIT_INTERVAL_S = 1.0
MAX_TRANSACTION_ALERTS = 10_000


class InputChangedError(RuntimeError):
    """The file that a run replays is not the one that was planned."""

    retryable = False


@dataclass(frozen=True)
class IntakeResult:
    """What one try did: alerts it sent, and planned alerts that T1 had from an earlier try."""

    sent: int
    already_there: int


def values(plan: Plan, data_dir: Path) -> Iterator[bytes]:
    """Yield the plan's alerts in order as T1 holds them, the same ones on every call.

    Raises:
        InputChangedError: The file has another content than when the plan was made.
    """
    if plan.source is Source.SIMULATOR:
        blocks = simulator.simulate_lines(
            plan.seed,
            plan.alerts,
            plan.interval.start,
            plan.interval.end,
            plan.id_ejecucion,
            profile=plan.params.profile,
            data_folder=data_dir,
        )
        return (line for block in blocks for line in block.splitlines())
    if plan.input is None:
        raise ValueError(f"plan of {plan.id_ejecucion} replays a file but names none")
    if sources.sha256(plan.input.path) != plan.input.sha256:
        raise InputChangedError(
            f"{plan.input.path} changed since the run was planned. Put the old file back and clear "
            "this task, or start a new run for the new file."
        )
    alerts = islice(
        sources.read(plan.input.path, mapping=plan.input.mapping, words=plan.input.words),
        plan.alerts,
    )
    return (model.encode_alert(alert, plan.id_ejecucion) for alert in alerts)


def keys_in_t1(config: ClientConfig, plan: Plan, *, timeout_s: float) -> set[bytes]:
    """Return the keys of all committed alerts of T1 since the plan's offsets.

    Waits for other producers' open transactions below the high watermarks, at most `timeout_s`
    without progress: an alert hidden behind one would otherwise be sent again. A record without a
    value is no alert, whatever its key.

    Raises:
        emergencias.plan.PlanConflictError: T1 is not the topic that the plan was made for.
    """
    end = high_watermarks(config, [model.T1])
    check_t1(plan, end)
    log_start = log_start_offsets(config, [model.T1])
    start: Offsets = {
        key: plan.t1_start_offsets.get(str(key[1]), log_start.get(key, 0)) for key in end
    }
    return {
        key
        for batch in read_range(config, start, end, timeout_s=timeout_s)
        for message in batch
        if message.value() is not None and (key := message.key()) is not None
    }


def send_planned_alerts(
    config: ClientConfig,
    plan: Plan,
    *,
    data_dir: Path,
    map_index: int = 0,
    timeout_s: float = 60,
    on_progress: Callable[[int, int], None] | None = None,
) -> IntakeResult:
    """Send the planned alerts that T1 lacks.

    Args:
        config: Settings of the Kafka clients.
        plan: The run's plan.
        data_dir: The simulator's vocabulary, gazetteer and profiles.
        map_index: Which of several producers of one run this is; part of the transactional id.
        timeout_s: How long the look at T1 may make no progress.
        on_progress: Called with (done, planned) after each commit.

    Raises:
        kafka_io.ProducerFencedError: A later try of the same task took over and this one is a
            zombie, or its transaction expired; nothing of the open one is seen by anybody.
        kafka_io.DeliveryError: The broker refused an alert.
        InputChangedError: See `values`.
        emergencias.plan.PlanConflictError: See `keys_in_t1`.

    Guarantees that T1 holds each planned alert exactly once when it returns. The order matters:
    opening the producer fences an earlier try and aborts what it left open, and only then is T1
    read; the other way round the zombie could still commit an alert that is sent here again.
    """
    transactional_id = f"{plan.id_ejecucion}#{map_index}"
    with CheckedProducer(config, transactional_id=transactional_id) as producer:
        present = keys_in_t1(config, plan, timeout_s=timeout_s)
        sent = already_there = 0
        pace = _Pace(plan.params.rate_per_second)
        open_since: float | None = None
        in_transaction = 0
        for sequence, value in enumerate(values(plan, data_dir)):
            key = plan.alert_id(sequence).encode()
            if key in present:
                already_there += 1
                continue
            if open_since is not None and (
                in_transaction >= MAX_TRANSACTION_ALERTS
                or max(time.monotonic(), pace.next_at) - open_since >= COMMIT_INTERVAL_S
            ):
                producer.commit()
                open_since = None
                if on_progress:
                    on_progress(already_there + sent, plan.alerts)
            pace.wait()
            if open_since is None:
                producer.begin()
                open_since, in_transaction = time.monotonic(), 0
            producer.send(OutRecord(topic=model.T1, key=key, value=value))
            sent += 1
            in_transaction += 1
        if open_since is not None:
            producer.commit()
    if on_progress:
        on_progress(already_there + sent, plan.alerts)
    return IntakeResult(sent=sent, already_there=already_there)


class _Pace:
    """Spaces the alerts of a simulated stream; at rate 0 it never waits."""

    def __init__(self, rate_per_second: float) -> None:
        self._interval = 1 / rate_per_second if rate_per_second else 0.0
        self._never = threading.Event()
        self.next_at = 0.0

    def wait(self) -> None:
        if not self._interval:
            return
        now = time.monotonic()
        self.next_at = self.next_at or now
        if self.next_at > now:
            self._never.wait(self.next_at - now)
        self.next_at += self._interval
