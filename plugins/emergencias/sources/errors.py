"""How a file that cannot be taken in is told: where, why, and nobody's telephone number."""

from __future__ import annotations

import re
from typing import Any

_MAX_QUOTED = 60
_TELEPHONE = re.compile(r"\(?\+?\d(?:[ ./()-]{0,2}\d){8,}")


class SourceError(ValueError):
    """A file cannot be taken in; the message says where and why, and what is allowed."""

    retryable = False


def mask(text: str) -> str:
    """Return a text without telephone numbers."""
    return _TELEPHONE.sub("(number)", text)


def shorten(value: Any, length: int = _MAX_QUOTED) -> str:
    """Return the value for a message: short, and without anybody's telephone number.

    Args:
        value: Anything; what is no text is shown as Python writes it.
        length: Most characters of it; a number that the cut would divide is masked whole.
    """
    text = mask(value if isinstance(value, str) else repr(value))
    return text if len(text) <= length else text[:length] + "..."
