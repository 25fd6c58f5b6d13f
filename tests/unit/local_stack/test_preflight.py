from __future__ import annotations

import os
import socket

import pytest

from local_stack.errors import MemoryShortError, PortTakenError
from local_stack.preflight import free_ports, require_free_port, require_memory


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def taken(request):
    with socket.socket() as server:
        server.bind((request.param, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_is_refused_with_who_has_it_and_what_to_set(taken):
    with pytest.raises(PortTakenError) as error:
        require_free_port(taken, "Apache Kafka", "EMERGENCIAS_KAFKA_PORT")
    message = str(error.value)
    assert f"127.0.0.1:{taken}" in message
    assert f"pid {os.getpid()}" in message
    assert "EMERGENCIAS_KAFKA_PORT=" in message


def test_a_free_port_passes_and_stays_free():
    (port,) = free_ports(1)
    require_free_port(port, "Apache Kafka", "EMERGENCIAS_KAFKA_PORT")
    require_free_port(port, "Apache Kafka", "EMERGENCIAS_KAFKA_PORT")


def test_a_port_whose_last_connection_has_just_closed_is_free():
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = server.accept()
            connection.close()  # the server's side closes first and keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    require_free_port(port, "Apache Kafka", "EMERGENCIAS_KAFKA_PORT")


def test_free_ports_differ_and_avoid_those_of_outgoing_connections(taken):
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert taken not in ports
    assert max(ports) < 32768


def test_short_memory_is_refused_with_both_figures_and_the_setting():
    with pytest.raises(MemoryShortError, match=r"about 99999999 MiB .* are free.*HEAP_MB=256"):
        require_memory(99_999_999)


def test_enough_memory_passes():
    require_memory(1)
