from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from emergencias import model
from emergencias.enrichment import enrich
from emergencias.places import SimulatedAddressBook
from emergencias.settings import Settings
from kafka_io import CheckedProducer, OutRecord

ENRICHER = """
import sys
from emergencias.enrichment import enrich
from emergencias.places import SimulatedAddressBook
from emergencias.settings import Settings
settings = Settings()
say = lambda so_far: print(so_far.consumed, flush=True)
enrich(
    {"bootstrap.servers": sys.argv[1]}, SimulatedAddressBook(settings.data_dir),
    group_id=settings.enrichment_group, transactional_id=sys.argv[2], timeout_s=60,
    on_progress=say,
)
"""


@pytest.fixture
def enricher(bootstrap_servers: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Enrich in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(transactional_id: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", ENRICHER, bootstrap_servers, transactional_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def urgent(kafka: dict[str, Any]) -> Callable[[int], set[str]]:
    """Write urgent alerts to T2 as the SQL does, every second one medical; return those ids."""

    def write(alerts: int) -> set[str]:
        medical = set()
        with CheckedProducer(kafka) as producer:
            for number in range(alerts):
                key = str(uuid.uuid4())
                row = {
                    "GRADO": "Urgente",
                    "LOCALIZACION": "Sevilla",
                    "REQUIERE_MEDICO": "No" if number % 2 else "Si",
                    "T1_PARTICION": 0,
                    "T1_OFFSET": number,
                }
                if number % 2 == 0:
                    medical.add(key)
                producer.send(OutRecord(model.T2, orjson.dumps(row), key=key.encode()))
            producer.flush()
        return medical

    return write


def run_here(kafka: dict[str, Any], **options: Any) -> Any:
    settings = Settings()
    return enrich(
        kafka,
        SimulatedAddressBook(settings.data_dir),
        group_id=settings.enrichment_group,
        transactional_id=f"test-{uuid.uuid4()}",
        timeout_s=60,
        **options,
    )


def only(ids: set[str], keys: Counter[str]) -> Counter[str]:
    return Counter({key: n for key, n in keys.items() if key in ids})


def test_every_medical_alert_gets_an_address_once_and_a_repeat_adds_nothing(
    kafka: dict[str, Any],
    urgent: Callable[[int], set[str]],
    keys_on: Callable[[str], Counter[str]],
) -> None:
    medical = urgent(100)

    run_here(kafka)
    repeat = run_here(kafka)

    assert repeat.consumed == 0
    assert only(medical, keys_on(model.T2_1)) == Counter(medical)


def test_what_nobody_can_read_is_in_manual_review_once_and_the_rest_goes_on(
    kafka: dict[str, Any],
    urgent: Callable[[int], set[str]],
    keys_on: Callable[[str], Counter[str]],
) -> None:
    bad = {str(uuid.uuid4()) for _ in range(5)}
    with CheckedProducer(kafka) as producer:
        for key in bad:
            producer.send(OutRecord(model.T2, b"{broken", key=key.encode()))
        producer.flush()
    medical = urgent(20)

    assert run_here(kafka).dead_lettered == 5
    assert only(bad, keys_on(model.T4)) == Counter(bad)
    assert only(medical, keys_on(model.T2_1)) == Counter(medical)


def test_killed_at_ten_random_moments_t2_1_is_exact(
    kafka: dict[str, Any],
    urgent: Callable[[int], set[str]],
    keys_on: Callable[[str], Counter[str]],
    enricher: Callable[[str], subprocess.Popen[str]],
) -> None:
    seed = int(os.environ.get("EMERGENCIAS_TEST_SEED", random.randrange(2**32)))
    print(f"EMERGENCIAS_TEST_SEED={seed}")
    chance = random.Random(seed)
    medical = urgent(40_000)
    task = f"killed-{uuid.uuid4()}"

    handled = 0
    for moment in range(10):
        process = enricher(task)
        assert process.stdout is not None
        if moment % 3:  # in its work; else before it joins the group, or as it does
            handled += int(process.stdout.readline())
        threading.Event().wait(chance.uniform(0, 1.5 if moment % 3 == 0 else 0.2))
        process.kill()
        process.wait()
    assert 0 < handled < 40_000
    last = enricher(task)
    _, complaint = last.communicate(timeout=120)

    assert last.returncode == 0, complaint
    assert only(medical, keys_on(model.T2_1)) == Counter(medical)


def test_two_at_once_share_the_work_and_t2_1_is_exact(
    kafka: dict[str, Any],
    urgent: Callable[[int], set[str]],
    keys_on: Callable[[str], Counter[str]],
    enricher: Callable[[str], subprocess.Popen[str]],
) -> None:
    medical = urgent(20_000)

    both = [enricher(f"one-{uuid.uuid4()}"), enricher(f"other-{uuid.uuid4()}")]
    results = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], results
    assert only(medical, keys_on(model.T2_1)) == Counter(medical)
