from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

from ksqldb_provider import script
from ksqldb_provider.client import CommandRunnerBusyError, KsqlDbClient, StatementRejectedError
from ksqldb_provider.script import ScriptError, run_script, split_script
from ksqldb_provider.sql import SqlError

BUSY = httpx.Response(
    500,
    json={
        "@type": "statement_error",
        "error_code": 50000,
        "message": "Could not write the statement 'X' into the command topic.",
    },
)
BAD = httpx.Response(
    400, json={"@type": "statement_error", "error_code": 40001, "message": "line 1:1: no"}
)
INSERTED = httpx.Response(200, json=[])


def done(sequence: int, query_id: str | None = None) -> httpx.Response:
    status = {"status": "SUCCESS", "message": "done", "queryId": query_id}
    entity = {
        "@type": "currentStatus",
        "commandId": f"c/{sequence}",
        "commandStatus": status,
        "commandSequenceNumber": sequence,
    }
    return httpx.Response(200, json=[entity])


@pytest.fixture
def server(monkeypatch):
    """A client whose requests get the given answers in turn, and what it was sent."""
    monkeypatch.setattr(script, "_RETRY_S", 0.01)
    sent: list[dict[str, Any]] = []

    def make(*answers: httpx.Response | Exception):
        left = list(answers)

        def handle(request: httpx.Request) -> httpx.Response:
            sent.append(json.loads(request.content))
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return KsqlDbClient("http://a", transport=httpx.MockTransport(handle)), sent

    return make


def test_statements_are_sent_one_by_one_each_after_the_one_before(server):
    client, sent = server(done(4, "CSAS_A_3"), INSERTED, done(6))
    statements = split_script("CREATE a; -- one;\nINSERT INTO s VALUES (';'); DROP STREAM b;")
    executed = run_script(client, statements, properties={"auto.offset.reset": "earliest"})
    assert [body["ksql"] for body in sent] == [
        "CREATE a;",
        "INSERT INTO s VALUES (';');",
        "DROP STREAM b;",
    ]
    assert [body.get("commandSequenceNumber") for body in sent] == [None, 4, 4]
    assert sent[0]["streamsProperties"] == {"auto.offset.reset": "earliest"}
    rows = [item.as_dict() for item in executed]
    assert [row["query_id"] for row in rows] == ["CSAS_A_3", None, None]
    assert [row["type"] for row in rows] == ["currentStatus", "", "currentStatus"]


def test_a_busy_server_is_asked_again(server):
    client, sent = server(BUSY, BUSY, done(2))
    run_script(client, ["A;"])
    assert [body["ksql"] for body in sent] == ["A;"] * 3


def test_a_bad_statement_is_sent_once(server):
    client, sent = server(BAD)
    with pytest.raises(StatementRejectedError):
        run_script(client, ["A;", "B;"])
    assert len(sent) == 1


def test_nothing_is_sent_again_that_may_have_been_executed(server):
    client, sent = server(httpx.ReadTimeout("late"))
    with pytest.raises(ScriptError, match=r"0 of 2 .*; whether this one was, the server did not"):
        run_script(client, ["INSERT INTO s VALUES (1);", "B;"])
    assert len(sent) == 1


def test_a_failure_half_way_says_what_is_done_already(server):
    client, _ = server(done(2), BAD)
    with pytest.raises(ScriptError, match=r"1 of 3 statements were executed before\. Look at"):
        run_script(client, ["A;", "B;", "C;"])


def test_waiting_for_a_busy_server_ends_when_it_is_stopped_or_the_time_is_up(server):
    stop = threading.Event()
    stop.set()
    client, sent = server(BUSY, BUSY)
    with pytest.raises(CommandRunnerBusyError):
        run_script(client, ["A;"], stop=stop)
    with pytest.raises(CommandRunnerBusyError):
        run_script(client, ["A;"], timeout_s=0)
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DROP STREAM a;\nSELECT 1;", "line 2, column 1: SELECT .*KsqlDbQueryOperator"),
        ("SET 'a'='b';", "give `properties`"),
        ("DEFINE a='b';", "give `parameters`"),
        ("-- nothing", "no statement"),
        ("DROP STREAM a", "does not end with ';'"),
    ],
)
def test_what_would_do_nothing_is_refused_before_anything_is_sent(sql, problem):
    with pytest.raises(SqlError, match=problem):
        split_script(sql)
