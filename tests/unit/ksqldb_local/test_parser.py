from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_local.errors import StatementError
from ksqldb_local.formatting import as_select_text, expression_text, literal, source_text
from ksqldb_local.parser import parse
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    DropSource,
    InsertInto,
    InsertValues,
    Query,
    QueryCommand,
    Show,
    Statement,
)

ROOT = Path(__file__).parents[3]
RECORDINGS = ROOT / "tests" / "contract" / "recordings"


def echoes() -> list[str]:
    """Every canonical text that the recordings show."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("statementText", "statement", "queryString") and isinstance(inner, str):
                    if inner.startswith("CREATE") and " WITH (CLEANUP_POLICY" in inner:
                        found.add(inner)
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for path in RECORDINGS.glob("*.json"):
        walk(json.loads(path.read_text(encoding="utf-8")).get("response"))
    return sorted(found)


def canonical(statement: Statement) -> str:
    if isinstance(statement, CreateAsSelect):
        return as_select_text(statement, statement.properties, None)
    assert isinstance(statement, CreateSource)
    return source_text(statement, statement.properties)


@pytest.mark.parametrize("text", echoes())
def test_recorded_canonical_text_is_a_fixed_point(text: str) -> None:
    # Only columns that exist are qualified; without a schema all are.
    expected = text.replace(
        "SELECT NOEXISTE NOEXISTE", "SELECT EMERGENCIAS_STREAM.NOEXISTE NOEXISTE"
    )
    if "WHERE" not in text:
        assert canonical(parse(text)[0]) == expected
    else:
        assert canonical(parse(text)[0]) == text


@pytest.mark.parametrize("path", sorted((ROOT / "include" / "ksql").glob("*.sql")), ids=str)
def test_routing_sql_is_read_and_its_canonical_text_is_stable(path: Path) -> None:
    statement = parse(path.read_text(encoding="utf-8"))[0]

    assert canonical(parse(canonical(statement))[0]) == canonical(statement)


def where(condition: str) -> str:
    query = parse(f"SELECT * FROM s WHERE {condition};")[0]
    assert isinstance(query, Query)
    assert query.select.where is not None
    return expression_text(query.select.where)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a = 'x'", "(A = 'x')"),
        ("a<>'it''s'", "(A <> 'it''s')"),
        ("a != 1", "(A <> 1)"),
        ("a IN ('x','y')", "(A IN ('x', 'y'))"),
        ("a NOT IN (1, 2)", "(NOT (A IN (1, 2)))"),
        ("a IS NULL", "(A IS NULL)"),
        ("a IS NOT NULL", "(A IS NOT NULL)"),
        ("a like 'x%'", "(A LIKE 'x%')"),
        ("a NOT LIKE 'x!%' ESCAPE '!'", "(NOT (A LIKE 'x!%' ESCAPE '!'))"),
        ("a BETWEEN 1 AND 3", "(A BETWEEN 1 AND 3)"),
        ("not a = 1 or b = 2 and c = 3", "((NOT (A = 1)) OR ((B = 2) AND (C = 3)))"),
        ("`a` = -1", "(`a` = -1)"),
        ("ucase(a) = concat(b, 'x')", "(UCASE(A) = CONCAT(B, 'x'))"),
        ("a || b = 'x'", "(CONCAT(A, B) = 'x')"),
        ("a + 1 * 2 > 3", "((A + (1 * 2)) > 3)"),
        ("CAST(a AS int) = 1", "(CAST(A AS INTEGER) = 1)"),
        (
            "CASE WHEN a = 1 THEN 'x' ELSE 'y' END = 'x'",
            "((CASE WHEN (A = 1) THEN 'x' ELSE 'y' END) = 'x')",
        ),
    ],
)
def test_expression_is_shown_as_ksqldb_shows_it(written: str, shown: str) -> None:
    assert where(written) == shown
    assert where(shown) == shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_any_text_survives_as_a_literal(text: str) -> None:
    statement = parse(f"CREATE STREAM s (a VARCHAR) WITH (KAFKA_TOPIC={literal(text)});")[0]

    assert isinstance(statement, CreateSource)
    assert statement.properties == {"KAFKA_TOPIC": text}


def test_statements_end_at_semicolons_that_are_not_quoted_or_commented() -> None:
    statements = parse(
        "-- a; b\nSHOW STREAMS; /* ; */ DROP STREAM `a;b`;\n"
        "TERMINATE csas_x_1; LIST QUERIES EXTENDED;"
    )

    assert [type(s) for s in statements] == [Show, DropSource, QueryCommand, Show]
    assert isinstance(statements[1], DropSource)
    assert statements[1].name == "a;b"
    assert isinstance(statements[2], QueryCommand)
    assert statements[2].query_id == "CSAS_X_1"
    assert statements[0].text == "SHOW STREAMS;"


@pytest.mark.parametrize("text", ["", "  ", "-- hola\n", "/* x */", ";", ";;"])
def test_nothing_is_no_statement(text: str) -> None:
    assert parse(text) == []


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("CREATE STREM x (a VARCHAR);", "1:8"),
        ("SHOW STREAMS", "1:13"),
        ("SHOW STREAMS;\nCREATE STREM x;", "2:8"),
        ("SELECT a, FROM b;", "1:11"),
        ("RUN SCRIPT 'x';", "1:1"),
        ("CREATE STREAM s (a VARCHR);", "1:20"),
        ("CREATE STREAM s (a VARCHAR) WITH (X=);", "1:37"),
        ("SELECT a FROM b WHERE;", "1:22"),
        ("DROP STREAM s now;", "1:15"),
        ("TERMINATE;", "1:10"),
    ],
)
def test_syntax_error_names_its_place(text: str, position: str) -> None:
    with pytest.raises(StatementError, match=f"line {position}: Syntax Error") as error:
        parse(text)
    assert error.value.statement == text
    assert error.value.body()["error_code"] == 40001


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(StatementError):  # and nothing else
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM a JOIN b ON a.x = b.x EMIT CHANGES;",
        "SELECT a FROM b GROUP BY a EMIT CHANGES;",
        "SELECT a FROM b WINDOW TUMBLING (SIZE 1 HOUR) EMIT CHANGES;",
        "SELECT a FROM b EMIT FINAL;",
    ],
)
def test_what_needs_a_ksqldb_server_says_so(text: str) -> None:
    with pytest.raises(StatementError, match="ksqlDB server"):
        parse(text)


def test_insert_into_reads_a_query_or_values() -> None:
    selecting, valuing, named = parse(
        "INSERT INTO a SELECT * FROM b WHERE c = ')'; INSERT INTO a VALUES ('x', f(1, 2), -3); "
        "INSERT INTO a (`k`, v) VALUES (NULL, CASE WHEN TRUE THEN 1 END);"
    )

    assert isinstance(selecting, InsertInto)
    assert (selecting.name, selecting.select.source) == ("A", "B")
    assert isinstance(valuing, InsertValues)
    assert (valuing.columns, len(valuing.values)) == ((), 3)
    assert isinstance(named, InsertValues)
    assert (named.columns, len(named.values)) == (("k", "V"), 2)
