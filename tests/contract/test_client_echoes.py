"""Definitions as real servers echo them against the statements that were sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksqldb_provider.sql import Definition, SqlError, parse_statement

RECORDINGS = Path(__file__).parent / "recordings"


def exchanges() -> Iterator[tuple[str, str, str]]:
    """Yield (recording, statement sent, statement echoed) of every CREATE that succeeded."""
    for path in sorted(RECORDINGS.glob("*.json")):
        recorded = json.loads(path.read_text(encoding="utf-8"))
        request = recorded.get("request", {}).get("body")
        body = recorded.get("response", {}).get("body")
        if not isinstance(request, dict) or not isinstance(body, list) or len(body) != 1:
            continue
        if body[0].get("@type") != "currentStatus" or "CREATE" not in body[0]["statementText"]:
            continue
        sent = request["ksql"].split("; ")[-1]
        yield path.stem, sent, body[0]["statementText"]


EXCHANGES = list(exchanges())


def definition(sql: str) -> Definition:
    parsed = parse_statement(sql).definition
    assert parsed is not None
    return parsed


def test_there_are_exchanges_to_compare():
    assert len(EXCHANGES) >= 30


@pytest.mark.parametrize(
    ("sent", "echoed"), [pair for _, *pair in EXCHANGES], ids=[name for name, *_ in EXCHANGES]
)
def test_what_was_sent_equals_what_is_echoed(sent, echoed):
    ours, theirs = definition(sent), definition(echoed)
    assert replace(ours, properties={}) == replace(theirs, properties={})
    assert ours.properties.items() <= theirs.properties.items()
    assert ours.topic == theirs.topic


def test_a_changed_filter_shows_in_the_filter_alone():
    echo = {name: echoed for name, _, echoed in EXCHANGES}
    before = definition(echo["040-csas-default-latest"])
    after = definition(echo["211-csas-or-replace-other-filter"])
    assert before.where != after.where
    assert before == replace(after, where=before.where)


def test_another_sink_topic_shows_in_the_topic():
    sent = {name: statement for name, statement, _ in EXCHANGES}
    one, other = (
        definition(sent["401-csas-earliest"]),
        definition(sent["402-csas-earliest-short-name"]),
    )
    assert one.topic != other.topic
    assert one == replace(other, name=one.name, properties=one.properties)


def echoes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("queryString", "statement", "statementText") and isinstance(inner, str):
                yield inner
            else:
                yield from echoes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from echoes(inner)


def test_every_create_that_a_server_ever_echoed_can_be_read():
    read = 0
    for path in sorted(RECORDINGS.glob("*.json")):
        response = json.loads(path.read_text(encoding="utf-8")).get("response", {})
        if response.get("status") != 200:
            continue
        for sql in echoes(response):
            if not sql.startswith("CREATE"):
                continue
            try:
                read += parse_statement(sql).definition is not None
            except SqlError as error:
                pytest.fail(f"{path.name}: {error}")
    assert read > 80
