from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_io import (
    CheckedProducer,
    DeliveryError,
    LoopResult,
    Offsets,
    OffsetsLostError,
    OutRecord,
    ProducerFencedError,
    ReadTimeoutError,
    TopicMissingError,
    committed_offsets,
    read_range,
    run_exactly_once,
)

Config = dict[str, str]
PARTITIONS = 3


@dataclass
class Flow:
    """A source, a sink and a dead-letter topic, and a group that works between them."""

    config: Config
    group: str
    source: str
    sink: str
    dead: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, until: Offsets | None, member: str = "m", **changes: Any) -> LoopResult:
        arguments: dict[str, Any] = {
            "group_id": self.group,
            "source_topic": self.source,
            "transactional_id": f"{self.group}-{member}",
            "sink_topics": [self.sink],
            "transform": self.transform,
            "dead_letter": self.dead_letter,
            "until": until,
            "timeout_s": 30,
            **changes,
        }
        return run_exactly_once(self.config, **arguments)

    def transform(self, record: Message) -> Iterator[OutRecord]:
        value = record.value()
        if value is None or value.startswith(b"poison"):
            raise ValueError("poison")
        yield OutRecord(self.sink, value, record.key())

    def dead_letter(self, record: Message, reason: Exception) -> OutRecord:
        return OutRecord(self.dead, record.value(), headers=[("reason", str(reason).encode())])

    def start(self, until: Offsets, member: str, batch: int = 20) -> subprocess.Popen[str]:
        arguments = {
            "bootstrap": self.config["bootstrap.servers"],
            "group": self.group,
            "source": self.source,
            "sink": self.sink,
            "dead": self.dead,
            "id": f"{self.group}-{member}",
            "until": {part: offset for (_, part), offset in until.items()},
            "batch": batch,
        }
        script = Path(__file__).with_name("loop_process.py")
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def flow(config: Config, topic: Any, unique: Any) -> Iterator[Flow]:
    made = Flow(
        config,
        group=unique("group"),
        source=topic("source", PARTITIONS),
        sink=topic("sink"),
        dead=topic("dead"),
    )
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def filled(flow: Flow, fill: Any, ends: Any) -> Callable[[int], Offsets]:
    """Fill the source with numbered records, some of them aborted; return its ends."""

    def write(count: int) -> Offsets:
        fill(flow.source, [str(i) for i in range(count // 2)], partition=None, keyed=True)
        fill(flow.source, ["aborted"] * 10, partition=None, keyed=True, abort=True)
        fill(flow.source, [str(i) for i in range(count // 2, count)], partition=None, keyed=True)
        for partition in range(PARTITIONS):
            fill(flow.source, ["aborted"] * 5, partition=partition, abort=True)
        return dict(ends(flow.source))

    return write


def numbers(count: int) -> list[str]:
    return sorted(str(i) for i in range(count))


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_every_record_is_handled_once(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(1000)
    progress: list[LoopResult] = []
    result = flow.run(until, on_progress=progress.append)
    assert (result.consumed, result.produced, result.dead_lettered) == (1000, 1000, 0)
    assert progress[-1] == result
    assert sorted(values(flow.sink)) == numbers(1000)


def test_the_groups_offsets_pass_the_markers_and_aborted_records_at_the_end(
    config: Config, flow: Flow, filled: Any
) -> None:
    until = filled(100)
    flow.run(until)
    assert committed_offsets(config, flow.group, [flow.source]) == until


def test_running_again_adds_nothing(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(100)
    flow.run(until)
    assert flow.run(until) == LoopResult()
    assert sorted(values(flow.sink)) == numbers(100)


def test_it_goes_on_where_the_group_stopped(
    flow: Flow, filled: Any, fill: Any, ends: Any, values: Any
) -> None:
    flow.run(filled(100))
    fill(flow.source, ["more"], partition=1)
    assert flow.run(ends(flow.source)).consumed == 1
    assert sorted(values(flow.sink)) == sorted([*numbers(100), "more"])


def test_a_poison_record_goes_to_the_dead_letter_once_with_its_reason(
    config: Config, flow: Flow, fill: Any, ends: Any, values: Any
) -> None:
    fill(flow.source, ["a", "poison 1", "b", "poison 2", "c"])
    until = ends(flow.source)
    result = flow.run(until)
    assert (result.consumed, result.produced, result.dead_lettered) == (5, 3, 2)
    flow.run(until)
    assert values(flow.sink) == ["a", "b", "c"]
    (dead,) = read_range(config, {}, ends(flow.dead), timeout_s=5)
    assert [message.value() for message in dead] == [b"poison 1", b"poison 2"]
    assert dead[0].headers() == [("reason", b"poison")]


def test_a_transform_that_fails_half_way_leaves_none_of_its_output(
    flow: Flow, fill: Any, ends: Any, values: Any
) -> None:
    def half(record: Message) -> Iterator[OutRecord]:
        yield OutRecord(flow.sink, b"half of " + (record.value() or b""))
        if record.value() == b"bad":
            raise ValueError("second half")

    fill(flow.source, ["good", "bad"])
    flow.run(ends(flow.source), transform=half)
    assert values(flow.sink) == ["half of good"]
    assert values(flow.dead) == ["bad"]


def test_a_tombstone_is_handed_to_the_transform(
    config: Config, flow: Flow, ends: Any, values: Any
) -> None:
    with CheckedProducer(config) as producer:
        producer.send(OutRecord(flow.source, None, b"k", partition=0))
    seen: list[bytes | None] = []

    def note(record: Message) -> list[OutRecord]:
        seen.append(record.value())
        return []

    result = flow.run(ends(flow.source), transform=note)
    assert seen == [None]
    assert (result.consumed, result.produced) == (1, 0)
    assert values(flow.sink) == []


def test_an_output_that_the_broker_refuses_goes_to_the_dead_letter_alone(
    flow: Flow, fill: Any, ends: Any, values: Any, topic: Any
) -> None:
    small = topic("small", **{"max.message.bytes": "10000"})
    too_large = random.Random(0).randbytes(100_000)

    def grow(record: Message) -> list[OutRecord]:
        return [OutRecord(small, too_large if record.value() == b"5" else record.value())]

    fill(flow.source, [str(i) for i in range(20)])
    result = flow.run(ends(flow.source), transform=grow)
    assert (result.consumed, result.produced, result.dead_lettered) == (20, 19, 1)
    assert sorted(values(small)) == sorted(set(numbers(20)) - {"5"})
    assert values(flow.dead) == ["5"]


def test_a_dead_letter_that_cannot_be_written_stops_the_loop_and_commits_nothing(
    config: Config, flow: Flow, fill: Any, ends: Any, values: Any, unique: Any
) -> None:
    fill(flow.source, ["a", "poison"])
    missing = unique("missing")
    with pytest.raises(DeliveryError, match=missing):
        flow.run(
            ends(flow.source), dead_letter=lambda record, _: OutRecord(missing, record.value())
        )
    assert values(flow.sink) == []
    assert committed_offsets(config, flow.group, [flow.source]).get((flow.source, 0), 0) == 0


def test_an_empty_source_is_covered_at_once(flow: Flow, ends: Any) -> None:
    started = time.monotonic()
    assert flow.run(ends(flow.source)).consumed == 0
    assert time.monotonic() - started < 5


def test_it_follows_until_told_to_stop(flow: Flow, fill: Any, values: Any) -> None:
    stop = threading.Event()
    seen = threading.Event()
    thread = threading.Thread(
        target=flow.run,
        args=(None,),
        kwargs={"stop": stop, "on_progress": lambda r: r.consumed == 2 and seen.set()},
    )
    thread.start()
    try:
        fill(flow.source, ["a"], partition=0)
        fill(flow.source, ["b"], partition=2)
        assert seen.wait(20)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert sorted(values(flow.sink)) == ["a", "b"]


def test_it_ends_when_another_member_did_the_work(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(2000)
    results: dict[str, LoopResult] = {}

    def work(member: str) -> None:
        results[member] = flow.run(until, member, batch_size=50)

    members = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c", "d")]
    for member in members:
        member.start()
    for member in members:
        member.join(90)
    assert len(results) == 4  # four members, three partitions: one had nothing to do
    assert sum(result.consumed for result in results.values()) == 2000
    assert sorted(values(flow.sink)) == numbers(2000)


def test_a_record_hidden_by_an_open_transaction_is_waited_for(
    config: Config, flow: Flow, fill: Any, ends: Any, values: Any, unique: Any
) -> None:
    with CheckedProducer(config, transactional_id=unique("holder")) as holder:
        holder.begin()
        holder.send(OutRecord(flow.source, b"held", partition=0))
        holder.flush()
        fill(flow.source, ["behind"])
        timer = threading.Timer(2, holder.commit)
        timer.start()
        result = flow.run(ends(flow.source))
        timer.join()
    assert result.consumed == 2
    assert sorted(values(flow.sink)) == ["behind", "held"]


def test_a_group_that_does_not_advance_is_a_time_out_that_says_where(
    config: Config, flow: Flow, ends: Any, unique: Any
) -> None:
    with CheckedProducer(config, transactional_id=unique("holder")) as holder:
        holder.begin()
        holder.send(OutRecord(flow.source, b"held", partition=1))
        holder.flush()
        with pytest.raises(ReadTimeoutError, match=f"{flow.source}-1"):
            flow.run(ends(flow.source), timeout_s=2)
        holder.abort()


def test_a_missing_source_is_named(flow: Flow, unique: Any) -> None:
    missing = unique("nowhere")
    with pytest.raises(TopicMissingError, match=missing):
        flow.run({(missing, 0): 1}, source_topic=missing)


def test_a_second_loop_of_the_same_id_takes_over(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(300)
    hold, entered = threading.Event(), threading.Event()
    caught: list[Exception] = []

    def slow(record: Message) -> Iterator[OutRecord]:
        entered.set()
        hold.wait(30)
        return flow.transform(record)

    def zombie() -> None:
        try:
            flow.run(until, transform=slow, batch_size=10)
        except ProducerFencedError as exc:
            caught.append(exc)

    thread = threading.Thread(target=zombie)
    thread.start()
    assert entered.wait(20)
    heir = threading.Thread(target=flow.run, args=(until,))
    heir.start()
    time.sleep(1)  # the heir has taken over the id and waits for its share of the partitions
    hold.set()
    thread.join(40)
    heir.join(40)
    assert len(caught) == 1
    assert sorted(values(flow.sink)) == numbers(300)


def test_partitions_revoked_during_a_batch_are_not_handled_twice(
    flow: Flow, filled: Any, values: Any
) -> None:
    until = filled(600)
    joined = threading.Event()

    def slow(record: Message) -> Iterator[OutRecord]:
        # The second member joins, and the group rebalances, while the first holds a batch.
        joined.wait(8)
        return flow.transform(record)

    first = threading.Thread(
        target=flow.run, args=(until, "first"), kwargs={"transform": slow, "batch_size": 30}
    )
    second = threading.Thread(target=flow.run, args=(until, "second"))
    first.start()
    time.sleep(2)
    second.start()
    time.sleep(3)
    joined.set()
    first.join(60)
    second.join(60)
    assert sorted(values(flow.sink)) == numbers(600)


def test_killed_at_random_moments_it_is_still_exact(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(3000)
    seed = random.randrange(10**6)
    logging.getLogger(__name__).warning("seed of the moments: %d", seed)
    moments = random.Random(seed)
    for _ in range(4):
        process = flow.start(until, "killed")
        for _ in range(moments.randrange(1, 15)):
            first_line(process)
        threading.Event().wait(moments.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = flow.start(until, "killed", batch=500)
    _, errors = last.communicate(timeout=90)
    assert last.returncode == 0, errors
    assert errors == ""
    assert sorted(values(flow.sink)) == numbers(3000), f"seed {seed}"


def test_two_processes_at_once_are_exact(flow: Flow, filled: Any, values: Any) -> None:
    until = filled(4000)
    members = [flow.start(until, name) for name in ("one", "two")]
    for member in members:
        _, errors = member.communicate(timeout=90)
        assert member.returncode == 0, errors
    assert sorted(values(flow.sink)) == numbers(4000)


@pytest.mark.parametrize("pause_s", [8, 25])
def test_a_zombie_that_wakes_after_its_session_expired_adds_nothing(
    flow: Flow, filled: Any, values: Any, pause_s: int
) -> None:
    until = filled(4000)
    zombie = flow.start(until, "zombie")
    for _ in range(3):
        first_line(zombie)
    zombie.send_signal(signal.SIGSTOP)
    asleep_since = time.monotonic()
    heir = flow.start(until, "heir")
    _, errors = heir.communicate(timeout=90)
    assert heir.returncode == 0, errors
    threading.Event().wait(max(0, pause_s - (time.monotonic() - asleep_since)))
    zombie.send_signal(signal.SIGCONT)
    zombie.communicate(timeout=60)
    counts = Counter(values(flow.sink))
    assert sorted(counts) == numbers(4000)
    assert set(counts.values()) == {1}


class TestRefusals:
    def test_offsets_that_vanished_while_the_sink_holds_records(
        self, flow: Flow, admin: AdminClient, filled: Any, values: Any
    ) -> None:
        until = filled(50)
        flow.run(until)
        for future in admin.delete_consumer_groups([flow.group]).values():
            future.result()
        with pytest.raises(OffsetsLostError, match=r"--reset-offsets") as caught:
            flow.run(until)
        assert flow.sink in str(caught.value)
        assert flow.group in str(caught.value)
        assert sorted(values(flow.sink)) == numbers(50)

    def test_aborted_records_in_the_sink_are_none_from_an_earlier_life(
        self, flow: Flow, filled: Any, fill: Any, values: Any
    ) -> None:
        fill(flow.sink, ["never committed"], abort=True)
        flow.run(filled(50))
        assert sorted(values(flow.sink)) == numbers(50)

    def test_records_deleted_before_the_group_handled_them(
        self, flow: Flow, admin: AdminClient, filled: Any, fill: Any, ends: Any, values: Any
    ) -> None:
        flow.run(filled(50))
        fill(flow.source, ["lost", "kept"])
        delete(admin, flow.source, 0, ends(flow.source)[flow.source, 0] - 2)
        with pytest.raises(OffsetsLostError, match=f"{flow.source}-0 from") as caught:
            flow.run(ends(flow.source))
        assert "--reset-offsets" in str(caught.value)
        assert sorted(values(flow.sink)) == numbers(50)

    def test_records_that_expire_after_they_were_handled_are_no_loss(
        self, flow: Flow, admin: AdminClient, filled: Any, ends: Any
    ) -> None:
        until = filled(50)
        flow.run(until)
        for (name, partition), offset in until.items():
            delete(admin, name, partition, offset)
        assert flow.run(ends(flow.source)) == LoopResult()

    def test_an_operator_can_go_on_as_the_message_says(
        self, flow: Flow, admin: AdminClient, filled: Any, fill: Any, ends: Any, values: Any
    ) -> None:
        flow.run(filled(50))
        for future in admin.delete_consumer_groups([flow.group]).values():
            future.result()
        at_the_end = [TopicPartition(*part, offset) for part, offset in ends(flow.source).items()]
        request = ConsumerGroupTopicPartitions(flow.group, at_the_end)
        for future in admin.alter_consumer_group_offsets([request]).values():
            future.result()
        fill(flow.source, ["next"])
        flow.run(ends(flow.source))
        assert sorted(values(flow.sink)) == sorted([*numbers(50), "next"])


def delete(admin: AdminClient, name: str, partition: int, offset: int) -> None:
    for future in admin.delete_records([TopicPartition(name, partition, offset)]).values():
        future.result()
