"""Where an alert is: provinces, municipalities and the address that an ambulance is sent to."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from emergencias.vocabulary import DATA_FOLDER, DataFileError, Row, read_rows

if TYPE_CHECKING:
    from faker import Faker

MAX_QUOTED = 60
"""Longest part of a foreign value that a reason quotes (characters)."""


@dataclass(frozen=True, slots=True)
class Municipality:
    """A municipality: WGS 84 degrees, people, and the GeoNames id it comes from.

    `coastal` says that its centre is at most 5 km from the sea.
    """

    name: str
    latitude: float
    longitude: float
    population: int
    coastal: bool
    other_names: tuple[str, ...]
    geoname_id: int


@dataclass(frozen=True, slots=True)
class Province:
    """A province with its municipalities, the capital first and then by population.

    Attributes:
        code: INE's two digits; a postcode of the province begins with them.
        name: As alerts write it, for example 'La Coruña'.
        zone: The time its clocks show.
        coastal: Whether it has a sea coast.
        forest: Whether it has mountains or forests that foresters look after.
    """

    code: str
    name: str
    community: str
    population: int
    zone: ZoneInfo
    coastal: bool
    forest: bool
    other_names: tuple[str, ...]
    municipalities: tuple[Municipality, ...]
    _ceilings: tuple[int, ...] = field(repr=False)

    @property
    def capital(self) -> Municipality:
        """The municipality that is the province's capital."""
        return self.municipalities[0]

    def pick(self, share: float) -> Municipality:
        """Return the municipality at `share` (0 <= share < 1) of the province's people.

        An even draw of shares so gives municipalities in proportion to their population.
        """
        return self.municipalities[bisect_right(self._ceilings, int(share * self._ceilings[-1]))]

    def nearest(self, latitude: float, longitude: float) -> Municipality:
        """Return the municipality whose centre is nearest to a point (degrees)."""
        shrink = math.cos(math.radians(latitude))
        return min(
            self.municipalities,
            key=lambda place: (
                (place.latitude - latitude) ** 2 + ((place.longitude - longitude) * shrink) ** 2
            ),
        )


def normalise(name: str) -> str:
    """Return a name without accents, case and superfluous blanks, to compare it with others."""
    plain = "".join(
        char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char)
    )
    return re.sub(r"\s+", " ", plain).strip().casefold()


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """The provinces in INE's order, and what a name in an alert may mean."""

    provinces: tuple[Province, ...]
    _provinces_by_name: dict[str, Province] = field(repr=False)
    _municipalities_by_name: dict[str, tuple[tuple[Province, Municipality], ...]] = field(
        repr=False
    )

    @property
    def zones(self) -> tuple[ZoneInfo, ...]:
        """The provinces' clocks, each once."""
        return tuple(dict.fromkeys(province.zone for province in self.provinces))

    def province(self, name: str) -> Province | None:
        """Return the province of that name (any of its names), or None."""
        return self._provinces_by_name.get(normalise(name))

    def municipalities(self, name: str) -> tuple[tuple[Province, Municipality], ...]:
        """Return every municipality of that name (any of its names) with its province."""
        return self._municipalities_by_name.get(normalise(name), ())


@lru_cache(maxsize=8)
def load_gazetteer(folder: Path = DATA_FOLDER) -> Gazetteer:
    """Read `provincias.csv` and `municipios.csv`; once a process and folder.

    Raises:
        DataFileError: A file or line does not fit; the message says what may stand there.
    """
    municipalities = _load_municipalities(folder / "municipios.csv")
    provinces: dict[str, Province] = {}
    by_name: dict[str, Province] = {}
    for row in read_rows(
        folder / "provincias.csv",
        (
            *("codigo_provincia", "provincia", "comunidad", "poblacion"),
            *("zona", "capital", "costa", "monte", "otros_nombres"),
        ),
    ):
        province = _province(row, municipalities)
        if province.code in provinces:
            raise row.error("codigo_provincia", "there only once")
        provinces[province.code] = province
        for name in (province.name, *province.other_names):
            if by_name.setdefault(normalise(name), province) is not province:
                raise row.error("provincia", f"without the name {name!r} of another province")
    if stray := sorted(municipalities.keys() - provinces.keys()):
        raise DataFileError(
            f"{folder / 'municipios.csv'}: codigo_provincia {stray} not in provincias.csv"
        )
    homes: dict[str, list[tuple[Province, Municipality]]] = {}
    for province in provinces.values():
        for municipality in province.municipalities:
            names = {normalise(name) for name in (municipality.name, *municipality.other_names)}
            for name in names:
                homes.setdefault(name, []).append((province, municipality))
    return Gazetteer(
        tuple(provinces.values()),
        by_name,
        {name: tuple(places) for name, places in homes.items()},
    )


def _load_municipalities(path: Path) -> dict[str, list[Municipality]]:
    by_code: dict[str, list[Municipality]] = {}
    for row in read_rows(
        path,
        (
            *("codigo_provincia", "municipio", "latitud", "longitud"),
            *("poblacion", "costa", "otros_nombres", "geonameid"),
        ),
    ):
        by_code.setdefault(row.text("codigo_provincia"), []).append(
            Municipality(
                name=row.text("municipio"),
                latitude=row.number("latitud", -90, 90),
                longitude=row.number("longitud", -180, 180),
                population=row.whole("poblacion"),
                coastal=row.flag("costa"),
                other_names=row.names("otros_nombres"),
                geoname_id=row.whole("geonameid"),
            )
        )
    return by_code


def _province(row: Row, municipalities: dict[str, list[Municipality]]) -> Province:
    code = row.text("codigo_provincia")
    if not re.fullmatch("[0-9]{2}", code):
        raise row.error("codigo_provincia", "two digits")
    capital = row.text("capital")
    places = sorted(
        municipalities.get(code, ()),
        key=lambda place: (place.name != capital, -place.population, place.name),
    )
    if not places or places[0].name != capital:
        raise row.error("capital", f"the name of a municipality of {code} in municipios.csv")
    if row.flag("costa") != any(place.coastal for place in places):
        raise row.error("costa", f"si if a municipality of {code} in municipios.csv has it, or no")
    try:
        zone = ZoneInfo(row.text("zona"))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise row.error("zona", "the name of an IANA time zone") from error
    return Province(
        code=code,
        name=row.text("provincia"),
        community=row.text("comunidad"),
        population=row.whole("poblacion"),
        zone=zone,
        coastal=row.flag("costa"),
        forest=row.flag("monte"),
        other_names=row.names("otros_nombres"),
        municipalities=tuple(places),
        _ceilings=tuple(accumulate(place.population for place in places)),
    )


def parse_degrees(value: object, limit: int) -> float | None:
    """Return a number or its text (decimal point or comma) as degrees; None if it is neither.

    Args:
        value: What an alert says; anything.
        limit: The highest value on either side of 0: 90 for a latitude, 180 for a longitude.
    """
    if isinstance(value, str):
        value = value.replace(",", ".")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        degrees = float(value)
    except (ValueError, OverflowError):
        return None
    return degrees if -limit <= degrees <= limit else None


@dataclass(frozen=True, slots=True)
class Address:
    """An address in full, for example 'Calle Rosa Gil 7, 41001 Sevilla (Sevilla)'.

    Attributes:
        direccion: Street, number, postcode, municipality and province in one line.
        municipio: The municipality.
        codigo_postal: Five digits, the first two of them INE's province code.
        provincia: The province's name as alerts write it.
        fuente: Where the address comes from; 'simulada' when it is invented.
    """

    direccion: str
    municipio: str
    codigo_postal: str
    provincia: str
    fuente: str


@dataclass(frozen=True, slots=True)
class NoAddress:
    """There is no address, and why (a sentence in Spanish: it becomes DIRECCION_MOTIVO)."""

    motivo: str


class AddressBook(Protocol):
    """Whatever can say where to send an ambulance."""

    def find(
        self,
        localizacion: object,
        codigo_provincia: object,
        key: str,
        latitud: object = None,
        longitud: object = None,
    ) -> Address | NoAddress:
        """Return the address of an alert.

        Implementations never raise because of what an alert says and never guess: an alert must
        go out at once, with an address that is right or with the reason why there is none.

        Args:
            localizacion: The alert's place as received: a province or a municipality.
            codigo_provincia: INE's code, as received; only tells namesakes apart.
            key: The alert's id: the same key and place give the same address, on every retry.
            latitud: Degrees as received, a number or its text; None if unknown.
            longitud: Likewise.
        """
        ...


class SimulatedAddressBook:
    """Invents addresses that fit the alert's place: right municipality and postcode area.

    Streets are Faker's, seeded by the alert's id, so a retry finds the same address; pinning Faker
    keeps it across machines. Nothing is read before the first address is asked for.
    """

    SOURCE = "simulada"

    def __init__(self, folder: Path = DATA_FOLDER) -> None:
        self._folder = folder

    @cached_property
    def _gazetteer(self) -> Gazetteer:
        return load_gazetteer(self._folder)

    @cached_property
    def _faker(self) -> Faker:
        from faker import Factory  # heavy to import, and only needed once an address is asked for

        # The generator behind the usual proxy (same methods), and names drawn evenly: several
        # times faster.
        return cast("Faker", Factory.create("es_ES", use_weighting=False))

    def find(
        self,
        localizacion: object,
        codigo_provincia: object,
        key: str,
        latitud: object = None,
        longitud: object = None,
    ) -> Address | NoAddress:
        """Return an invented address in the municipality that the alert names (see AddressBook).

        A province's name gives its municipality nearest to the coordinates or, without usable
        coordinates, one drawn by population.
        """
        if localizacion is None or (isinstance(localizacion, str) and not localizacion.strip()):
            return NoAddress("localizacion sin informar")
        if not isinstance(localizacion, str):
            return NoAddress(f"localizacion no es un texto: {_quote(localizacion)}")
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        seed = int.from_bytes(digest, "big")
        province = self._gazetteer.province(localizacion)
        if province is not None:
            point = _point(latitud, longitud)
            share = (seed >> 75) / 2**53  # the highest 53 of 128 bits: what a float holds
            municipality = province.nearest(*point) if point else province.pick(share)
            return self._address(province, municipality, seed)
        places = self._gazetteer.municipalities(localizacion)
        if len(places) > 1:
            places = tuple(place for place in places if place[0].code == codigo_provincia)
            if len(places) != 1:
                return NoAddress(f"localizacion ambigua: {_quote(localizacion)}")
        if not places:
            return NoAddress(f"localizacion desconocida: {_quote(localizacion)}")
        return self._address(*places[0], seed)

    def _address(self, province: Province, municipality: Municipality, seed: int) -> Address:
        faker = self._faker
        faker.seed_instance(seed)
        street = f"{faker.street_prefix()} de {faker.first_name()} {faker.last_name()}"
        number = faker.random_int(1, 199)
        postcode = _postcode(province, municipality, faker.random_int(0, 10**6))
        return Address(
            direccion=f"{street} {number}, {postcode} {municipality.name} ({province.name})",
            municipio=municipality.name,
            codigo_postal=postcode,
            provincia=province.name,
            fuente=self.SOURCE,
        )


def _postcode(province: Province, municipality: Municipality, draw: int) -> str:
    """Return five digits: the province's two, then those of the capital's districts or a town's."""
    if municipality is province.capital:
        # As in reality: 001 and up are the capital's, about one for every 60,000 people.
        return f"{province.code}{1 + draw % (municipality.population // 60_000 + 1):03}"
    # Not the real one (that table is not open data), but always the same for a town.
    return f"{province.code}{100 + municipality.geoname_id % 900}"


def _point(latitude: object, longitude: object) -> tuple[float, float] | None:
    lat, lon = parse_degrees(latitude, 90), parse_degrees(longitude, 180)
    return None if lat is None or lon is None else (lat, lon)


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."
