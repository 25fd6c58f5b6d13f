"""Bring a server to what SQL files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ksqldb_provider.lineage import assets_of, assets_of_folder
from ksqldb_provider.operators.base import KsqlDbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ksqldb_provider.sql import Statement


class KsqlDbDeployOperator(KsqlDbOperator):
    """Brings a ksqlDB server to what SQL files say.

    The plan is shown in the log first: what is created, unchanged, replaced, or in conflict. With
    a conflict nothing at all is executed and the task fails without a retry, saying what to do.
    A query is replaced only while it runs and only where ksqlDB keeps its offsets, so history is
    never routed into a sink a second time.

    Returns the plan as a list of dicts (statement, file, topic, action, reason, remedy, query_id).
    Pushes the XComs `plan` (the same, but before anything is executed, also of a plan that has
    conflicts) and `query_ids`: the ids of all queries, in the order of the statements.

    The topics that the statements read and write are the task's inlets and outlets.

    Args:
        sql_folder: Folder of `*.sql` files, one CREATE statement each, deployed in the order of
            their names.
        statements: The statements themselves instead, one in each string.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        kafka_conn_id: Connection of its Kafka cluster, to see whether sinks were written to.
        properties: `streamsProperties` of each statement; by default `auto.offset.reset=earliest`
            and `processing.guarantee=exactly_once_v2`.
        dry_run: Plan and report, also conflicts, but execute nothing.
        statement_timeout_s: Longest time for one statement, until its query runs.
    """

    template_fields = ("sql_folder", "statements", "ksqldb_conn_id", "kafka_conn_id", "properties")
    template_fields_renderers: ClassVar[dict[str, str]] = {"statements": "sql"}

    def __init__(
        self,
        *,
        sql_folder: str | None = None,
        statements: Sequence[str] | None = None,
        kafka_conn_id: str = "kafka_default",
        properties: Mapping[str, str] | None = None,
        dry_run: bool = False,
        statement_timeout_s: float = 180.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (sql_folder is None) == (statements is None):
            raise ValueError("give either sql_folder or statements")
        self.sql_folder = sql_folder
        self.statements = statements
        self.kafka_conn_id = kafka_conn_id
        self.properties = dict(properties) if properties is not None else None
        self.plan_only = dry_run  # dry_run itself is a method of every operator
        self.statement_timeout_s = statement_timeout_s
        inlets, outlets = (
            assets_of_folder(sql_folder, kafka_conn_id)
            if sql_folder is not None
            else assets_of(statements, kafka_conn_id)
        )
        self.inlets = [*self.inlets, *inlets]
        self.outlets = [*self.outlets, *outlets]

    def execute(self, context: Context) -> list[dict[str, str | None]]:
        """Plan, report and apply.

        Raises:
            AirflowFailException: A conflict, a bad file or a refused statement: a retry would
                give the same answer.
            KsqlDbError: A failure that a retry can mend.
        """
        from ksqldb_provider import deploy
        from ksqldb_provider.hooks import kafka_config
        from ksqldb_provider.topics import KafkaTopics

        properties = deploy.EXACTLY_ONCE_FROM_START if self.properties is None else self.properties
        topics = KafkaTopics(kafka_config(self.kafka_conn_id))
        with self._client(context) as client:
            planned = deploy.plan(client, topics, self._statements())
            self.log.info("Plan for %s:\n%s", client.address, deploy.render(planned))
            context["ti"].xcom_push(key="plan", value=[item.as_dict() for item in planned])
            if not self.plan_only:
                planned = deploy.apply(
                    client,
                    topics,
                    planned,
                    properties=properties,
                    timeout_s=self.statement_timeout_s,
                    stop=self._stop,
                )
        query_ids = [item.query_id for item in planned if item.query_id]
        self.log.info("Queries: %s", ", ".join(query_ids) or "none")
        context["ti"].xcom_push(key="query_ids", value=query_ids)
        return [item.as_dict() for item in planned]

    def _statements(self) -> Sequence[Statement]:
        from ksqldb_provider.sql import load_folder, parse_statement

        if self.sql_folder is not None:
            return load_folder(self.sql_folder)
        return [parse_statement(text) for text in self.statements or ()]
