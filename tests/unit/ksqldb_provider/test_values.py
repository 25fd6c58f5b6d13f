from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_provider.sql import (
    SqlError,
    TokenKind,
    bind,
    identifier,
    literal,
    name_of,
    parse_query,
    split,
    tokenize,
    without_values,
)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(text)
def test_any_text_is_one_string_that_means_it(value):
    (token,) = tokenize(literal(value))
    assert (token.kind, token.value) == (TokenKind.STRING, value)


@given(text.filter(bool))
def test_any_name_is_one_quoted_name_that_means_it(name):
    (token,) = tokenize(identifier(name))
    assert (token.kind, token.value) == (TokenKind.QUOTED, name)
    assert name_of(identifier(name)) == name


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_its_value(value):
    assert float(literal(value)) == value


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (7, "7"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+2"), "100"),
        (1.5, "1.5E0"),
        (["a", "b'c"], "('a', 'b''c')"),
    ],
)
def test_values_are_written_as_sql(value, sql):
    assert literal(value) == sql


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), b"x", {"a": 1}, [], [["a"]], object(), "a\0b"],
)
def test_what_has_no_sql_form_is_refused(value):
    with pytest.raises(SqlError, match="cannot be put into SQL"):
        literal(value)


def test_names_are_read_as_in_sql():
    assert name_of("redireccion") == "REDIRECCION"
    assert name_of(" `Otro` ") == "Otro"
    for text in ("a; DROP STREAM b", "a.b", "'a'", ""):
        with pytest.raises(SqlError, match="not one name"):
            name_of(text)
    with pytest.raises(SqlError, match="not a name"):
        identifier("")


@given(text)
def test_a_bound_value_cannot_change_the_statement(value):
    bound = bind("SELECT * FROM s WHERE a = :a AND b = ':a' -- :a\n;", {"a": value})
    (tokens,) = split(bound)
    assert [token.value for token in tokens] == [
        *("SELECT", "*", "FROM", "S", "WHERE", "A", "=", value, "AND", "B", "=", ":a", ";")
    ]


def test_a_negative_number_starts_no_comment():
    assert bind("SELECT a -:n FROM s;", {"n": -1}) == "SELECT a - -1 FROM s;"


@pytest.mark.parametrize(
    ("sql", "parameters", "problem"),
    [
        ("SELECT :a;", {}, r"line 1, column 8: no value is given for :a"),
        ("SELECT 1;", {"b": 1, "a": 1}, r"no :name in the SQL for the parameters a, b"),
        ("SELECT :a;", {"a": b""}, r"parameter a: b'' \(bytes\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(sql, parameters, problem):
    with pytest.raises(SqlError, match=problem):
        bind(sql, parameters)


@pytest.mark.parametrize(
    ("sql", "is_push", "limit"),
    [
        ("SELECT * FROM s;", False, None),
        ("select * from s limit 3;", False, 3),
        ("SELECT * FROM s EMIT CHANGES;", True, None),
        ("SELECT * FROM s EMIT CHANGES -- LIMIT 4\n LIMIT 5;", True, 5),
        ("SELECT 'EMIT CHANGES LIMIT 1' FROM s;", False, None),
    ],
)
def test_a_push_query_and_its_limit_are_told_apart(sql, is_push, limit):
    query = parse_query(sql)
    assert (query.is_push, query.limit) == (is_push, limit)


@pytest.mark.parametrize("sql", ["", "DROP STREAM s;", "SELECT 1; SELECT 2;", "SELECT 1"])
def test_what_is_not_one_select_is_refused(sql):
    with pytest.raises(SqlError):
        parse_query(sql)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("INSERT INTO d (a) VALUES ('600');", "INSERT INTO d (a) VALUES (…);"),
        ("-- x\ninsert into d values (1, 'b');", "-- x\ninsert into d values (…);"),
        ("INSERT INTO d SELECT * FROM s;", "INSERT INTO d SELECT * FROM s;"),
        ("CREATE STREAM values AS SELECT 'x' AS y FROM s;",) * 2,
        ("INSERT INTO d VALUES ('open",) * 2,
    ],
)
def test_what_an_insert_writes_is_not_shown(text, shown):
    assert without_values(text) == shown
