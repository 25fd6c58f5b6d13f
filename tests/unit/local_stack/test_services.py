from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from local_stack.preflight import free_ports
from local_stack.services import broker_properties, ksqldb_service
from local_stack.settings import StackSettings


@pytest.fixture
def settings(tmp_path):
    return StackSettings(home=tmp_path, kafka_port=19092, kafka_controller_port=19093)


def test_the_broker_listens_on_loopback_only(settings):
    properties = broker_properties(settings)
    for listener in properties["listeners"].split(","):
        assert listener.partition("://")[2].startswith("127.0.0.1:")
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19092"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:19093"


def test_the_broker_makes_no_topic_by_itself_and_needs_no_second_replica(settings):
    properties = broker_properties(settings)
    assert properties["auto.create.topics.enable"] == "false"
    for name, value in properties.items():
        if name.endswith(("replication.factor", "min.isr")):
            assert value == "1", name


def test_offsets_outlive_the_records_that_they_point_at(settings):
    thirty_days_in_minutes = 30 * 24 * 60
    assert int(broker_properties(settings)["offsets.retention.minutes"]) > thirty_days_in_minutes


@pytest.fixture
def answering():
    """Serve one HTTP answer for ever; yields a function that sets it and returns the URL."""
    answer = {"status": 200, "body": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"] if self.path == "/info" else 404)
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(status: int, body: object) -> str:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer.update(status=status, body=raw)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    server.shutdown()
    server.server_close()


def test_the_engine_is_ready_when_it_says_running(settings, answering):
    service = ksqldb_service(settings, "127.0.0.1:1")
    url = answering(200, {"KsqlServerInfo": {"serverStatus": "RUNNING"}})
    assert service.not_ready(url) is None


@pytest.mark.parametrize(
    ("status", "body", "missing"),
    [
        (503, {"error_code": 50302, "message": "not yet ready"}, "it says: not yet ready"),
        (200, {"KsqlServerInfo": {"serverStatus": "DEGRADED"}}, "its status is DEGRADED"),
        (200, {"KsqlServerInfo": {}}, "no usable answer"),
        (200, {"KsqlServerInfo": None}, "no usable answer"),
        (200, b"<html>", "no usable answer"),
        (200, [1], "no usable answer"),
    ],
)
def test_the_engine_is_not_ready_on_any_other_answer(settings, answering, status, body, missing):
    service = ksqldb_service(settings, "127.0.0.1:1")
    assert missing in (service.not_ready(answering(status, body)) or "ready")


def test_the_engine_is_not_ready_when_nothing_listens(settings):
    (port,) = free_ports(1)
    service = ksqldb_service(settings, "127.0.0.1:1")
    assert service.not_ready(f"http://127.0.0.1:{port}") == "nothing listens there yet"
