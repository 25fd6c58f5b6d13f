"""Ask for rows, into XCom or a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ksqldb_provider.operators.base import KsqlDbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ksqldb_provider.client import QueryRows
    from ksqldb_provider.sql import SelectQuery

XCOM_ROWS = 1_000


class KsqlDbQueryOperator(KsqlDbOperator):
    """Asks for rows: with a pull query, or with a push query (EMIT CHANGES) that has a LIMIT.

    Returns the rows as a list of dicts, if there are at most 1,000; or, with `output_path`, writes
    them there as JSON Lines, one by one as they come, and returns `{"path": …, "rows": …}`. The
    file gets its name only when it is complete.

    Args:
        sql: One SELECT; or the path of a `.sql` file, as for `KsqlDbExecuteOperator`.
        parameters: Values for `:name` in the SQL, as for `KsqlDbExecuteOperator`.
        output_path: File to write.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        properties: Properties of the query; `auto.offset.reset` says where a push query starts.
        query_timeout_s: Longest time until the last row.
    """

    template_fields = ("sql", "parameters", "output_path", "ksqldb_conn_id", "properties")
    template_ext = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}

    def __init__(
        self,
        *,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        output_path: str | None = None,
        properties: Mapping[str, str] | None = None,
        query_timeout_s: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.parameters = dict(parameters or {})
        self.output_path = output_path
        self.properties = dict(properties or {})
        self.query_timeout_s = query_timeout_s

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """Ask and return or write the rows.

        Raises:
            AirflowFailException: The query was refused, never ends, or gives too many rows.
            KsqlDbError: A failure that a retry can mend.
        """
        from ksqldb_provider.sql import SqlError, bind, parse_query

        with self._client(context) as client:
            query = parse_query(bind(self.sql, self.parameters))
            if query.is_push and query.limit is None:
                raise SqlError(
                    "a push query never ends: give it a LIMIT, or leave EMIT CHANGES out"
                )
            with client.query(
                query.text, properties=self.properties, timeout_s=self.query_timeout_s
            ) as rows:
                self.log.info("Query %s: %s", rows.query_id, rows.columns)
                complete = self._complete(rows, query, client.address)
                if self.output_path is not None:
                    return self._write(self.output_path, complete)
                return self._gather(complete)

    def _complete(
        self, rows: QueryRows, query: SelectQuery, address: str
    ) -> Iterator[dict[str, Any]]:
        """Pass the rows on; a push query that ends before its LIMIT was ended by somebody."""
        from ksqldb_provider.client import ServerUnavailableError

        count = 0
        for count, row in enumerate(rows, start=1):  # noqa: B007 - counted for after the loop
            yield row
        if query.is_push and query.limit is not None and count < query.limit:
            raise ServerUnavailableError(
                f"the query ended after {count} of {query.limit} rows",
                address=address,
                statement=query.text,
                next_step="It was closed, or the server stopped. Ask again.",
            )

    def _gather(self, rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        from ksqldb_provider.sql import SqlError

        gathered: list[dict[str, Any]] = []
        for row in rows:
            if len(gathered) == XCOM_ROWS:
                raise SqlError(
                    f"the query gives more than {XCOM_ROWS} rows, which is too much for XCom: "
                    "give an output_path, or a LIMIT"
                )
            gathered.append(row)
        return gathered

    def _write(self, output_path: str, rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
        import json
        from pathlib import Path

        path = Path(output_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.part")
        count = 0
        with unfinished.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        unfinished.replace(path)
        self.log.info("%s: %d rows", path, count)
        return {"path": str(path), "rows": count}
