"""Health checks of docker-compose.yml, run as Docker runs them, against recorded answers."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from local_stack.preflight import free_ports
from local_stack.settings import PROJECT_ROOT

RECORDINGS = PROJECT_ROOT / "tests" / "contract" / "recordings"
SERVICES = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text(encoding="utf-8"))[
    "services"
]


def run_ksqldb_check(port: int) -> int:
    kind, *command = SERVICES["ksqldb"]["healthcheck"]["test"]
    assert kind == "CMD"
    # As Compose and the container's port would: `$$` is a dollar sign, 8088 the server.
    command = [part.replace("$$", "$").replace("/8088", f"/{port}") for part in command]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode


@pytest.fixture
def serve():
    """Return a maker of servers that give the recorded answer; the port is returned."""
    servers = []

    def start(recording: str) -> int:
        answer = json.loads((RECORDINGS / f"{recording}.json").read_text(encoding="utf-8"))
        status, body = answer["response"]["status"], answer["response"]["body"]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                found = self.path == "/healthcheck"
                self.send_response(status if found else 404)
                self.end_headers()
                if found:  # compact, as the server writes it
                    self.wfile.write(json.dumps(body, separators=(",", ":")).encode())

            def log_message(self, *_):
                """Keep the test's output clean."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_healthy_ksqldb_passes(serve):
    assert run_ksqldb_check(serve("002-healthcheck")) == 0


@pytest.mark.parametrize(
    "recording", ["910-healthcheck-kafka-down", "914-healthcheck-kafka-down-later"]
)
def test_a_ksqldb_that_answers_200_without_kafka_does_not_pass(serve, recording):
    assert run_ksqldb_check(serve(recording)) != 0


def test_an_answer_of_another_kind_does_not_pass(serve):
    assert run_ksqldb_check(serve("001-info")) != 0


def test_a_ksqldb_that_is_not_there_does_not_pass():
    assert run_ksqldb_check(free_ports(1)[0]) != 0
