"""Measure alerts/s through the whole of include/ksql, beside hand-written loops.

All contestants get the same alerts on the same broker, take turns, and have to write the same
counts to the same topics, exactly once: what the clock shows is from the first record that may be
read to the last one that is committed. Every contestant's outputs are counted afterwards. The CPU
time that its processes took (the broker's not) says more where the machine has other work.

Example:
    .venv/bin/python benchmarks/routing.py --alerts 200000 --runs 3
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from emergencias.simulator import simulate
from kafka_io import TopicSpec, ensure_topics, high_watermarks, read_range
from local_stack.preflight import free_ports
from local_stack.services import kafka_service
from local_stack.settings import StackSettings
from local_stack.stack import Stack

ROUTING_SQL = Path(__file__).parents[1] / "include" / "ksql"
T1, T2, T3, T4 = "T1_Recepcion_avisos", "T2_Centro_112", "T3_No_Urgencias", "T4_Revision_manual"
T22, T23, T31 = "T2.2_Centro_de_mando", "T2.3_Cuerpos_112", "T3.1_Medicos"
BODIES = {
    "Bomberos": "T3.2_Bomberos",
    "Forestales": "T3.3_Forestales",
    "Guardia Costera": "T3.4_Guardia_Costera",
    "Policia": "T3.5_Policia",
    "Servicios de emergencia": "T3.6_Servicios_de_emergencia",
}
MEDICAL = ("Ambulancia", "Medicos")
SINKS = (T2, T22, T23, T3, T31, *BODIES.values(), T4)
FIELDS = (
    *("tipo_emergencia", "grado", "cuerpo_necesario", "localizacion", "fecha", "requiere_medico"),
    *("contacto", "id_ejecucion", "codigo_provincia", "latitud", "longitud"),
    *("precision_m", "id_incidente"),
)
BATCH = 5_000
Prefix = str


# --- the hand-written contestant ------------------------------------------------------------------


def route_t1(text: bytes, partition: int, offset: int) -> tuple[list[str], bytes]:
    """Return where an alert goes and what is written there (ordinary alerts only)."""
    alert = orjson.loads(text)
    row = {f.upper(): None if f not in alert else str(alert[f]) for f in FIELDS}
    row |= {"T1_PARTICION": partition, "T1_OFFSET": offset}
    degree, doctor, body = row["GRADO"], row["REQUIERE_MEDICO"], row["CUERPO_NECESARIO"]
    if degree in ("Urgente", "Urgencia extrema"):
        return [T2], orjson.dumps(row)
    if degree in ("Leve", "Moderado") and (
        doctor == "Si" or (doctor == "No" and (body in BODIES or body in MEDICAL))
    ):
        return [T3], orjson.dumps(row)
    reason = {
        "MOTIVO": "grado desconocido",
        "ORIGEN": T1,
        "TEXTO": text.decode(),
        "T1_PARTICION": partition,
        "T1_OFFSET": offset,
    }
    return [T4], orjson.dumps(reason)


def route_t2(text: bytes, partition: int, offset: int) -> tuple[list[str], bytes]:
    """As :func:`route_t1`, for an urgent alert."""
    row = orjson.loads(text)
    body = row["CUERPO_NECESARIO"]
    if row["REQUIERE_MEDICO"] != "Si" and body not in MEDICAL:
        return [T22], text
    return ([] if body in (*MEDICAL, None, "null") else [T23]), text


def route_t3(text: bytes, partition: int, offset: int) -> tuple[list[str], bytes]:
    """As :func:`route_t1`, for an alert that can wait."""
    row = orjson.loads(text)
    body = row["CUERPO_NECESARIO"]
    to = [T31] if row["REQUIERE_MEDICO"] == "Si" or body in MEDICAL else []
    return ([*to, BODIES[body]] if body in BODIES else to), text


def loop(
    config: dict[str, Any],
    prefix: Prefix,
    topic: str,
    route: Callable[[bytes, int, int], tuple[list[str], bytes]],
    go: Any,
) -> None:
    """Consume, route, produce and commit in transactions, until killed."""
    consumer = Consumer(
        {
            **config,
            "group.id": f"{prefix}{topic}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 32_768,
        }
    )
    producer = Producer(
        {
            **config,
            "transactional.id": f"{prefix}{topic}",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 100,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(30)
    go.wait()
    consumer.subscribe([prefix + topic])
    while True:
        batch = consumer.consume(BATCH, 0.05)
        if not batch:
            continue
        producer.begin_transaction()
        for message in batch:
            to, value = route(message.value(), message.partition(), message.offset())
            for sink in to:
                producer.produce(
                    prefix + sink,
                    value=value,
                    key=message.key(),
                    headers=message.headers() or [],
                    timestamp=message.timestamp()[1],
                )
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30
        )
        producer.commit_transaction(30)


@contextlib.contextmanager
def hand_written(config: dict[str, Any], prefix: Prefix) -> Iterator[Callable[[], None]]:
    """One process for each of T1, T2 and T3."""
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    processes = [
        context.Process(target=loop, args=(config, prefix, topic, route, go), daemon=True)
        for topic, route in ((T1, route_t1), (T2, route_t2), (T3, route_t3))
    ]
    for process in processes:
        process.start()
    time.sleep(3)  # until all of them have imported and connected: that is not what is measured
    yield go.set
    for process in processes:
        process.kill()
        process.join()


# --- the engine -----------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(config: dict[str, Any], prefix: Prefix) -> Iterator[Callable[[], None]]:
    """Run `ksqldb_local` with include/ksql deployed and paused, until it is told to go."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ksqldb_local"),
            *("--bootstrap-servers", config["bootstrap.servers"]),
            *("--listen", host, "--service-id", f"{prefix}engine_"),
        ],
        stderr=subprocess.DEVNULL,
    )
    client = httpx.Client(base_url=f"http://{host}", timeout=60, trust_env=False)
    try:
        while not _ready(client):
            time.sleep(0.1)
        for file in sorted(ROUTING_SQL.glob("*.sql")):
            text = file.read_text(encoding="utf-8")
            for topic in (T1, *SINKS):
                text = text.replace(f"KAFKA_TOPIC = '{topic}'", f"KAFKA_TOPIC = '{prefix}{topic}'")
                text = text.replace(f"KAFKA_TOPIC='{topic}'", f"KAFKA_TOPIC='{prefix}{topic}'")
            _send(client, text)
            if "AS\nSELECT" in text or "AS SELECT" in text:
                _send(client, "PAUSE ALL;")
        yield lambda: _send(client, "RESUME ALL;")
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/info").status_code == 200
    except httpx.TransportError:
        return False


def _send(client: httpx.Client, text: str) -> None:
    properties = {"ksql.streams.auto.offset.reset": "earliest"}
    response = client.post("/ksql", json={"ksql": text, "streamsProperties": properties})
    if response.status_code != 200:
        raise SystemExit(f"{text}: {response.text}")


# --- the race -------------------------------------------------------------------------------------

CONTESTANTS: dict[str, Any] = {"ksqldb_local": engine, "hand-written loops": hand_written}


def alerts(count: int) -> list[tuple[bytes, bytes]]:
    """Return keys and values of simulated alerts; 2,000 different ones."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    values = [
        orjson.dumps(a | {"id_ejecucion": "bench/emergencias_112/manual__2026-01-01"})
        for a in simulate(112, 2_000, day, day.replace(day=2))
    ]
    chosen = random.Random(112)
    return [
        (str(uuid.UUID(int=chosen.getrandbits(128))).encode(), values[i % len(values)])
        for i in range(count)
    ]


def expected(records: list[tuple[bytes, bytes]]) -> Counter[str]:
    """Return how many records each topic has to hold."""
    counts: Counter[str] = Counter()
    for _, text in records[:2_000]:
        first, value = route_t1(text, 0, 0)
        second = {T2: route_t2, T3: route_t3}.get(first[0])
        counts.update(first + (second(value, 0, 0)[0] if second else []))
    whole, rest = divmod(len(records), 2_000)
    if rest:
        raise SystemExit("--alerts must be a multiple of 2000, the number of different alerts")
    return Counter({topic: n * whole for topic, n in counts.items()})


def race(
    contestant: Any, config: dict[str, Any], records: list[tuple[bytes, bytes]]
) -> tuple[float, float]:
    """Run once on topics of its own, whose counts it checks.

    Returns:
        alerts/s, and microseconds of CPU time that the contestant's processes took per alert.
    """
    prefix = f"bench{uuid.uuid4().hex[:8]}."
    topics = [prefix + t for t in (T1, *SINKS)]
    ensure_topics(config, [TopicSpec(t, 3, 604_800_000) for t in topics])
    wanted = {prefix + t: n for t, n in expected(records).items()}
    try:
        with contestant(config, prefix) as go:
            producer = Producer(
                {
                    **config,
                    "linger.ms": 50,
                    "compression.type": "lz4",
                    "partitioner": "murmur2_random",
                    "queue.buffering.max.messages": 2_000_000,
                }
            )
            for key, value in records:
                producer.produce(prefix + T1, value=value, key=key)
            if producer.flush(120):
                raise SystemExit("the broker did not take the alerts")
            before, began = _cpu_s(), time.monotonic()
            go()
            ended = _until_committed(config, wanted)
            cpu_s = _cpu_s() - before
        _check(config, wanted)
        return len(records) / (ended - began), cpu_s / len(records) * 1e6
    finally:
        _delete(config, topics)


def _cpu_s() -> float:
    times = [
        p.cpu_times() for p in psutil.Process().children(recursive=True) if "java" not in p.name()
    ]
    return sum(t.user + t.system for t in times)


def _until_committed(config: dict[str, Any], wanted: dict[str, int]) -> float:
    """Wait until the sinks have grown to what is wanted and no further; return when they had."""
    partitions = [TopicPartition(t, p) for t in wanted for p in range(3)]
    consumer = Consumer({**config, "group.id": "benchmark", "isolation.level": "read_committed"})
    before, since = -1, time.monotonic()
    while True:
        ends: Counter[str] = Counter()
        for partition in partitions:
            ends[partition.topic] += consumer.get_watermark_offsets(partition, timeout=30)[1]
        now = time.monotonic()
        if sum(ends.values()) != before:
            before, since = sum(ends.values()), now
        elif now - since > 1.5 and all(ends[t] >= n for t, n in wanted.items()):
            consumer.close()
            return since
        elif now - since > 120:
            raise SystemExit(f"nothing more came: {dict(ends)} of {wanted}")
        time.sleep(0.1)


def _check(config: dict[str, Any], wanted: dict[str, int]) -> None:
    ends = high_watermarks(config, list(wanted))
    found: Counter[str] = Counter()
    for batch in read_range(config, {}, ends, timeout_s=60, batch_size=10_000):
        found.update(str(m.topic()) for m in batch)
    if found != Counter(wanted):
        raise SystemExit(f"wrong outputs: {dict(found)} instead of {wanted}")


def _delete(config: dict[str, Any], topics: list[str]) -> None:
    admin = AdminClient(config)
    for future in admin.delete_topics(topics).values():
        future.result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alerts", type=int, default=200_000, help="a multiple of 2000")
    parser.add_argument("--runs", type=int, default=3, help="of each contestant, taking turns")
    parser.add_argument("--bootstrap-servers", help="instead of an embedded broker")
    parser.add_argument("--only", choices=CONTESTANTS, help="just this one")
    options = parser.parse_args()
    records = alerts(options.alerts)
    chosen = [options.only] if options.only else list(CONTESTANTS)
    with contextlib.ExitStack() as stack:
        address = options.bootstrap_servers or stack.enter_context(_broker())
        config = {"bootstrap.servers": address}
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        for run in range(1, options.runs + 1):
            for name in chosen:
                speed, cpu_us = race(CONTESTANTS[name], config, records)
                runs[name].append((speed, cpu_us))
                print(f"run {run} {name}: {speed:,.0f} alerts/s, {cpu_us:.1f} µs CPU", flush=True)
    print(f"\n{options.alerts:,} alerts, {options.runs} runs, Python {platform.python_version()}")
    medians: dict[str, tuple[float, float]] = {}
    for name, results in runs.items():
        speeds, cpus = zip(*results, strict=True)
        medians[name] = statistics.median(speeds), statistics.median(cpus)
        print(
            f"{name:20} median {medians[name][0]:9,.0f} alerts/s "
            f"({min(speeds):,.0f} to {max(speeds):,.0f}), {medians[name][1]:.1f} µs CPU an alert"
        )
    if len(medians) > 1:
        ours, other = medians["ksqldb_local"], medians["hand-written loops"]
        print(
            f"ksqldb_local / hand-written loops: {ours[0] / other[0]:.2f} of the speed, "
            f"{ours[1] / other[1]:.2f} of the CPU time"
        )


@contextlib.contextmanager
def _broker() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as home:
        kafka, controller, ksqldb, airflow = free_ports(4)
        settings = StackSettings(
            home=Path(home),
            kafka_port=kafka,
            kafka_controller_port=controller,
            ksqldb_port=ksqldb,
            airflow_port=airflow,
        )
        broker = Stack(settings, [kafka_service(settings)])
        try:
            broker.up(lambda service, event: None)
            yield settings.bootstrap_servers
        finally:
            broker.down(lambda service, event: None)


if __name__ == "__main__":
    main()
