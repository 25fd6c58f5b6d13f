from __future__ import annotations

import socket
import threading

import httpx
import pytest

from ksqldb_provider.client import CommandTimeoutError, KsqlDbClient, ServerUnavailableError

INFO = {
    "KsqlServerInfo": {
        "version": "7.6.0",
        "kafkaClusterId": "c",
        "ksqlServiceId": "default_",
        "serverStatus": "RUNNING",
    }
}


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_nobody_there_is_retryable_and_names_the_address_and_the_next_step():
    address = f"http://127.0.0.1:{closed_port()}"
    with (
        KsqlDbClient(address, connect_timeout_s=2) as client,
        pytest.raises(ServerUnavailableError) as caught,
    ):
        client.info()
    assert caught.value.retryable
    assert not caught.value.maybe_executed
    assert address in str(caught.value)
    assert "python -m ksqldb_local" in str(caught.value)


def test_the_next_host_is_asked_when_one_cannot_be_reached_and_then_kept():
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == "a":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=INFO)

    client = KsqlDbClient(["http://a", "http://b"], transport=httpx.MockTransport(handle))
    client.info()
    client.info()
    assert asked == ["a", "b", "b"]
    assert client.address == "http://b"


def test_a_statement_that_may_have_arrived_is_not_sent_to_another_host():
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        raise httpx.ReadTimeout("no answer", request=request)

    client = KsqlDbClient(["http://a", "http://b"], transport=httpx.MockTransport(handle))
    with pytest.raises(ServerUnavailableError) as caught:
        client.statement("DROP STREAM s;")
    assert asked == ["a"]
    assert caught.value.maybe_executed


def test_all_hosts_are_named_when_none_can_be_reached():
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = KsqlDbClient(["http://a", "http://b"], transport=httpx.MockTransport(handle))
    with pytest.raises(ServerUnavailableError, match=r"http://a: refused; http://b: refused"):
        client.info()


def test_no_address_at_all_is_refused():
    with pytest.raises(ValueError, match="base_urls is empty"):
        KsqlDbClient([])


def test_login_is_sent_and_never_shown():
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(401)

    client = KsqlDbClient(
        "http://a", auth=("user", "secret"), transport=httpx.MockTransport(handle)
    )
    with pytest.raises(Exception, match="Correct the login") as caught:
        client.info()
    assert seen == ["Basic dXNlcjpzZWNyZXQ="]
    assert "secret" not in str(caught.value)


def test_wait_for_a_command_ends_at_once_when_stopped():
    executing = {"status": "EXECUTING", "message": "", "queryId": None}

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/ksql":
            return httpx.Response(200, json=executing)
        entity = {"@type": "currentStatus", "commandId": "c", "commandStatus": executing}
        return httpx.Response(200, json=[entity])

    stop = threading.Event()
    stop.set()
    client = KsqlDbClient("http://a", transport=httpx.MockTransport(handle))
    with pytest.raises(CommandTimeoutError, match="stopped while c was EXECUTING"):
        client.execute("TERMINATE ALL;", timeout_s=60, stop=stop)
