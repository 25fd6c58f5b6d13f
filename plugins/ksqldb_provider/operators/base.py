"""What all operators of ksqlDB share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from ksqldb_provider.links import KsqlDbLink, push_link

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ksqldb_provider.client import KsqlDbClient


class KsqlDbOperator(BaseOperator):
    """What all of them share: a connection, a link, and a way to be stopped."""

    operator_extra_links = (KsqlDbLink(),)
    ui_color = "#e8f4ec"

    def __init__(self, *, ksqldb_conn_id: str = "ksqldb_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ksqldb_conn_id = ksqldb_conn_id
        # Made when it runs: an operator is copied, and an event cannot be.
        self._stop: threading.Event | None = None

    def on_kill(self) -> None:
        """Stop between two steps; what the server has accepted it goes on with."""
        if self._stop is not None:
            self._stop.set()

    @contextmanager
    def _client(self, context: Context) -> Iterator[KsqlDbClient]:
        """Give a client, and fail without a retry on what a retry cannot mend."""
        from airflow.sdk.exceptions import AirflowFailException

        from ksqldb_provider.client import KsqlDbError
        from ksqldb_provider.deploy import DeployConflictError
        from ksqldb_provider.hooks import KsqlDbHook
        from ksqldb_provider.script import ScriptError
        from ksqldb_provider.sql import SqlError

        self._stop = threading.Event()
        try:
            with KsqlDbHook(self.ksqldb_conn_id).get_client() as client:
                self._link(context, client)
                yield client
        except (DeployConflictError, ScriptError, SqlError) as error:
            raise AirflowFailException(str(error)) from error
        except KsqlDbError as error:
            if error.retryable:
                raise
            raise AirflowFailException(str(error)) from error

    def _link(self, context: Context, client: KsqlDbClient, command_id: str | None = None) -> None:
        """Let the task's link lead to a command, or to all."""
        from ksqldb_provider.hooks import KsqlDbHook

        browser_url = KsqlDbHook(self.ksqldb_conn_id).browser_url(client)
        push_link(context, browser_url, command_id)
