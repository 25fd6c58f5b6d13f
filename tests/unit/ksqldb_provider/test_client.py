from __future__ import annotations

import socket
import threading

import httpx
import pytest

from ksqldb_provider.client import (
    CommandTimeoutError,
    KsqlDbClient,
    QueryTimeoutError,
    ServerFaultError,
    ServerUnavailableError,
    UnexpectedAnswerError,
)

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


HEADER = b'{"queryId":"q","columnNames":["A"],"columnTypes":["INTEGER"]}\n'


class Lines(httpx.SyncByteStream):
    """An answer that comes piece by piece, and may break off."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    def __iter__(self):
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def client_streaming(*pieces: bytes | Exception) -> KsqlDbClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/close-query":
            return httpx.Response(200)
        return httpx.Response(200, stream=Lines(*pieces))

    return KsqlDbClient("http://a", transport=httpx.MockTransport(handle))


@pytest.mark.parametrize(
    ("last", "kind", "problem"),
    [
        (httpx.RemoteProtocolError("cut"), ServerUnavailableError, "broke off"),
        (httpx.ReadTimeout("late"), QueryTimeoutError, "had not ended after 60 s"),
        (
            b'{"@type":"generic_error","error_code":50000,"message":"dead"}\n',
            ServerFaultError,
            "dead",
        ),
        (b"<html>\n", UnexpectedAnswerError, "<html>"),
        (b"[1,2]\n", UnexpectedAnswerError, "not a row"),
    ],
)
def test_a_row_is_given_before_the_trouble_that_follows_it(last, kind, problem):
    with client_streaming(HEADER, b"[1]\n[", b"2]\n", last).query("SELECT A FROM s;") as rows:
        each = iter(rows)
        assert [next(each), next(each)] == [{"A": 1}, {"A": 2}]
        with pytest.raises(kind, match=problem):
            next(each)


def test_rows_that_come_for_ever_end_with_the_time():
    pieces = [HEADER] + [b"[1]\n"] * 100_000
    with (
        client_streaming(*pieces).query("SELECT A FROM s;", timeout_s=0.01) as rows,
        pytest.raises(QueryTimeoutError),
    ):
        for _ in rows:
            pass


def test_an_answer_without_a_header_is_refused():
    with (
        pytest.raises(UnexpectedAnswerError, match="not a row or header"),
        client_streaming(b"[1]\n").query("SELECT 1;"),
    ):
        pytest.fail("there are no rows")
