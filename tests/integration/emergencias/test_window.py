from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from emergencias import model
from emergencias.routes import load_routes
from emergencias.window import Window, open_window
from kafka_io import OffsetsLostError, ReadTimeoutError, TopicMissingError


@contextmanager
def window_of(hand_routed: Any, plan: Any, timeout_s: float = 30) -> Iterator[Window]:
    routes = load_routes(plan.routing_sql)
    with open_window(
        hand_routed.config, plan, routes, lambda _: False, timeout_s=timeout_s
    ) as window:
        yield window


def test_a_run_is_read_from_its_plans_offsets(hand_routed: Any) -> None:
    earlier, _ = hand_routed.plan("earlier")
    hand_routed.send(earlier, range(7))
    plan, _ = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    with window_of(hand_routed, plan) as window:
        classes = window.db.execute("SELECT DISTINCT clase FROM avisos").fetchall()
        assert classes == [("run",)]
        assert window.scalar("SELECT count(*) FROM avisos") == 21
        assert window.scalar("SELECT count(*) FROM entregas WHERE topic = ?", [model.T2]) == 9
        read = {part: ends for part, ends in window.ranges.items() if part[0] == model.T1}
    starts = {str(partition): start for (_, partition), (start, _) in read.items()}
    assert starts == plan.t1_start_offsets
    assert sum(end - start for start, end in read.values()) == 21


def test_a_run_that_sent_nothing_yet_has_an_empty_window(hand_routed: Any) -> None:
    plan, _ = hand_routed.plan("empty")
    with window_of(hand_routed, plan) as window:
        assert window.scalar("SELECT count(*) FROM conteos") == 0


@pytest.fixture
def transaction(hand_routed: Any) -> Producer:
    """A transaction of another producer that holds one record of T1."""
    producer = Producer({**hand_routed.config, "transactional.id": f"test-{uuid.uuid4()}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(model.T1, b"abierta", partition=0)
    assert producer.flush(30) == 0
    return producer


def test_aborted_records_are_not_in_the_window(hand_routed: Any, transaction: Producer) -> None:
    plan, _ = hand_routed.plan("this")
    transaction.produce(model.T1, b"luego", partition=1)
    assert transaction.flush(30) == 0
    hand_routed.send(plan, range(7))
    transaction.abort_transaction(30)
    with window_of(hand_routed, plan) as window:
        assert window.scalar("SELECT count(*) FROM avisos") == 7


def test_an_open_transaction_is_waited_for_and_then_named(
    hand_routed: Any, transaction: Producer
) -> None:
    plan, _ = hand_routed.plan("this")
    transaction.produce(model.T1, b"luego", partition=0)
    assert transaction.flush(30) == 0
    try:
        with pytest.raises(ReadTimeoutError, match=model.T1), window_of(hand_routed, plan, 1):
            pass
    finally:
        transaction.abort_transaction(30)
    with window_of(hand_routed, plan) as window:
        assert window.scalar("SELECT count(*) FROM avisos") == 0


def test_a_plan_that_points_past_t1s_end_is_refused(hand_routed: Any) -> None:
    plan, _ = hand_routed.plan("this")
    hand_routed.send(plan, range(3))
    before = plan.model_copy(update={"t1_start_offsets": {"0": 999, "1": 999, "2": 999}})
    with pytest.raises(OffsetsLostError, match="created anew"), window_of(hand_routed, before):
        pass


def test_a_missing_topic_is_named(hand_routed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = hand_routed.plan("this")
    monkeypatch.setattr(model, "T2_1", "no-such-topic")
    with pytest.raises(TopicMissingError, match="no-such-topic"), window_of(hand_routed, plan):
        pass


def test_deleted_records_are_never_passed_over(hand_routed: Any) -> None:
    plan, _ = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    partition, offset, _ = hand_routed.put(model.T1, b"x", b"x")
    doomed = TopicPartition(model.T1, partition, offset)
    admin = AdminClient(hand_routed.config)
    for future in admin.delete_records([doomed]).values():
        future.result(30)
    with pytest.raises(OffsetsLostError, match=model.T1), window_of(hand_routed, plan):
        pass
