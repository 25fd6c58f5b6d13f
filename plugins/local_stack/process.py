"""Processes that outlive the command that started them, known by pid and time of birth."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# Two readings of one process's birth may differ by a clock tick; another process with the same
# pid is born at least as long after as the kernel takes to hand out all pids once.
_BIRTH_TOLERANCE_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for certain: a pid alone may have been given to another program meanwhile."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessId:
        """Return the identity of a live process."""
        return cls(process.pid, process.create_time())

    def find(self) -> psutil.Process | None:
        """Return the live process, or None when it ended or its pid now belongs to another."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) <= _BIRTH_TOLERANCE_S
            if same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            return None
        return None


def spawn(command: Sequence[str], log: Path, *, cwd: Path) -> ProcessId:
    """Start a process in a session of its own, so that Ctrl-C in this terminal does not reach it.

    Args:
        command: Program and arguments.
        log: Receives standard output and error; the former life's log is kept as `<log>.1`.
        cwd: Working folder of the process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(previous_log(log))
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # a log that comes too late is no log
            start_new_session=True,
        )
    return ProcessId.of(psutil.Process(process.pid))


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended; `code` is None when the system keeps it from us (not our child)."""

    code: int | None


def wait_for_end(process: psutil.Process, timeout_s: float) -> Ended | None:
    """Wait at most `timeout_s` for the process to end; None when it still runs."""
    try:
        return Ended(process.wait(timeout=timeout_s))
    except psutil.TimeoutExpired:
        return None
    except psutil.NoSuchProcess:
        return Ended(None)


def stop(identity: ProcessId, *, timeout_s: float) -> bool:
    """Stop exactly this process: SIGTERM, a bounded wait, then SIGKILL.

    Returns:
        Whether it had to be killed. A process that is gone already counts as stopped.
    """
    process = identity.find()
    if process is None:
        return False
    try:
        process.terminate()
        if wait_for_end(process, timeout_s) is not None:
            return False
        process.kill()
        process.wait(timeout=timeout_s)
    except psutil.NoSuchProcess:
        return False
    return True


def tail(log: Path, lines: int) -> list[str]:
    """Return the last lines of a log file; none when there is no such file."""
    if not log.exists():
        return []
    with log.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=lines)]


def previous_log(log: Path) -> Path:
    """Return where the log of the former life of a service is kept."""
    return log.with_name(f"{log.name}.1")
