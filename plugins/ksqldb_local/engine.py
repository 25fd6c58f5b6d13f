"""The engine: executes statements, keeps them in the command log, runs the queries they start."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException

from ksqldb_local import entities, insert_values
from ksqldb_local.command_log import Command, CommandLog, CommandLogError
from ksqldb_local.errors import (
    NOT_FOUND,
    QUERY_ENDPOINT,
    SEQUENCE_TIMEOUT,
    SERVER_ERROR,
    GenericError,
    KsqlError,
    StatementError,
    UnsupportedError,
)
from ksqldb_local.metastore import Metastore, PersistentQuery
from ksqldb_local.parser import parse
from ksqldb_local.planner import (
    Creation,
    Existing,
    create_as_select,
    create_source,
    drop_source,
    insert_into,
)
from ksqldb_local.properties import check, offset_reset
from ksqldb_local.router import Route, TopicRouter
from ksqldb_local.statements import (
    CreateAsSelect,
    CreateSource,
    Define,
    Describe,
    DropSource,
    Explain,
    InsertInto,
    InsertValues,
    Print,
    Query,
    QueryCommand,
    SetProperty,
    Show,
    Statement,
    Unsupported,
)
from ksqldb_local.topics import BrokerTopics, SandboxTopics, TopicInfo, Topics
from ksqldb_local.transactions import is_fenced
from ksqldb_local.transient import TransientQueries
from ksqldb_local.types import quoted

log = logging.getLogger(__name__)

PROCESSING_LOG_STREAM = "KSQL_PROCESSING_LOG"
_PROCESSING_LOG_COLUMNS = (
    "logger VARCHAR, level VARCHAR, time BIGINT, message STRUCT<type INTEGER, "
    "deserializationError STRUCT<target VARCHAR, errorMessage VARCHAR, recordB64 VARCHAR, "
    "cause ARRAY<VARCHAR>, `topic` VARCHAR>, "
    "recordProcessingError STRUCT<errorMessage VARCHAR, record VARCHAR, cause ARRAY<VARCHAR>>, "
    "productionError STRUCT<errorMessage VARCHAR>, "
    "serializationError STRUCT<target VARCHAR, errorMessage VARCHAR, record VARCHAR, "
    "cause ARRAY<VARCHAR>, `topic` VARCHAR>, "
    "kafkaStreamsThreadError STRUCT<errorMessage VARCHAR, threadName VARCHAR, "
    "cause ARRAY<VARCHAR>>>"
)
_WAIT_S = 5.0
"""How long an answer waits for a statement's effect before it says EXECUTING, as ksqlDB does."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: ``listen`` is the host:port that answers show."""

    bootstrap_servers: str
    listen: str = "127.0.0.1:8088"
    service_id: str = "default_"
    version: str = "7.6.0"
    processing_log_stream: bool = True
    client: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """What holds within one request: properties, variables, and what the statements see."""

    text: str
    properties: dict[str, Any]
    variables: dict[str, str]
    metastore: Metastore
    topics: Topics
    real: bool


class Engine:
    """Everything behind the REST API. Its methods may be called from several threads.

    Args:
        settings: How to run.
        on_fatal: Called with a message when this process must end: another one took over its
        service id.
    """

    def __init__(self, settings: Settings, *, on_fatal: Callable[[str], None]) -> None:
        self.settings = settings
        self._on_fatal = on_fatal
        self._config = {
            "bootstrap.servers": settings.bootstrap_servers,
            "client.id": "ksqldb_local",
            "log_level": 4,
            "topic.metadata.refresh.interval.ms": 30_000,
            "reconnect.backoff.max.ms": 2_000,
            **settings.client,
        }
        self.topics = BrokerTopics(self._config)
        self.metastore = Metastore()
        self._log = CommandLog(self._config, settings.service_id)
        self._lock = threading.RLock()
        self._advanced = threading.Condition()
        self._last_command = -1
        self._last_definition = -1
        self._statuses: dict[str, dict[str, Any]] = {}
        self._routers: dict[str, TopicRouter] = {}
        self._stop = threading.Event()
        self.ready = threading.Event()
        self.transient = TransientQueries(self._config, self.topics, lambda: self.metastore)
        self.processing_log_topic = f"{settings.service_id}ksql_processing_log"

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to restore in the background; :attr:`ready` tells when it is done."""
        threading.Thread(target=self._keep_log_open, name="command-log", daemon=True).start()

    def stop(self) -> None:
        """End the routers after the transactions in hand."""
        self._stop.set()
        self.transient.close_all()
        with self._lock:
            routers = list(self._routers.values())
        for router in routers:
            router.stop()
        for router in routers:
            router.join(timeout=15)

    def _keep_log_open(self) -> None:
        """Open the command log, and open it again whenever the connection was lost."""
        wait = 0.0
        while not self._stop.wait(wait):
            wait = 1.0
            if self._log.healthy and self.ready.is_set():
                continue
            try:
                commands = self._log.open()
                with self._lock:
                    self._catch_up(commands)
                    self._log.resume()
                    if not self.ready.is_set():
                        self._make_processing_log()
                self.ready.set()
            except KafkaException as error:
                if is_fenced(error):
                    self._taken_over()
                    return
                log.warning(
                    "Cannot read the command log from %s: %s. Is the broker up? Trying again.",
                    self.settings.bootstrap_servers,
                    error.args[0].str(),
                )
            except (CommandLogError, KsqlError) as error:
                self._on_fatal(f"Cannot restore: {error}")
                return

    def _taken_over(self) -> None:
        self._on_fatal(
            f"Another ksqldb_local took over service id {self.settings.service_id!r}; this "
            "one ends. "
            "Give one of them another --service-id."
        )

    def _fenced(self) -> None:
        """A router was fenced: by the broker's time-out, or by a process that took over."""
        try:
            self._log.check_ownership()
        except KafkaException as error:
            if is_fenced(error):
                self._taken_over()

    def _make_processing_log(self) -> None:
        if self.topics.partitions(self.processing_log_topic) is None:
            self.topics.create(self.processing_log_topic, TopicInfo(1, -1, 604_800_000))
        if self.settings.processing_log_stream and self._last_command < 0:
            self._request(
                f"CREATE STREAM {PROCESSING_LOG_STREAM} ({_PROCESSING_LOG_COLUMNS}) WITH "
                f"(KAFKA_TOPIC='{self.processing_log_topic}', VALUE_FORMAT='JSON');",
                {},
                {},
            )

    def _catch_up(self, commands: list[Command]) -> None:
        """Apply the commands that are not known yet, then start the queries that are left."""
        for command in commands:
            if command.offset <= self._last_command:
                continue
            self._replay(command)
            self._note_command(command)
        queries = self.metastore.queries
        for router in self._routers.values():
            for gone in set(router.query_ids()) - queries.keys():
                router.remove(gone)
        for query in queries.values():
            router = self._router(query.reads.topic)
            route = router.route(query.id)
            if route is None or route.query is not query:
                router.add(self._route(query))

    def _replay(self, command: Command) -> None:
        """Apply a command of the log to the metastore; topics and offsets are as it left them."""
        store = self.metastore
        statement = parse(command.statement)[0]
        status: dict[str, Any] = {"status": "SUCCESS", "message": "", "queryId": None}
        if isinstance(statement, CreateSource | CreateAsSelect | InsertInto):
            plan = _plan(
                statement,
                store,
                _ReplayTopics(statement),
                command.properties,
                command.query_id or "",
            )
            if isinstance(plan, Creation):
                self._remember(store, plan)
                status["message"] = (
                    f"Created query with ID {plan.query.id}" if plan.query else "Stream created"
                )
                status["queryId"] = plan.query.id if plan.query else None
        elif isinstance(statement, DropSource):
            stream = store.streams.get(statement.name)
            status["message"] = _dropped(statement.name, stream.topic if stream else None)
            if stream is not None:
                store.drop(statement.name)
        elif isinstance(statement, QueryCommand):
            status["message"] = _QUERY_MESSAGES[statement.action]
            for query in self._targets(statement, store):
                _apply_query_command(statement.action, query, store)
            if statement.action == "TERMINATE":
                return  # as ksqlDB, which does not restore these statuses
        self._statuses[command.id] = status

    def _note_command(self, command: Command) -> None:
        with self._advanced:
            self._last_command = command.offset
            if command.id.endswith(("/create", "/drop")):
                self._last_definition = command.offset
            self._advanced.notify_all()

    # --- requests --------------------------------------------------------------------------------

    def execute(
        self,
        text: str,
        properties: Mapping[str, Any],
        variables: Mapping[str, str],
        sequence_number: int | None = None,
    ) -> list[dict[str, Any]]:
        """Execute the statements of a request, in order.

        Everything is parsed and tried in a sandbox first: an error anywhere means that nothing is
        executed. The execution itself is not atomic, as with ksqlDB.

        Args:
            text: The statements.
            properties: ``streamsProperties``.
            variables: ``sessionVariables``.
            sequence_number: Wait until this command was executed.

        Returns:
            One entity per statement; SET, UNSET, DEFINE and UNDEFINE give none.

        Raises:
            KsqlError: What the answer says instead.
        """
        if sequence_number is not None:
            self._wait_for(sequence_number)
        return self._request(text, properties, variables)

    def _wait_for(self, sequence_number: int) -> None:
        with self._advanced:
            if not self._advanced.wait_for(
                lambda: self._last_command >= sequence_number, timeout=_WAIT_S
            ):
                raise GenericError(
                    "Timed out while waiting for a previous command to execute. command sequence "
                    f"number: {sequence_number}",
                    status=503,
                    error_code=SEQUENCE_TIMEOUT,
                )

    def _request(
        self, text: str, properties: Mapping[str, Any], variables: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        checked = check(properties, text)
        statements = parse(_substitute(text, variables))
        with self._lock:
            sandbox = Session(
                text,
                dict(checked),
                dict(variables),
                self.metastore.sandbox(),
                SandboxTopics(self.topics),
                real=False,
            )
            for statement in statements:
                self._run(statement, sandbox)
            session = Session(
                text, dict(checked), dict(variables), self.metastore, self.topics, real=True
            )
            answers = (self._run(statement, session) for statement in statements)
            return [answer for answer in answers if answer is not None]

    def _run(self, statement: Statement, session: Session) -> dict[str, Any] | None:
        try:
            return self._dispatch(statement, session)
        except StatementError as error:
            error.statement = error.statement or statement.text
            raise
        except KafkaException as error:
            raise StatementError(
                f"The broker {self.settings.bootstrap_servers} did not answer: "
                f"{error.args[0].str()}",
                status=500,
                error_code=SERVER_ERROR,
                statement=statement.text,
            ) from error

    def _dispatch(self, statement: Statement, session: Session) -> dict[str, Any] | None:
        if isinstance(statement, CreateSource | CreateAsSelect | InsertInto):
            return self._create(statement, session)
        if isinstance(statement, InsertValues):
            insertion = insert_values.plan(statement, session.metastore)
            if session.real:
                insert_values.write(self._config, insertion, statement)
            return None
        if isinstance(statement, DropSource):
            return self._drop(statement, session)
        if isinstance(statement, QueryCommand):
            return self._query_command(statement, session)
        if isinstance(statement, Query | Print):
            raise StatementError(
                "The following statement types should be issued to the websocket endpoint "
                "'/query':\n"
                "\t* PRINT\n\t* SELECT",
                error_code=QUERY_ENDPOINT,
            )
        if isinstance(statement, SetProperty):
            self._set(statement, session)
            return None
        if isinstance(statement, Define):
            if statement.value is None:
                session.variables.pop(statement.name, None)
            else:
                session.variables[statement.name] = statement.value
            return None
        if isinstance(statement, Unsupported):
            raise UnsupportedError(statement.what)
        answer: dict[str, Any] = {"@type": "", "statementText": statement.text}
        if isinstance(statement, Show):
            answer |= self._show(statement, session)
        elif isinstance(statement, Describe):
            answer |= self._describe(statement, session)
        elif isinstance(statement, Explain):
            query = session.metastore.queries.get(statement.query_id)
            if query is None:
                raise StatementError(
                    f"Query with id:{statement.query_id} does not exist, use SHOW QUERIES to "
                    "view the "
                    "full set of queries."
                )
            answer |= {
                "@type": "queryDescription",
                "queryDescription": self._query_description(query),
            }
        else:
            raise UnsupportedError(type(statement).__name__)
        answer.setdefault("warnings", [])
        return answer

    def _set(self, statement: SetProperty, session: Session) -> None:
        if statement.value is None:
            session.properties.pop(statement.name, None)
            return
        session.properties |= check({statement.name: statement.value}, statement.text)

    # --- statements that change something ---------------------------------------------------------

    def _create(
        self, statement: CreateSource | CreateAsSelect | InsertInto, session: Session
    ) -> dict[str, Any] | None:
        prefix = "INSERTQUERY" if isinstance(statement, InsertInto) else f"CSAS_{statement.name}"
        query_id = f"{prefix}_{self._last_definition + 1}"
        plan = _plan(statement, session.metastore, session.topics, session.properties, query_id)
        if isinstance(plan, Existing):
            return {
                "@type": "warning_entity",
                "statementText": statement.text,
                "message": plan.message,
                "warnings": [],
            }
        if plan.new_topic is not None:
            session.topics.create(plan.stream.topic, plan.new_topic)
        if not session.real:
            self._remember(session.metastore, plan)
            return None
        command = self._append(
            Command(
                f"stream/{quoted(statement.name)}/create",
                plan.text,
                dict(session.properties) if plan.query else {},
                plan.query.id if plan.query else None,
            ),
            statement,
            starts=self._starts(plan, session),
        )
        self._remember(session.metastore, plan)
        message = f"Created query with ID {plan.query.id}" if plan.query else "Stream created"
        done = {
            "status": "SUCCESS",
            "message": message,
            "queryId": plan.query.id if plan.query else None,
        }
        effects = []
        if plan.query is not None:
            effects.append(self._router(plan.query.reads.topic).add(self._route(plan.query)))
        return self._answer(plan.text, command, done, effects)

    def _starts(self, plan: Creation, session: Session) -> tuple[str, str, dict[int, int]] | None:
        """Say where a new query begins; one that replaces another keeps its offsets."""
        if plan.query is None or plan.replaces is not None:
            return None
        topic = plan.query.reads.topic
        partitions = self.topics.partitions(topic) or []
        offsets = self.topics.offsets(topic, partitions, where=offset_reset(session.properties))
        return self.group(plan.query.id), topic, offsets

    @staticmethod
    def _remember(store: Metastore, plan: Creation) -> None:
        store.streams[plan.stream.name] = plan.stream
        if plan.query is not None:
            if plan.replaces is not None:
                plan.query.losses.extend(plan.replaces.losses)
            store.queries[plan.query.id] = plan.query

    def _drop(self, statement: DropSource, session: Session) -> dict[str, Any] | None:
        stream = drop_source(statement, session.metastore)
        queries = session.metastore.writers(statement.name)
        if not session.real:
            if stream is not None:
                session.metastore.drop(statement.name)
                if statement.delete_topic:
                    session.topics.delete(stream.topic)
            return None
        # ksqlDB injects the deletion of the topic and then shows the statement without it.
        text = (
            f"DROP STREAM {quoted_if_needed(statement.name)};"
            if statement.delete_topic
            else statement.text
        )
        command = self._append(Command(f"stream/{statement.name}/drop", statement.text), statement)
        effects = []
        if stream is not None:
            effects = [self._router(q.reads.topic).remove(q.id) for q in queries]
            session.metastore.drop(statement.name)
            if statement.delete_topic:
                for effect in effects:
                    effect.result(timeout=30)
                session.topics.delete(stream.topic)
        done = {
            "status": "SUCCESS",
            "message": _dropped(statement.name, stream.topic if stream else None),
            "queryId": None,
        }
        return self._answer(text, command, done, effects)

    def _query_command(self, statement: QueryCommand, session: Session) -> dict[str, Any] | None:
        targets = self._targets(statement, session.metastore)
        if statement.query_id is not None and not targets:
            raise StatementError(f"Unknown queryId: {statement.query_id}")
        if not session.real:
            for query in targets:
                _apply_query_command(statement.action, query, session.metastore)
            return None
        target = statement.query_id or "ALL"
        command = self._append(
            Command(f"{statement.action.lower()}/{target}/execute", statement.text), statement
        )
        effects = []
        for query in targets:
            router = self._router(query.reads.topic)
            _apply_query_command(statement.action, query, session.metastore)
            effects.append(
                router.remove(query.id) if statement.action == "TERMINATE" else router.refresh()
            )
        done = {
            "status": "SUCCESS",
            "message": _QUERY_MESSAGES[statement.action],
            "queryId": None,
        }
        return self._answer(statement.text, command, done, effects)

    @staticmethod
    def _targets(statement: QueryCommand, store: Metastore) -> list[PersistentQuery]:
        if statement.query_id is None:
            return list(store.queries.values())
        query = store.queries.get(statement.query_id)
        return [] if query is None else [query]

    def _append(
        self,
        command: Command,
        statement: Statement,
        *,
        starts: tuple[str, str, dict[int, int]] | None = None,
    ) -> Command:
        try:
            written = self._log.append(command, starts=starts)
        except CommandLogError as error:
            raise KsqlError(
                f"Could not write the statement '{statement.text}' into the command topic.\n"
                f"Caused by: {error}",
                status=500,
                error_code=SERVER_ERROR,
                statement=statement.text,
            ) from error
        self._note_command(written)
        return written

    def _answer(
        self,
        text: str,
        command: Command,
        done: dict[str, Any],
        effects: list[Future[None]],
    ) -> dict[str, Any]:
        """Answer when the effects are there, or after 5 s that they are under way."""
        executing = {"status": "EXECUTING", "message": "Executing statement", "queryId": None}
        self._statuses[command.id] = executing
        pending = _Pending(effects, lambda error: self._finish(command.id, done, error))
        status = dict(done) if pending.wait(_WAIT_S) else executing
        if self._statuses[command.id]["status"] == "ERROR":
            status = self._statuses[command.id]
        return entities.current_status(text, command.id, status, command.offset)

    def _finish(self, command_id: str, done: dict[str, Any], error: BaseException | None) -> None:
        self._statuses[command_id] = (
            done if error is None else {"status": "ERROR", "message": str(error), "queryId": None}
        )

    # --- queries at work -------------------------------------------------------------------------

    def group(self, query_id: str) -> str:
        """Return the consumer group of a persistent query, named as ksqlDB names it."""
        return f"_confluent-ksql-{self.settings.service_id}query_{query_id}"

    def _router(self, topic: str) -> TopicRouter:
        router = self._routers.get(topic)
        if router is None:
            router = TopicRouter(
                self._config,
                topic,
                transactional_id=f"_confluent-ksql-{self.settings.service_id}router_{topic}",
                log_topic=self.processing_log_topic,
                on_fenced=self._fenced,
            )
            self._routers[topic] = router
            router.start()
        return router

    def _route(self, query: PersistentQuery) -> Route:
        return Route(query, self.group(query.id), self.metastore.streams[query.sink])

    # --- statements that show something -----------------------------------------------------------

    def _show(self, statement: Show, session: Session) -> dict[str, Any]:
        store = session.metastore
        if statement.what == "STREAMS":
            if statement.extended:
                return {
                    "@type": "source_descriptions",
                    "sourceDescriptions": [
                        self._source_description(name, store, extended=True)[0]
                        for name in store.streams
                    ],
                }
            return {
                "@type": "streams",
                "streams": [entities.stream(s) for s in store.streams.values()],
            }
        if statement.what == "TABLES":
            return {"@type": "tables", "tables": []}
        if statement.what == "QUERIES":
            if statement.extended:
                return {
                    "@type": "query_descriptions",
                    "queryDescriptions": [
                        self._query_description(q) for q in store.queries.values()
                    ],
                }
            return {
                "@type": "queries",
                "queries": [
                    *(entities.running_query(q) for q in store.queries.values()),
                    *(entities.push_query(q.id, q.text) for q in self.transient.pushing()),
                ],
            }
        if statement.what == "TOPICS":
            hidden = ("_confluent", "__consumer_offsets", "__transaction_state", "__share")
            return {
                "@type": "kafka_topics",
                "topics": [
                    {"name": name, "replicaInfo": replicas}
                    for name, replicas in sorted(self.topics.names().items())
                    if not name.startswith(hidden)
                ],
            }
        if statement.what == "VARIABLES":
            return {
                "@type": "variables",
                "variables": [
                    {"name": n, "value": v} for n, v in sorted(session.variables.items())
                ],
            }
        raise UnsupportedError(f"SHOW {statement.what}")

    def _describe(self, statement: Describe, session: Session) -> dict[str, Any]:
        if statement.name not in session.metastore.streams:
            raise StatementError(f"Could not find STREAM/TABLE '{statement.name}' in the Metastore")
        description, warnings = self._source_description(
            statement.name, session.metastore, extended=statement.extended
        )
        return {
            "@type": "sourceDescription",
            "sourceDescription": description,
            "warnings": warnings,
        }

    def _source_description(
        self, name: str, store: Metastore, *, extended: bool
    ) -> tuple[dict[str, Any], list[dict[str, str]]]:
        stream = store.streams[name]
        warnings = []
        replicas = self.topics.names().get(stream.topic)
        if replicas is None:
            warnings.append(
                {
                    "message": "Error from Kafka: Failed to Describe Kafka Topic(s): "
                    f"[{stream.topic}]"
                }
            )
        statistics, cluster = self._statistics(name, store) if extended else ("", [])
        # As a server, which gives up at the missing topic and then shows neither of these.
        shown = replicas is not None
        summaries = (
            [self._offset_summary(q) for q in store.writers(name)] if extended and shown else []
        )
        return (
            entities.source_description(
                stream,
                readers=store.readers(name),
                writers=store.writers(name),
                dependants=store.dependants(name) if shown else [],
                partitions=len(replicas or ()),
                replication=replicas[0] if replicas else 0,
                extended=extended,
                statistics=statistics,
                offset_summaries=summaries,
                cluster_statistics=cluster,
            ),
            warnings,
        )

    def _live_route(self, query: PersistentQuery) -> Route | None:
        router = self._routers.get(query.reads.topic)
        return router.route(query.id) if router is not None else None

    def _statistics(self, name: str, store: Metastore) -> tuple[str, list[dict[str, Any]]]:
        """Return what the queries wrote to a stream and read from it since they run here."""
        writing = [r for q in store.writers(name) if (r := self._live_route(q)) and r.produced]
        reading = [r for q in store.readers(name) if (r := self._live_route(q)) and r.consumed]
        values: dict[str, float] = {}
        if writing:
            total = sum(r.produced for r in writing)
            values["messages-per-sec"] = total / max(r.age_s for r in writing)
            values["total-messages"] = total
        if reading:
            total = sum(r.consumed for r in reading)
            values["consumer-messages-per-sec"] = total / max(r.age_s for r in reading)
            values["consumer-total-messages"] = total
            values["consumer-total-bytes"] = sum(r.consumed_bytes for r in reading)
        if not values:
            return "", []
        last = max(r.last_ms for r in (*writing, *reading))
        when = datetime.fromtimestamp(last / 1000, UTC).isoformat(timespec="milliseconds")
        listed = " ".join(
            f"{n}: {v:9.2f}" if n.endswith("per-sec") else f"{n}: {v:9.0f}"
            for n, v in values.items()
        )
        text = (
            "The statistics field is deprecated and will be removed in a future version of ksql. "
            "Please update your client to the latest version and use statisticsMap instead.\n"
            f"{listed}     last-message: {when.replace('+00:00', 'Z')}"
        )
        return text, [
            {"name": n, "host": self.settings.listen, "value": float(v), "timestamp": last}
            for n, v in values.items()
        ]

    def _offset_summary(self, query: PersistentQuery) -> dict[str, Any]:
        group = self.group(query.id)
        topic = query.reads.topic
        summaries = []
        partitions = self.topics.partitions(topic)
        committed = self.topics.committed(group, topic, partitions or [])
        route = self._live_route(query)
        if partitions is not None and committed and route is not None and route.consumed:
            starts = self.topics.offsets(topic, partitions, where="earliest")
            ends = self.topics.high_watermarks(topic, partitions)
            summaries.append(
                {
                    "kafkaTopic": topic,
                    "offsets": [
                        {
                            "partition": p,
                            "logStartOffset": starts[p],
                            "logEndOffset": ends[p],
                            "consumerOffset": committed.get(p, 0),
                        }
                        for p in partitions
                    ],
                }
            )
        return {"groupId": group, "topicSummaries": summaries}

    def _query_description(self, query: PersistentQuery) -> dict[str, Any]:
        topic = query.reads.topic
        route = self._live_route(query)
        handled = route.next if route is not None and route.next is not None else {}
        tasks = [
            {
                "taskId": f"0_{partition}",
                "topicOffsets": [
                    {
                        "topicPartitionEntity": {"topic": topic, "partition": partition},
                        "endOffset": handled.get(partition, -1),
                        "committedOffset": handled.get(partition, -1),
                    }
                ],
                "timeCurrentIdlingStarted": None,
            }
            for partition in self.topics.partitions(topic) or sorted(handled)
        ]
        return entities.query_description(
            query,
            host=self.settings.listen,
            group=self.group(query.id),
            tasks=tasks,
        )

    # --- other resources -------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return ``/info``.

        Raises:
            GenericError: The broker does not answer.
        """
        return {
            "KsqlServerInfo": {
                "version": self.settings.version,
                "kafkaClusterId": self.cluster_id(),
                "ksqlServiceId": self.settings.service_id,
                "serverStatus": "RUNNING",
            }
        }

    def cluster_id(self) -> str:
        """Return the Kafka cluster's id.

        Raises:
            GenericError: The broker does not answer.
        """
        try:
            return self.topics.cluster_id()
        except KafkaException as error:
            raise GenericError(
                "Failed to get Kafka cluster information", status=500, error_code=SERVER_ERROR
            ) from error

    def health(self) -> dict[str, Any]:
        """Return ``/healthcheck``: the streams, the broker and the command log."""
        try:
            self.topics.cluster_id()
            kafka = True
        except KafkaException:
            kafka = False
        metastore = self.ready.is_set()
        runner = kafka and self._log.healthy
        details = {
            "metastore": {"isHealthy": metastore},
            "kafka": {"isHealthy": kafka},
            "commandRunner": {"isHealthy": runner},
        }
        return {
            "isHealthy": metastore and kafka and runner,
            "details": details,
            "serverState": "READY",
        }

    def statuses(self) -> dict[str, Any]:
        """Return ``/status``: every command's last status."""
        return {"commandStatuses": {k: v["status"] for k, v in self._statuses.items()}}

    def status(self, command_id: str) -> dict[str, Any]:
        """Return ``/status/<id>``.

        Raises:
            GenericError: There is no such command.
        """
        status = self._statuses.get(command_id)
        if status is None:
            raise GenericError("Command not found", status=404, error_code=NOT_FOUND)
        return status


_QUERY_MESSAGES = {
    "TERMINATE": "Query terminated.",
    "PAUSE": "Query paused.",
    "RESUME": "Query resumed.",
}


def _plan(
    statement: CreateSource | CreateAsSelect | InsertInto,
    store: Metastore,
    topics: Topics,
    properties: Mapping[str, Any],
    query_id: str,
) -> Creation | Existing:
    if isinstance(statement, CreateSource):
        return create_source(statement, store, topics)
    if isinstance(statement, CreateAsSelect):
        return create_as_select(statement, store, topics, properties, query_id)
    return insert_into(statement, store, properties, query_id)


def _apply_query_command(action: str, query: PersistentQuery, store: Metastore) -> None:
    if action == "TERMINATE":
        del store.queries[query.id]
    else:
        query.paused = action == "PAUSE"


def _dropped(name: str, topic: str | None) -> str:
    if topic is None:
        return f"Source {quoted(name)} does not exist."
    return f"Source {quoted(name)} (topic: {topic}) was dropped."


def quoted_if_needed(name: str) -> str:
    """Return a stream's name as SQL."""
    from ksqldb_local.types import identifier

    return identifier(name)


def _substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${name}`` by the variable's value; unknown ones stay, as with ksqlDB."""
    if not variables:
        return text
    known = {k.lower(): v for k, v in variables.items()}
    return _VARIABLE.sub(lambda m: known.get(m[1].lower(), m[0]), text)


class _ReplayTopics:
    """The topics as a replayed statement left them: exactly what its canonical text says."""

    def __init__(self, statement: CreateSource | CreateAsSelect | InsertInto) -> None:
        def number(name: str, default: int) -> int:
            return int(statement.properties.get(name, default))

        self._info = TopicInfo(
            number("PARTITIONS", 1), number("REPLICAS", 1), number("RETENTION_MS", 604_800_000)
        )

    def find(self, name: str) -> TopicInfo | None:
        return self._info

    def create(self, name: str, info: TopicInfo) -> None:
        raise AssertionError(f"replaying must not create {name}")

    def delete(self, name: str) -> None:
        raise AssertionError(f"replaying must not delete {name}")


class _Pending:
    """Waits for several effects, then tells once how they ended."""

    def __init__(
        self, effects: list[Future[None]], finish: Callable[[BaseException | None], None]
    ) -> None:
        self._effects = effects
        self._left = len(effects)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._finish = finish
        if not effects:
            finish(None)
        for effect in effects:
            effect.add_done_callback(self._done)

    def _done(self, effect: Future[None]) -> None:
        with self._lock:
            self._error = self._error or effect.exception()
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish(self._error)

    def wait(self, timeout_s: float) -> bool:
        """Wait for all of them; False when some are still under way after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        for effect in self._effects:
            try:
                effect.exception(timeout=max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                return False
        return True
