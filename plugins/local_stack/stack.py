"""Start, stop and watch the embedded stack: a Kafka broker and `ksqldb_local`, on loopback."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from local_stack.errors import NotReadyInTimeError, ServiceDiedError, StackError
from local_stack.preflight import require_free_port, require_memory
from local_stack.process import Ended, spawn, stop, tail, wait_for_end
from local_stack.services import Service, kafka_service, ksqldb_service
from local_stack.settings import PROJECT_ROOT, StackSettings
from local_stack.state import StackState, StartedService

_POLL_S = 0.1
_LOG_LINES_IN_ERRORS = 15

Report = Callable[[Service, str], None]


class ServiceState(StrEnum):
    """What `status` can say of a service."""

    READY = "ready"
    NOT_READY = "not ready"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One row of `status`; `pid` and `since` are known of services that were started."""

    service: Service
    state: ServiceState
    address: str
    detail: str = ""
    pid: int | None = None
    since: datetime | None = None


class Stack:
    """The embedded stack of one data folder.

    Every method that changes something holds the folder's lock, so that two commands at once
    cannot start a service twice or stop what the other has just started.
    """

    def __init__(self, settings: StackSettings, services: Sequence[Service] | None = None) -> None:
        """Describe a stack; nothing is read or started yet.

        Args:
            settings: Where it lives.
            services: What it consists of, in the order in which they depend on each other; by
                default the broker and the stream engine on it.
        """
        self.settings = settings
        self.services = services or (
            kafka_service(settings),
            ksqldb_service(settings, settings.bootstrap_servers),
        )
        self._state_path = settings.home / "stack.json"

    def log_path(self, service: Service) -> Path:
        """Return the file that holds what the service prints."""
        return self.settings.logs / f"{service.name}.log"

    def up(self, report: Report) -> tuple[Service, ...]:
        """Start what does not run and wait until every service answers.

        Args:
            report: Told what happens to which service.

        Returns:
            The services that this call started; none when all of them ran already.

        Raises:
            StackError: A service cannot start or does not become ready. What runs by then keeps
                running: the next `up` goes on from there, `down` stops it.
        """
        with self._locked():
            state = StackState.load(self._state_path)
            to_start = [s for s in self.services if not self._runs(s, state)]
            self._preflight(to_start)
            for service in self.services:
                if service in to_start:
                    report(service, "starting")
                    self._start(service, state, report)
                record = state.services[service.name]
                report(service, "waiting until it answers")
                self._wait_until_ready(service, record)
                if service in to_start:
                    report(service, f"ready at {service.address}")
            return tuple(to_start)

    def down(self, report: Report, *, purge: bool = False) -> tuple[Service, ...]:
        """Stop what `up` started and nothing else.

        Args:
            report: Told what happens to which service.
            purge: Remove the broker's data and the logs as well: every alert in every topic.

        Returns:
            The services that this call stopped.
        """
        with self._locked():
            state = StackState.load(self._state_path)
            stopped = []
            for service in reversed(self.services):
                record = state.services.get(service.name)
                if record is None:
                    continue
                if record.process.find() is not None:
                    report(service, "stopping")
                    killed = stop(record.process, timeout_s=self.settings.stop_timeout_s)
                    report(service, "killed: it did not stop in time" if killed else "stopped")
                    stopped.append(service)
                else:
                    report(service, "had ended by itself before")
                del state.services[service.name]
                state.save(self._state_path)
            if purge:
                for folder in (self.settings.kafka_data, self.settings.logs):
                    if folder.exists():
                        shutil.rmtree(folder)
            return tuple(stopped)

    def status(self) -> list[ServiceStatus]:
        """Return what each service does now; ready means that it answered just now."""
        state = StackState.load(self._state_path)
        return [self._status_of(service, state) for service in self.services]

    def _status_of(self, service: Service, state: StackState) -> ServiceStatus:
        record = state.services.get(service.name)
        if record is None:
            return ServiceStatus(service, ServiceState.STOPPED, service.address)
        if record.process.find() is None:
            status, detail = ServiceState.DIED, f"see {self.log_path(service)}"
        elif (missing := service.not_ready(record.address)) is not None:
            status, detail = ServiceState.NOT_READY, missing
        else:
            status, detail = ServiceState.READY, ""
        return ServiceStatus(service, status, record.address, detail, record.pid, record.since)

    def _runs(self, service: Service, state: StackState) -> bool:
        record = state.services.get(service.name)
        if record is None or record.process.find() is None:
            return False
        if record.address != service.address:
            raise StackError(
                f"{service.title} runs at {record.address} but the settings now say "
                f"{service.address}. Run `emergencias stack down` first, or set the former port "
                f"again ({', '.join(service.ports)})."
            )
        return True

    def _preflight(self, to_start: list[Service]) -> None:
        for service in to_start:
            for setting, port in service.ports.items():
                require_free_port(port, service.title, setting)
        require_memory(sum(service.memory_mb for service in to_start))

    def _start(self, service: Service, state: StackState, report: Report) -> None:
        command = service.command(lambda event: report(service, event))
        process = spawn(command, self.log_path(service), cwd=PROJECT_ROOT)
        # Recorded before anything else can fail: what is not in the record, `down` cannot stop.
        state.services[service.name] = StartedService(
            address=service.address,
            pid=process.pid,
            create_time=process.create_time,
            since=datetime.now(UTC),
        )
        state.save(self._state_path)

    def _wait_until_ready(self, service: Service, record: StartedService) -> None:
        deadline = time.monotonic() + self.settings.start_timeout_s
        process = record.process.find()
        while process is not None:
            missing = service.not_ready(record.address)
            if missing is None:
                return
            if (ended := wait_for_end(process, _POLL_S)) is not None:
                raise ServiceDiedError(self._died(service, ended))
            if time.monotonic() > deadline:
                raise NotReadyInTimeError(
                    f"{service.title} at {record.address} was not ready after "
                    f"{self.settings.start_timeout_s:g} s: {missing}. Its log: "
                    f"{self.log_path(service)}. If this machine is slow, run the same command "
                    "again, or set EMERGENCIAS_START_TIMEOUT_S higher."
                    f"{self._log_end(service)}"
                )
        raise ServiceDiedError(self._died(service, Ended(None)))

    def _died(self, service: Service, ended: Ended) -> str:
        how = "" if ended.code is None else f" with exit status {ended.code}"
        hint = "The end of its log says why"
        if ended.code == -signal.SIGKILL:
            free_mb = psutil.virtual_memory().available // (1024 * 1024)
            hint = (
                f"SIGKILL often means that the system ran out of memory ({free_mb} MiB are free "
                "now): close other programs or set EMERGENCIAS_KAFKA_HEAP_MB=256"
            )
        return (
            f"{service.title} ended{how} before it was ready. {hint}; the whole of it is in "
            f"{self.log_path(service)}.{self._log_end(service)}"
        )

    def _log_end(self, service: Service) -> str:
        lines = tail(self.log_path(service), _LOG_LINES_IN_ERRORS)
        return "".join(f"\n  {line}" for line in lines) or "\n  (its log is empty)"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.settings.home.mkdir(parents=True, exist_ok=True)
        # As long as another command may take for both services.
        patience_s = 2 * (self.settings.start_timeout_s + self.settings.stop_timeout_s)
        lock = FileLock(self.settings.home / "stack.lock")
        try:
            with lock.acquire(timeout=patience_s):
                yield
        except Timeout as error:
            raise StackError(
                f"another `emergencias stack` command has been at work on {self.settings.home} "
                f"for more than {patience_s:g} s. Wait for it or end it, then try again."
            ) from error
