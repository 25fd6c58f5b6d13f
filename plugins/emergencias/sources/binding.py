"""A mapping applied to the columns that a file really has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from emergencias.model import ORIGINAL_FIELDS
from emergencias.places import parse_degrees
from emergencias.sources.errors import shorten
from emergencias.sources.mapping import FIELDS, PLACEHOLDER, Mapping, Rule, compiled
from emergencias.sources.moments import MADRID, with_offset
from emergencias.sources.names import fold

Payload: TypeAlias = dict[str, Any]
Getter: TypeAlias = Callable[[Sequence[Any]], Any]

_DEGREE_LIMITS = {"latitud": 90, "longitud": 180}


def text_of(value: Any) -> str | None:
    """Return what a value is as a person would write it; None for a list or an object."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True, slots=True)
class Binding:
    """What makes an alert of a row with certain columns.

    Attributes:
        picks: Each field of the alert, with the position of its value among the row's, or None.
        getters: What takes the value out of the row where a position does not say it all.
        found: The columns of the mapping that the row has, folded.
        omitted: The columns that are left out.
    """

    picks: tuple[tuple[str, int | None], ...]
    getters: tuple[tuple[str, Getter], ...]
    found: frozenset[str]
    omitted: frozenset[str]
    _zone: ZoneInfo
    _formats: tuple[str, ...]

    def payload(self, values: Sequence[Any]) -> tuple[Payload, bool, int]:
        """Return the alert of a row's values.

        Returns:
            The alert, with the original fields in their order and then the others; whether its
            fecha is a date with a time; how many coordinates are no degrees (they become null).
        """
        payload = {name: None if at is None else values[at] for name, at in self.picks}
        for name, get in self.getters:
            payload[name] = get(values)
        payload["fecha"], is_date = with_offset(payload["fecha"], self._zone, self._formats)
        unread = 0
        for name, limit in _DEGREE_LIMITS.items():
            if payload.get(name) is not None:
                payload[name] = parse_degrees(payload[name], limit)
                unread += payload[name] is None
        return payload, is_date, unread


def bind(mapping: Mapping, names: Sequence[str]) -> Binding:
    """Find the mapping's columns among those of a row; one that it lacks is null.

    Raises:
        ValueError: One of them is there twice.
    """
    wanted = {fold(column) for rule in mapping.fields.values() for column in rule.columns_read}
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        column = fold(name)
        if column not in wanted:
            continue
        if column in positions:
            both = f"{shorten(names[positions[column]])!r} and {shorten(name)!r}"
            raise ValueError(f"has {column} twice ({both}); each may be there only once")
        positions[column] = position
    picks: list[tuple[str, int | None]] = []
    getters = []
    for field in FIELDS:
        rule = mapping.fields.get(field)
        at = positions.get(fold(rule.column)) if rule is not None and rule.column else None
        needs_work = rule is not None and not rule.is_plain
        if field in ORIGINAL_FIELDS or needs_work or at is not None:
            picks.append((field, at))
        if rule is not None and needs_work:
            getters.append((field, _getter(rule, positions)))
    fecha = mapping.fields.get("fecha", Rule(column="fecha"))
    return Binding(
        picks=tuple(picks),
        getters=tuple(getters),
        found=frozenset(positions),
        omitted=frozenset(name for name in names if fold(name) not in wanted),
        _zone=MADRID if fecha.zone is None else ZoneInfo(fecha.zone),
        _formats=fecha.formats,
    )


def _constant(value: str | None) -> Getter:
    return lambda _: value


def _getter(rule: Rule, positions: dict[str, int]) -> Getter:
    get = _origin(rule, positions)
    if rule.table or rule.patterns:
        get = _looked_up(get, rule)
    return get if rule.default is None else _with_default(get, rule.default)


def _origin(rule: Rule, positions: dict[str, int]) -> Getter:
    if rule.column is not None:
        at = positions.get(fold(rule.column))
        return _constant(None) if at is None else itemgetter(at)
    if rule.template is None:
        return _constant(rule.value)
    # Texts and names of columns take turns.
    parts = PLACEHOLDER.split(rule.template)
    pieces = [
        positions.get(fold(part)) if number % 2 else part for number, part in enumerate(parts)
    ]

    def fill(values: Sequence[Any]) -> str | None:
        filled = [
            (text_of(values[piece]) or "").strip() if isinstance(piece, int) else piece or ""
            for piece in pieces
        ]
        return "".join(filled).strip() if any(filled[1::2]) else None

    return fill


def _looked_up(get: Getter, rule: Rule) -> Getter:
    table = {fold(key): value for key, value in rule.table.items()}
    patterns = [(compiled(pattern), value) for pattern, value in rule.patterns.items()]

    def look_up(values: Sequence[Any]) -> Any:
        value = get(values)
        text = text_of(value)
        if text is None:
            return value
        key = fold(text)
        if key in table:
            return table[key]
        return next((word for pattern, word in patterns if pattern.search(key)), value)

    return look_up


def _with_default(get: Getter, default: str) -> Getter:
    def value_or_default(values: Sequence[Any]) -> Any:
        value = get(values)
        return default if value is None or (isinstance(value, str) and not value.strip()) else value

    return value_or_default
