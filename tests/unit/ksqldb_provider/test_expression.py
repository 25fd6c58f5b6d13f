from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_provider.sql.expression import canonical

SOURCE = frozenset({"S"})


@pytest.mark.parametrize(
    ("written", "echoed"),
    [
        ("grado = 'Urgente'", "(S.GRADO = 'Urgente')"),
        ("grado IN ('a','b')", "(S.GRADO IN ('a', 'b'))"),
        ("grado NOT IN ('a')", "(NOT (S.GRADO IN ('a')))"),
        ("grado NOT IN ('a')", "(S.GRADO NOT IN ('a'))"),
        ("x IS NOT NULL", "(S.X IS NOT NULL)"),
        ("x != 1", "(S.X <> 1)"),
        ("a = 1 AND b = 2 AND c = 3", "(((S.A = 1) AND (S.B = 2)) AND (S.C = 3))"),
        ("a = 1 AND (b = 2 AND c = 3)", "(((S.A = 1) AND (S.B = 2)) AND (S.C = 3))"),
        ("a = 1 OR b = 2 AND c = 3", "((S.A = 1) OR ((S.B = 2) AND (S.C = 3)))"),
        ("not (a = 1 or b = 2)", "(NOT ((S.A = 1) OR (S.B = 2)))"),
        ("cast(x as varchar)", "CAST(S.X AS STRING)"),
        ("cast(x as int)", "CAST(S.X AS INTEGER)"),
        (
            "CASE WHEN is_json_string(t) THEN coalesce(t, '') ELSE '' END",
            "(CASE WHEN IS_JSON_STRING(S.T) THEN COALESCE(S.T, '') ELSE '' END)",
        ),
        ("`grado` LIKE 'a%'", "(S.`grado` LIKE 'a%')"),
        ("x BETWEEN 1 AND 2", "(S.X BETWEEN 1 AND 2)"),
        ("ROWPARTITION", "S.ROWPARTITION"),
        ("x + 1 > y * 2", "((S.X + 1) > (S.Y * 2))"),
        ("a->b = 'x'", "(S.A->B = 'x')"),
        ("a || 'x' || b", "CONCAT(CONCAT(S.A, 'x'), S.B)"),
        ("a NOT LIKE 'x%'", "(NOT (S.A LIKE 'x%'))"),
        ("a IS DISTINCT FROM 'q'", "(S.A IS DISTINCT FROM 'q')"),
    ],
)
def test_what_is_written_and_what_is_echoed_are_equal(written, echoed):
    assert canonical(written, sources=SOURCE) == canonical(echoed, sources=SOURCE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a = 'x'", "a = 'X'"),
        ("a = 'x'", "a = 'x '"),
        ("a", "`a`"),
        ("a = '1'", "a = 1"),
        ("a = 1 OR b = 2 AND c = 3", "(a = 1 OR b = 2) AND c = 3"),
        ("NOT a = 1 AND b = 2", "NOT (a = 1 AND b = 2)"),
        ("a IN ('x', 'y')", "a IN ('x')"),
        ("a IN ('x')", "a NOT IN ('x')"),
        ("a IS NULL", "a IS NOT NULL"),
        ("UCASE(a)", "LCASE(a)"),
        ("LEN(a)", "LENGTH(a)"),
        ("a - b - c", "a - (b - c)"),
        ("IFNULL(a, 'x')", "COALESCE(a, 'x')"),
        ("CAST(a AS INT)", "CAST(a AS BIGINT)"),
        ("r.a = 1", "a = 1"),
        ("CASE WHEN a THEN 1 ELSE 2 END", "CASE WHEN a THEN 1 END"),
        ("a > b", "b > a"),
    ],
)
def test_different_meanings_stay_different(one, other):
    assert canonical(one, sources=SOURCE) != canonical(other, sources=SOURCE)


names = st.sampled_from(["a", "b", "`c`", "D"])
literals = st.one_of(
    st.text(st.sampled_from("xY ';-`"), max_size=4).map(
        lambda text: "'" + text.replace("'", "''") + "'"
    ),
    st.integers(0, 99).map(str),
)


def echo_of_name(name: str) -> str:
    return f"S.{name if name.startswith('`') else name.upper()}"


comparison = st.builds(
    lambda name, operator, literal: (
        f"{name}{operator}{literal}",
        f"({echo_of_name(name)} {operator} {literal})",
    ),
    names,
    st.sampled_from(["=", "<>", "<", ">="]),
    literals,
)
membership = st.builds(
    lambda name, items: (
        f"{name} in({','.join(items)})",
        f"({echo_of_name(name)} IN ({', '.join(items)}))",
    ),
    names,
    st.lists(literals, min_size=1, max_size=3),
)
condition = st.recursive(
    st.one_of(comparison, membership),
    lambda inner: st.one_of(
        st.builds(
            lambda one, two, operator: (
                f"({one[0]}) {operator} ({two[0]})",
                f"({one[1]} {operator.upper()} {two[1]})",
            ),
            inner,
            inner,
            st.sampled_from(["and", "or"]),
        ),
        inner.map(lambda one: (f"not ({one[0]})", f"(NOT {one[1]})")),
    ),
    max_leaves=8,
)


@given(condition)
def test_any_condition_equals_its_echo(pair):
    written, echoed = pair
    assert canonical(written, sources=SOURCE) == canonical(echoed, sources=SOURCE)
