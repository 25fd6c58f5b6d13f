"""Fixtures shared by every kind of test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from local_stack.preflight import free_ports
from local_stack.services import Service, kafka_service, ksqldb_service
from local_stack.settings import StackSettings
from local_stack.stack import Stack

# A broker that lives for minutes does not earn back what Java's second compiler costs: without it
# a start and 60 transactions take 9 s of processor time instead of 15.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def make_stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], StackSettings]:
    """Return a maker of settings for stacks of their own: temporary folder, free ports."""

    def make() -> StackSettings:
        kafka, controller, ksqldb, airflow = free_ports(4)
        return StackSettings(
            home=tmp_path_factory.mktemp("stack"),
            kafka_port=kafka,
            kafka_controller_port=controller,
            ksqldb_port=ksqldb,
            airflow_port=airflow,
        )

    return make


@pytest.fixture(scope="session")
def bootstrap_servers(make_stack_settings: Callable[[], StackSettings]) -> Iterator[str]:
    """Return the address of a running Kafka broker.

    It is the one of EMERGENCIAS_TEST_BOOTSTRAP, if set, else an embedded broker that lives as
    long as the test session.
    """
    if given := os.environ.get("EMERGENCIAS_TEST_BOOTSTRAP"):
        yield given
        return
    settings = make_stack_settings()
    stack = Stack(settings, [kafka_service(settings)])
    try:
        stack.up(_unreported)
        yield settings.bootstrap_servers
    finally:
        stack.down(_unreported)


@pytest.fixture(scope="session")
def ksqldb_url(
    bootstrap_servers: str, make_stack_settings: Callable[[], StackSettings]
) -> Iterator[str]:
    """Return the URL of a running `ksqldb_local` on the broker of `bootstrap_servers`."""
    settings = make_stack_settings()
    stack = Stack(settings, [ksqldb_service(settings, bootstrap_servers)])
    try:
        stack.up(_unreported)
        yield settings.ksqldb_url
    finally:
        stack.down(_unreported)


def _unreported(service: Service, event: str) -> None:
    """Take the stack's progress reports; pytest has its own."""
