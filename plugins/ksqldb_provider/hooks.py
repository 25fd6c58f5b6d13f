"""From an Airflow connection to a ksqlDB client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from ksqldb_provider.client import KsqlDbClient


class KsqlDbHook(BaseHook):
    """Gives a client of the ksqlDB cluster that a connection of type `ksqldb` describes.

    The connection's host may be one name or several separated by commas, each with a port of its
    own if it likes (`a,b:8089`); schema is `http` (default) or `https`; login and password are
    sent as HTTP basic authentication (also an API key and its secret). Extra: `verify`, `ca_file`,
    `client_cert`, `client_key`, `connect_timeout_s`, `read_timeout_s`, `browser_url`.

    Args:
        ksqldb_conn_id: Airflow connection.
    """

    conn_name_attr = "ksqldb_conn_id"
    default_conn_name = "ksqldb_default"
    conn_type = "ksqldb"
    hook_name = "ksqlDB"

    def __init__(self, ksqldb_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ksqldb_conn_id = ksqldb_conn_id

    def get_client(self) -> KsqlDbClient:
        """Return a client; nothing is connected before its first call. Close it after use.

        Raises:
            airflow.exceptions.AirflowNotFoundException: There is no such connection.
            ValueError: The connection says something that cannot be used.
        """
        from ksqldb_provider.connection import client_of

        return client_of(self.get_connection(self.ksqldb_conn_id))

    def browser_url(self, client: KsqlDbClient) -> str:
        """Return where a browser finds the server that a client talks to."""
        from ksqldb_provider.connection import browser_url

        return browser_url(self.get_connection(self.ksqldb_conn_id), client.address)

    def get_conn(self) -> KsqlDbClient:
        """Return a client, as `get_client`."""
        return self.get_client()

    def test_connection(self) -> tuple[bool, str]:
        """Tell whether the server is ready, and what is wrong if not (the button in the UI)."""
        from ksqldb_provider.client import KsqlDbError

        try:
            with self.get_client() as client:
                info = client.check_ready()
        except (KsqlDbError, ValueError) as error:
            return False, str(error)
        return True, f"ksqlDB {info.version}, service {info.ksql_service_id}, is ready"


def kafka_config(kafka_conn_id: str) -> dict[str, Any]:
    """Return the librdkafka settings of a connection of the Apache Kafka provider.

    Raises:
        ValueError: The connection gives no `bootstrap.servers`.
        airflow.exceptions.AirflowNotFoundException: There is no such connection.
    """
    from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

    class _Settings(KafkaBaseHook):
        """Stops where the provider would make a client, so that its own rules have been applied."""

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    settings: dict[str, Any] = _Settings(  # type: ignore[no-untyped-call]
        kafka_config_id=kafka_conn_id
    ).get_conn
    return settings
