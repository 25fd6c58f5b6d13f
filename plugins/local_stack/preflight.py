"""Checks before a service starts, so that a start fails with its reason and not with a log."""

from __future__ import annotations

import socket
from random import SystemRandom

import psutil

from local_stack.errors import MemoryShortError, PortTakenError
from local_stack.settings import LOOPBACK

_MIB = 1024 * 1024
_SPARE_PORTS = range(20_000, 32_000)


def require_free_port(port: int, service: str, setting: str) -> None:
    """Check that `service` can listen on the loopback port.

    Raises:
        PortTakenError: Something listens there (named if the system tells), or the user may not
            use the port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a former life in TIME_WAIT do not take the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as error:
            raise PortTakenError(
                f"{service} cannot listen on {LOOPBACK}:{port} ({error.strerror}); taken by "
                f"{_listener(port)}. Stop that program, or choose another port: "
                f"{setting}={free_ports(1)[0]}"
            ) from error


def require_memory(needed_mb: int) -> None:
    """Check that the machine has memory for the broker's heap and the rest of the stack.

    Raises:
        MemoryShortError: Less is available; a start would end with a killed process.
    """
    available_mb = psutil.virtual_memory().available // _MIB
    if available_mb < needed_mb:
        raise MemoryShortError(
            f"the stack needs about {needed_mb} MiB of memory but {available_mb} MiB are free. "
            "Close other programs, or give the broker a smaller heap: "
            "EMERGENCIAS_KAFKA_HEAP_MB=256"
        )


def free_ports(count: int) -> list[int]:
    """Return loopback ports, all different, that nothing listened on a moment ago.

    They lie below the range from which systems take the ports of outgoing connections, so that
    one of those cannot occupy them in between.
    """
    found: list[int] = []
    for port in SystemRandom().sample(_SPARE_PORTS, len(_SPARE_PORTS)):
        if len(found) == count:
            break
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex((LOOPBACK, port)) != 0:
                found.append(port)
    return found


def _listener(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows other programs' sockets to root only
        return f"an unknown program (`lsof -i :{port}` may name it)"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.pid is not None and connection.laddr[1:] == (port,):
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return "a program of another user"
