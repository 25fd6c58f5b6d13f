from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from local_stack.process import Ended, ProcessId, previous_log, spawn, stop, tail, wait_for_end

OBEDIENT = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT


@pytest.fixture
def start(tmp_path):
    """Start Python code that prints 'up' and wait until it has."""
    started = []

    def start(code: str) -> ProcessId:
        identity = spawn([sys.executable, "-c", code], tmp_path / "x.log", cwd=tmp_path)
        started.append(identity)
        process = identity.find()
        while process is not None and "up" not in tail(tmp_path / "x.log", 5):
            assert wait_for_end(process, 0.01) is None
        return identity

    yield start
    for identity in started:
        stop(identity, timeout_s=5)


def test_a_process_stops_when_asked_to(start):
    identity = start(OBEDIENT)
    assert stop(identity, timeout_s=10) is False
    assert identity.find() is None


def test_a_process_that_will_not_stop_is_killed(start):
    identity = start(STUBBORN)
    assert stop(identity, timeout_s=0.2) is True
    assert identity.find() is None


def test_a_reused_pid_is_another_process_and_left_alone(start):
    identity = start(OBEDIENT)
    former = ProcessId(identity.pid, identity.create_time - 100)
    assert former.find() is None
    assert stop(former, timeout_s=1) is False
    assert identity.find() is not None


def test_a_dead_process_that_nobody_collected_counts_as_gone(start):
    identity = start(OBEDIENT)
    os.kill(identity.pid, signal.SIGKILL)
    process = psutil.Process(identity.pid)
    os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOWAIT)  # it ended, its entry stays
    assert process.status() == psutil.STATUS_ZOMBIE
    assert identity.find() is None


def test_the_end_of_a_child_tells_its_exit_status(tmp_path):
    reads_where_there_is_no_input = [sys.executable, "-c", "raise SystemExit(input() or 0)"]
    identity = spawn(reads_where_there_is_no_input, tmp_path / "x.log", cwd=tmp_path)
    assert wait_for_end(psutil.Process(identity.pid), 10) == Ended(1)
    assert tail(tmp_path / "x.log", 1) == ["EOFError: EOF when reading a line"]


def test_a_signal_at_the_terminal_does_not_reach_it(start):
    identity = start(OBEDIENT)
    assert os.getsid(identity.pid) == identity.pid != os.getsid(0)


def test_the_log_of_the_former_life_is_kept(tmp_path):
    log = tmp_path / "logs" / "x.log"
    for word in ("first", "second", "third"):
        identity = spawn([sys.executable, "-c", f"print('{word}')"], log, cwd=tmp_path)
        wait_for_end(psutil.Process(identity.pid), 10)
    assert tail(log, 5) == ["third"]
    assert tail(previous_log(log), 5) == ["second"]


def test_tail_gives_the_last_lines_whatever_the_bytes(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"a\nb\n\xff\n")
    assert tail(log, 2) == ["b", "�"]
    assert tail(Path(tmp_path, "absent"), 2) == []
