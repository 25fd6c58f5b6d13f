from __future__ import annotations

import pytest

from ksqldb_provider.sql import Column, SqlError, StatementKind, load_folder, parse_statement
from ksqldb_provider.sql.expression import canonical

CSAS = """-- who gets what; not a statement
CREATE STREAM IF NOT EXISTS Urgentes -- why
WITH (KAFKA_TOPIC = 'T2', value_format='json', PARTITIONS=3) AS
SELECT id, GRADO AS `grado`, UCASE(x), COALESCE(y, ';') z
FROM Avisos a WHERE a.grado = 'Urgente;' EMIT CHANGES;
-- after it
"""


def test_source_stream_gives_columns_topic_and_name():
    statement = parse_statement(
        "CREATE STREAM s (id VARCHAR KEY, `Otro` INT, h ARRAY<STRUCT<key STRING, value BYTES>> "
        "HEADERS, d DECIMAL(4, 2)) WITH (KAFKA_TOPIC='T1', VALUE_FORMAT='JSON');"
    )
    assert statement.kind is StatementKind.CREATE_SOURCE
    assert (statement.name, statement.topic, statement.sink_topic) == ("S", "T1", "")
    assert statement.sources == ()
    assert statement.definition is not None
    assert statement.definition.columns == (
        Column("ID", "STRING", "KEY"),
        Column("Otro", "INTEGER"),
        Column("H", "ARRAY < STRUCT < KEY STRING , VALUE BYTES > >", "HEADERS"),
        Column("D", "DECIMAL ( 4 , 2 )"),
    )


def test_create_as_select_gives_sink_source_and_output_columns():
    statement = parse_statement(CSAS)
    assert statement.kind is StatementKind.CREATE_AS_SELECT
    assert (statement.name, statement.sink_topic) == ("URGENTES", "T2")
    assert statement.sources == ("AVISOS",)
    assert statement.text.startswith("CREATE STREAM IF")
    assert statement.text.endswith("CHANGES;")
    assert statement.definition is not None
    assert [name for name, _ in statement.definition.select] == ["ID", "grado", "KSQL_COL_0", "Z"]
    assert statement.definition.properties == {
        "KAFKA_TOPIC": "T2",
        "VALUE_FORMAT": "JSON",
        "PARTITIONS": "3",
    }


@pytest.mark.parametrize(
    "select",
    [
        "id, b > 1 AS big, a",
        "id, (b < 1) AS big, a",
        "id, CASE WHEN b > 10 THEN 'x' ELSE 'y' END AS big, a",
        "id, a IS DISTINCT FROM 'q' AS big, a",
    ],
)
def test_signs_of_comparison_are_no_brackets_and_distinct_from_is_no_clause(select):
    query = f"CREATE STREAM x AS SELECT {select} FROM s WHERE a IS DISTINCT FROM 'q';"
    definition = parse_statement(query).definition

    assert definition.sources == ("S",)
    assert [name for name, _ in definition.select] == ["ID", "BIG", "A"]
    assert definition.where == canonical("a IS DISTINCT FROM 'q'")


def test_topic_is_the_name_when_none_is_given():
    assert parse_statement("CREATE STREAM z AS SELECT * FROM s;").topic == "Z"


def test_join_reads_both_sides():
    statement = parse_statement(
        "CREATE STREAM j AS SELECT a.id, b.x FROM a LEFT JOIN b WITHIN 1 HOURS ON a.id = b.id;"
    )
    assert statement.sources == ("A", "B")


@pytest.mark.parametrize(
    ("or_replace", "start"),
    [(False, "CREATE STREAM Urgentes"), (True, "CREATE OR REPLACE STREAM Urgentes")],
)
@pytest.mark.parametrize("head", ["CREATE STREAM", "create or replace stream if not exists"])
def test_it_is_sent_as_create_or_as_replace_whatever_the_file_says(head, or_replace, start):
    rest = "Urgentes AS SELECT * FROM s;"
    sent = parse_statement(f"{head} {rest}").create_text(or_replace=or_replace)
    assert sent == start + rest.removeprefix("Urgentes")


def write(folder, **files):
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql, encoding="utf-8")


def test_folder_is_read_in_the_order_of_its_names(tmp_path):
    write(
        tmp_path,
        f02="CREATE STREAM b AS SELECT * FROM a;",
        f01="CREATE STREAM a (x INT) WITH (KAFKA_TOPIC='T');",
    )
    statements = load_folder(tmp_path)
    assert [statement.name for statement in statements] == ["A", "B"]
    assert statements[0].path == tmp_path / "f01.sql"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, r"no \*.sql files"),
        ({"a": "-- nothing\n"}, "a.sql: there is no statement in it"),
        (
            {"a": "CREATE STREAM a AS SELECT * FROM s;\nDROP STREAM b;"},
            "a.sql: line 2, column 1: a second statement starts here: move it",
        ),
        ({"a": "DROP STREAM a;"}, "a.sql: only CREATE STREAM and CREATE TABLE .* not DROP"),
        ({"a": "CREATE TYPE t AS STRUCT<a INT>;"}, "only CREATE STREAM and CREATE TABLE"),
        ({"a": "INSERT INTO a SELECT * FROM b;"}, "not INSERT"),
        ({"a": "CREATE STREAM a AS SELECT * FROM s"}, "a.sql: line 1, column 35: .* ';'"),
        (
            {
                "a": "CREATE STREAM a AS SELECT * FROM s;",
                "b": "CREATE STREAM A AS SELECT * FROM t;",
            },
            "b.sql: A is created twice: .*a.sql creates it too",
        ),
        ({"a": "CREATE STREAM a (x) WITH (KAFKA_TOPIC='T');"}, "a column needs a name and a type"),
        ({"a": "CREATE STREAM a (x INT WITH (KAFKA_TOPIC='T');"}, "a parenthesis is not closed"),
        ({"a": "CREATE STREAM a WITH (KAFKA_TOPIC);"}, "a property in WITH is written"),
        ({"a": "CREATE STREAM a AS SELECT x WHERE y = 1;"}, "FROM is missing"),
        ({"a": "CREATE STREAM a AS SELECT * FROM s WHERE x = ;"}, "cannot read the expression"),
        ({"a": "CREATE STREAM a (x INT) WITH (KAFKA_TOPIC='T') EMIT;"}, "'EMIT' is not expected"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_file_and_reason(tmp_path, files, problem):
    write(tmp_path, **files)
    with pytest.raises(SqlError, match=problem):
        load_folder(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(SqlError, match="nowhere: no such folder"):
        load_folder(tmp_path / "nowhere")
