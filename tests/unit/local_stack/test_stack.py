"""The stack's own logic, with services that start in no time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import Counter

import psutil
import pytest

from local_stack.errors import NotReadyInTimeError, PortTakenError, ServiceDiedError, StackError
from local_stack.preflight import free_ports
from local_stack.services import Service
from local_stack.settings import StackSettings
from local_stack.stack import ServiceState, Stack

LISTENS = """
import signal, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
signal.pause()
"""
DIES = "print('cannot read the moon'); raise SystemExit(3)"
SITS = "import signal; signal.pause()"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def service(port: int, code: str = LISTENS, name: str = "kafka") -> Service:
    def not_ready(address: str) -> str | None:
        host, _, number = address.partition(":")
        with socket.socket() as probe:
            refused = probe.connect_ex((host, int(number)))
        return "nothing listens there yet" if refused else None

    return Service(
        name=name,
        title=f"Test {name}",
        address=f"127.0.0.1:{port}",
        ports={f"EMERGENCIAS_{name.upper()}_PORT": port},
        memory_mb=1,
        command=lambda _: [sys.executable, "-c", code, str(port)],
        not_ready=not_ready,
    )


@pytest.fixture
def make_stack(tmp_path):
    made: list[Stack] = []

    def make(*services: Service, **changes) -> Stack:
        settings = StackSettings(home=tmp_path, stop_timeout_s=5, **changes)
        made.append(Stack(settings, services))
        return made[-1]

    yield make
    for stack in made:
        stack.down(unreported)


def unreported(service: Service, event: str) -> None:
    pass


def test_a_second_up_does_nothing(make_stack):
    stack = make_stack(*(service(p, name=n) for p, n in zip(free_ports(2), "ab", strict=True)))
    assert [started.name for started in stack.up(unreported)] == ["a", "b"]
    first = stack.status()
    events: list[str] = []
    assert stack.up(lambda _, event: events.append(event)) == ()
    assert stack.status() == first
    assert not any(event.startswith(("starting", "ready")) for event in events)


def test_status_tells_stopped_ready_died(make_stack):
    stack = make_stack(service(*free_ports(1)))
    assert [row.state for row in stack.status()] == [ServiceState.STOPPED]
    stack.up(unreported)
    (row,) = stack.status()
    assert row.state is ServiceState.READY
    os.kill(row.pid, signal.SIGKILL)
    psutil.Process(row.pid).wait(timeout=5)
    (row,) = stack.status()
    assert row.state is ServiceState.DIED
    assert str(stack.log_path(row.service)) in row.detail


def test_up_starts_again_what_died_and_nothing_else(make_stack):
    stack = make_stack(*(service(p, name=n) for p, n in zip(free_ports(2), "ab", strict=True)))
    stack.up(unreported)
    before = {row.service.name: row.pid for row in stack.status()}
    os.kill(before["a"], signal.SIGKILL)
    psutil.Process(before["a"]).wait(timeout=5)
    assert [started.name for started in stack.up(unreported)] == ["a"]
    after = {row.service.name: row.pid for row in stack.status()}
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


def test_down_stops_in_reverse_order_and_only_what_it_started(make_stack):
    ours = make_stack(*(service(p, name=n) for p, n in zip(free_ports(2), "ab", strict=True)))
    ours.up(unreported)
    (port,) = free_ports(1)
    stranger = psutil.Popen([sys.executable, "-c", LISTENS, str(port)])
    try:
        assert [stopped.name for stopped in ours.down(unreported)] == ["b", "a"]
        assert stranger.is_running()
        assert ours.down(unreported) == ()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_refused_before_anything_starts(make_stack):
    free, taken = free_ports(2)
    stack = make_stack(service(free, name="a"), service(taken, name="b"))
    with (
        socket.create_server(("127.0.0.1", taken)),
        pytest.raises(PortTakenError, match="EMERGENCIAS_B_PORT="),
    ):
        stack.up(unreported)
    assert {row.state for row in stack.status()} == {ServiceState.STOPPED}


def test_a_service_that_dies_shows_its_status_and_the_end_of_its_log(make_stack):
    stack = make_stack(service(*free_ports(1), code=DIES))
    with pytest.raises(ServiceDiedError, match=r"(?s)exit status 3.*cannot read the moon"):
        stack.up(unreported)


def test_a_killed_service_points_at_memory(make_stack):
    stack = make_stack(service(*free_ports(1), code=KILLED))
    with pytest.raises(ServiceDiedError, match=r"out of memory.*HEAP_MB"):
        stack.up(unreported)


def test_a_service_that_never_answers_is_an_error_in_time_and_can_be_stopped(make_stack):
    stack = make_stack(service(*free_ports(1), code=SITS), start_timeout_s=0.3)
    with pytest.raises(NotReadyInTimeError, match="nothing listens there yet"):
        stack.up(unreported)
    assert [row.state for row in stack.status()] == [ServiceState.NOT_READY]
    assert len(stack.down(unreported)) == 1


def test_a_changed_port_of_a_running_service_is_refused(make_stack):
    before, after = free_ports(2)
    make_stack(service(before)).up(unreported)
    with pytest.raises(StackError, match=rf"runs at 127.0.0.1:{before}.*stack down"):
        make_stack(service(after)).up(unreported)


def test_down_stops_a_service_whose_port_setting_has_changed_since(make_stack):
    before, after = free_ports(2)
    make_stack(service(before)).up(unreported)
    assert len(make_stack(service(after)).down(unreported)) == 1


def test_a_stale_record_of_a_reused_pid_stops_nobody(make_stack):
    stack = make_stack(service(*free_ports(1)))
    stack.up(unreported)
    (row,) = stack.status()
    record = stack.settings.home / "stack.json"
    fresh = record.read_text()
    birth = psutil.Process(row.pid).create_time()
    record.write_text(fresh.replace(str(birth), str(birth - 1000)))
    assert stack.status()[0].state is ServiceState.DIED
    assert stack.down(unreported) == ()
    assert psutil.pid_exists(row.pid)
    record.write_text(fresh)


def test_two_ups_at_once_start_each_service_once(make_stack):
    stacks = [make_stack(service(p)) for p in free_ports(1) * 4]
    started: Counter[int] = Counter()
    threads = [
        threading.Thread(target=lambda s=stack: started.update([len(s.up(unreported))]))
        for stack in stacks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == {1: 1, 0: 3}


def test_purge_removes_data_and_logs_after_stopping(make_stack):
    stack = make_stack(service(*free_ports(1)))
    stack.up(unreported)
    (stack.settings.kafka_data / "data").mkdir(parents=True)
    stack.down(unreported)
    assert stack.settings.kafka_data.exists()
    stack.down(unreported, purge=True)
    assert not stack.settings.kafka_data.exists()
    assert not stack.settings.logs.exists()
