"""When incidents happen: the rates of a profile on local clocks, laid over a period."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import fsum
from zoneinfo import ZoneInfo

import numpy as np

from emergencias.draws import Draws, Ints
from emergencias.profiles import HourCurve, Months

CELL_S = 900
"""Seconds in which no rate changes: all clocks differ from UTC by quarters of an hour."""

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SCALE = 1_000_000
"""Steps of a mean rate: rates are whole numbers, so that adding them up is exact."""


def rates(share: float, hours: HourCurve | None, months: Months | None) -> Ints:
    """Return whole-number rates by month (0 to 11), weekday (0 is Monday) and hour.

    Over a week and a year they come to `share` in the mean, so that flows with shares of one
    whole can be laid side by side.
    """
    week = hours.week if hours else ((1.0,) * 24,) * 7
    mean_hour = fsum(weight for day in week for weight in day) / (7 * 24)
    counts = months.llamadas if months else _MONTH_DAYS
    mean_day = fsum(counts) / sum(_MONTH_DAYS)
    return np.array(
        [
            [
                [
                    max(
                        1,
                        round(share * (weight / mean_hour) * (count / days / mean_day) * _SCALE),
                    )
                    for weight in day
                ]
                for day in week
            ]
            for count, days in zip(counts, _MONTH_DAYS, strict=True)
        ],
        np.int64,
    )


class Period:
    """A period of whole seconds and how many incidents of each flow fall where in it.

    All incidents are laid end to end on a line in the order of time; a stretch of that line is a
    stretch of the period that holds as large a share of the incidents.
    """

    def __init__(
        self, first: int, last: int, zones: Sequence[ZoneInfo], flows: Sequence[tuple[int, Ints]]
    ) -> None:
        """Lay the rates of the flows over the period.

        Args:
            first: Its first second since 1970.
            last: Its last, not before the first.
            zones: The clocks.
            flows: For each flow the number of its clock and its rates by month, weekday and hour.
        """
        inner = np.arange(first // CELL_S + 1, last // CELL_S + 1, dtype=np.int64) * CELL_S
        self._starts = np.concatenate((np.array([first], np.int64), inner))
        lengths = np.diff(self._starts, append=last + 1)
        self.offsets = np.array([_offsets(zone, self._starts) for zone in zones], np.int64)
        by_flow = np.empty((len(flows), len(self._starts)), np.int64)
        for number, (zone, table) in enumerate(flows):
            local = self._starts + self.offsets[zone]
            days = local // 86_400
            month = local.astype("M8[s]").astype("M8[M]").astype(np.int64) % 12
            by_flow[number] = table[month, (days + 3) % 7, local % 86_400 // 3600]
        self._by_flow = np.cumsum(by_flow, axis=0)
        self._rates = self._by_flow[-1]
        self._ends = np.cumsum(self._rates * lengths)

    @property
    def length(self) -> int:
        """Length of the line."""
        return int(self._ends[-1])

    def second(self, position: int) -> int:
        """Return the second at a position of the line (0 to before its length)."""
        return int(self._seconds(np.array([position], np.int64))[0][0])

    def draw(self, draws: Draws, size: int, begin: int, end: int) -> tuple[Ints, Ints]:
        """Draw incidents on a stretch of the line.

        Returns:
            Seconds since 1970 and numbers of flows.
        """
        positions = begin + draws.whole("momento", size, max(end - begin, 1))
        seconds, cells = self._seconds(np.minimum(positions, self.length - 1))
        heights = draws.whole("flujo", size, self._rates[cells])
        flows = np.zeros(size, np.int64)
        for ceiling in self._by_flow[:-1]:
            flows += heights >= ceiling[cells]
        return seconds, flows

    def cells(self, seconds: Ints) -> Ints:
        """Return in which cell (second index of `offsets`) each second is."""
        return np.searchsorted(self._starts, seconds, side="right") - 1

    def _seconds(self, positions: Ints) -> tuple[Ints, Ints]:
        cells = np.searchsorted(self._ends, positions, side="right")
        begun = positions - np.where(cells > 0, self._ends[cells - 1], 0)
        return self._starts[cells] + begun // self._rates[cells], cells


def _offsets(zone: ZoneInfo, seconds: Ints) -> list[int]:
    return [
        int(
            (
                datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset() or _NONE
            ).total_seconds()
        )
        for second in seconds.tolist()
    ]


_NONE = timedelta()
