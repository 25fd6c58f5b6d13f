"""Execute statements once, as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ksqldb_provider.operators.base import KsqlDbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class KsqlDbExecuteOperator(KsqlDbOperator):
    """Executes statements as they are, in order; for what has to happen once.

    All of the SQL is read before the first statement is sent. What was surely not executed is
    sent again; once a statement was or may have been executed, a failure ends the task without a
    retry, because that would execute it twice.

    Returns a list of dicts (statement, type, command_id, query_id, message, answer).

    Args:
        sql: One or more statements; or the path of a `.sql` file, relative to the DAG's folder or
            its `template_searchpath`. May be a template.
        parameters: Values for `:name` in the SQL, quoted as SQL wants it; may hold templates. Not
            a template of `sql` itself, which would put text into it as it is.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        properties: `streamsProperties` of each statement.
        statement_timeout_s: Longest time for one statement.
    """

    template_fields = ("sql", "parameters", "ksqldb_conn_id", "properties")
    template_ext = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}

    def __init__(
        self,
        *,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        properties: Mapping[str, str] | None = None,
        statement_timeout_s: float = 180.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.parameters = dict(parameters or {})
        self.properties = dict(properties or {})
        self.statement_timeout_s = statement_timeout_s

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Execute all statements.

        Raises:
            AirflowFailException: A retry cannot help, or would execute something twice.
            KsqlDbError: Nothing was executed, and a retry can mend that.
        """
        from ksqldb_provider.script import run_script, split_script
        from ksqldb_provider.sql import bind

        with self._client(context) as client:
            executed = run_script(
                client,
                split_script(bind(self.sql, self.parameters)),
                properties=self.properties,
                timeout_s=self.statement_timeout_s,
                stop=self._stop,
            )
            for done in executed:
                self.log.info("Executed: %s", done.as_dict())
            commands = [done.result.command for done in executed if done.result.command]
            if len(commands) == 1:
                self._link(context, client, commands[0].command_id)
        return [done.as_dict() for done in executed]
