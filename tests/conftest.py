"""Fixtures shared by every kind of test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """Return the address of a running Kafka broker."""
    yield os.environ["EMERGENCIAS_TEST_BOOTSTRAP"]
