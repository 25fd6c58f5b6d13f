from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from emergencias import model
from emergencias.intake import InputChangedError, IntakeResult, send_planned_alerts
from emergencias.plan import Plan, run_folder
from emergencias.settings import Settings
from kafka_io import CheckedProducer, OutRecord

DATA = Settings().data_dir

SENDER = """
import sys
from emergencias.intake import send_planned_alerts
from emergencias.plan import Plan
from emergencias.settings import Settings
plan = Plan.model_validate_json(open(sys.argv[2]).read())
say = lambda done, planned: print(done, flush=True)
send_planned_alerts(
    {"bootstrap.servers": sys.argv[1]}, plan, data_dir=Settings().data_dir, on_progress=say
)
"""


@pytest.fixture
def sender(
    bootstrap_servers: str, settings: Settings
) -> Iterator[Callable[[Plan], subprocess.Popen[str]]]:
    """Send a plan in a process of its own, returned once it has committed something."""
    started: list[subprocess.Popen[str]] = []

    def start(plan: Plan) -> subprocess.Popen[str]:
        path = run_folder(settings.export_root, plan.dag_id, plan.run_id) / "plan.json"
        process = subprocess.Popen(
            [sys.executable, "-c", SENDER, bootstrap_servers, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit(), process.stderr
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def planned(plan: Plan) -> Counter[str]:
    return Counter(plan.alert_id(sequence) for sequence in range(plan.alerts))


def of(plan: Plan, keys: Counter[str]) -> Counter[str]:
    ids = planned(plan)
    return Counter({key: n for key, n in keys.items() if key in ids})


def test_every_planned_alert_is_on_t1_once(
    new_plan: Callable[..., Plan], kafka: dict[str, str], keys_on: Callable[[str], Counter[str]]
) -> None:
    plan = new_plan(alerts=250)

    assert send_planned_alerts(kafka, plan, data_dir=DATA) == IntakeResult(
        sent=250, already_there=0
    )
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_sending_again_sends_nothing(
    new_plan: Callable[..., Plan], kafka: dict[str, str], keys_on: Callable[[str], Counter[str]]
) -> None:
    plan = new_plan(alerts=40)
    send_planned_alerts(kafka, plan, data_dir=DATA)

    assert send_planned_alerts(kafka, plan, data_dir=DATA) == IntakeResult(sent=0, already_there=40)
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_killed_half_way_and_retried_t1_is_exact(
    new_plan: Callable[..., Plan],
    kafka: dict[str, str],
    keys_on: Callable[[str], Counter[str]],
    sender: Callable[[Plan], subprocess.Popen[str]],
) -> None:
    plan = new_plan(alerts=400, rate_per_second=100)
    process = sender(plan)
    process.send_signal(signal.SIGKILL)
    process.wait()

    result = send_planned_alerts(kafka, plan, data_dir=DATA)

    assert 0 < result.already_there < 400
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_a_zombie_that_wakes_after_its_retry_adds_nothing_and_fails(
    new_plan: Callable[..., Plan],
    kafka: dict[str, str],
    keys_on: Callable[[str], Counter[str]],
    sender: Callable[[Plan], subprocess.Popen[str]],
) -> None:
    plan = new_plan(alerts=400, rate_per_second=100)
    zombie = sender(plan)
    zombie.send_signal(signal.SIGSTOP)

    send_planned_alerts(kafka, plan, data_dir=DATA)
    zombie.send_signal(signal.SIGCONT)
    _, complaint = zombie.communicate(timeout=60)

    assert zombie.returncode != 0
    assert "ProducerFencedError" in complaint
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_an_open_transaction_of_another_producer_hides_nothing_that_was_sent(
    new_plan: Callable[..., Plan], kafka: dict[str, str], keys_on: Callable[[str], Counter[str]]
) -> None:
    plan = new_plan(alerts=30)
    stranger = Producer(
        kafka | {"transactional.id": f"stranger-{plan.run_id}", "transaction.timeout.ms": 5000}
    )
    stranger.init_transactions(10)
    stranger.begin_transaction()
    for partition in range(3):
        stranger.produce(model.T1, value=b"open", partition=partition)
    stranger.flush(10)
    send_planned_alerts(kafka, plan, data_dir=DATA)

    assert send_planned_alerts(kafka, plan, data_dir=DATA).sent == 0
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_a_pace_slower_than_any_transaction_may_last_is_kept_too(
    new_plan: Callable[..., Plan], kafka: dict[str, str], keys_on: Callable[[str], Counter[str]]
) -> None:
    plan = new_plan(alerts=2, rate_per_second=1 / 12)  # the broker ends a transaction after 10 s

    assert send_planned_alerts(kafka, plan, data_dir=DATA).sent == 2
    assert of(plan, keys_on(model.T1)) == planned(plan)


def test_a_record_without_a_value_is_no_alert_whatever_its_key(
    new_plan: Callable[..., Plan], kafka: dict[str, str]
) -> None:
    plan = new_plan(alerts=1)
    with CheckedProducer(kafka) as producer:
        producer.send(OutRecord(model.T1, None, key=plan.alert_id(0).encode()))
        producer.flush()

    assert send_planned_alerts(kafka, plan, data_dir=DATA).sent == 1


def test_the_pace_is_kept(new_plan: Callable[..., Plan], kafka: dict[str, str]) -> None:
    plan = new_plan(alerts=21, rate_per_second=20)
    start = time.monotonic()

    send_planned_alerts(kafka, plan, data_dir=DATA)

    assert time.monotonic() - start >= 1


def test_a_file_that_changed_after_the_plan_is_not_sent(
    new_plan: Callable[..., Plan], kafka: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    row = '{"' + '":"x","'.join(model.ORIGINAL_FIELDS) + '":"x"}\n'
    file.write_text(row)
    plan = new_plan(source="file", input_path=str(file))
    file.write_text(row * 2)

    with pytest.raises(InputChangedError, match="changed since"):
        send_planned_alerts(kafka, plan, data_dir=DATA)
