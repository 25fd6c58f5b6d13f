"""Topics that SQL reads and writes, as Airflow assets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksqldb_provider.sql.errors import SqlError
from ksqldb_provider.sql.statement import sql_files, topic_flow

if TYPE_CHECKING:
    from airflow.sdk import Asset


def assets_of_folder(sql_folder: Any, kafka_conn_id: Any) -> tuple[list[Asset], list[Asset]]:
    """Return what the statements of a folder read and write, as `assets_of`.

    A folder that cannot be read has no assets: its task fails, saying why.
    """
    if not _is_known(sql_folder):
        return [], []
    try:
        texts = [file.read_text(encoding="utf-8") for file in sql_files(sql_folder)]
        return assets_of(texts, kafka_conn_id)
    except (SqlError, OSError, UnicodeDecodeError):
        return [], []


def assets_of(texts: Any, kafka_conn_id: Any) -> tuple[list[Asset], list[Asset]]:
    """Return what statements read and write: inlets and outlets.

    A topic is named by the connection that leads to it (`kafka://kafka_default/orders`), not by
    an address that changes. What is only known when the task runs (templates, XComs) has none.

    Raises:
        SqlError: A statement cannot be read.
    """
    from airflow.providers.apache.kafka.assets.kafka import create_asset

    statements = texts if isinstance(texts, list | tuple) else [texts]
    if not all(map(_is_known, [*statements, kafka_conn_id])):
        return [], []
    flow = topic_flow(statements)
    return (
        [create_asset(server=kafka_conn_id, topic=topic) for topic in flow.read],
        [create_asset(server=kafka_conn_id, topic=topic) for topic in flow.written],
    )


def _is_known(argument: Any) -> bool:
    return isinstance(argument, str) and "{{" not in argument
