from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_local.json_text import (
    MISSING,
    JsonError,
    JsonPath,
    dump_object,
    node_text,
    parse_bytes,
    parse_bytes_exact,
    parse_exact,
    parse_text,
    varchar,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_was_written_is_read_by_both_ways(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)

    assert parse_exact(text) == value
    assert parse_bytes_exact(text.encode()) == value
    if not _has_huge_number(value):
        assert parse_text(text) == value
        assert parse_bytes(text.encode()) == value


def _has_huge_number(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_huge_number, value))
    if isinstance(value, dict):
        return any(map(_has_huge_number, value.values()))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@given(st.dictionaries(TEXTS, st.none() | TEXTS, max_size=5))
def test_output_is_compact_json_that_reads_back(row: dict[str, str | None]) -> None:
    raw = dump_object(row)

    assert json.loads(raw) == row
    assert all(ord(c) < 0x10000 for c in raw.decode())
    assert list(json.loads(raw)) == list(row)


def test_output_has_jacksons_escapes() -> None:
    raw = dump_object({"A": "Cádiz ☎ 😀", "B": 'x\x1f\x0b\n"\\u001f', "C": None})

    assert raw.decode() == (
        '{"A":"Cádiz ☎ \\uD83D\\uDE00","B":"x\\u001F\\u000B\\n\\"\\\\u001f","C":null}'
    )


@pytest.mark.parametrize(
    "text",
    [
        *("nada", '{"a":1', "[1", "{'a':1}", '{"a":NaN}', '{"a":Infinity}', "\ufeff{}", "01"),
        *("5x", "truex", "nulla", '"a', '{"a":"\n"}', '{"a":1,}', "-", '{"a" 1}', "[" * 100_000),
    ],
)
def test_text_that_jackson_refuses_is_refused(text: str) -> None:
    with pytest.raises(JsonError):
        parse_text(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1} basura', {"a": 1}),
        ('{"a":1}}', {"a": 1}),
        ('{"a":1,"a":2}', {"a": 2}),
        ("5 x", 5),
        ('"x"y', "x"),
        ("true,", True),
        (" \r\n\t[1]", [1]),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)
def test_text_that_jackson_takes_is_taken(text: str, value: Any) -> None:
    assert parse_text(text) == value


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_blank_text_holds_nothing(text: str) -> None:
    assert parse_text(text) is MISSING


def test_bytes_may_begin_with_a_byte_order_mark_and_end_in_garbage() -> None:
    assert parse_bytes(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
    assert parse_bytes(b'{"a":1}\xff') == {"a": 1}


def test_bytes_that_are_not_utf8_are_refused_also_in_a_field_nobody_reads() -> None:
    with pytest.raises(JsonError):
        parse_bytes(b'{"a":1,"b":"C\xe1diz"}')


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        ('{"a":"x"}', "$.a", "x"),
        ('{"a":null}', "$.a", "null"),
        ('{"a":1}', "$.b", None),
        ('{"A":1}', "$.a", None),
        ('{"a":true}', "$.a", "true"),
        ('{"a":12}', "$.a", "12"),
        ('{"a":37.380}', "$.a", "37.380"),
        ('{"a":1.0}', "$.a", "1.0"),
        ('{"a":1e3}', "$.a", "1E+3"),
        ('{"a":0.00000012}', "$.a", "1.2E-7"),
        ('{"a":123456789012345678901234567890}', "$.a", "123456789012345678901234567890"),
        ('{"b":{"a":1.50},"a":2.50}', "$.a", "2.50"),
        ('{"b":{"a":1.50}}', "$.b.a", "1.50"),
        ('{"a":{"x":1.50,"y":[1, "é"]}}', "$.a", '{"x":1.50,"y":[1,"é"]}'),
        ('{"a":[1,[2]]}', "$.a[1][0]", "2"),
        ('{"a":[1]}', "$.a[1]", None),
        ('{"a":[1]}', "$.a.b", None),
        ('{"a":1}', "$", '{"a":1}'),
        ('{"a b":1}', "$['a b']", "1"),
        ("5", "$.a", None),
        ("5", "$", "5"),
        ("", "$.a", None),
    ],
)
def test_path_extracts_as_ksqldb_does(document: str, path: str, expected: str | None) -> None:
    assert JsonPath(path).extract(document, parse_text(document)) == expected


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1000, max_value=1000),
    TEXTS,
)
def test_extracted_number_has_the_digits_that_were_written(number: Decimal, other: str) -> None:
    document = json.dumps({"o": other})[:-1] + f', "n" : {number}}}'

    assert JsonPath("$.n").extract(document, parse_text(document)) == str(number)


@pytest.mark.parametrize("path", ["a", "", "$.", "$[x]", "$.a["])
def test_path_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="Invalid JSON path"):
        JsonPath(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (12, "12"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        ({"lat": Decimal("37.1"), "lon": -5}, '{"lat":37.1,"lon":-5}'),
        (["a", "b", None, [1]], "[a, b, null, [1]]"),
        ({"a": 'q"\n'}, '{"a":"q\\"\\n"}'),
    ],
)
def test_value_of_another_type_becomes_text(value: Any, text: str) -> None:
    assert varchar(value) == text


def test_node_text_is_compact() -> None:
    assert node_text({"a": [1, None, False, "é"]}) == '{"a":[1,null,false,"é"]}'


def test_half_a_surrogate_pair_goes_out_as_its_escape_and_loses_no_record():
    raw = dump_object({"A": "x\ud800 ñ 😀", "B": None})

    assert raw == '{"A":"x\\uD800 ñ \\uD83D\\uDE00","B":null}'.encode()
