from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksqldb_provider.sql import SqlError, TokenKind, split, tokenize

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
string = text.map(lambda value: "'" + value.replace("'", "''") + "'")
backquoted = text.map(lambda value: "`" + value.replace("`", "``") + "`")
double_quoted = text.map(lambda value: '"' + value.replace('"', '""') + '"')
dollar = text.filter(lambda value: "$" not in value).map(lambda value: f"$tag${value}$tag$")
line_comment = text.map(lambda value: "--" + value.replace("\n", "").replace("\r", "") + "\n")
block_comment = text.filter(lambda value: "*" not in value).map(lambda value: f"/*{value}*/")
word = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
number = st.integers(0, 10**9).map(str)
symbol = st.sampled_from(["(", ")", ",", "=", "<>", "->", "||", ".", "*", "[", "]"])
piece = st.one_of(
    string, backquoted, double_quoted, dollar, line_comment, block_comment, word, number, symbol
)
statement = st.lists(piece, min_size=1, max_size=12).map(" ".join)


@given(st.lists(statement, max_size=5))
def test_only_semicolons_outside_quotes_and_comments_split(statements):
    sql = "".join(f"{one} ;" for one in statements)
    assert len(split(sql)) == len(statements)


@given(st.lists(statement, max_size=4))
def test_tokens_cover_everything_but_white_space_and_comments(statements):
    sql = " ; ".join(statements)
    tokens = list(tokenize(sql))
    assert all(sql[token.start : token.end] == token.text for token in tokens)
    assert all(one.end <= two.start for one, two in pairwise(tokens))
    gaps = []
    position = 0
    for token in tokens:
        gaps.append(sql[position : token.start])
        position = token.end
    gaps.append(sql[position:])
    assert all(not list(tokenize(gap)) for gap in gaps)


@given(text)
def test_quoting_and_reading_gives_the_value_back(value):
    sql = f"'{value.replace(chr(39), chr(39) * 2)}' `{value.replace('`', '``')}`"
    assert [token.value for token in tokenize(sql)] == [value, value]


def place_of_error(sql: str) -> tuple[int, int] | None:
    try:
        split(sql)
    except SqlError as error:
        return error.line, error.column
    return None


@given(st.text(max_size=40))
def test_any_text_is_split_or_refused_with_a_place_inside_it(sql):
    place = place_of_error(sql)
    if place is not None:
        line, column = place
        lines = sql.split("\n")
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1


@pytest.mark.parametrize(
    ("sql", "line", "column", "problem"),
    [
        ("SELECT 'a", 1, 8, "a string is not closed"),
        ("SELECT\n  `a", 2, 3, "a quoted name is not closed"),
        ('SELECT "a', 1, 8, "a quoted name is not closed"),
        ("SELECT /* a", 1, 8, "a comment is not closed"),
        ("SELECT $$ a", 1, 8, "a dollar-quoted string is not closed"),
        ("SELECT a \\ b", 1, 10, "is not part of ksqlDB SQL"),
        ("SELECT a", 1, 9, "does not end with ';'"),
    ],
)
def test_what_is_not_closed_is_named_with_its_place(sql, line, column, problem):
    with pytest.raises(SqlError, match=problem) as caught:
        split(sql)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_names_are_kept_as_ksqldb_keeps_them():
    tokens = list(tokenize("abc `abc` \"Abc\" 'it''s' $$a;b$$ ${v} 1.5e3"))
    assert [token.value for token in tokens] == [
        "ABC",
        "abc",
        "Abc",
        "it's",
        "a;b",
        "${v}",
        "1.5e3",
    ]
    assert [token.kind for token in tokens] == [
        TokenKind.WORD,
        TokenKind.QUOTED,
        TokenKind.QUOTED,
        TokenKind.STRING,
        TokenKind.STRING,
        TokenKind.VARIABLE,
        TokenKind.NUMBER,
    ]
