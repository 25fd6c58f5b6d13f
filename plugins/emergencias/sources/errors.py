"""How a file that cannot be taken in is told: where, why, and nobody's telephone number."""

from __future__ import annotations

import re
from typing import Any

_MAX_QUOTED = 60
_TELEPHONE = re.compile(r"\+?\d(?:[ .-]?\d){8,}")


class SourceError(ValueError):
    """A file cannot be taken in; the message says where and why, and what is allowed."""

    retryable = False


def mask(text: str) -> str:
    """Return a text without telephone numbers."""
    return _TELEPHONE.sub("(number)", text)


def shorten(value: Any) -> str:
    """Return the value for a message: short, and without anybody's telephone number."""
    text = mask(value if isinstance(value, str) else repr(value))
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."
