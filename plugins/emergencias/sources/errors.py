"""How a file that cannot be taken in is told: where, why, and nobody's telephone number."""

from __future__ import annotations

import re
from typing import Any

_MAX_QUOTED = 60
_TELEPHONE = re.compile(r"\(?\+?\d(?:[\W_]{0,3}\d){8,}")


class SourceError(ValueError):
    """A file cannot be taken in; the message says where and why, and what is allowed."""

    retryable = False


def mask(text: str) -> str:
    """Return a text without telephone numbers."""
    return _TELEPHONE.sub("(number)", text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    if isinstance(value, dict):
        return {_masked(name): _masked(item) for name, item in value.items()}
    if isinstance(value, (int, float)) and mask(str(value)) != str(value):
        return mask(str(value))
    return value


def shorten(value: Any, length: int = _MAX_QUOTED) -> str:
    """Return the value for a message: short, and without anybody's telephone number.

    Args:
        value: Anything; what is no text is shown as Python writes it.
        length: Most characters of it; a number that the cut would divide is masked whole.
    """
    # Masked before it is written as Python does, which puts letters into separators: '\xa0'.
    text = _masked(value) if isinstance(value, str) else repr(_masked(value))
    return text if len(text) <= length else text[:length] + "..."
