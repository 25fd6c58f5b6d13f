"""Where the embedded stack lives and listens: the only place here that reads settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"

Port = Annotated[int, Field(ge=1, le=65535)]


class StackSettings(BaseSettings):
    """Settings of the embedded stack, each one overridden by `EMERGENCIAS_<NAME>`.

    Attributes:
        home: The one folder that holds everything the stack writes: data, logs, state.
        kafka_port: Where clients reach the broker on the loopback address.
        kafka_controller_port: The broker's own KRaft quorum, also on the loopback address.
        ksqldb_port: Where the stream engine answers REST calls on the loopback address.
        airflow_port: Where the Airflow UI and API listen on the loopback address.
        kafka_heap_mb: Heap of the broker's JVM, in MiB.
        start_timeout_s: How long one service may take to become ready.
        stop_timeout_s: How long one service may take to stop before it is killed.
    """

    model_config = SettingsConfigDict(env_prefix="EMERGENCIAS_", extra="ignore")

    home: Path = PROJECT_ROOT / ".emergencias"
    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    ksqldb_port: Port = 8088
    airflow_port: Port = 8080
    kafka_heap_mb: Annotated[int, Field(ge=128)] = 512
    start_timeout_s: Annotated[float, Field(gt=0)] = 90
    stop_timeout_s: Annotated[float, Field(gt=0)] = 30

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {
            "EMERGENCIAS_KAFKA_PORT": self.kafka_port,
            "EMERGENCIAS_KAFKA_CONTROLLER_PORT": self.kafka_controller_port,
            "EMERGENCIAS_KSQLDB_PORT": self.ksqldb_port,
            "EMERGENCIAS_AIRFLOW_PORT": self.airflow_port,
        }
        if len(set(ports.values())) < len(ports):
            listed = ", ".join(f"{name}={port}" for name, port in ports.items())
            raise ValueError(f"each service needs a port of its own, but these collide: {listed}")
        return self

    @property
    def bootstrap_servers(self) -> str:
        """Return the broker's address as Kafka clients want it."""
        return f"{LOOPBACK}:{self.kafka_port}"

    @property
    def ksqldb_url(self) -> str:
        """Return the stream engine's base URL."""
        return f"http://{LOOPBACK}:{self.ksqldb_port}"

    @property
    def airflow_url(self) -> str:
        """Return the base URL of the Airflow UI and API."""
        return f"http://{LOOPBACK}:{self.airflow_port}"

    @property
    def kafka_data(self) -> Path:
        """Return the folder that holds the broker's configuration and data."""
        return self.home / "kafka"

    @property
    def airflow_home(self) -> Path:
        """Return the folder that holds Airflow's database and configuration."""
        return self.home / "airflow"

    @property
    def logs(self) -> Path:
        """Return the folder that holds one log file a service."""
        return self.home / "logs"
