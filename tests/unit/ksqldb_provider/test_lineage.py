from __future__ import annotations

from pathlib import Path

import pytest

from ksqldb_provider.operators import KsqlDbDeployOperator
from ksqldb_provider.sql import SqlError, topic_flow

RULES = Path(__file__).parents[3] / "include" / "ksql"
SOURCE = "CREATE STREAM s (a INT) WITH (KAFKA_TOPIC='T1', VALUE_FORMAT='JSON');"
FIRST = "CREATE STREAM q WITH (KAFKA_TOPIC='T2') AS SELECT * FROM s WHERE a = 1 EMIT CHANGES;"
SECOND = "CREATE OR REPLACE STREAM `R` AS SELECT * FROM q JOIN server_side x ON q.a = x.a;"


def uris(assets) -> list[str]:
    return [asset.uri for asset in assets]


def test_what_comes_from_outside_is_read_and_what_queries_write_is_written():
    flow = topic_flow([SOURCE, f"-- why\n{FIRST}\nSHOW STREAMS;", SECOND])
    assert flow.read == ("T1",)
    assert flow.written == ("T2", "R")


def test_a_folder_gives_the_task_its_assets():
    task = KsqlDbDeployOperator(task_id="deploy", sql_folder=str(RULES), kafka_conn_id="k")
    assert uris(task.inlets) == ["kafka://k/T1_Recepcion_avisos"]
    assert "kafka://k/T2_Centro_112" in uris(task.outlets)
    assert len(task.outlets) == len(list(RULES.glob("*.sql"))) - 1


def test_statements_give_the_task_its_assets():
    task = KsqlDbDeployOperator(task_id="deploy", statements=[SOURCE, FIRST])
    assert uris(task.inlets) == ["kafka://kafka_default/T1"]
    assert uris(task.outlets) == ["kafka://kafka_default/T2"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"sql_folder": "{{ params.folder }}"},
        {"sql_folder": str(RULES), "kafka_conn_id": "{{ params.conn }}"},
        {"statements": [SOURCE, "{{ params.sql }}"]},
        {"sql_folder": "/no/such/folder"},
    ],
    ids=["folder", "connection", "statement", "missing"],
)
def test_what_is_not_known_yet_has_no_assets(arguments):
    task = KsqlDbDeployOperator(task_id="deploy", **arguments)
    assert (list(task.inlets), list(task.outlets)) == ([], [])


def test_a_broken_statement_in_a_dag_file_is_named_when_it_is_parsed():
    with pytest.raises(SqlError, match="does not end with ';'"):
        KsqlDbDeployOperator(task_id="deploy", statements=[SOURCE, "CREATE STREAM a"])


@pytest.mark.parametrize("arguments", [{}, {"sql_folder": "a", "statements": ["b;"]}])
def test_a_folder_or_statements_are_wanted(arguments):
    with pytest.raises(ValueError, match="either sql_folder or statements"):
        KsqlDbDeployOperator(task_id="deploy", **arguments)
