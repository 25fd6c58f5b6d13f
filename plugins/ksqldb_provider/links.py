"""Links from a task to what it did on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

_KEY = "ksqldb_url"


class KsqlDbLink(BaseOperatorLink):
    """Leads to the server's page about what the task executed.

    ksqlDB has no page for a query; it has one for each command (`/status/<command id>`: its state
    and the id of the query that it started) and one for all (`/status`).
    """

    name = "ksqlDB"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; empty before the task has talked to the server."""
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(ti_key=ti_key, key=_KEY) or "")


def push_link(context: Context, browser_url: str, command_id: str | None = None) -> None:
    """Remember where `KsqlDbLink` leads: to one command or, without an id, to all."""
    path = f"/status/{quote(command_id, safe='/')}" if command_id else "/status"
    context["ti"].xcom_push(key=_KEY, value=browser_url + path)
