"""The engine: executes statements, keeps them in the command log, runs the queries they start."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ksqldb_local import entities, insert_values
from ksqldb_local.changes import (
    QUERY_MESSAGES,
    apply_query_command,
    dropped_message,
    plan_creation,
    remember,
    replay,
    targets,
)
from ksqldb_local.command_log import Command, CommandLog, CommandLogError
from ksqldb_local.descriptions import Descriptions
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
from ksqldb_local.metastore import Metastore
from ksqldb_local.parser import parse, split
from ksqldb_local.pending import Pending
from ksqldb_local.planner import (
    Creation,
    Existing,
    drop_source,
)
from ksqldb_local.properties import check, offset_reset
from ksqldb_local.routers import Routers
from ksqldb_local.settings import Settings
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
from ksqldb_local.types import identifier, quoted

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
_REFUSED = {
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_REQUEST,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_VARIABLE = re.compile(r"\$\{(\w+)\}")


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
        self._stop = threading.Event()
        self.ready = threading.Event()
        self.transient = TransientQueries(self._config, self.topics, lambda: self.metastore)
        self.processing_log_topic = f"{settings.service_id}ksql_processing_log"
        self._routers = Routers(
            self._config, settings.service_id, self.processing_log_topic, self._owned
        )
        self._descriptions = Descriptions(settings, self.topics, self._routers, self.transient)

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to restore in the background; :attr:`ready` tells when it is done."""
        threading.Thread(target=self._keep_log_open, name="command-log", daemon=True).start()

    def stop(self) -> None:
        """End the routers after the transactions in hand."""
        self._stop.set()
        self.transient.close_all()
        with self._lock:
            self._routers.stop()

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

    def _owned(self) -> bool:
        """Say whether the service id is still this process's, as far as can be told."""
        try:
            self._log.check_ownership()
        except KafkaException as error:
            if is_fenced(error):
                self._taken_over()
                return False
            log.warning("Cannot ask who owns the command log: %s", error.args[0].str())
        return True

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
            status = replay(command, self.metastore)
            if status is not None:
                self._statuses[command.id] = status
            self._note_command(command)
        self._routers.align(self.metastore)

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
        statements = _parse(text, variables)
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
        except KsqlError as error:
            # A server shows the whole request then, and none where that is what is wrong.
            if error.status == 500 and not isinstance(error, GenericError):
                error.statement = error.statement or session.text
            raise
        except KafkaException as error:
            reason = error.args[0].str()
            if error.args[0].code() in _REFUSED:
                raise StatementError(
                    f"The broker refuses it: {reason}", statement=statement.text
                ) from error
            raise StatementError(
                f"The broker {self.settings.bootstrap_servers} did not answer: {reason}",
                status=503,  # asking again can help, which a client cannot tell from a 500
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
                if session.variables.pop(statement.name, None) is None:
                    return {
                        "@type": "warning_entity",
                        "statementText": statement.text,
                        "message": f"Cannot undefine variable '{statement.name}' which was never "
                        "defined",
                        "warnings": [],
                    }
            else:
                session.variables[statement.name] = statement.value
            return None
        if isinstance(statement, Unsupported):
            raise UnsupportedError(statement.what)
        answer: dict[str, Any] = {"@type": "", "statementText": statement.text}
        if isinstance(statement, Show):
            answer |= self._descriptions.show(statement, session.metastore, session.variables)
        elif isinstance(statement, Describe):
            answer |= self._descriptions.describe(statement, session.metastore)
        elif isinstance(statement, Explain):
            answer |= self._descriptions.explain(statement, session.metastore)
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
        # Upper case, whatever the stream's: statements name queries so.
        inserts = isinstance(statement, InsertInto)
        prefix = "INSERTQUERY" if inserts else f"CSAS_{statement.name.upper()}"
        query_id = f"{prefix}_{self._last_definition + 1}"
        if "CLEANUP_POLICY" in statement.properties:
            raise GenericError(
                "Invalid config variable in the WITH clause: CLEANUP_POLICY. Users can't set the "
                "CLEANUP_POLICY config manually."
            )
        plan = plan_creation(
            statement, session.metastore, session.topics, session.properties, query_id
        )
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
            remember(session.metastore, plan)
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
        remember(session.metastore, plan)
        message = f"Created query with ID {plan.query.id}" if plan.query else "Stream created"
        done = {
            "status": "SUCCESS",
            "message": message,
            "queryId": plan.query.id if plan.query else None,
        }
        effects = []
        if plan.query is not None:
            effects.append(
                self._routers.of(plan.query).add(self._routers.route(plan.query, self.metastore))
            )
        return self._answer(plan.text, command, done, effects)

    def _starts(self, plan: Creation, session: Session) -> tuple[str, str, dict[int, int]] | None:
        """Say where a new query begins; one that replaces another keeps its offsets."""
        if plan.query is None or plan.replaces is not None:
            return None
        topic = plan.query.reads.topic
        partitions = self.topics.partitions(topic) or []
        offsets = self.topics.offsets(topic, partitions, where=offset_reset(session.properties))
        return self._routers.group(plan.query.id), topic, offsets

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
            f"DROP STREAM {identifier(statement.name)};"
            if statement.delete_topic
            else statement.text
        )
        command = self._append(
            Command(f"{statement.kind.lower()}/{statement.name}/drop", statement.text), statement
        )
        effects = []
        if stream is not None:
            effects = [self._routers.remove(q) for q in queries]
            session.metastore.drop(statement.name)
            if statement.delete_topic:
                for effect in effects:
                    effect.result(timeout=30)
                session.topics.delete(stream.topic)
        done = {
            "status": "SUCCESS",
            "message": dropped_message(statement.name, stream.topic if stream else None),
            "queryId": None,
        }
        return self._answer(text, command, done, effects)

    def _query_command(self, statement: QueryCommand, session: Session) -> dict[str, Any] | None:
        chosen = targets(statement, session.metastore)
        if statement.query_id is not None and not chosen:
            raise StatementError(f"Unknown queryId: {statement.query_id}")
        if not session.real:
            for query in chosen:
                apply_query_command(statement.action, query, session.metastore)
            return None
        target = statement.query_id or "ALL"
        command = self._append(
            Command(f"{statement.action.lower()}/{target}/execute", statement.text), statement
        )
        effects = []
        for query in chosen:
            apply_query_command(statement.action, query, session.metastore)
            effects.append(
                self._routers.remove(query)
                if statement.action == "TERMINATE"
                else self._routers.of(query).pause(query.id, query.paused)
            )
        done = {
            "status": "SUCCESS",
            "message": QUERY_MESSAGES[statement.action],
            "queryId": None,
        }
        return self._answer(statement.text, command, done, effects)

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
        pending = Pending(effects, lambda error: self._finish(command.id, done, error))
        status = dict(done) if pending.wait(_WAIT_S) else executing
        if self._statuses[command.id]["status"] == "ERROR":
            status = self._statuses[command.id]
        return entities.current_status(text, command.id, status, command.offset)

    def _finish(self, command_id: str, done: dict[str, Any], error: BaseException | None) -> None:
        self._statuses[command_id] = (
            done if error is None else {"status": "ERROR", "message": str(error), "queryId": None}
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


def _parse(text: str, variables: Mapping[str, str]) -> list[Statement]:
    """Return a request's statements; a variable holds from its DEFINE on."""
    if "${" not in text:
        return parse(text)
    known = dict(variables)
    statements: list[Statement] = []
    for before, part in split(text):
        for statement in parse(re.sub(r"[^\n]", " ", before) + substitute(part, known)):
            statements.append(statement)
            if isinstance(statement, Define):
                known.pop(statement.name, None)
                if statement.value is not None:
                    known[statement.name] = statement.value
    return statements


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${name}`` by the variable's value; unknown ones stay, as with ksqlDB."""
    if not variables:
        return text
    known = {k.lower(): v for k, v in variables.items()}
    return _VARIABLE.sub(lambda m: known.get(m[1].lower(), m[0]), text)
