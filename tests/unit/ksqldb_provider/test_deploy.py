from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from ksqldb_provider.client import (
    AlreadyExistsError,
    CommandResult,
    CommandRunnerBusyError,
    CommandStatus,
    FieldDescription,
    KsqlDbError,
    Query,
    QueryDescription,
    QueryError,
    QueryFailedError,
    ServerUnavailableError,
    SourceDescription,
    StatementRejectedError,
    UnknownObjectError,
)
from ksqldb_provider.deploy import Action, DeployConflictError, apply, plan, render
from ksqldb_provider.sql import SqlError, Statement, StatementKind, parse_statement

SOURCE = (
    "CREATE STREAM s (id VARCHAR KEY, a VARCHAR, b VARCHAR) "
    "WITH (KAFKA_TOPIC='T1', VALUE_FORMAT='JSON');"
)
QUERY = (
    "CREATE STREAM q WITH (KAFKA_TOPIC='T2', VALUE_FORMAT='JSON') AS "
    "SELECT id, a, b FROM s WHERE a = 'x' EMIT CHANGES;"
)


class ScriptedServer:
    """A ksqlDB server that keeps what it was sent, in place of the client."""

    address = "http://ksqldb.test:8088"

    def __init__(self) -> None:
        self.described: dict[str, SourceDescription] = {}
        self.errors: dict[str, str] = {}
        self.paused: set[str] = set()
        self.executed: list[tuple[str, Mapping[str, str], int | None]] = []
        self.failures: list[tuple[KsqlDbError, bool]] = []
        self._sequence = 0

    def describe(self, name: str) -> SourceDescription:
        try:
            return self.described[name]
        except KeyError:
            raise UnknownObjectError(f"Could not find STREAM/TABLE '{name}'") from None

    def explain(self, query_id: str) -> QueryDescription:
        for found in self.described.values():
            for query in found.write_queries:
                if query.id == query_id:
                    error = self.errors.get(query_id)
                    return QueryDescription(
                        id=query_id,
                        statement_text=query.query_string,
                        state="RUNNING",
                        ksql_host_query_status={"host": "RUNNING"},
                        query_errors=(QueryError(error_message=error),) if error else (),
                    )
        raise UnknownObjectError(f"query {query_id}")

    def query_descriptions(self) -> tuple[QueryDescription, ...]:
        return tuple(
            self.explain(query.id)
            for found in self.described.values()
            for query in found.write_queries
        )

    def execute(
        self,
        sql: str,
        *,
        properties: Mapping[str, str],
        after: int | None,
        timeout_s: float,
        stop: threading.Event,
    ) -> CommandResult:
        self.executed.append((sql, properties, after))
        if self.failures:
            failure, executed = self.failures.pop(0)
            if executed:
                self.take(sql)
            raise failure
        self._sequence += 2
        return CommandResult(
            command_id="c",
            command_status=CommandStatus(status="SUCCESS", query_id=self.take(sql)),
            command_sequence_number=self._sequence,
        )

    def take(self, sql: str, *, running: bool = True, query_prefix: str = "CSAS") -> str | None:
        """Have a stream as if the statement had been executed."""
        statement = parse_statement(sql)
        assert statement.definition is not None
        names: list[tuple[str, bool]] = [
            (column.name, column.role == "KEY") for column in statement.definition.columns
        ]
        for name, _ in statement.definition.select:
            if name == "*":
                source = self.described[statement.sources[0]]
                names += [(field.name, field.is_key) for field in source.fields]
            else:
                names.append((name, name == "ID"))
        query_id = f"{query_prefix}_{statement.name}_1" if statement.sink_topic else None
        queries = ()
        if query_id and running:
            paused = {"PAUSED": 1} if query_id in self.paused else {"RUNNING": 1}
            queries = (Query(id=query_id, query_string=sql, state="RUNNING", status_count=paused),)
        self.described[statement.name] = SourceDescription(
            name=statement.name,
            type=statement.definition.object_type,
            topic=statement.topic,
            statement=sql,
            fields=tuple(
                FieldDescription(
                    name=name, data_type={"type": "STRING"}, type="KEY" if key else None
                )
                for name, key in names
            ),
            write_queries=queries,
        )
        return query_id


class WrittenTopics:
    def __init__(self, **written: int | None) -> None:
        self._written = {"T1": 10, **written}

    def written(self, topics: Sequence[str]) -> dict[str, int]:
        found = {topic: self._written.get(topic, 0) for topic in topics}
        return {topic: count for topic, count in found.items() if count is not None}


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
def deployed(server: ScriptedServer) -> ScriptedServer:
    server.take(SOURCE)
    server.take(QUERY)
    return server


def statements(*sql: str) -> list[Statement]:
    return [parse_statement(one) for one in sql]


def changed(old: str, new: str, sql: str = QUERY) -> str:
    assert old in sql
    return sql.replace(old, new)


def actions(server, topics, *sql):
    return [(item.action, item.reason) for item in plan(server, topics, statements(*sql))]


def test_new_statements_are_created_in_order_with_one_request_each(server):
    topics = WrittenTopics()
    planned = plan(server, topics, statements(SOURCE, QUERY))
    assert [item.action for item in planned] == [Action.CREATE, Action.CREATE]
    done = apply(server, topics, planned)
    properties = {"auto.offset.reset": "earliest", "processing.guarantee": "exactly_once_v2"}
    assert server.executed == [(SOURCE, properties, None), (QUERY, properties, 2)]
    assert [item.query_id for item in done] == [None, "CSAS_Q_1"]


def test_same_definition_and_running_is_left_alone(deployed):
    topics = WrittenTopics(T2=5)
    planned = plan(deployed, topics, statements(SOURCE, QUERY))
    assert [item.action for item in planned] == [Action.UNCHANGED, Action.UNCHANGED]
    done = apply(deployed, topics, planned)
    assert deployed.executed == []
    assert [item.query_id for item in done] == [None, "CSAS_Q_1"]


def test_changed_filter_of_a_running_query_replaces_just_that_query(deployed):
    topics = WrittenTopics(T2=5)
    new = changed("a = 'x'", "a = 'y'")
    planned = plan(deployed, topics, statements(SOURCE, new))
    assert [(item.action, item.reason) for item in planned][1] == (
        Action.REPLACE,
        "filter changed",
    )
    apply(deployed, topics, planned)
    assert [sql for sql, *_ in deployed.executed] == [new.replace("CREATE", "CREATE OR REPLACE")]


ALLOWED = [
    (changed("SELECT id, a, b", "SELECT id, a, b, a AS c"), "columns added: C"),
    (changed("SELECT id, a, b", "SELECT id, a, UCASE(b) AS b"), "columns computed otherwise"),
    (
        changed("b FROM s WHERE a = 'x'", "b, a AS c FROM s"),
        "columns added: C; filter changed",
    ),
]


@pytest.mark.parametrize(("new", "reason"), ALLOWED)
def test_what_ksqldb_can_do_in_place_is_replaced(deployed, new, reason):
    assert actions(deployed, WrittenTopics(T2=5), SOURCE, new)[1] == (Action.REPLACE, reason)


FORBIDDEN = [
    (changed("'T2'", "'T9'"), "topic would change from T2 to T9"),
    (changed("'JSON'", "'DELIMITED'"), "VALUE_FORMAT would change from JSON to DELIMITED"),
    (changed("VALUE_FORMAT", "PARTITIONS=3, VALUE_FORMAT"), "PARTITIONS would change from None"),
    (changed("SELECT id, a, b", "SELECT id, a"), "columns were removed or reordered"),
    (changed("SELECT id, a, b", "SELECT id, b, a"), "columns were removed or reordered"),
    (changed("SELECT id, a, b", "SELECT id, c, a, b"), "columns were removed or reordered"),
    (changed("EMIT", "PARTITION BY b EMIT"), "it reads or groups otherwise"),
    (
        "CREATE STREAM q (id VARCHAR KEY) WITH (KAFKA_TOPIC='T2', VALUE_FORMAT='JSON');",
        "the server has a query for it, the file has none",
    ),
    (
        "CREATE TABLE q (id VARCHAR PRIMARY KEY) WITH (KAFKA_TOPIC='T2', VALUE_FORMAT='JSON');",
        "the server has a STREAM of that name",
    ),
]


@pytest.mark.parametrize(("new", "reason"), FORBIDDEN)
def test_what_cannot_be_done_in_place_is_a_conflict_with_a_remedy(deployed, new, reason):
    topics = WrittenTopics(T2=5)
    (_, planned) = plan(deployed, topics, statements(SOURCE, new))
    assert planned.action is Action.CONFLICT
    assert reason in planned.reason
    assert planned.remedy


def test_another_source_is_a_conflict(deployed):
    other = SOURCE.replace("STREAM s", "STREAM s2")
    planned = plan(
        deployed, WrittenTopics(T2=5), statements(SOURCE, other, changed("FROM s", "FROM s2"))
    )
    assert planned[2].action is Action.CONFLICT
    assert "the server reads S" in planned[2].reason


SOURCE_CHANGES = [
    (SOURCE.replace("b VARCHAR", "b VARCHAR, c VARCHAR"), Action.REPLACE, "columns added: C"),
    (SOURCE.replace("b VARCHAR", "b BIGINT"), Action.CONFLICT, "removed, retyped or reordered"),
    (SOURCE.replace(", b VARCHAR", ""), Action.CONFLICT, "removed, retyped or reordered"),
    (SOURCE.replace("'T1'", "'T9'"), Action.CONFLICT, "topic would change from T1 to T9"),
]


@pytest.mark.parametrize(("new", "action", "reason"), SOURCE_CHANGES)
def test_changed_source_streams(deployed, new, action, reason):
    (planned,) = plan(deployed, WrittenTopics(), statements(new))
    assert planned.action is action
    assert reason in planned.reason


def test_star_takes_up_the_columns_that_its_source_gains(server):
    star = "CREATE STREAM q WITH (KAFKA_TOPIC='T2') AS SELECT * FROM s EMIT CHANGES;"
    server.take(SOURCE)
    server.take(star)
    wider = SOURCE.replace("b VARCHAR", "b VARCHAR, c VARCHAR")
    topics = WrittenTopics(T2=5)
    assert [action for action, _ in actions(server, topics, SOURCE, star)] == [Action.UNCHANGED] * 2
    assert actions(server, topics, wider, star)[1] == (Action.REPLACE, "columns added: C")


def test_star_over_a_source_that_is_only_on_the_server(server):
    server.take(SOURCE)
    star = "CREATE STREAM q WITH (KAFKA_TOPIC='T2') AS SELECT * FROM s EMIT CHANGES;"
    server.take(star)
    assert actions(server, WrittenTopics(T2=5), star)[0][0] is Action.UNCHANGED


def test_reading_before_creating_is_refused(server):
    star = "CREATE STREAM q WITH (KAFKA_TOPIC='T2') AS SELECT * FROM s EMIT CHANGES;"
    with pytest.raises(SqlError, match="S is read before it is created"):
        plan(server, WrittenTopics(), statements(star, SOURCE))


@pytest.mark.parametrize(
    ("written", "action"), [(0, Action.REPLACE), (None, Action.REPLACE), (7, Action.CONFLICT)]
)
def test_gone_query_starts_again_only_when_its_sink_was_never_written(server, written, action):
    server.take(SOURCE)
    server.take(QUERY, running=False)
    topics = WrittenTopics(T2=written)
    (_, planned) = plan(server, topics, statements(SOURCE, QUERY))
    assert planned.action is action
    assert "its query is gone" in planned.reason
    if action is Action.CONFLICT:
        assert "delete the topic T2" in planned.remedy
        assert "'auto.offset.reset' = 'latest'" in planned.remedy


def test_gone_query_is_not_mistaken_for_an_insert_that_writes_to_its_stream(server):
    server.take(SOURCE)
    server.take(QUERY, query_prefix="INSERTQUERY")
    (_, planned) = plan(server, WrittenTopics(T2=7), statements(SOURCE, QUERY))
    assert planned.action is Action.CONFLICT


def test_missing_stream_whose_sink_was_written_is_a_conflict(server):
    server.take(SOURCE)
    (_, planned) = plan(server, WrittenTopics(T2=7), statements(SOURCE, QUERY))
    assert planned.action is Action.CONFLICT
    assert "T2 was written to (7 offsets)" in planned.reason


def test_missing_source_topic_names_the_task_that_creates_it(server):
    (planned,) = plan(server, WrittenTopics(T1=None), statements(SOURCE))
    assert planned.action is Action.CONFLICT
    assert "topic T1 does not exist" in planned.reason
    assert "create_topics" in planned.remedy


def test_missing_source_topic_with_partitions_is_left_to_ksqldb(server):
    sql = SOURCE.replace("VALUE_FORMAT", "PARTITIONS=2, VALUE_FORMAT")
    assert actions(server, WrittenTopics(T1=None), sql)[0][0] is Action.CREATE


def test_paused_query_is_a_conflict_that_says_resume(server):
    server.paused.add("CSAS_Q_1")
    server.take(SOURCE)
    server.take(QUERY)
    (_, planned) = plan(server, WrittenTopics(T2=1), statements(SOURCE, QUERY))
    assert planned.action is Action.CONFLICT
    assert planned.remedy == "RESUME CSAS_Q_1;"


def test_failed_query_is_a_conflict_with_its_error(deployed):
    deployed.errors["CSAS_Q_1"] = "MissingSourceTopicException: gone\n\tat java"
    (_, planned) = plan(deployed, WrittenTopics(T2=1), statements(SOURCE, QUERY))
    assert planned.action is Action.CONFLICT
    assert planned.reason == "query CSAS_Q_1 has failed: MissingSourceTopicException: gone"


def test_a_conflict_executes_nothing_at_all(server):
    planned = plan(server, WrittenTopics(T2=7), statements(SOURCE, QUERY))
    with pytest.raises(DeployConflictError, match=r"(?s)1 statement.*ksqldb.test.*Q: .*Decide"):
        apply(server, WrittenTopics(T2=7), planned)
    assert server.executed == []


def test_other_kinds_of_statements_are_refused(server):
    drop = Statement(text="DROP STREAM s;", kind=StatementKind.OTHER)
    with pytest.raises(SqlError, match="not DROP"):
        plan(server, WrittenTopics(), [drop])


BUSY = CommandRunnerBusyError("Could not write the statement")
LOST = ServerUnavailableError("no answer", maybe_executed=True)
EXISTS = AlreadyExistsError("A stream with the same name already exists")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("ksqldb_provider.deploy._RETRY_S", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("failure", "executed", "requests"),
    [(BUSY, False, 2), (LOST, False, 2), (LOST, True, 1), (EXISTS, True, 1)],
    ids=["busy", "lost and not executed", "lost but executed", "another deployment was faster"],
)
def test_passing_failures_are_retried_and_nothing_is_sent_twice(
    server, failure, executed, requests
):
    topics = WrittenTopics()
    server.take(SOURCE)
    planned = plan(server, topics, statements(SOURCE, QUERY))
    server.failures.append((failure, executed))
    done = apply(server, topics, planned)
    assert done[1].query_id == "CSAS_Q_1"
    assert len(server.executed) == requests


@pytest.mark.usefixtures("impatient")
def test_bad_statement_is_never_retried(server):
    planned = plan(server, WrittenTopics(), statements(SOURCE))
    server.failures.append((StatementRejectedError("line 1:8: Syntax Error"), False))
    with pytest.raises(StatementRejectedError):
        apply(server, WrittenTopics(), planned)
    assert len(server.executed) == 1


@pytest.mark.usefixtures("impatient")
def test_busy_server_is_given_up_on_when_the_time_is_up(server):
    planned = plan(server, WrittenTopics(), statements(SOURCE))
    server.failures += [(BUSY, False)] * 1000
    with pytest.raises(CommandRunnerBusyError):
        apply(server, WrittenTopics(), planned, timeout_s=0.2)


@pytest.mark.usefixtures("impatient")
def test_retry_stops_when_it_is_told_to(server):
    planned = plan(server, WrittenTopics(), statements(SOURCE))
    server.failures += [(BUSY, False)] * 1000
    stop = threading.Event()
    stop.set()
    with pytest.raises(CommandRunnerBusyError):
        apply(server, WrittenTopics(), planned, stop=stop)
    assert len(server.executed) == 1


def test_query_that_goes_on_failing_when_it_starts_fails_the_deployment(server, monkeypatch):
    monkeypatch.setattr("ksqldb_provider.deploy._STUMBLE_S", 0.3)
    planned = plan(server, WrittenTopics(), statements(SOURCE, QUERY))
    server.errors["CSAS_Q_1"] = "no rights"
    with pytest.raises(QueryFailedError, match="CSAS_Q_1 has failed: no rights"):
        apply(server, WrittenTopics(), planned)


def test_query_that_stumbles_when_it_starts_is_waited_for(server):
    planned = plan(server, WrittenTopics(), statements(SOURCE, QUERY))
    server.errors["CSAS_Q_1"] = "a moment, please"
    threading.Timer(0.4, server.errors.clear).start()
    assert apply(server, WrittenTopics(), planned)[1].query_id == "CSAS_Q_1"


def test_plan_is_shown_as_a_table_with_remedies(server):
    table = render(plan(server, WrittenTopics(T2=7), statements(SOURCE, QUERY)))
    lines = table.splitlines()
    assert lines[0].split() == ["file", "statement", "topic", "action", "query", "reason"]
    assert lines[1].split()[:4] == ["-", "S", "T1", "create"]
    assert lines[2].split()[:4] == ["-", "Q", "T2", "conflict"]
    assert lines[3].startswith("Q: Decide what is right")


def test_stream_that_another_deployment_creates_meanwhile_is_no_conflict(server):
    server.take(SOURCE)

    class BusyTopics(WrittenTopics):
        def written(self, topics: Sequence[str]) -> dict[str, int]:
            server.take(QUERY)
            return super().written(topics)

    (_, planned) = plan(server, BusyTopics(T2=3), statements(SOURCE, QUERY))
    assert planned.action is Action.UNCHANGED
