"""How the engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: ``listen`` is the host:port that answers show."""

    bootstrap_servers: str
    listen: str = "127.0.0.1:8088"
    service_id: str = "default_"
    version: str = "7.6.0"
    processing_log_stream: bool = True
    client: Mapping[str, Any] = field(default_factory=dict)
