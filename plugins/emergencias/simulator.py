"""Invented alerts: the same seed gives the same alerts, on any machine."""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from emergencias.places import load_gazetteer
from emergencias.vocabulary import DATA_FOLDER, Body, Degree, load_vocabulary

BLOCK = 4096
"""Alerts that share one random stream: what skipping costs at most, and what is held in memory."""

JITTER_DEGREES = 0.03
"""How far an alert may be from a municipality's centre: 3.3 km north or south, 2.5 east or west."""


def simulate(
    seed: int,
    alerts: int,
    start: datetime,
    end: datetime,
    *,
    first: int = 0,
    data_folder: Path = DATA_FOLDER,
) -> Iterator[dict[str, Any]]:
    """Yield the alerts of a simulated period, in the order in which they happen.

    Types, bodies and degrees follow `include/data/`; what an alert says is coherent: the body is
    one that its type asks for, the sea's body is only called where there is sea, coordinates,
    province code and clock are those of its place.

    The arguments alone decide every alert. Only `random.Random(...).random()` is drawn from, the
    one sequence that Python promises to keep between versions, and only arithmetic that IEEE 754
    defines is done with it. An alert does not depend on `first`, so a retry can go on from any
    point.

    Args:
        seed: Any whole number.
        alerts: How many the period has, 1 or more.
        start: Begin of the period, with a time zone.
        end: End of the period (exclusive), with a time zone, later by at least a second.
        first: Sequence number (from 0) of the first alert wanted; those before are skipped.
        data_folder: Where the vocabulary and the gazetteer are.

    Returns:
        The alerts from `first` on: the seven original fields, then codigo_provincia, latitud and
        longitud (degrees). fecha is ISO 8601, whole seconds, with the offset of the place's clock.

    Raises:
        ValueError: An argument is not as above (at the call, not at the first alert).
        DataFileError: The vocabulary or the gazetteer does not fit.
    """
    if alerts < 1:
        raise ValueError(f"alerts is {alerts}; it must be 1 or more")
    if not 0 <= first <= alerts:
        raise ValueError(f"first is {first}; it must be from 0 to {alerts} (alerts)")
    for name, moment in (("start", start), ("end", end)):
        if moment.utcoffset() is None:
            raise ValueError(f"{name} is {moment.isoformat()}; it must have a time zone")
    first_second, last_second = math.ceil(start.timestamp()), math.ceil(end.timestamp()) - 1
    if last_second < first_second:
        raise ValueError(
            f"no whole second from {start.isoformat()} to before {end.isoformat()}; "
            "end must be later than start by at least a second"
        )
    world = _World(data_folder)
    return _alerts(world, seed, alerts, first_second, last_second, first)


def _alerts(
    world: _World, seed: int, alerts: int, first_second: int, last_second: int, first: int
) -> Iterator[dict[str, Any]]:
    seconds = last_second - first_second + 1
    for block in range(first // BLOCK, -(-alerts // BLOCK)):
        lowest = block * BLOCK
        size = min(BLOCK, alerts - lowest)
        draw = _stream(seed, block)
        # A block takes its share of the period and spreads its alerts evenly at random in it, so
        # the whole is in order without anybody having to hold or sort it.
        positions = sorted(draw() for _ in range(size))
        for offset, position in enumerate(positions):
            moment = first_second + int((lowest + position * size) * seconds / alerts)
            alert = world.alert(draw, min(moment, last_second))
            if lowest + offset >= first:
                yield alert


def _stream(seed: int, block: int) -> Callable[[], float]:
    digest = hashlib.sha256(f"emergencias-112 simulator 1 {seed} {block}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big")).random  # noqa: S311 - not for secrets


class _World:
    """The vocabulary and the places, ready to be drawn from."""

    def __init__(self, folder: Path) -> None:
        vocabulary = load_vocabulary(folder)
        self._types = [
            (
                kind.name,
                [body for body, _ in kind.bodies],
                list(accumulate(weight for _, weight in kind.bodies)),
            )
            for kind in vocabulary.types
        ]
        self._degrees = list(vocabulary.degrees)
        self._ceilings = list(accumulate(degree.probability for degree in vocabulary.degrees))
        self._urgent = [degree for degree in vocabulary.degrees if degree.urgent]
        self._provinces = list(load_gazetteer(folder).provinces)
        self._coast = [province for province in self._provinces if province.coastal]

    def alert(self, draw: Callable[[], float], moment: int) -> dict[str, Any]:
        """Return one alert; `moment` is in seconds since 1970. Always draws the same number."""
        kind, bodies, ceilings = self._types[int(draw() * len(self._types))]
        body = bodies[bisect_right(ceilings, int(draw() * ceilings[-1]))]
        degree = self._degree(body, draw())
        needs_doctor = draw() < 0.5 or body.always_medical
        provinces = self._coast if body.coast_only else self._provinces
        province = provinces[int(draw() * len(provinces))]
        place = province.pick(draw())
        local = datetime.fromtimestamp(moment, UTC).astimezone(province.zone)
        return {
            "tipo_emergencia": kind,
            "cuerpo_necesario": body.name,
            "grado": degree.name,
            "localizacion": province.name,
            "fecha": local.isoformat(),
            "requiere_medico": "Si" if needs_doctor else "No",
            "contacto": _mobile(draw()),
            "codigo_provincia": province.code,
            "latitud": round(place.latitude + (2 * draw() - 1) * JITTER_DEGREES, 5),
            "longitud": round(place.longitude + (2 * draw() - 1) * JITTER_DEGREES, 5),
        }

    def _degree(self, body: Body, share: float) -> Degree:
        if body.always_urgent:
            return self._urgent[int(share * len(self._urgent))]
        index = bisect_right(self._ceilings, share)
        return self._degrees[min(index, len(self._degrees) - 1)]


def _mobile(share: float) -> str:
    """Return a Spanish mobile number in E.164: nine in ten begin with 6, the rest with 71 to 74."""
    number = int(share * 10**9)
    if number < 9 * 10**8:
        return f"+346{number % 10**8:08}"
    return f"+347{1 + number // 10**7 % 4}{number % 10**7:07}"
