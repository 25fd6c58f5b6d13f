"""End queries, and remove streams and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ksqldb_provider.operators.base import KsqlDbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class KsqlDbTerminateOperator(KsqlDbOperator):
    """Ends persistent queries; their streams, topics and records stay.

    A query that is gone already is no error, so that a retry can finish what an attempt began.
    Think twice: a query that is ended cannot go on where it stopped, and the deployment will
    refuse to start a new one once its sink holds records. To stop for a while, execute `PAUSE`.

    Returns the ids of the queries that this task ended.

    Args:
        query_ids: Ids of the queries, for instance the XCom `query_ids` of a deployment.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
    """

    template_fields = ("query_ids", "ksqldb_conn_id")

    def __init__(self, *, query_ids: Sequence[str] | Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.query_ids = query_ids

    def execute(self, context: Context) -> list[str]:
        """End the queries in their order.

        Raises:
            AirflowFailException: The server refuses.
            KsqlDbError: A failure that a retry can mend.
        """
        from ksqldb_provider.client import UnknownObjectError
        from ksqldb_provider.sensors import checked_ids

        ended = []
        with self._client(context) as client:
            for query_id in checked_ids(self.query_ids):
                try:
                    client.terminate(query_id)
                except UnknownObjectError as error:
                    self.log.info("Nothing to end: %s", error)
                else:
                    ended.append(query_id)
        return ended


class KsqlDbDropOperator(KsqlDbOperator):
    """Removes streams and tables, each with the query that writes it.

    What is gone already is no error, so that a retry can finish what an attempt began.

    Returns the names of what this task removed.

    Args:
        names: Streams and tables as in SQL (unquoted: upper case), readers before their sources.
        delete_topics: Delete their Kafka topics with all records, too.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
    """

    template_fields = ("names", "ksqldb_conn_id")

    def __init__(
        self, *, names: Sequence[str] | Any, delete_topics: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.names = names
        self.delete_topics = delete_topics

    def execute(self, context: Context) -> list[str]:
        """Remove them in their order.

        Raises:
            AirflowFailException: The server refuses, for instance because others read it.
            KsqlDbError: A failure that a retry can mend.
        """
        from ksqldb_provider.client import UnknownObjectError
        from ksqldb_provider.sensors import checked_texts
        from ksqldb_provider.sql import name_of

        names = checked_texts("names", self.names, "name of a stream or table")
        dropped = []
        with self._client(context) as client:
            for name in map(name_of, names):
                try:
                    client.drop(name, delete_topic=self.delete_topics)
                except UnknownObjectError as error:
                    self.log.info("Nothing to drop: %s", error)
                else:
                    dropped.append(name)
        return dropped
