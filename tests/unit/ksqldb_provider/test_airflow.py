from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest.mock import MagicMock

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from ksqldb_provider.hooks import KsqlDbHook
from ksqldb_provider.operators import KsqlDbDeployOperator, KsqlDbExecuteOperator
from ksqldb_provider.provider_info import get_provider_info
from ksqldb_provider.sensors import KsqlDbReadySensor


@pytest.fixture
def connect(monkeypatch):
    """Define the connection `ksqldb_default`."""

    def define(**values) -> None:
        monkeypatch.setenv(
            "AIRFLOW_CONN_KSQLDB_DEFAULT", json.dumps({"conn_type": "ksqldb", **values})
        )

    return define


@pytest.fixture
def server():
    """Serve fixed answers by path; the dict may be changed while it runs."""
    answers: dict[str, tuple[int, object]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_port, answers
        http.shutdown()


def info(status: str) -> tuple[int, object]:
    body = {"version": "7.6.0", "kafkaClusterId": "c", "ksqlServiceId": "default_"}
    return 200, {"KsqlServerInfo": {**body, "serverStatus": status}}


READY = {"/info": info("RUNNING"), "/healthcheck": (200, {"isHealthy": True, "details": {}})}


@pytest.mark.parametrize(
    ("connection", "addresses"),
    [
        ({"host": "h"}, ["http://h:8088"]),
        ({"host": "h", "port": 99}, ["http://h:99"]),
        (
            {"host": "a, b:1,[::1],[::1]:2", "schema": "https", "port": 9},
            [
                "https://a:9",
                "https://b:1",
                "https://[::1]:9",
                "https://[::1]:2",
            ],
        ),
    ],
)
def test_connection_gives_the_addresses(connect, connection, addresses):
    connect(**connection)
    client = KsqlDbHook().get_client()
    assert list(client._urls) == addresses


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ({}, "'ksqldb_default' has no host"),
        ({"host": "http://h:8088"}, "host 'http://h:8088' is not a name"),
        ({"host": "a, b..c"}, r"host 'b\.\.c' is not a name"),
        ({"host": "[::1:80"}, r"host '\[::1:80' is not a name"),
        ({"host": "user:secret@h"}, "is not a name"),
        ({"host": "h:99999"}, "host 'h:99999' is not a name"),
        ({"host": "h", "schema": "ftp"}, "scheme 'ftp' is neither http nor https"),
        ({"host": "h", "extra": {"read_timeout_s": "soon"}}, "read_timeout_s is 'soon'"),
        ({"host": "h", "extra": {"connect_timeout_s": 0}}, "connect_timeout_s is 0, not a number"),
    ],
)
def test_unusable_connection_says_what_is_wrong_with_it(connect, connection, problem):
    connect(**connection)
    with pytest.raises(ValueError, match=problem):
        KsqlDbHook().get_client()
    assert KsqlDbHook().test_connection()[0] is False


def test_connection_test_tells_ready_from_not_ready(connect, server):
    port, answers = server
    connect(host="127.0.0.1", port=port)
    answers.update(READY)
    assert KsqlDbHook().test_connection() == (
        True,
        "ksqlDB 7.6.0, service default_, is ready",
    )
    answers["/healthcheck"] = (
        200,
        {"isHealthy": False, "details": {"kafka": {"isHealthy": False}}},
    )
    ready, message = KsqlDbHook().test_connection()
    assert not ready
    assert "not healthy: kafka" in message


def test_ready_sensor_time_out_names_address_problem_and_next_step(connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    connect(host="127.0.0.1", port=port)
    sensor = KsqlDbReadySensor(task_id="ready", timeout=0.2, poke_interval=0.1)
    with pytest.raises(AirflowSensorTimeout) as caught:
        sensor.execute({})
    message = str(caught.value)
    assert f"http://127.0.0.1:{port}" in message
    assert "cannot connect" in message
    assert "Check that a ksqlDB server" in message
    assert "'ksqldb_default'" in message


@pytest.mark.parametrize(
    "not_ready",
    [
        {"/info": (503, {"@type": "generic_error", "error_code": 50302, "message": "not yet"})},
        {"/info": info("INITIALIZING")},
        {"/healthcheck": (200, {"isHealthy": False, "details": {"kafka": {"isHealthy": False}}})},
    ],
    ids=["starting", "not running", "Kafka is away"],
)
def test_ready_sensor_waits_for_running_and_healthy(connect, server, not_ready):
    port, answers = server
    connect(host="127.0.0.1", port=port)
    answers.update({**READY, **not_ready})
    sensor = KsqlDbReadySensor(task_id="ready", timeout=30, poke_interval=0.1)
    assert sensor.poke({}) is False
    threading.Timer(0.3, lambda: answers.update(READY)).start()
    sensor.execute({})


def test_ready_sensor_does_not_wait_for_what_waiting_cannot_mend(connect, server):
    port, answers = server
    connect(host="127.0.0.1", port=port)
    answers["/info"] = (401, {})
    with pytest.raises(AirflowFailException, match="Correct the login"):
        KsqlDbReadySensor(task_id="ready", timeout=30).execute({})


def test_provider_is_known_to_airflow_with_its_connection_type():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    manager.initialize_providers_hooks()
    assert manager.hooks["ksqldb"].hook_class_name == "ksqldb_provider.hooks.KsqlDbHook"
    assert manager.providers["emergencias-112"].data["name"] == get_provider_info()["name"]


def test_the_form_of_the_connection_asks_for_what_the_hook_reads():
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = (
        hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "ksqldb"
    )
    assert form.standard_fields.host.title == "Host (or several, separated by commas)"
    assert form.standard_fields.login.title == "User or API key"
    assert form.extra_fields.keys() == {
        "verify",
        "ca_file",
        "client_cert",
        "client_key",
        "connect_timeout_s",
        "read_timeout_s",
        "browser_url",
    }
    assert form.extra_fields["verify"]["value"] is True


def test_a_form_that_was_left_empty_means_the_defaults(connect):
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = (
        hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "ksqldb"
    )
    for schema in ("http", "https"):
        extra = {name: field["value"] for name, field in form.extra_fields.items()}
        connect(host="h", schema=schema, extra=extra)
        assert KsqlDbHook().get_client().address == f"{schema}://h:8088"


def test_the_link_of_a_task_leads_to_what_it_executed(connect, monkeypatch):
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk.execution_time.xcom import XCom

    pushed: dict[str, str] = {}
    task_instance = MagicMock()
    task_instance.xcom_push = lambda key, value: pushed.update({key: value})
    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: pushed.get(key))
    link = KsqlDbDeployOperator.operator_extra_links[0]
    assert f"{type(link).__module__}.{type(link).__qualname__}" in (
        ProvidersManager().extra_links_class_names
    )
    assert link.get_link(MagicMock(), ti_key=MagicMock()) == ""
    connect(host="h", login="user", password="secret")
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder="x")
    client = KsqlDbHook().get_client()
    operator._link({"ti": task_instance}, client)
    assert link.get_link(MagicMock(), ti_key=MagicMock()) == "http://h:8088/status"
    connect(host="h", extra={"browser_url": "http://localhost:8088/"})
    operator._link({"ti": task_instance}, client, "stream/`URG`/create")
    assert link.get_link(MagicMock(), ti_key=MagicMock()) == (
        "http://localhost:8088/status/stream/%60URG%60/create"
    )


def test_operators_and_sensors_can_be_copied_and_rendered():
    task = KsqlDbExecuteOperator(
        task_id="execute", sql="INSERT INTO {{ s }} VALUES (:a);", parameters={"a": "{{ v }}"}
    )
    copied = copy.deepcopy(task)
    copied.render_template_fields({"s": "x", "v": "it's"})
    assert (copied.sql, copied.parameters) == ("INSERT INTO x VALUES (:a);", {"a": "it's"})
    assert task.parameters == {"a": "{{ v }}"}


def test_modules_of_a_dag_file_load_no_heavy_library():
    code = (
        "import sys; from airflow.sdk import BaseOperator, BaseSensorOperator, BaseHook;"
        "before = set(sys.modules);"
        "import ksqldb_provider.hooks, ksqldb_provider.operators, ksqldb_provider.sensors;"
        "print(sorted({'confluent_kafka', 'sqlglot', 'kafka_io', 'ksqldb_provider.client'}"
        " & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_killed_deployment_stops_its_waits(connect, monkeypatch, tmp_path):
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:1"}}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))
    connect(host="h")
    (tmp_path / "a.sql").write_text("CREATE STREAM a (x INT) WITH (KAFKA_TOPIC='T');")
    stopped: list[bool] = []

    def apply(*_, stop: threading.Event, **__):
        operator.on_kill()
        stopped.append(stop.is_set())
        return []

    monkeypatch.setattr("ksqldb_provider.deploy.plan", lambda *_: [])
    monkeypatch.setattr("ksqldb_provider.deploy.apply", apply)
    operator = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(tmp_path))
    operator.execute({"ti": MagicMock()})
    assert stopped == [True]
