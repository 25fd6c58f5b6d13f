"""A `ksqldb_local` process that tests may kill."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


class Server:
    """A server with a service id and topic names of its own."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.name = f"i{uuid.uuid4().hex[:8]}"
        self.bootstrap_servers = bootstrap_servers
        self.service_id = f"{self.name}_"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.client = httpx.Client(base_url=f"http://{self.host}", timeout=60, trust_env=False)
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, host: str | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "ksqldb_local"),
                *("--bootstrap-servers", self.bootstrap_servers),
                *("--listen", host or self.host, "--service-id", self.service_id),
            ]
        )

    def start(self) -> None:
        self.process = self.spawn()
        self.wait_until(self._answers, "the server is ready")

    def _answers(self) -> bool:
        try:
            return self.client.get("/info").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(timeout=30)

    def routers(self) -> list[psutil.Process]:
        """Return the processes that route, one for each topic that is read."""
        assert self.process is not None
        engine = psutil.Process(self.process.pid)
        return [router for helper in engine.children() for router in helper.children()]

    def wait_until(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float = 60
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.05)

    def topic(self, name: str) -> str:
        return f"{self.name}.{name}"

    def create_topic(self, name: str, partitions: int = 3) -> str:
        topic = NewTopic(self.topic(name), partitions, 1)
        self.admin.create_topics([topic])[topic.topic].result()
        self.wait_until(
            lambda: topic.topic in self.admin.list_topics(timeout=10).topics, f"{topic} is seen"
        )
        return topic.topic

    def ksql(self, text: str, **properties: str) -> httpx.Response:
        return self.client.post("/ksql", json={"ksql": text, "streamsProperties": properties})

    def execute(self, text: str, **properties: str) -> dict[str, Any]:
        response = self.ksql(text, **properties)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = next(iter(response.json()), {})  # INSERT VALUES gives no entity
        status = answer.get("commandStatus")
        if status is not None and status["status"] == "EXECUTING":
            path = f"/status/{answer['commandId']}"
            self.wait_until(
                lambda: self.client.get(path).json()["status"] == "SUCCESS", f"{text} is executed"
            )
            answer["commandStatus"] = self.client.get(path).json()
        return answer

    def query_of(self, stream: str) -> dict[str, Any]:
        described: dict[str, Any] = self.execute(f"DESCRIBE {stream};")["sourceDescription"]
        return described["writeQueries"][0]

    def explain(self, query_id: str) -> dict[str, Any]:
        return self.execute(f"EXPLAIN {query_id};")["queryDescription"]

    def committed(self, query_id: str, topic: str) -> dict[int, int]:
        group = f"_confluent-ksql-{self.service_id}query_{query_id}"
        future = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        offsets = future[group].result().topic_partitions
        return {o.partition: o.offset for o in offsets if o.topic == topic}

    def read_all(self, topic: str, *, at_least: int = 0, timeout_s: float = 60) -> list[Message]:
        """Return the committed records up to the end, once there are `at_least` so many."""
        partitions = list(self.admin.list_topics(timeout=10).topics[topic].partitions)
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": f"{self.name}-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        messages: list[Message] = []
        ended: set[int] = set()
        deadline = time.monotonic() + timeout_s
        try:
            while len(messages) < at_least or len(ended) < len(partitions):
                assert time.monotonic() < deadline, f"{topic}: {len(messages)} of {at_least}"
                for message in consumer.consume(10_000, 0.2):
                    if message.error() is None:
                        messages.append(message)
                        ended.discard(message.partition())
                    else:
                        ended.add(message.partition())
            return messages
        finally:
            consumer.close()


@pytest.fixture
def server(bootstrap_servers: str) -> Iterator[Server]:
    """Return a running server; whatever is left of it ends with the test."""
    running = Server(bootstrap_servers)
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill(signal.SIGTERM)
