"""From Airflow's Kafka connection to the settings of a client."""

from __future__ import annotations

from typing import Any


def kafka_config(conn_id: str) -> dict[str, Any]:
    """Return the librdkafka settings of a Kafka connection, SASL, TLS and token callbacks included.

    Raises:
        ValueError: The connection gives no `bootstrap.servers`.
        airflow.exceptions.AirflowNotFoundException: There is no such connection.
    """
    from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

    class ConfigHook(KafkaBaseHook):
        """The provider's own way to a client, ending at the settings that it would use."""

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    config: dict[str, Any] = ConfigHook(kafka_config_id=conn_id).get_conn
    return config
