"""Waits for Kafka without sleeping blindly: a condition, a time-out and a next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSensorTimeout

if TYPE_CHECKING:
    from airflow.sdk import Context

POKE_TIMEOUT_S = 5.0


class KafkaReadySensor(BaseSensorOperator):
    """Succeeds when a broker of the connection answers.

    Args:
        kafka_conn_id: Airflow connection of the cluster.
    """

    template_fields = ("kafka_conn_id",)

    def __init__(self, *, kafka_conn_id: str = "kafka_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kafka_conn_id = kafka_conn_id
        self._problem = "no answer yet"

    def poke(self, context: Context) -> bool:
        """Ask the cluster for its id once, with a short time-out."""
        from kafka_io import BrokerUnavailableError, check_broker
        from ksqldb_provider.hooks import kafka_config

        try:
            cluster_id = check_broker(kafka_config(self.kafka_conn_id), timeout_s=POKE_TIMEOUT_S)
        except BrokerUnavailableError as error:
            self._problem = str(error)
            self.log.info("Not ready: %s", self._problem)
            return False
        self.log.info("Kafka answers: cluster %s", cluster_id)
        return True

    def execute(self, context: Context) -> Any:
        """Wait for the broker.

        Raises:
            AirflowSensorTimeout: It did not answer in time; says at which address and what to do.
        """
        try:
            return super().execute(context)
        except AirflowSensorTimeout as timeout:
            raise AirflowSensorTimeout(
                f"Kafka did not answer within {self.timeout:.0f} s: {self._problem} "
                f"(connection {self.kafka_conn_id!r})"
            ) from timeout
