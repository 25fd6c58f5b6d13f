"""Run a DAG by `airflow dags test` and make its log readable while it runs."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from emergencias_cli.airflow_home import AIRFLOW

# Lines of `airflow dags test` (Airflow 3.3). Should a later version word them differently, the
# progress gets poorer but the exit status, the log and the manifest still tell the truth.
_TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) \[")
_RUN_ID = re.compile(r"<DagRun \S+ @ [^>]*?: (\S+), state:")
_STARTED = re.compile(r"\[DAG TEST\] starting task_id=(\S+)(?: map_index=(\S+))?")
_ENDED = re.compile(r"\[DAG TEST\] end task task_id=")
_STATE = re.compile(r"Task instance state updated .*\bnew_state=(\w+)")
_FAILED = "Task failed with exception"
_TRACEBACK = "Traceback (most recent call last):"
_STACK_FRAME = '  File "'


class TaskOutcome(StrEnum):
    """How one try of a task ended."""

    SUCCESS = "success"
    RETRY = "up_for_retry"
    RESCHEDULE = "up_for_reschedule"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> TaskOutcome:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A try of a task began."""

    task: str


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A try of a task ended; `error` is the exception's message, without stack frames."""

    task: str
    outcome: TaskOutcome
    seconds: float
    error: str


@dataclass
class LogReader:
    """Understand the log of one run line by line.

    Attributes:
        run_id: The run's id, once the log has told it.
        error: The message of the last exception that ended a task or Airflow itself.
    """

    run_id: str | None = None
    error: str = ""
    _task: str | None = None
    _started_at: datetime | None = None
    _outcome: TaskOutcome = TaskOutcome.UNKNOWN
    _task_error: list[str] = field(default_factory=list)
    _in_error: bool = False
    _in_frames: bool = False

    def feed(self, lines: Iterable[str]) -> Iterator[TaskStarted | TaskEnded]:
        """Yield what happens to tasks as the lines tell it."""
        for line in lines:
            yield from self._feed(line.rstrip("\n"))

    def _feed(self, line: str) -> Iterator[TaskStarted | TaskEnded]:
        timestamp = _TIMESTAMP.match(line)
        if timestamp is None:
            self._continue_error(line)
            return
        self._in_error = False
        if self.run_id is None and (found := _RUN_ID.search(line)):
            self.run_id = found[1]
        if found := _STARTED.search(line):
            index = found[2]
            self._task = found[1] if index in (None, "-1") else f"{found[1]}[{index}]"
            self._started_at = datetime.fromisoformat(timestamp[1])
            self._outcome = TaskOutcome.UNKNOWN
            self._task_error = []
            yield TaskStarted(self._task)
        elif _FAILED in line:
            self._in_error = True
            self._task_error = []
        elif found := _STATE.search(line):
            self._outcome = TaskOutcome(found[1])
        elif _ENDED.search(line) and self._task is not None and self._started_at is not None:
            took = datetime.fromisoformat(timestamp[1]) - self._started_at
            # A task that succeeds may have logged an exception that it handled.
            succeeded = self._outcome is TaskOutcome.SUCCESS
            error = "" if succeeded else "\n".join(self._task_error).strip()
            self.error = error or self.error
            task, self._task = self._task, None
            yield TaskEnded(task, self._outcome, took.total_seconds(), error)

    def _continue_error(self, line: str) -> None:
        # What follows the last stack frame is the exception's own message, however many lines.
        if line == _TRACEBACK or line.startswith(_STACK_FRAME):
            self._in_error = self._in_frames = True
            self._task_error.clear()
        elif self._in_error and not (self._in_frames and line.startswith("    ")):
            self._in_frames = False
            self._task_error.append(line)
            if self._task is None:  # no task runs: it is Airflow that fails
                self.error = "\n".join(self._task_error).strip()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of `airflow dags test`."""

    exit_status: int
    seconds: float


def run_dag(
    dag_id: str, conf: str | None, *, env: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[str | Finished]:
    """Run the DAG once as a run of its own and yield its log's lines, then how it ended.

    Args:
        dag_id: Which DAG.
        conf: Its params as JSON.
        env: The environment of the process.
        cwd: Its working folder.
        log: Receives everything that Airflow prints.
    """
    command: Sequence[str] = [*AIRFLOW, "dags", "test", dag_id]
    if conf is not None:
        command = [*command, "--conf", conf]
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as copy,
        subprocess.Popen(
            command,
            env={**env, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 (for mypy: stdout is a pipe)
        for line in process.stdout:
            copy.write(line)
            copy.flush()
            yield line
        exit_status = process.wait()
    yield Finished(exit_status, time.monotonic() - started)
