"""The client, fed with what real ksqlDB servers answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ksqldb_provider.client import (
    AlreadyExistsError,
    CommandRunnerBusyError,
    CommandTimeoutError,
    KsqlDbClient,
    KsqlDbError,
    NotUpgradableError,
    RequestRejectedError,
    SequenceTimeoutError,
    ServerNotReadyError,
    ServerUnavailableError,
    StatementRejectedError,
    TopicConflictError,
    TopicMissingError,
    UnexpectedAnswerError,
    UnknownObjectError,
)

RECORDINGS = Path(__file__).parent / "recordings"


def recording(name: str) -> dict[str, Any]:
    return json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))


def answer(name: str) -> httpx.Response:
    response = recording(name)["response"]
    return httpx.Response(response["status"], json=response["body"])


@pytest.fixture
def client_answering() -> Callable[..., KsqlDbClient]:
    """Make a client whose requests are answered, in turn, by recordings."""

    def make(*names: str, requests: list[httpx.Request] | None = None) -> KsqlDbClient:
        answers = iter(names)

        def handle(request: httpx.Request) -> httpx.Response:
            if requests is not None:
                requests.append(request)
            return answer(next(answers))

        return KsqlDbClient("http://ksqldb.test:8088", transport=httpx.MockTransport(handle))

    return make


def statement_of(name: str) -> str:
    return recording(name)["request"]["body"]["ksql"]


def test_info_and_health_are_typed(client_answering):
    client = client_answering("001-info", "002-healthcheck")
    info = client.check_ready()
    assert (info.version, info.ksql_service_id, info.server_status) == (
        "7.6.0",
        "default_",
        "RUNNING",
    )


@pytest.mark.parametrize("name", ["910-healthcheck-kafka-down", "914-healthcheck-kafka-down-later"])
def test_http_200_without_health_is_not_ready(client_answering, name):
    with pytest.raises(ServerNotReadyError, match="commandRunner, kafka") as caught:
        client_answering("001-info", name).check_ready()
    assert caught.value.retryable


def test_info_while_kafka_is_away_is_not_ready_and_retryable(client_answering):
    with pytest.raises(ServerNotReadyError, match="Kafka cluster information") as caught:
        client_answering("911-info-kafka-down").check_ready()
    assert caught.value.retryable
    assert "http://ksqldb.test:8088" in str(caught.value)


def test_server_that_is_starting_is_not_ready():
    body = {
        "@type": "generic_error",
        "error_code": 50302,
        "message": "KSQL is not yet ready to serve requests.",
    }
    transport = httpx.MockTransport(lambda _: httpx.Response(503, json=body))
    with pytest.raises(ServerNotReadyError, match="not yet ready") as caught:
        KsqlDbClient("http://x", transport=transport).info()
    assert caught.value.retryable


CREATED = [
    ("031-create-stream", None, 2),
    ("040-csas-default-latest", "CSAS_URG_3", 4),
    ("403-csas-eos-v2", "CSAS_E3_65", 66),
    ("700-source-with-key", None, 116),
    ("811-csas-sink-retention-given", "CSAS_RET_137", 138),
    ("903-first-statement-seq", None, 0),
]


@pytest.mark.parametrize(("name", "query_id", "sequence"), CREATED)
def test_create_gives_query_id_and_sequence_number(client_answering, name, query_id, sequence):
    result = client_answering(name).execute(statement_of(name))
    assert result.command_status.status == "SUCCESS"
    assert result.command_status.query_id == query_id
    assert result.command_sequence_number == sequence


def test_request_is_sent_as_recorded(client_answering):
    requests: list[httpx.Request] = []
    expected = recording("403-csas-eos-v2")["request"]
    client_answering("403-csas-eos-v2", requests=requests).execute(
        expected["body"]["ksql"], properties=expected["body"]["streamsProperties"]
    )
    (request,) = requests
    assert (request.method, request.url.path) == (expected["method"], expected["path"])
    assert json.loads(request.content) == expected["body"]
    assert request.headers["accept"] == recording("403-csas-eos-v2")["accept"]


def test_sequence_number_of_the_last_command_is_sent_along(client_answering):
    requests: list[httpx.Request] = []
    client = client_answering("521-seq-wait-current", requests=requests)
    client.statement("DESCRIBE s1;", after=112)
    expected = recording("521-seq-wait-current")["request"]["body"]
    assert json.loads(requests[0].content) == expected


def test_executing_is_followed_up_until_it_is_done(client_answering):
    requests: list[httpx.Request] = []
    client = client_answering(
        "211-csas-or-replace-other-filter", "211c-status-after-replace", requests=requests
    )
    result = client.execute(statement_of("211-csas-or-replace-other-filter"))
    assert (result.command_status.status, result.command_status.query_id) == (
        "SUCCESS",
        "CSAS_URG_3",
    )
    assert requests[1].url.raw_path == b"/status/stream/%60URG%60/create"


def test_executing_for_too_long_is_retryable_and_says_that_it_may_be_done():
    executing = {"status": "EXECUTING", "message": "Executing statement", "queryId": None}

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ksql":
            return answer("824-terminate-all")
        return httpx.Response(200, json=executing)

    client = KsqlDbClient("http://x", transport=httpx.MockTransport(handle))
    with pytest.raises(CommandTimeoutError, match="terminate/ALL/execute") as caught:
        client.execute("TERMINATE ALL;", timeout_s=0.4)
    assert caught.value.retryable
    assert caught.value.maybe_executed


REFUSED: list[tuple[str, type[KsqlDbError]]] = [
    ("030-create-stream-missing-topic", TopicMissingError),
    ("231-stream-over-missing-topic", TopicMissingError),
    ("201-csas-existing", AlreadyExistsError),
    ("202-create-table-existing-name-stream", AlreadyExistsError),
    ("324-recreate-csas-after-terminate", AlreadyExistsError),
    ("207-create-or-replace-drop-column", NotUpgradableError),
    ("208-create-or-replace-change-type", NotUpgradableError),
    ("212-csas-or-replace-other-columns", NotUpgradableError),
    ("220-syntax-error", StatementRejectedError),
    ("221-syntax-error-missing-semicolon", StatementRejectedError),
    ("226-unknown-column", StatementRejectedError),
    ("227-unknown-source", UnknownObjectError),
    ("229-type-mismatch", StatementRejectedError),
    ("234-no-value-format", StatementRejectedError),
    ("235-avro-without-schema-registry", RequestRejectedError),
    ("237-bad-value-format", StatementRejectedError),
    ("238-select-on-ksql-endpoint", RequestRejectedError),
    ("240-describe-unknown", UnknownObjectError),
    ("241-csas-into-existing-topic-other-partitions", TopicConflictError),
    ("810-csas-sink-other-retention", TopicConflictError),
    ("300-drop-stream-in-use", StatementRejectedError),
    ("303-drop-stream-unknown", UnknownObjectError),
    ("307-terminate-unknown", UnknownObjectError),
    ("310-terminate-again", UnknownObjectError),
    ("406-bad-offset-value", RequestRejectedError),
    ("408-bad-guarantee-value", RequestRejectedError),
    ("409-unknown-property", RequestRejectedError),
    ("410-unknown-ksql-streams-property", RequestRejectedError),
    ("411-immutable-property", RequestRejectedError),
    ("522-seq-future", SequenceTimeoutError),
    ("525-seq-string", RequestRejectedError),
    ("509-batch-terminate-and-drop", CommandRunnerBusyError),
    ("532-accept-xml", RequestRejectedError),
    ("540-put", RequestRejectedError),
]


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_each_kind_of_refusal_has_its_exception(client_answering, name, kind):
    with pytest.raises(KsqlDbError) as caught:
        client_answering(name).execute("CREATE STREAM s (a VARCHAR);")
    error = caught.value
    assert type(error) is kind
    assert error.retryable is (kind in (SequenceTimeoutError, CommandRunnerBusyError))
    assert "http://ksqldb.test:8088" in str(error)
    assert "CREATE STREAM s" in str(error)
    assert str(error).endswith(error.next_step)
    assert error.next_step


@pytest.mark.parametrize(
    ("name", "line", "column"),
    [
        ("220-syntax-error", 1, 8),
        ("221-syntax-error-missing-semicolon", 1, 13),
        ("226-unknown-column", 1, 27),
        ("240-describe-unknown", None, None),
    ],
)
def test_a_refused_statement_says_where_it_is_wrong(client_answering, name, line, column):
    with pytest.raises(StatementRejectedError) as caught:
        client_answering(name).statement("X;")
    assert (caught.value.line, caught.value.column) == (line, column)


def test_connection_that_broke_off_may_have_executed():
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    client = KsqlDbClient("http://x", transport=httpx.MockTransport(handle))
    with pytest.raises(ServerUnavailableError) as caught:
        client.statement(statement_of("913-create-kafka-down"))
    assert caught.value.retryable
    assert caught.value.maybe_executed


def test_lists_are_typed(client_answering):
    client = client_answering("041-show-streams", "312-show-queries", "318-show-queries-paused")
    assert {stream.name: stream.topic for stream in client.streams()} == {
        "KSQL_PROCESSING_LOG": "default_ksql_processing_log",
        "URG": "T2_Centro_112",
        "EMERGENCIAS_STREAM": "T1_Recepcion_avisos",
    }
    assert [query.id for query in client.queries()] == [
        "CSAS_SIN_EMIT_19",
        "CSAS_URG_3",
        "CSAS_BUCLE_21",
    ]
    assert [query.id for query in client.queries() if query.is_paused] == ["CSAS_URG_3"]


def test_describe_gives_columns_keys_and_queries(client_answering):
    found = client_answering("813-describe-extended-with-traffic").describe("K2")
    assert (found.name, found.type, found.topic) == ("K2", "STREAM", "T_k2")
    assert [(field.name, field.is_key) for field in found.fields] == [
        ("ID", True),
        ("GRADO", False),
        ("Otro", False),
    ]
    assert [query.id for query in found.write_queries] == ["CSAS_K2_117"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [("URG", "DESCRIBE `URG`;"), ("urg", "DESCRIBE `urg`;"), ("a`; DROP", "DESCRIBE `a``; DROP`;")],
)
def test_describe_quotes_names(client_answering, name, sent):
    requests: list[httpx.Request] = []
    client_answering("043-describe-urg", requests=requests).describe(name)
    assert json.loads(requests[0].content)["ksql"] == sent


def test_query_ids_with_other_characters_are_refused(client_answering):
    with pytest.raises(ValueError, match="not a query id"):
        client_answering().explain("CSAS_X; DROP STREAM Y")


def test_explain_tells_a_failed_query_from_a_running_one(client_answering):
    client = client_answering("046-explain-query", "823-explain-failed-query")
    running = client.explain("CSAS_URG_3")
    assert running.is_running
    assert running.sources == ("EMERGENCIAS_STREAM",)
    assert running.consumer_group_id == "_confluent-ksql-default_query_CSAS_URG_3"
    failed = client.explain("CSAS_K2_117")
    assert failed.state == "RUNNING"
    assert not failed.is_running
    assert "MissingSourceTopicException" in failed.query_errors[-1].summary
    assert "\n" not in failed.query_errors[-1].summary


def test_explain_shows_the_properties_of_the_deployment(client_answering):
    assert client_answering("422-explain-e3").explain("CSAS_E3_65").overridden_properties == {
        "processing.guarantee": "exactly_once_v2",
        "ksql.streams.auto.offset.reset": "earliest",
    }


def rows_of(name: str, requests: list[httpx.Request] | None = None) -> httpx.MockTransport:
    """Send a recorded answer of /query-stream as the server did: one JSON value a line."""
    body = recording(name)["response"]["body"]
    lines = body if isinstance(body, list) else [body]
    text = "".join(json.dumps(line) + "\n" for line in lines)

    def handle(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request)
        return httpx.Response(recording(name)["response"]["status"], text=text)

    return httpx.MockTransport(handle)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("600-query-stream-push-limit-h1", 2),
        ("606-query-stream-pull-on-stream", 6),
        ("607-query-stream-pull-limit", 1),
        ("618-query-stream-limit-0", 0),
    ],
)
def test_rows_of_push_and_pull_queries(name, count):
    requests: list[httpx.Request] = []
    expected = recording(name)
    body = expected["request"]["body"]
    client = KsqlDbClient("http://x", transport=rows_of(name, requests))
    with client.query(body["sql"], properties=body["properties"]) as rows:
        got = list(rows)
    assert len(got) == count
    (request,) = requests  # ended by itself: nothing to close
    assert request.url.path == expected["request"]["path"]
    assert json.loads(request.content) == body
    assert request.headers["accept"] == expected["accept"]


def test_rows_are_named_and_typed():
    client = KsqlDbClient("http://x", transport=rows_of("613-query-stream-rowtime-headers"))
    with client.query("SELECT 1;") as rows:
        assert [(column.name, column.type) for column in rows.columns] == [
            ("ROWTIME", "BIGINT"),
            ("ROWPARTITION", "INTEGER"),
            ("ROWOFFSET", "BIGINT"),
            ("CONTACTO", "STRING"),
        ]
        assert next(iter(rows)) == {
            "ROWTIME": 1795567152190,
            "ROWPARTITION": 0,
            "ROWOFFSET": 35,
            "CONTACTO": "r35",
        }


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("609-query-stream-unknown-stream", UnknownObjectError, "NADA does not exist"),
        ("610-query-stream-statement", StatementRejectedError, "Neither a query nor"),
        ("612-query-stream-missing-sql", RequestRejectedError, "Missing required"),
    ],
)
def test_refused_queries_are_typed(name, kind, problem):
    client = KsqlDbClient("http://x", transport=rows_of(name))
    with pytest.raises(kind, match=problem), client.query("SELECT 1;"):
        pytest.fail("there are no rows")


def test_a_query_that_is_left_early_is_closed_though_the_server_may_refuse(client_answering):
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path == "/close-query":
            return answer("616-close-query-unknown")
        return rows_of("606-query-stream-pull-on-stream").handle_request(request)

    client = KsqlDbClient("http://x", transport=httpx.MockTransport(handle))
    with client.query("SELECT 1;") as rows:
        assert next(iter(rows)) == {"CONTACTO": "r35"}
    assert json.loads(requests[1].content) == {"queryId": rows.query_id}


def test_the_values_of_an_insert_are_not_shown(client_answering):
    requests: list[httpx.Request] = []
    client = client_answering("549-insert-values-unknown-col", requests=requests)
    with pytest.raises(StatementRejectedError, match="Column name `Z` does not") as caught:
        client.insert("S1", {"Z": "it's secret"})
    assert json.loads(requests[0].content)["ksql"] == (
        "INSERT INTO `S1` (`Z`) VALUES ('it''s secret');"
    )
    assert "secret" not in str(caught.value)


def test_terminate_and_drop_are_sent_as_ksqldb_wants_them(client_answering):
    requests: list[httpx.Request] = []
    client = client_answering(
        "309-terminate", "043-describe-urg", "316-drop-delete-topic", requests=requests
    )
    client.terminate("CSAS_NUEVO_13")
    client.drop("URG", delete_topic=True)
    assert [json.loads(request.content)["ksql"] for request in requests] == [
        "TERMINATE CSAS_NUEVO_13;",
        "DESCRIBE `URG`;",
        "DROP STREAM `URG` DELETE TOPIC;",
    ]
    with pytest.raises(UnknownObjectError):
        client_answering("310-terminate-again").terminate("CSAS_NUEVO_13")
    with pytest.raises(StatementRejectedError, match="read from this source"):
        client_answering("043-describe-urg", "300-drop-stream-in-use").drop("S")
    with pytest.raises(ValueError, match="not a query id"):
        client_answering().terminate("ALL; DROP STREAM x")


def test_any_statement_gives_its_answer(client_answering):
    assert client_answering("041-show-streams").run("SHOW STREAMS;").type == "streams"
    created = client_answering("040-csas-default-latest").run("CREATE …;")
    assert created.command is not None
    assert created.command.command_status.query_id == "CSAS_URG_3"


def test_an_answer_that_is_not_ksqldbs_is_named_as_such():
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>hello</html>"))
    with pytest.raises(UnexpectedAnswerError, match="hello"):
        KsqlDbClient("http://x", transport=transport).info()
