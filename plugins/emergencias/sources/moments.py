"""Dates as files write them, as the alert writes them: ISO 8601 with an offset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

MADRID = ZoneInfo("Europe/Madrid")

_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}")


def with_offset(
    value: Any, zone: ZoneInfo = MADRID, formats: Sequence[str] = ()
) -> tuple[Any, bool]:
    """Return a date with its offset, and whether it is a date with a time.

    Args:
        value: A text in one of the formats, or in ISO 8601.
        zone: The zone of a local time.
        formats: `strptime` formats, tried in order.

    Returns:
        A text that is no date with a time, and what is no text, unchanged. A local time keeps its
        date and time and gains the offset: where clocks are turned back and it comes twice, that
        of its first; where they are put forward and it does not exist, that of winter.
    """
    if not isinstance(value, str):
        return value, False
    text = value.strip()
    for form in formats:
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 (gains its zone below)
        except ValueError:
            continue
        return _zoned(value, moment, zone)
    if not _DATE_AND_TIME.match(text):
        return value, False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return value, False
    return (text, True) if moment.tzinfo is not None else _zoned(value, moment, zone)


def _zoned(value: str, moment: datetime, zone: ZoneInfo) -> tuple[str, bool]:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)  # fold 0: the first of two possible moments
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return value, False  # before 1901 Madrid's offset has seconds, which ISO 8601 cannot say
    return moment.isoformat(), True
