"""Replays the recordings of a real server against `ksqldb_local`, in order, on a real broker."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

RECORDINGS = Path(__file__).parent / "recordings"
RECORDED_HOST = "127.0.0.1:18088"
TOPIC = re.compile(r"(?<=')(?:T\d*(?:\.\d)?_\w+|no_such_topic)(?=')")


class Local:
    """A `ksqldb_local` of its own: service id and topics (by a prefix) that no other test uses."""

    def __init__(self, bootstrap_servers: str, *options: str) -> None:
        self.prefix = f"c{uuid.uuid4().hex[:8]}."
        self.service_id = f"{self.prefix[:-1]}_"
        self.bootstrap_servers = bootstrap_servers
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://{self.host}", timeout=60, trust_env=False)
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers})

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ksqldb_local"),
                *("--bootstrap-servers", self.bootstrap_servers),
                *("--listen", self.host, "--service-id", self.service_id),
                *self._options,
            ]
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.client.get("/info").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("ksqldb_local was not ready within 60 s")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(timeout=30)

    def topic(self, name: str) -> str:
        return self.prefix + name

    def create_topic(self, name: str, partitions: int, retention_ms: int = 604_800_000) -> None:
        topic = NewTopic(
            self.topic(name), partitions, 1, config={"retention.ms": str(retention_ms)}
        )
        self.admin.create_topics([topic])[topic.topic].result()
        deadline = time.monotonic() + 30
        while topic.topic not in self.admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"{topic.topic} is not seen"
            time.sleep(0.02)

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([self.topic(name)])[self.topic(name)].result()

    def produce(self, name: str, *records: dict[str, Any]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers})
        for record in records:
            producer.produce(self.topic(name), **record)
        assert producer.flush(30) == 0

    def read(
        self, name: str, *, until: Callable[[list[Message]], bool], timeout_s: float = 20
    ) -> list[Message]:
        """Return a topic's committed records once `until` says that they are all there."""
        topic = self.topic(name)
        partitions = self.admin.list_topics(timeout=10).topics[topic].partitions
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": f"{self.prefix}reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        messages: list[Message] = []
        deadline = time.monotonic() + timeout_s
        try:
            while not until(messages) and time.monotonic() < deadline:
                message = consumer.poll(0.2)
                if message is not None:
                    assert message.error() is None
                    messages.append(message)
            extra = consumer.poll(0.5)  # one too many is as wrong as one too few
            return messages if extra is None else [*messages, extra]
        finally:
            consumer.close()

    def localize(self, text: str) -> str:
        """Give the topics of a recorded request this server's prefix."""
        return TOPIC.sub(lambda m: self.prefix + m[0], text)

    def globalize(self, value: Any) -> Any:
        """Take this server's names out of an answer again."""
        if isinstance(value, dict):
            return {self.globalize(k): self.globalize(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.globalize(v) for v in value]
        if isinstance(value, str):
            names = {self.prefix: "", self.service_id: "default_", self.host: RECORDED_HOST}
            for ours, recorded in names.items():
                value = value.replace(ours, recorded)
        return value

    def ksql(self, text: str, properties: dict[str, Any] | None = None) -> httpx.Response:
        return self.client.post(
            "/ksql", json={"ksql": self.localize(text), "streamsProperties": properties or {}}
        )

    def replay(self, name: str) -> httpx.Response:
        """Send a recorded request."""
        recorded = recording(name)
        request = recorded["request"]
        body = request.get("body")
        headers = {} if recorded["accept"] is None else {"accept": recorded["accept"]}
        content = None if body is None else self.localize(json.dumps(body, ensure_ascii=False))
        call = self.client.build_request(
            request["method"],
            request["path"],
            content=_UNREAD_BODIES.get(name, content),
            headers=headers,
        )
        response = self.client.send(call, stream=True)
        if name in _CUT:  # goes on for ever: what came within a second is what was recorded
            received = b""
            try:
                call.extensions["timeout"]["read"] = 1.0
                for chunk in response.iter_raw():
                    received += chunk
            except httpx.ReadTimeout:
                pass
            response.close()
            return httpx.Response(
                response.status_code, content=received, headers=response.headers, request=call
            )
        response.read()
        return response


# Bodies that are no JSON are not in the recordings, but in the messages of the answers.
_UNREAD_BODIES = {
    "535-body-not-json": "SHOW TABLES;",
    "543-body-broken-json": '{"ksql":"SHOW TABLES;"',
}
_CUT = {"601-query-stream-streamsProperties-h1"}


def recording(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


# What depends on the run, or is prose: checked to be there, and of the same type.
_FREE = {
    "kafkaClusterId",
    "kafka-cluster",
    "timestamp",
    "statistics",
    "lastStatusUpdateMs",
    "errorMessage",
    "endOffset",
    "committedOffset",
}
_TRANSIENT = re.compile(r"(transient_\w+)_\d+\Z")
# Lists whose order ksqlDB takes from a hash table.
_UNORDERED = {
    "streams": "name",
    "queries": "id",
    "readQueries": "id",
    "writeQueries": "id",
    "queryDescriptions": "id",
    "sourceDescriptions": "name",
}


def differences(recorded: Any, answered: Any, path: str = "", *, error: bool = False) -> list[str]:
    """Return where an answer is not what was recorded; prose of errors may differ."""
    key = path.rsplit(".", 1)[-1]
    if key in _FREE or (key == "message" and error):
        same = type(recorded) is type(answered) and (recorded == "") == (answered == "")
        return [] if same else [f"{path}: {answered!r} instead of {recorded!r}"]
    if key == "queryErrors" and recorded and answered:
        recorded, answered = recorded[:1], answered[:1]  # a server has one for each thread
    if key == "clusterStatistics":
        recorded = [{**s, "value": type(s["value"])} for s in recorded]
        answered = [{**s, "value": type(s["value"])} for s in answered]
    if isinstance(recorded, str) and isinstance(answered, str):
        recorded, answered = (_TRANSIENT.sub(r"\1", text) for text in (recorded, answered))
    if isinstance(recorded, dict) and isinstance(answered, dict):
        found = [f"{path}.{k} is missing" for k in recorded.keys() - answered.keys()]
        found += [f"{path}.{k} is too much" for k in answered.keys() - recorded.keys()]
        is_error = error or str(recorded.get("@type", "")).endswith("_error")
        for k in recorded.keys() & answered.keys():
            found += differences(recorded[k], answered[k], f"{path}.{k}", error=is_error)
        return found
    if isinstance(recorded, list) and isinstance(answered, list):
        if key in _UNORDERED:
            by = _UNORDERED[key]
            recorded = sorted(recorded, key=lambda e: e[by])
            answered = sorted(answered, key=lambda e: e[by])
        if len(recorded) != len(answered):
            return [f"{path}: {len(answered)} elements instead of {len(recorded)}"]
        found = []
        for index, (left, right) in enumerate(zip(recorded, answered, strict=True)):
            found += differences(left, right, f"{path}[{index}]", error=error)
        return found
    return [] if recorded == answered else [f"{path}: {answered!r} instead of {recorded!r}"]


def _body(response: httpx.Response) -> Any:
    if not response.content:
        return None
    if "delimited" not in response.headers.get("content-type", ""):
        return response.json()
    values = [json.loads(line) for line in response.text.splitlines()]
    return values[0] if len(values) == 1 else values


@pytest.fixture(scope="module")
def make_local(bootstrap_servers: str) -> Iterator[Callable[..., Local]]:
    """Return a maker of running servers, which end with the module."""
    made: list[Local] = []

    def make(*options: str, bootstrap: str | None = None) -> Local:
        local = Local(bootstrap or bootstrap_servers, *options)
        made.append(local)
        local.start()
        return local

    yield make
    for local in made:
        if local.process is not None and local.process.poll() is None:
            local.stop()


@pytest.fixture(scope="module")
def compare() -> Callable[[str, httpx.Response, Local], list[str]]:
    """Return what compares an answer with a recording."""

    def compared(name: str, response: httpx.Response, local: Local) -> list[str]:
        recorded = recording(name)["response"]
        if response.status_code != recorded["status"]:
            return [
                f"status {response.status_code} instead of {recorded['status']}: {response.text}"
            ]
        body = _body(response)
        if recorded["body"] in ([], None) and body in ([], None):
            return []
        return differences(recorded["body"], local.globalize(body))

    return compared


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many recordings were answered as recorded, by group."""
    results: dict[str, bool] = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for key, name in getattr(report, "user_properties", ()):
            if key == "recording":
                results[name] = results.get(name, True) and report.passed
    if not results:
        return
    reasons = tomllib.loads(
        (Path(__file__).parent / "not_replayed.toml").read_text(encoding="utf-8")
    )
    write = terminalreporter.write_line
    terminalreporter.section("Recordings of a real server against ksqldb_local")
    write(f"{'group':8}{'passed':>8}{'in scope':>10}{'not replayed':>14}")
    for group in [*sorted({n[0] for n in (*results, *reasons)}), ""]:
        inside = [passed for name, passed in results.items() if name.startswith(group)]
        outside = [name for name in reasons if name.startswith(group)]
        label = f"{group}xx" if group else "all"
        write(f"{label:8}{sum(inside):8}{len(inside):10}{len(outside):14}")
    for name, reason in reasons.items():
        write(f"{name}: {reason}")
