"""A profile made ready to draw from: flows of incidents, kinds of incident, places, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import fsum, sqrt
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from emergencias.draws import Floats, Ints
from emergencias.places import Gazetteer, Municipality, Province, load_gazetteer
from emergencias.profiles import Places, Profile, load_profile
from emergencias.rhythm import rates
from emergencias.vocabulary import DATA_FOLDER, DataFileError, Vocabulary, load_vocabulary

Bools: TypeAlias = npt.NDArray[np.bool_]

MAX_REACH = 3_000
"""Longest reach of a municipality (1e-5 degrees): 3.3 km north or south."""


@dataclass(frozen=True)
class Terrain:
    """What a team needs where it works."""

    sea: bool
    forest: bool

    def fits(self, province: Province, place: Municipality) -> bool:
        """Say whether a municipality has it."""
        return (place.coastal or not self.sea) and (province.forest or not self.forest)


@dataclass(frozen=True)
class Kind:
    """A type of incident with the team that is sent, or a call that opens no incident.

    Attributes:
        weight: Its share of what its source contributes.
        type: Number in the vocabulary; so are the bodies.
        degrees: Shares of the vocabulary's degrees.
        doctor: Share of its incidents that need a doctor without a medical body.
    """

    weight: float
    type: int
    bodies: tuple[int, ...]
    degrees: tuple[float, ...]
    doctor: float
    is_incident: bool
    is_medical: bool
    terrain: Terrain


@dataclass(frozen=True)
class Source:
    """How the calls of one profile come, and how well they are located."""

    calls: Ints
    call_ceilings: Floats
    repeats_within_s: int
    spans: Ints
    span_ceilings: Floats


@dataclass(frozen=True)
class Flow:
    """Incidents of one source under one clock.

    Attributes:
        rates: By month, weekday and hour; see `rhythm.rates`.
        kinds: Numbers of the kinds it may bring, and the running sums of their weights.
        places: For each terrain (by number) the municipalities (by number), and the same.
    """

    source: int
    zone: int
    rates: Ints
    kinds: Ints
    kind_ceilings: Floats
    places: dict[int, tuple[Ints, Floats]]


@dataclass(frozen=True)
class KindTable:
    """The kinds, a row each; `bodies` is padded with -1, `degrees` are running sums."""

    type: Ints
    bodies: Ints
    size: Ints
    degrees: Floats
    doctor: Floats
    is_incident: Bools
    is_medical: Bools
    terrain: Ints


@dataclass(frozen=True)
class PlaceTable:
    """The municipalities: number of the province, latitude and longitude in 1e-5 degrees.

    `reach` (same unit) is how far north or east of its centre a position may be: so near that no
    other centre of the province is nearer, and the address that is looked up is in that town.
    """

    province: Ints
    latitude: Ints
    longitude: Ints
    reach: Ints


@dataclass(frozen=True)
class Scenario:
    """Everything that a profile's alerts are drawn from."""

    names_incidents: bool
    sources: tuple[Source, ...]
    flows: tuple[Flow, ...]
    kinds: KindTable
    places: PlaceTable
    province_zone: Ints
    medical_bodies: Bools
    alerts_per_incident: float


@lru_cache(maxsize=8)
def load_scenario(name: str, folder: Path = DATA_FOLDER) -> Scenario:
    """Return the tables of a profile; once a process and folder.

    Raises:
        DataFileError: The profile, the vocabulary or the gazetteer does not fit.
    """
    profile = load_profile(name, folder)
    vocabulary, gazetteer = load_vocabulary(folder), load_gazetteer(folder)
    parts = _parts(profile, folder)
    incidents = [part.calls * _incidents_per_call(part.profile) for part in parts]
    kinds: list[Kind] = []
    flows: list[Flow] = []
    terrains: list[Terrain] = []
    for number, part in enumerate(parts):
        own = _kinds(part.profile, vocabulary)
        terrains += [kind.terrain for kind in own if kind.terrain not in terrains]
        share = incidents[number] / fsum(incidents)
        flows += _flows(number, part, share, own, len(kinds), terrains, gazetteer)
        kinds += own
    return Scenario(
        names_incidents=profile.id_incidente,
        sources=tuple(_source(part.profile) for part in parts),
        flows=tuple(flows),
        kinds=_kind_table(kinds, terrains),
        places=_place_table(gazetteer),
        province_zone=np.array(
            [gazetteer.zones.index(province.zone) for province in gazetteer.provinces]
        ),
        medical_bodies=np.array([body.always_medical for body in vocabulary.bodies]),
        alerts_per_incident=fsum(
            count * _alerts_per_incident(part.profile)
            for count, part in zip(incidents, parts, strict=True)
        )
        / fsum(incidents),
    )


@dataclass(frozen=True)
class _Part:
    """A profile's part in the whole: its share of all calls, and where they come from."""

    profile: Profile
    calls: float
    places: Places


def _parts(profile: Profile, folder: Path) -> list[_Part]:
    if profile.fondo is None:
        return [_Part(profile, 1.0, profile.lugar)]
    behind = load_profile(profile.fondo.perfil, folder)
    places = behind.lugar
    if profile.fondo.provincias is not None:
        places = places.model_copy(update={"provincias": profile.fondo.provincias})
    return [
        _Part(behind, profile.fondo.proporcion, places),
        _Part(profile, 1 - profile.fondo.proporcion, profile.lugar),
    ]


def _incidents_per_call(profile: Profile) -> float:
    """Return what is drawn as one (an incident, or a call that opens none) for each call."""
    idle = profile.idle_share
    return idle + (1 - idle) / profile.llamadas_por_incidente.mean


def _alerts_per_incident(profile: Profile) -> float:
    more = profile.cuerpos_por_incidente.media + profile.llamadas_por_incidente.mean - 1
    idle = profile.idle_share / _incidents_per_call(profile)
    return idle + (1 - idle) * more


def _source(profile: Profile) -> Source:
    calls = profile.llamadas_por_incidente
    spans = profile.precision_m.tramos
    return Source(
        calls=np.array(list(calls.reparto)),
        call_ceilings=_ceilings(calls.reparto.values()),
        repeats_within_s=60 * calls.repetidas_en_minutos,
        spans=np.array([(span.desde, span.hasta) for span in spans]),
        span_ceilings=_ceilings(span.proporcion for span in spans),
    )


def _kinds(profile: Profile, vocabulary: Vocabulary) -> list[Kind]:
    bodies = {body.name: n for n, body in enumerate(vocabulary.bodies)}
    types = {kind.name: n for n, kind in enumerate(vocabulary.types)}
    calm = next(degree.name for degree in vocabulary.degrees if not degree.urgent)

    def kind(
        name: str, weight: float, team: Sequence[str], degrees: dict[str, float], doctor: float
    ) -> Kind:
        members = [vocabulary.bodies[bodies[body]] for body in team]
        return Kind(
            weight=weight,
            type=types[name],
            bodies=tuple(bodies[body] for body in team),
            degrees=tuple(degrees.get(degree.name, 0.0) for degree in vocabulary.degrees),
            doctor=doctor,
            is_incident=vocabulary.types[types[name]].is_incident,
            is_medical=any(body.always_medical for body in members),
            terrain=Terrain(
                any(body.coast_only for body in members), any(body.forest_only for body in members)
            ),
        )

    idle = profile.idle_share / _incidents_per_call(profile)
    return [
        kind(
            incident.tipo,
            (1 - idle) * incident.proporcion * team.proporcion,
            team.cuerpos,
            incident.grados if team.grados is None else team.grados,
            incident.medico,
        )
        for incident in profile.tipos
        for team in incident.equipos
    ] + [
        kind(call.tipo, idle * call.proporcion, [call.cuerpo], {calm: 1.0}, 0.0)
        for call in (profile.sin_incidente.tipos if profile.sin_incidente else ())
    ]


def _flows(
    source: int,
    part: _Part,
    share: float,
    kinds: Sequence[Kind],
    first_kind: int,
    terrains: Sequence[Terrain],
    gazetteer: Gazetteer,
) -> list[Flow]:
    """Return the flows of one source, one for each clock.

    A kind keeps its share over all clocks together: what it needs decides under which clock it is.
    """
    places = {
        terrain: _weighted_places(part, terrain, gazetteer)
        for terrain in dict.fromkeys(kind.terrain for kind in kinds)
    }
    flows = []
    for zone in range(len(gazetteer.zones)):
        here = {
            terrain: [(place, weight) for z, place, weight in listed if z == zone]
            for terrain, listed in places.items()
        }
        weights = [kind.weight * fsum(w for _, w in here[kind.terrain]) for kind in kinds]
        if not any(weights):
            continue
        flows.append(
            Flow(
                source=source,
                zone=zone,
                rates=rates(share * fsum(weights), part.profile.horas, part.profile.meses),
                kinds=first_kind + np.arange(len(kinds)),
                kind_ceilings=_ceilings(weights),
                places={
                    terrains.index(terrain): (
                        np.array([place for place, _ in listed]),
                        _ceilings(weight for _, weight in listed),
                    )
                    for terrain, listed in here.items()
                    if listed
                },
            )
        )
    return flows


def _weighted_places(
    part: _Part, terrain: Terrain, gazetteer: Gazetteer
) -> list[tuple[int, int, float]]:
    """Return clock, number and weight of the municipalities of a terrain; the weights make 1.

    Provinces without any are left out; the others keep their ratios.
    """
    wanted = part.places.provincias
    unknown = set(wanted or ()) - {province.code for province in gazetteer.provinces}
    if unknown:
        raise DataFileError(
            f"Profile {part.profile.perfil!r}: provincias {sorted(unknown)} not in provincias.csv"
        )
    found = []
    number = 0
    for province in gazetteer.provinces:
        fitting = []
        for place in province.municipalities:
            if terrain.fits(province, place):
                fitting.append((number, place.population))
            number += 1
        if not fitting or (wanted is not None and province.code not in wanted):
            continue
        weight = 1 if part.places.reparto == "uniforme" else province.population
        people = sum(population for _, population in fitting)
        zone = gazetteer.zones.index(province.zone)
        found += [(zone, place, weight * population / people) for place, population in fitting]
    if not found:
        needs = " and ".join(
            word for word, needed in (("sea", terrain.sea), ("forest", terrain.forest)) if needed
        )
        raise DataFileError(
            f"Profile {part.profile.perfil!r}: a team needs {needs}, which no municipality of its "
            "provinces has (columns costa and monte); change provincias or the team"
        )
    total = fsum(weight for _, _, weight in found)
    return [(zone, place, weight / total) for zone, place, weight in found]


def _kind_table(kinds: Sequence[Kind], terrains: Sequence[Terrain]) -> KindTable:
    most = max(len(kind.bodies) for kind in kinds)
    return KindTable(
        type=np.array([kind.type for kind in kinds]),
        bodies=np.array([kind.bodies + (-1,) * (most - len(kind.bodies)) for kind in kinds]),
        size=np.array([len(kind.bodies) for kind in kinds]),
        degrees=np.array([_ceilings(kind.degrees) for kind in kinds]),
        doctor=np.array([kind.doctor for kind in kinds]),
        is_incident=np.array([kind.is_incident for kind in kinds]),
        is_medical=np.array([kind.is_medical for kind in kinds]),
        terrain=np.array([terrains.index(kind.terrain) for kind in kinds]),
    )


def _place_table(gazetteer: Gazetteer) -> PlaceTable:
    rows = [
        (
            number,
            round(place.latitude * 1e5),
            round(place.longitude * 1e5),
            _reach(place, province.municipalities),
        )
        for number, province in enumerate(gazetteer.provinces)
        for place in province.municipalities
    ]
    return PlaceTable(*np.array(rows).T)


def _reach(place: Municipality, towns: Sequence[Municipality]) -> int:
    # In Spain a degree of longitude is 0.7 to 0.9 of one of latitude. Taking the one for the way
    # to the next centre and the other for that to a corner errs on the safe side of a half of it.
    ways = (
        _hypotenuse(town.latitude - place.latitude, 0.7 * (town.longitude - place.longitude))
        for town in towns
        if town is not place
    )
    return min(MAX_REACH, int(min(ways, default=1.0) * 1e5 / (2 * _hypotenuse(1, 0.9))))


def _hypotenuse(a: float, b: float) -> float:
    # math.hypot and powers may differ in the last bit between maths libraries; this may not.
    return sqrt(a * a + b * b)


def _ceilings(weights: Iterable[float]) -> Floats:
    # One by one: how numpy groups a sum depends on the processor.
    return np.array(list(accumulate(weights)), np.float64)
