"""The fast path gives what the exact one gives, or leaves the record to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_local.formats import SourceReader
from ksqldb_local.functions import JsonCache
from ksqldb_local.fusion import fuse
from ksqldb_local.metastore import Metastore, Stream
from ksqldb_local.parser import parse
from ksqldb_local.planner import Creation, create_as_select, create_source
from ksqldb_local.program import Program
from ksqldb_local.statements import CreateAsSelect, CreateSource
from ksqldb_local.topics import TopicInfo

TEXT = "CREATE STREAM s (id VARCHAR KEY, t VARCHAR) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='KAFKA');"
TYPED = (
    "CREATE STREAM s (id VARCHAR KEY, a VARCHAR, b VARCHAR, n INT, m BIGINT, f BOOLEAN) "
    "WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON');"
)
DEGREE = "CASE WHEN IS_JSON_STRING(t) THEN COALESCE(EXTRACTJSONFIELD(t, '$.a'), '') ELSE '' END"
TEXT_QUERIES = (
    f"SELECT id, EXTRACTJSONFIELD(t, '$.a') AS a, EXTRACTJSONFIELD(t, '$.b') AS b, "
    f"ROWPARTITION AS p, ROWOFFSET AS o FROM s WHERE {DEGREE} IN ('x', 'y')",
    f"SELECT id, EXTRACTJSONFIELD(t, '$.b') AS b, UCASE(id) AS k FROM s WHERE {DEGREE} = 'z' "
    "AND NOT (EXTRACTJSONFIELD(t, '$.b') = 'x')",
    f"SELECT id, CASE WHEN NOT IS_JSON_STRING(t) THEN 'no' WHEN JSON_KEYS(t) IS NULL THEN 'other' "
    f"ELSE 'unknown' END AS why, t FROM s WHERE NOT IS_JSON_STRING(t) OR NOT ({DEGREE} IN "
    "('x', 'y', 'z'))",
    "SELECT * FROM s",
)
TYPED_QUERIES = (
    "SELECT * FROM s WHERE a = 'x' OR b IN ('x', 'y')",
    "SELECT * FROM s WHERE NOT (a = 'x' OR b IN ('x', 'y'))",
    "SELECT id, n + 1 AS n, m, f FROM s WHERE a LIKE 'x%' AND f",
    "SELECT id, n / (m - 1) AS q FROM s",
    "SELECT a, id FROM s PARTITION BY a",
)


class Topics:
    """Every topic is there."""

    def find(self, name: str) -> TopicInfo:
        return TopicInfo(1, 1, 1)

    def create(self, name: str, info: TopicInfo) -> None:
        raise AssertionError(name)

    def delete(self, name: str) -> None:
        raise AssertionError(name)


class Record:
    """As much of a message as routing reads."""

    def __init__(self, key: bytes | None, value: bytes | None, offset: int = 7) -> None:
        self._key, self._value, self._offset = key, value, offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return self._offset

    def headers(self) -> list[tuple[str, bytes]]:
        return [("h", b"1")]


def programs(source: str, queries: tuple[str, ...]) -> tuple[Stream, list[Program], JsonCache]:
    store, cache = Metastore(), JsonCache()
    statement = parse(source)[0]
    assert isinstance(statement, CreateSource)
    planned = create_source(statement, store, Topics())
    assert isinstance(planned, Creation)
    store.streams["S"] = planned.stream
    made = []
    for number, query in enumerate(queries):
        text = f"CREATE STREAM q{number} WITH (VALUE_FORMAT='JSON') AS {query};"
        create = parse(text)[0]
        assert isinstance(create, CreateAsSelect)
        plan = create_as_select(create, store, Topics(), {}, f"CSAS_Q{number}")
        assert isinstance(plan, Creation)
        assert plan.query is not None
        made.append(Program(plan.query.id, plan.query.select, planned.stream, plan.stream, cache))
    return planned.stream, made, cache


def exactly(source: Stream, made: list[Program], record: Record) -> list[tuple[Any, ...]]:
    """Return what the programs write, one by one."""
    reader = SourceReader(source.schema, source.key_format, source.value_format)
    row = reader.read(record.key(), record.value(), record.headers)
    assert row is not None
    written = []
    for program in made:
        emitted, _ = program.run(row, record.timestamp()[1], 2, record.offset())
        if emitted is not None:
            written.append((program.sink_topic, *emitted))
    return written


def both(
    source: str, queries: tuple[str, ...]
) -> Callable[[Record], tuple[list[tuple[Any, ...]], list[tuple[Any, ...]] | None]]:
    """Return what gives the exact path's outputs and the fast one's (None: it left the record)."""
    stream, made, cache = programs(source, queries)
    fused = fuse(stream, made, cache)
    assert fused is not None

    def run(record: Record) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]] | None]:
        fast: list[tuple[Any, ...]] = []
        left: list[Any] = []

        def produce(
            topic: str, value: bytes, key: bytes | None, headers: Any, timestamp: int
        ) -> None:
            assert headers == record.headers()
            assert timestamp == record.timestamp()[1]
            fast.append((topic, key, value))

        messages: Any = [record]
        counts, _, _ = fused(messages, produce, produce, left.append)
        assert sum(counts) == len(fast)
        if left:
            assert fast == []
            return exactly(stream, made, record), None
        return exactly(stream, made, record), fast

    return run


@pytest.fixture(scope="module")
def text_paths() -> Any:
    return both(TEXT, TEXT_QUERIES)


@pytest.fixture(scope="module")
def typed_paths() -> Any:
    return both(TYPED, TYPED_QUERIES)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["x", "y", "z", "Cádiz 😀", "", "null", "\x1b", '"a": 1.5'])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text("ab"), SCALARS)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "A", "c"]), VALUES, max_size=4)
KEYS = st.none() | st.binary(max_size=4) | st.sampled_from([b"k", "ñ".encode()])


@given(
    document=OBJECTS | VALUES,
    tail=st.sampled_from(["", " x", "}"]),
    compact=st.booleans(),
    key=KEYS,
)
def test_text_is_routed_as_exactly(
    text_paths: Any, document: Any, tail: str, compact: bool, key: bytes | None
) -> None:
    separators = (",", ":") if compact else None
    text = json.dumps(document, ensure_ascii=False, separators=separators) + tail
    exact, fast = text_paths(Record(key, text.encode()))

    assert fast is None or fast == exact


@given(value=st.binary(max_size=20), key=KEYS)
def test_any_bytes_are_routed_as_exactly(text_paths: Any, value: bytes, key: bytes | None) -> None:
    exact, fast = text_paths(Record(key, value))

    assert fast is None or fast == exact


@given(
    row=st.fixed_dictionaries(
        {
            "A": SCALARS,
            "B": SCALARS,
            "N": st.none() | st.integers(-(2**33), 2**33),
            "M": st.none() | st.integers(-2, 2**64 - 1),
            "F": st.none() | st.booleans(),
        }
    ),
    key=KEYS,
)
def test_typed_rows_are_routed_as_exactly(
    typed_paths: Any, row: dict[str, Any], key: bytes | None
) -> None:
    exact, fast = typed_paths(Record(key, json.dumps(row, ensure_ascii=False).encode()))

    assert fast is None or fast == exact


def test_ordinary_records_take_the_fast_path(text_paths: Any, typed_paths: Any) -> None:
    row = {"A": "x", "B": None, "N": 1, "M": 2, "F": True}
    records = [
        (text_paths, {"a": "x", "b": 37.123456, "c": "Cádiz"}),
        (text_paths, {"a": "w"}),
        (typed_paths, row),
    ]
    for paths, document in records:
        exact, fast = paths(Record(b"k", json.dumps(document).encode()))
        assert fast == exact
        assert fast


@pytest.mark.parametrize("value", [None, b"", b"nada", b"[1]", b"\xff"])
def test_odd_records_are_left_to_the_exact_path(text_paths: Any, value: bytes | None) -> None:
    stream, made, cache = programs(TEXT, TEXT_QUERIES)
    fused = fuse(stream, made, cache)
    assert fused is not None
    left: list[Any] = []

    def produce(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be written")

    messages: Any = [Record(b"k", value)]
    assert fused(messages, produce, produce, left.append)[0] == [0] * len(TEXT_QUERIES)
    assert left == messages


def test_columns_that_only_the_exact_path_reads_are_not_fused() -> None:
    source = (
        "CREATE STREAM s (id VARCHAR KEY, d DOUBLE) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON');"
    )
    stream, made, cache = programs(source, ("SELECT * FROM s",))

    assert fuse(stream, made, cache) is None


def test_a_full_queue_is_handed_to_the_careful_send() -> None:
    stream, made, cache = programs(TEXT, ("SELECT * FROM s",))
    fused = fuse(stream, made, cache)
    assert fused is not None
    sent: list[str] = []

    def full(*_: Any, **__: Any) -> None:
        raise BufferError

    def careful(topic: str, **_: Any) -> None:
        sent.append(topic)

    messages: Any = [Record(b"k", b"{}")]
    fused(messages, full, careful, lambda m: None)
    assert sent == ["Q0"]
