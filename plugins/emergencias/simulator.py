"""Invented alerts: the same seed gives the same alerts, on any machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from emergencias.alert_lines import Columns, LineWriter
from emergencias.draws import Draws, Ints, pick
from emergencias.places import load_gazetteer
from emergencias.rhythm import Period
from emergencias.scenario import Scenario, load_scenario
from emergencias.vocabulary import DATA_FOLDER, load_vocabulary

BLOCK = 65_536
"""Alerts that are drawn together: what is held in memory, and within which incidents stay."""

FIRST_CONTACT, CONTACTS = 730_000_000, 10_000_000
"""Telephone numbers of callers: mobile by the national plan, but given to no operator.

+34 73 is open for mobile services, and libphonenumber 9.0 holds its numbers for valid mobile ones
and names no operator for any of its blocks. Spain reserves no numbers for fiction.
"""


def simulate(
    seed: int,
    alerts: int,
    start: datetime,
    end: datetime,
    *,
    profile: str = "original",
    data_folder: Path = DATA_FOLDER,
) -> Iterator[dict[str, Any]]:
    """Yield the alerts of a simulated period, in the order in which they happen.

    They are as the profile says, and each is coherent: the body fits the type and the place;
    coordinates, province code and clock are those of the place. Several alerts may tell of one
    incident, by several calls or to several bodies; then id_incidente is the same, and bodies that
    one call asks for share moment, contact and position.

    The arguments alone decide every alert, on every machine and with every version of Python and
    numpy (see `draws.Draws`); the time-zone database decides future clocks.

    Args:
        seed: Any whole number.
        alerts: How many the period has, 1 or more.
        start: Begin of the period, with a time zone.
        end: End of the period (exclusive), with a time zone, later by at least a second.
        profile: Name of a file in `profiles/`.
        data_folder: Where the vocabulary, the gazetteer and the profiles are.

    Returns:
        The alerts: the seven original fields, then codigo_provincia, latitud and longitud
        (degrees), precision_m (metres) and, if the alert belongs to an incident that has a name,
        id_incidente. fecha is ISO 8601, whole seconds, with the offset of the place's clock.

    Raises:
        ValueError: An argument is not as above (at the call, not at the first alert).
        DataFileError: The profile, the vocabulary or the gazetteer does not fit.
    """
    blocks = simulate_lines(
        seed, alerts, start, end, None, profile=profile, data_folder=data_folder
    )
    return (orjson.loads(line) for block in blocks for line in block.splitlines())


def simulate_lines(
    seed: int,
    alerts: int,
    start: datetime,
    end: datetime,
    id_ejecucion: str | None,
    *,
    profile: str = "original",
    data_folder: Path = DATA_FOLDER,
) -> Iterator[bytes]:
    """Yield the same alerts in blocks of JSON Lines, each line as T1 holds it.

    Args:
        seed: See `simulate`; likewise alerts, start, end, profile and data_folder.
        alerts: Number of lines over all blocks.
        start: Begin of the period.
        end: End of the period.
        id_ejecucion: Written into each alert; None leaves the field out.
        profile: Name of the profile.
        data_folder: Folder of the data.

    Raises:
        ValueError: See `simulate`.
        DataFileError: See `simulate`.
    """
    if alerts < 1:
        raise ValueError(f"alerts is {alerts}; it must be 1 or more")
    for name, moment in (("start", start), ("end", end)):
        if moment.utcoffset() is None:
            raise ValueError(f"{name} is {moment.isoformat()}; it must have a time zone")
    first, last = math.ceil(start.timestamp()), math.ceil(end.timestamp()) - 1
    if last < first:
        raise ValueError(
            f"no whole second from {start.isoformat()} to before {end.isoformat()}; "
            "end must be later than start by at least a second"
        )
    scenario = load_scenario(profile, data_folder)
    gazetteer = load_gazetteer(data_folder)
    flows = [(flow.zone, flow.rates) for flow in scenario.flows]
    simulator = _Simulator(
        f"emergencias-112 simulator 2 {profile} {seed}",
        scenario,
        Period(first, last, gazetteer.zones, flows),
        alerts,
    )
    writer = LineWriter(load_vocabulary(data_folder), gazetteer, id_ejecucion)
    return (
        lines
        for number in range(-(-alerts // BLOCK))
        for lines in writer.write(simulator.block(number))
    )


@dataclass(frozen=True)
class _Incidents:
    """Incidents of a block as drawn: not in the order of time."""

    second: Ints
    flow: Ints
    kind: Ints
    calls: Ints
    alerts: Ints


class _Simulator:
    def __init__(self, key: str, scenario: Scenario, period: Period, alerts: int) -> None:
        self._key = key
        self._scenario = scenario
        self._period = period
        self._alerts = alerts
        self._source = np.array([flow.source for flow in scenario.flows])

    def block(self, number: int) -> Columns:
        """Return the alerts of a block; they depend on no other block.

        A block takes its share of the period's incidents, and its alerts stay within that
        stretch of time, so that the whole is in order without anybody having to hold it.
        """
        lowest = number * BLOCK
        size = min(BLOCK, self._alerts - lowest)
        draws = Draws(f"{self._key} {number}")
        length = self._period.length
        begin, end = (length * at // self._alerts for at in (lowest, lowest + size))
        incidents = self._incidents(draws, size, begin, end)
        return self._columns(draws, incidents, self._period.second(max(end - 1, begin)))

    def _incidents(self, draws: Draws, size: int, begin: int, end: int) -> _Incidents:
        """Draw as many incidents as make `size` alerts; the last one is cut to fit."""
        expected = int(size / self._scenario.alerts_per_incident * 1.05) + 100
        while True:
            drawn = self._draw_incidents(draws, expected, begin, end)
            total = np.cumsum(drawn.alerts)
            if total[-1] >= size:
                break
            expected *= 2
        count = int(np.searchsorted(total, size)) + 1
        alerts = drawn.alerts[:count].copy()
        alerts[-1] -= total[count - 1] - size
        return _Incidents(
            drawn.second[:count],
            drawn.flow[:count],
            drawn.kind[:count],
            drawn.calls[:count],
            alerts,
        )

    def _draw_incidents(self, draws: Draws, size: int, begin: int, end: int) -> _Incidents:
        scenario, kinds = self._scenario, self._scenario.kinds
        second, flow = self._period.draw(draws, size, begin, end)
        shares = draws.unit("clase", size)
        kind = np.empty(size, np.int64)
        for number, one in enumerate(scenario.flows):
            of_flow = np.flatnonzero(flow == number)
            kind[of_flow] = one.kinds[pick(one.kind_ceilings, shares[of_flow])]
        shares = draws.unit("llamadas", size)
        calls = np.empty(size, np.int64)
        for number, source in enumerate(scenario.sources):
            of_source = np.flatnonzero(self._source[flow] == number)
            calls[of_source] = source.calls[pick(source.call_ceilings, shares[of_source])]
        calls = np.where(kinds.is_incident[kind], calls, 1)
        return _Incidents(second, flow, kind, calls, kinds.size[kind] + calls - 1)

    def _columns(self, draws: Draws, incidents: _Incidents, last: int) -> Columns:
        """Spread the incidents over their alerts and put those in the order of time."""
        kinds = self._scenario.kinds
        of_incident = np.repeat(np.arange(len(incidents.kind)), incidents.alerts)
        kind = incidents.kind[of_incident]
        nth = (
            np.arange(len(of_incident))
            - (np.cumsum(incidents.alerts) - incidents.alerts)[of_incident]
        )
        # The first call asks for every body; each later one asks for the first body again.
        nth_body = np.where(nth < kinds.size[kind], nth, 0)
        nth_call = np.maximum(nth - kinds.size[kind] + 1, 0)
        of_call = (np.cumsum(incidents.calls) - incidents.calls)[of_incident] + nth_call

        second = self._moments(draws, incidents, last)[of_call]
        order = np.argsort(second, kind="stable")
        second, of_incident, of_call = second[order], of_incident[order], of_call[order]
        kind, nth_body = kind[order], nth_body[order]

        body = kinds.bodies[kind, nth_body]
        province, latitude, longitude, precision = self._places(draws, incidents)
        province = province[of_incident]
        contact = FIRST_CONTACT + draws.whole("contacto", int(incidents.calls.sum()), CONTACTS)
        return Columns(
            type=kinds.type[kind],
            body=body,
            degree=self._degrees(draws, incidents)[of_incident],
            province=province,
            second=second,
            offset=self._period.offsets[
                self._scenario.province_zone[province], self._period.cells(second)
            ],
            doctor=self._doctors(draws, incidents, of_incident, nth_body, body),
            contact=contact[of_call],
            latitude=latitude[of_call],
            longitude=longitude[of_call],
            precision=precision[of_call],
            incident=np.where(
                kinds.is_incident[kind] & self._scenario.names_incidents, of_incident, -1
            ),
            names=draws.hex16("incidente", len(incidents.kind)),
        )

    def _moments(self, draws: Draws, incidents: _Incidents, last: int) -> Ints:
        """Return the second of every call: the incident's, or a while later within the block."""
        of_incident = np.repeat(np.arange(len(incidents.kind)), incidents.calls)
        within = np.array([source.repeats_within_s for source in self._scenario.sources])
        longest = within[self._source[incidents.flow]][of_incident]
        size = len(of_incident)
        # The product of two even shares: most repeated calls come soon after the first.
        shares = draws.unit("demora_a", size) * draws.unit("demora_b", size)
        delay = (shares * (longest + 1)).astype(np.int64)
        delay[np.cumsum(incidents.calls) - incidents.calls] = 0
        begin = incidents.second[of_incident]
        moments: Ints = begin + delay % (last + 1 - begin)
        return moments

    def _places(self, draws: Draws, incidents: _Incidents) -> tuple[Ints, Ints, Ints, Ints]:
        """Return each incident's province, and each call's latitude, longitude and precision."""
        scenario = self._scenario
        size = len(incidents.kind)
        terrain = scenario.kinds.terrain[incidents.kind]
        shares = draws.unit("lugar", size)
        place = np.empty(size, np.int64)
        for number, flow in enumerate(scenario.flows):
            for needed, (places, ceilings) in flow.places.items():
                here = np.flatnonzero((incidents.flow == number) & (terrain == needed))
                place[here] = places[pick(ceilings, shares[here])]
        of_incident = np.repeat(np.arange(size), incidents.calls)
        precision = self._precision(draws, self._source[incidents.flow][of_incident])
        # Five parts of a town's reach are for where the incident is, one for what its calls are
        # off by; a metre is 0.9 of 1e-5 degrees of latitude.
        reach = scenario.places.reach[place]
        error = np.minimum(precision * 9 // 10, reach[of_incident] // 6)

        def scatter(name: str, centre: Ints) -> Ints:
            spread = reach * 5 // 6
            where = centre[place] + draws.whole(name, size, 2 * spread + 1) - spread
            moved = draws.whole(f"error_{name}", len(of_incident), 2 * error + 1) - error
            return where[of_incident] + moved

        latitude = scatter("lat", scenario.places.latitude)
        longitude = scatter("lon", scenario.places.longitude)
        return scenario.places.province[place], latitude, longitude, precision

    def _precision(self, draws: Draws, source: Ints) -> Ints:
        shares, within = (draws.unit(f"radio_{part}", len(source)) for part in "ab")
        radius = np.empty(len(source), np.int64)
        for number, one in enumerate(self._scenario.sources):
            here = np.flatnonzero(source == number)
            lowest, highest = one.spans[pick(one.span_ceilings, shares[here])].T
            radius[here] = lowest + (within[here] * (highest - lowest + 1)).astype(np.int64)
        return radius

    def _degrees(self, draws: Draws, incidents: _Incidents) -> Ints:
        ceilings = self._scenario.kinds.degrees[incidents.kind]
        shares = draws.unit("grado", len(ceilings)) * ceilings[:, -1]
        found: Ints = np.count_nonzero(ceilings[:, :-1] <= shares[:, None], axis=1)
        return found

    def _doctors(
        self, draws: Draws, incidents: _Incidents, of_incident: Ints, nth_body: Ints, body: Ints
    ) -> Ints:
        """Say 1 for medical bodies and, where none goes, for the first body of some incidents."""
        kinds = self._scenario.kinds
        asked = draws.unit("medico", len(incidents.kind)) < kinds.doctor[incidents.kind]
        alone = (asked & ~kinds.is_medical[incidents.kind])[of_incident] & (nth_body == 0)
        needed: Ints = (self._scenario.medical_bodies[body] | alone).astype(np.int64)
        return needed
