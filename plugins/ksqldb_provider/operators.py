"""Operators that change something on a ksqlDB server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class KsqlDbDeployOperator(BaseOperator):
    """Brings a ksqlDB server to what a folder of SQL files says.

    The plan is shown in the log first: what is created, unchanged, replaced, or in conflict. With
    a conflict nothing at all is executed and the task fails without a retry, saying what to do.
    A query is replaced only while it runs and only where ksqlDB keeps its offsets, so history is
    never routed into a sink a second time.

    Returns the plan as a list of dicts (statement, file, topic, action, reason, remedy, query_id),
    and pushes the XCom `query_ids`: the ids of all queries, in the order of the files.

    Args:
        sql_folder: Folder of `*.sql` files, one CREATE statement each, deployed in the order of
            their names.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        kafka_conn_id: Connection of its Kafka cluster, to see whether sinks were written to.
        properties: `streamsProperties` of each statement; by default `auto.offset.reset=earliest`
            and `processing.guarantee=exactly_once_v2`.
        dry_run: Plan and report, also conflicts, but execute nothing.
        statement_timeout_s: Longest time for one statement, until its query runs.
    """

    template_fields = ("sql_folder", "ksqldb_conn_id", "kafka_conn_id", "properties")
    ui_color = "#e8f4ec"

    def __init__(
        self,
        *,
        sql_folder: str,
        ksqldb_conn_id: str = "ksqldb_default",
        kafka_conn_id: str = "kafka_default",
        properties: Mapping[str, str] | None = None,
        dry_run: bool = False,
        statement_timeout_s: float = 180.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql_folder = sql_folder
        self.ksqldb_conn_id = ksqldb_conn_id
        self.kafka_conn_id = kafka_conn_id
        self.properties = dict(properties) if properties is not None else None
        self.plan_only = dry_run  # dry_run itself is a method of every operator
        self.statement_timeout_s = statement_timeout_s
        self._stop: threading.Event | None = None

    def execute(self, context: Context) -> list[dict[str, str | None]]:
        """Plan, report and apply.

        Raises:
            AirflowFailException: A conflict, a bad file or a refused statement: a retry would
                give the same answer.
            KsqlDbError: A failure that a retry can mend.
        """
        from airflow.sdk.exceptions import AirflowFailException

        from ksqldb_provider import deploy
        from ksqldb_provider.client import KsqlDbError
        from ksqldb_provider.hooks import KsqlDbHook, kafka_config
        from ksqldb_provider.sql import SqlError, load_folder
        from ksqldb_provider.topics import KafkaTopics

        self._stop = threading.Event()
        properties = deploy.EXACTLY_ONCE_FROM_START if self.properties is None else self.properties
        topics = KafkaTopics(kafka_config(self.kafka_conn_id))
        try:
            with KsqlDbHook(self.ksqldb_conn_id).get_client() as client:
                planned = deploy.plan(client, topics, load_folder(self.sql_folder))
                self.log.info("Plan for %s:\n%s", client.address, deploy.render(planned))
                if not self.plan_only:
                    planned = deploy.apply(
                        client,
                        topics,
                        planned,
                        properties=properties,
                        timeout_s=self.statement_timeout_s,
                        stop=self._stop,
                    )
        except (deploy.DeployConflictError, SqlError) as error:
            raise AirflowFailException(str(error)) from error
        except KsqlDbError as error:
            if error.retryable:
                raise
            raise AirflowFailException(str(error)) from error
        query_ids = [item.query_id for item in planned if item.query_id]
        self.log.info("Queries: %s", ", ".join(query_ids) or "none")
        context["ti"].xcom_push(key="query_ids", value=query_ids)
        return [item.as_dict() for item in planned]

    def on_kill(self) -> None:
        """Stop between two steps; what the server has accepted it goes on with."""
        if self._stop is not None:
            self._stop.set()
