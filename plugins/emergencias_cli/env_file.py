"""The `.env` of docker-compose.yml: made of `.env.example`, secrets drawn at random."""

from __future__ import annotations

import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

_ASSIGNMENT = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def _password() -> str:
    return secrets.token_urlsafe(24)


def _fernet_key() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRETS: dict[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _password,
    "AIRFLOW_ADMIN_PASSWORD": _password,
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_urlsafe(48),
    "AIRFLOW_API_SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "KAFKA_UI_PASSWORD": _password,
}
"""What must be secret, and how each is drawn: at least 192 bits, characters that a URL takes."""


def fill_in(example: Path, target: Path) -> list[str]:
    """Write `target` of `example`, or complete it, so that every secret has a value.

    A value that is there stays: the database and what Airflow has encrypted depend on it. The file
    is readable by its owner alone.

    Args:
        example: The file with every variable, secrets empty.
        target: The file to write.

    Returns:
        The names of the secrets that were drawn; none if nothing was missing.
    """
    text = (target if target.exists() else example).read_text(encoding="utf-8")
    given = {name for name, value in _ASSIGNMENT.findall(text) if value.strip()}
    drawn = [name for name in SECRETS if name not in given]
    for name in drawn:
        line = f"{name}={SECRETS[name]()}"
        text, found = re.subn(rf"^{name}=.*$", line, text, count=1, flags=re.MULTILINE)
        if not found:
            text = f"{text.rstrip()}\n{line}\n"
    if drawn:
        partial = target.with_name(f"{target.name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        partial.replace(target)
    return drawn
