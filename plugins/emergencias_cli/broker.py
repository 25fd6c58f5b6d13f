"""Which broker a command talks to when no Airflow is asked."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

from emergencias_cli.console import fail, load_settings

_CONNECTION = "AIRFLOW_CONN_KAFKA_DEFAULT"
_ANSWER_S = 5.0
"""A person waits; tasks have more patience."""


def reachable_kafka(bootstrap_servers: str | None) -> dict[str, Any]:
    """Return the settings of Kafka clients for a broker that answers.

    Args:
        bootstrap_servers: What the user gave; else the connection in the environment, as
            `emergencias stack env` and Airflow's own set-ups have it; else the embedded broker.

    Raises:
        BrokerUnavailableError: It does not answer within 5 s.
    """
    from kafka_io import check_broker

    config = _config(bootstrap_servers)
    check_broker(config, timeout_s=_ANSWER_S)
    return config


def _config(bootstrap_servers: str | None) -> dict[str, Any]:
    if bootstrap_servers:
        return {"bootstrap.servers": bootstrap_servers}
    if connection := os.environ.get(_CONNECTION):
        return _extra(connection)
    return {"bootstrap.servers": load_settings().bootstrap_servers}


def _extra(connection: str) -> dict[str, Any]:
    try:
        extra = json.loads(connection)["extra"]
        extra = json.loads(extra) if isinstance(extra, str) else extra
        return {**extra, "bootstrap.servers": extra["bootstrap.servers"]}
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable() from error


def _unusable() -> typer.Exit:
    return fail(
        f"{_CONNECTION} is no Kafka connection in JSON with an extra that has bootstrap.servers; "
        "mend it, or give --bootstrap-servers"
    )
