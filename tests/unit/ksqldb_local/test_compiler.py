from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from ksqldb_local.compiler import Compiler, java_double
from ksqldb_local.errors import FunctionError, StatementError, UnsupportedError
from ksqldb_local.formatting import expression_text
from ksqldb_local.functions import JsonCache
from ksqldb_local.parser import parse
from ksqldb_local.statements import Query
from ksqldb_local.types import BIGINT, BOOLEAN, DOUBLE, INTEGER, STRING, Column, Schema, SqlType

SCHEMA = Schema(
    (
        Column("A", STRING),
        Column("B", STRING),
        Column("N", INTEGER),
        Column("M", BIGINT),
        Column("D", DOUBLE),
        Column("T", BOOLEAN),
        Column("q", STRING),
    )
)
NAMES = ("a", "b", "n", "m", "d", "t", "q")
Values = dict[str, Any]


def expression_of(text: str) -> exp.Expression:
    query = parse(f"SELECT {text} AS x FROM s;")[0]
    assert isinstance(query, Query)
    expression = query.select.items[0].expression
    assert expression is not None
    return expression


def compiled(text: str) -> tuple[Callable[[Values], Any], SqlType | None]:
    expression = expression_of(text)
    compiler = Compiler(SCHEMA, "S", JsonCache())
    evaluate = compiler.evaluator(expression)

    def run(values: Values) -> Any:
        return evaluate(tuple(values.get(name) for name in NAMES), 1_700_000_000_000, 2, 77)

    return run, compiler.type_of(expression)


def value(text: str, **values: Any) -> Any:
    return compiled(text)[0](values)


MAYBE_TEXT = st.none() | st.sampled_from(["", "x", "y", "X", " x"])
MAYBE_NUMBER = st.none() | st.integers(-(2**31), 2**31 - 1)


@given(MAYBE_TEXT, MAYBE_TEXT)
def test_comparison_with_null_is_false_and_its_negation_true(a: str | None, b: str | None) -> None:
    known = a is not None and b is not None

    assert value("a = b", a=a, b=b) is (known and a == b)
    assert value("a <> b", a=a, b=b) is (known and a != b)
    assert value("NOT (a = b)", a=a, b=b) is not (known and a == b)
    assert value("a < b", a=a, b=b) is (known and str(a) < str(b))
    assert value("a >= b", a=a, b=b) is (known and str(a) >= str(b))
    assert value("a = 'x'", a=a) is (a == "x")
    assert value("a <> 'x'", a=a) is (a is not None and a != "x")
    assert value("NOT (a = 'x')", a=a) is (a != "x")


@given(MAYBE_TEXT, MAYBE_TEXT)
def test_in_never_matches_null_and_not_in_keeps_it(a: str | None, b: str | None) -> None:
    assert value("a IN ('x', 'y', null)", a=a) is (a in ("x", "y"))
    assert value("a NOT IN ('x', 'y')", a=a) is (a not in ("x", "y"))
    assert value("a IN ('x', b)", a=a, b=b) is (a is not None and a in ("x", b))


@given(MAYBE_NUMBER, MAYBE_NUMBER)
def test_between_is_two_comparisons(n: int | None, m: int | None) -> None:
    expected = n is not None and m is not None and -5 <= n <= m

    assert value("n BETWEEN -5 AND m", n=n, m=m) is expected
    assert value("n NOT BETWEEN -5 AND m", n=n, m=m) is not expected


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_arithmetic_is_javas(n: int, m: int) -> None:
    def wrapped(number: int) -> int:
        return (number + 2**31) % 2**32 - 2**31

    both = {"a": None, "n": n, "m": m}
    assert value("n + CAST(m AS INTEGER)", **both) == wrapped(n + m)
    assert value("n * CAST(m AS INTEGER)", **both) == wrapped(n * m)
    assert value("n - m", **both) == n - m  # BIGINT
    if m:
        quotient, remainder = value("n / m", **both), value("n % m", **both)
        assert quotient * m + remainder == n
        assert abs(quotient) == abs(n) // abs(m)


@pytest.mark.parametrize("text", ["n / 0", "n % 0", "n + 1", "-n", "t AND true", "NOT t"])
def test_null_or_zero_where_java_throws_fails_the_expression(text: str) -> None:
    row = {"n": 1} if "0" in text else {}
    with pytest.raises(FunctionError):
        value(text, **row)


@given(MAYBE_TEXT)
def test_null_tests(a: str | None) -> None:
    assert value("a IS NULL", a=a) is (a is None)
    assert value("a IS NOT NULL", a=a) is (a is not None)
    assert value("COALESCE(a, 'z')", a=a) == ("z" if a is None else a)


def test_and_or_and_case_stop_at_the_first_that_decides() -> None:
    bad = "EXTRACTJSONFIELD(a, '$.x') = 'y'"  # fails: not JSON

    assert value(f"true OR {bad}", a="nada") is True
    assert value(f"false AND {bad}", a="nada") is False
    assert value(f"CASE WHEN true THEN 1 WHEN {bad} THEN 2 END", a="nada") == 1
    with pytest.raises(FunctionError):
        value(f"false OR {bad}", a="nada")
    with pytest.raises(FunctionError):  # all arguments of a function are evaluated
        value("COALESCE(b, EXTRACTJSONFIELD(a, '$.x'))", a="nada", b="there")


def test_case_without_else_is_null() -> None:
    assert value("CASE WHEN a = 'x' THEN 'is x' END", a="y") is None


def test_guard_of_the_routing_sql() -> None:
    guard = "CASE WHEN IS_JSON_STRING(a) THEN COALESCE(EXTRACTJSONFIELD(a, '$.g'), '') ELSE '' END"

    assert value(guard, a='{"g":"U"}') == "U"
    assert value(guard, a='{"h":"U"}') == ""
    assert value(guard, a="nada") == ""
    assert value(guard, a=None) == ""


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("UCASE(a)", {"a": "añß"}, "AÑSS"),
        ("LCASE(a)", {"a": "AÑ"}, "añ"),
        ("UCASE(a)", {}, None),
        ("TRIM(a)", {"a": " \tx\u00a0 "}, "x\u00a0"),
        ("LEN(a)", {"a": "a😀"}, 3),
        ("LEN(a)", {}, None),
        ("REPLACE(a, 'x', b)", {"a": "axx", "b": "y"}, "ayy"),
        ("REPLACE(a, 'x', b)", {"a": "axx"}, None),
        ("CONCAT(a, b, 'z')", {"a": "x"}, "xz"),
        ("a || b", {"b": "x"}, "x"),
        ("SUBSTRING(a, 2)", {"a": "hola"}, "ola"),
        ("SUBSTRING(a, 2, 2)", {"a": "hola"}, "ol"),
        ("SUBSTRING(a, 0, 2)", {"a": "hola"}, "ho"),
        ("SUBSTRING(a, -3, 2)", {"a": "hola"}, "ol"),
        ("SUBSTRING(a, 9)", {"a": "hola"}, ""),
        ("SUBSTRING(a, 1, -1)", {"a": "hola"}, ""),
        ("IS_JSON_STRING(a)", {"a": ""}, False),
        ("IS_JSON_STRING(a)", {"a": "null"}, True),
        ("IS_JSON_STRING(a)", {}, False),
        ("JSON_KEYS(a)", {"a": '{"x":1,"y":2}'}, ["x", "y"]),
        ("JSON_KEYS(a)", {"a": "[1]"}, None),
        ("JSON_KEYS(a)", {"a": "null"}, None),
        ("JSON_KEYS(a)", {}, None),
        ("JSON_ARRAY_LENGTH(a)", {"a": "[1,2]"}, 2),
        ("NULLIF(a, 'x')", {"a": "x"}, None),
        ("COALESCE(d, 2.5)", {}, 2.5),
        ("COALESCE(d, n)", {"n": 7}, 7.0),
        ("COALESCE(d, n)", {}, None),
        ("CASE WHEN t THEN d ELSE 1 END", {"t": False}, 1.0),
        ("CASE WHEN t THEN n WHEN n > 1 THEN d END", {"t": True, "n": 3}, 3.0),
        ("CAST(n AS STRING)", {"n": 5}, "5"),
        ("CAST(a AS INT)", {"a": "5"}, 5),
        ("a || 'x'", {"a": "b"}, "bx"),
        ("IFNULL(a, 'x')", {}, "x"),
        ("CAST(n AS VARCHAR)", {"n": 5}, "5"),
        ("CAST(t AS VARCHAR)", {"t": True}, "true"),
        ("CAST(d AS VARCHAR)", {"d": 1e10}, "1.0E10"),
        ("CAST(a AS INTEGER)", {"a": " 12 "}, 12),
        ("CAST(d AS INTEGER)", {"d": -3.9}, -3),
        ("CAST(a AS DOUBLE)", {"a": "1.5"}, 1.5),
        ("CAST(a AS BOOLEAN)", {"a": "TR"}, True),
        ("CAST(a AS BIGINT)", {}, None),
        ("d = 1.5", {"d": 1.5}, True),
        ("n > 1.5", {"n": 2}, True),
        ("n IN ('2', '3')", {"n": 2}, True),
        ("a IN (1, 2)", {"a": "2"}, True),
        ("n + d", {"n": 1, "d": 0.5}, 1.5),
        ("a IS DISTINCT FROM b", {"a": "x"}, True),
        ("a IS DISTINCT FROM b", {}, False),
        ("ROWTIME", {}, 1_700_000_000_000),
        ("ROWPARTITION", {}, 2),
        ("s.ROWOFFSET", {}, 77),
        ("`q`", {"q": "lower"}, "lower"),
    ],
)
def test_value_is_as_documented(text: str, values: Values, expected: Any) -> None:
    found = value(text, **values)

    assert found == expected
    assert type(found) is type(expected)
    # What is stored, and read again after a restart, is the canonical text.
    stored = expression_text(expression_of(text))
    assert value(stored, **values) == expected
    assert expression_text(expression_of(stored)) == stored


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("x%", "xyz", True),
        ("x%", "ax", False),
        ("_b_", "abc", True),
        ("%.%", "a.b", True),
        ("%.%", "ab", False),
        ("", "", True),
        ("a%", "a\nb", False),
        ("[a]", "[a]", True),
    ],
)
def test_like_matches_the_whole_text(pattern: str, text: str, matches: bool) -> None:
    assert value(f"a LIKE '{pattern}'", a=text) is matches
    assert value(f"a NOT LIKE '{pattern}'", a=text) is not matches


def test_like_with_escape_and_of_null() -> None:
    assert value("a LIKE '100!%' ESCAPE '!'", a="100%") is True
    assert value("a LIKE '100!%' ESCAPE '!'", a="1000") is False
    with pytest.raises(FunctionError):
        value("a LIKE 'x'")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a", STRING),
        ("1", INTEGER),
        ("3000000000", BIGINT),
        ("n + m", BIGINT),
        ("n / d", DOUBLE),
        ("a = b", BOOLEAN),
        ("CASE WHEN t THEN n ELSE m END", BIGINT),
        ("COALESCE(null, a)", STRING),
        ("ROWPARTITION", INTEGER),
    ],
)
def test_type_is_inferred(text: str, kind: SqlType) -> None:
    assert compiled(text)[1] == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nada", "Column 'NADA' cannot be resolved"),
        ("Q", "Column 'Q' cannot be resolved"),
        ("other.a", "cannot be resolved"),
        ("a = 5", r"Cannot compare A \(STRING\) to 5 \(INTEGER\) with EQUAL"),
        ("t < true", "Cannot compare"),
        ("n IN ('x')", "Cannot cast|invalid input"),
        ("a + n", "Unsupported arithmetic"),
        ("NOT a", "BOOLEAN"),
        ("a AND t", "BOOLEAN"),
        ("CASE WHEN t THEN a ELSE n END", "different types"),
        ("NADA(a)", "Can't find any functions with the name 'NADA'"),
        ("UCASE(n)", "does not accept"),
        ("LEN(a, b)", "does not accept"),
        ("EXTRACTJSONFIELD(a, 'x')", "Invalid JSON path"),
        ("n LIKE 'x'", "LIKE"),
    ],
)
def test_wrong_expression_is_refused_before_it_runs(text: str, message: str) -> None:
    with pytest.raises((StatementError, FunctionError), match=message):
        compiled(text)


@pytest.mark.parametrize("text", ["CAST(a AS DECIMAL(4,2))", "a[1]", "CASE a WHEN 'x' THEN 1 END"])
def test_expression_out_of_scope_names_a_ksqldb_server(text: str) -> None:
    with pytest.raises(UnsupportedError, match="ksqlDB server"):
        compiled(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (-0.5, "-0.5"),
        (1234567.0, "1234567.0"),
        (1e7, "1.0E7"),
        (1.5e-5, "1.5E-5"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_double_is_written_as_java_writes_it(number: float, text: str) -> None:
    assert java_double(number) == text


def test_names_and_literals_cannot_become_code() -> None:
    evil = "'); import os; os.abort() #"

    assert value("a = '" + evil.replace("'", "''") + "'", a=evil) is True
