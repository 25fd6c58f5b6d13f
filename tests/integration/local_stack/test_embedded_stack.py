"""The embedded stack for real: a JVM, a broker's data on disk, the stream engine."""

from __future__ import annotations

import os
import shutil
import signal
import socket

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from kafka_io import TopicSpec, ensure_topics
from local_stack.errors import JarError, PortTakenError
from local_stack.jars import local_repository, read_lock
from local_stack.process import tail
from local_stack.services import kafka_service
from local_stack.stack import ServiceState, Stack

TOPIC = TopicSpec(name="stays", partitions=1, retention_ms=3_600_000)


def unreported(service, event):
    pass


@pytest.fixture(scope="module")
def stack(make_stack_settings):
    stack = Stack(make_stack_settings())
    yield stack
    stack.down(unreported)


def kafka_alone(make_stack_settings) -> Stack:
    settings = make_stack_settings()
    return Stack(settings, [kafka_service(settings)])


def produce(bootstrap_servers: str, value: bytes) -> None:
    config = {"bootstrap.servers": bootstrap_servers}
    ensure_topics(config, [TOPIC])
    producer = Producer({**config, "acks": "all"})
    failures = []
    producer.produce(
        TOPIC.name, value, on_delivery=lambda error, _: failures.append(error) if error else None
    )
    assert producer.flush(20) == 0
    assert failures == []


def first_value(bootstrap_servers: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "reads-once"})
    consumer.assign([TopicPartition(TOPIC.name, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message.value()


def test_the_stack_lives_dies_and_comes_back_with_its_data(stack):
    stack.down(unreported)
    address = stack.settings.bootstrap_servers
    assert [service.name for service in stack.up(unreported)] == ["kafka", "ksqldb"]
    assert [row.state for row in stack.status()] == [ServiceState.READY] * 2
    assert stack.up(unreported) == ()
    assert tail(stack.log_path(stack.services[0]), 1) != []
    produce(address, b"an alert")

    kafka = stack.status()[0].pid
    os.kill(kafka, signal.SIGKILL)
    psutil.Process(kafka).wait(timeout=10)
    assert stack.status()[0].state is ServiceState.DIED
    assert [service.name for service in stack.up(unreported)] == ["kafka"]
    assert [row.state for row in stack.status()] == [ServiceState.READY] * 2
    assert first_value(address) == b"an alert"

    pids = [row.pid for row in stack.status()]
    assert [service.name for service in stack.down(unreported)] == ["ksqldb", "kafka"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    stack.up(unreported)
    assert first_value(address) == b"an alert"


def test_the_broker_listens_on_loopback_only(stack):
    stack.up(unreported)
    for row in stack.status():
        listening = {
            connection.laddr.ip.removeprefix("::ffff:")
            for connection in psutil.Process(row.pid).net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}, row.service.title


def test_a_second_stack_on_taken_ports_is_refused_and_the_first_goes_on(
    make_stack_settings, tmp_path
):
    first = kafka_alone(make_stack_settings)
    try:
        first.up(unreported)
        clash = first.settings.model_copy(update={"home": tmp_path})
        second = Stack(clash, [kafka_service(clash)])
        with pytest.raises(PortTakenError, match=rf"java \(pid {first.status()[0].pid}\)"):
            second.up(unreported)
        assert second.down(unreported) == ()
        assert first.status()[0].state is ServiceState.READY
    finally:
        first.down(unreported)


def test_a_tampered_jar_is_not_run(make_stack_settings, tmp_path, monkeypatch):
    jars = read_lock()
    for jar in jars:
        copy = jar.path_in(tmp_path)
        copy.parent.mkdir(parents=True)
        copy.symlink_to(jar.path_in(local_repository()))
    victim = jars[0].path_in(tmp_path)
    original = victim.resolve()
    victim.unlink()
    shutil.copyfile(original, victim)
    with victim.open("ab") as file:
        file.write(b"\0")
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    stack = kafka_alone(make_stack_settings)
    with pytest.raises(JarError, match=f"SHA-256 differs.*{victim.name}"):
        stack.up(unreported)
    assert stack.status()[0].state is ServiceState.STOPPED
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", stack.settings.kafka_port)) != 0
