"""Profiles: how often what happens, where and when, as `include/data/profiles/*.yaml` say."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from emergencias.vocabulary import DATA_FOLDER, DataFileError, Vocabulary, load_vocabulary

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Source = Annotated[str, StringConstraints(min_length=3)]
Hours = Annotated[tuple[Weight, ...], Field(min_length=24, max_length=24)]

_TOLERANCE = 1e-6
_MEAN_TOLERANCE = 0.02
"""How far a mean may be from the published one that it stands for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Places(_Part):
    """Which provinces the incidents are in; within one, municipalities follow their population."""

    reparto: Literal["poblacion", "uniforme"] = "poblacion"
    provincias: tuple[str, ...] | None = Field(default=None, min_length=1)
    fuente: Source


class HourCurve(_Part):
    """Weights of the hours of a day on the place's own clock; only their ratios count."""

    laborable: Hours
    viernes: Hours
    sabado: Hours
    domingo: Hours
    fuente: Source

    @property
    def week(self) -> tuple[Hours, ...]:
        """The seven days from Monday on."""
        return (*(self.laborable,) * 4, self.viernes, self.sabado, self.domingo)


class Months(_Part):
    """Calls counted in each month of a year of 365 days, January first."""

    llamadas: Annotated[tuple[Weight, ...], Field(min_length=12, max_length=12)]
    fuente: Source


class Calls(_Part):
    """How many calls tell of one incident, and within how many minutes of the first."""

    reparto: dict[Annotated[int, Field(ge=1, le=50)], Share] = Field(min_length=1)
    media: Annotated[float, Field(ge=1)]
    repetidas_en_minutos: Annotated[int, Field(ge=0, le=24 * 60)] = 0
    fuente: Source

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        _check_sum("reparto", self.reparto.values())
        _check_mean("media", self.media, self.mean)
        return self

    @property
    def mean(self) -> float:
        """Calls per incident."""
        return math.fsum(calls * share for calls, share in self.reparto.items())


class Bodies(_Part):
    """How many bodies an incident gets in the mean: what the teams of the types have to give."""

    media: Annotated[float, Field(ge=1)]
    fuente: Source


class Span(_Part):
    """A share of the calls, whose accuracy radius is drawn evenly between two limits (metres)."""

    proporcion: Share
    desde: Annotated[int, Field(ge=1)]
    hasta: Annotated[int, Field(ge=1, le=100_000)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hasta < self.desde:
            raise ValueError(f"hasta is {self.hasta}, below desde ({self.desde})")
        return self


class Precision(_Part):
    """The accuracy radius that comes with a call's position."""

    tramos: tuple[Span, ...] = Field(min_length=1)
    fuente: Source

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        _check_sum("tramos", (span.proporcion for span in self.tramos))
        return self


class Team(_Part):
    """Bodies that are sent together; the first leads, and repeated calls ask for it.

    `grados` replaces those of the type.
    """

    cuerpos: tuple[str, ...] = Field(min_length=1)
    proporcion: Share
    grados: dict[str, Share] | None = None


class IncidentType(_Part):
    """A type of incident: its share, how urgent it is and who is sent.

    `medico` is the share of its incidents that need a doctor though no medical body is in the
    team. A team's bodies decide where it can happen: where there is sea, mountains or forests.
    """

    tipo: str
    proporcion: Share
    fuente: Source
    grados: dict[str, Share]
    fuente_grados: Source
    medico: Share
    equipos: tuple[Team, ...] = Field(min_length=1)
    fuente_equipos: Source

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        _check_sum("equipos", (team.proporcion for team in self.equipos))
        for degrees in (self.grados, *(team.grados for team in self.equipos)):
            if degrees is not None:
                _check_sum("grados", degrees.values())
        return self


class IdleType(_Part):
    """A kind of call that opens no incident, who answers it, and its share of such calls."""

    tipo: str
    cuerpo: str
    proporcion: Share
    fuente: Source


class Idle(_Part):
    """Calls that open no incident, as a share of all calls. They are never urgent."""

    proporcion: Annotated[float, Field(ge=0, lt=1)]
    fuente: Source
    tipos: tuple[IdleType, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        _check_sum("tipos", (kind.proporcion for kind in self.tipos))
        return self


class Background(_Part):
    """The ordinary calls that go on beside what a profile tells: another profile, and its share.

    `proporcion` is of all calls; `provincias` are those whose ordinary calls are there.
    """

    perfil: str
    proporcion: Annotated[float, Field(gt=0, lt=1)]
    provincias: tuple[str, ...] | None = Field(default=None, min_length=1)
    fuente: Source


class Profile(_Part):
    """A profile as its file has it.

    `id_incidente` says whether alerts name their incident. Without `horas` or `meses` all hours
    or months are alike.
    """

    perfil: str
    descripcion: str
    id_incidente: bool
    lugar: Places
    horas: HourCurve | None = None
    meses: Months | None = None
    llamadas_por_incidente: Calls
    cuerpos_por_incidente: Bodies
    precision_m: Precision
    tipos: tuple[IncidentType, ...] = Field(min_length=1)
    sin_incidente: Idle | None = None
    fondo: Background | None = None

    @field_validator("tipos")
    @classmethod
    def _types_add_up(cls, types: tuple[IncidentType, ...]) -> tuple[IncidentType, ...]:
        _check_sum("tipos", (kind.proporcion for kind in types))
        return types

    @model_validator(mode="after")
    def _bodies_per_incident(self) -> Self:
        mean = math.fsum(
            kind.proporcion * team.proporcion * len(team.cuerpos)
            for kind in self.tipos
            for team in kind.equipos
        )
        _check_mean("cuerpos_por_incidente.media", self.cuerpos_por_incidente.media, mean)
        return self

    @model_validator(mode="after")
    def _words_are_known(self, info: ValidationInfo) -> Self:
        vocabulary: Vocabulary = info.context or load_vocabulary()
        degrees = {degree.name: degree for degree in vocabulary.degrees}
        bodies = {body.name: body for body in vocabulary.bodies}
        types = {kind.name: kind for kind in vocabulary.types}
        for kind in self.tipos:
            at = f"tipos ({kind.tipo})"
            _known(at, kind.tipo, [name for name in types if types[name].is_incident], "tipos.csv")
            for team in kind.equipos:
                for body in team.cuerpos:
                    _known(f"{at}.equipos.cuerpos", body, bodies, "cuerpos.csv")
                shares = kind.grados if team.grados is None else team.grados
                for degree, share in shares.items():
                    _known(f"{at}.grados", degree, degrees, "grados.csv")
                    always = [body for body in team.cuerpos if bodies[body].always_urgent]
                    if always and share and not degrees[degree].urgent:
                        raise ValueError(
                            f"{at}.grados: {degree!r} has a share of {share:g}, but {always[0]!r} "
                            "is always urgent (cuerpos.csv); give that team grados of its own"
                        )
        for idle in self.sin_incidente.tipos if self.sin_incidente else ():
            at = f"sin_incidente.tipos ({idle.tipo})"
            _known(at, idle.tipo, [n for n in types if not types[n].is_incident], "tipos.csv")
            calm = [name for name, body in bodies.items() if not body.always_urgent]
            _known(f"{at}.cuerpo", idle.cuerpo, calm, "cuerpos.csv")
        return self

    @property
    def idle_share(self) -> float:
        """Share of the calls that open no incident."""
        return self.sin_incidente.proporcion if self.sin_incidente else 0.0


@lru_cache(maxsize=16)
def load_profile(name: str, folder: Path = DATA_FOLDER) -> Profile:
    """Read `profiles/<name>.yaml`; once a process and folder.

    Raises:
        DataFileError: There is no such profile, or its file does not fit; the message names file
            and field.
    """
    path = folder / "profiles" / f"{name}.yaml"
    known = profile_names(folder)
    if name not in known:
        raise DataFileError(
            f"There is no profile {name!r} in {path.parent}; there are: {', '.join(known) or '-'}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataFileError(f"{path} cannot be read: {error}") from error
    try:
        profile = Profile.model_validate(content, context=load_vocabulary(folder))
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(part for part in (_place(content, issue["loc"]), issue["msg"]) if part)
            for issue in error.errors(include_url=False)
        )
        raise DataFileError(f"{path}: {problems}") from error
    if profile.perfil != name:
        raise DataFileError(f"{path}: perfil is {profile.perfil!r}; it must be {name!r}")
    if profile.fondo:
        behind = profile.fondo.perfil
        if behind == name or behind not in known or load_profile(behind, folder).fondo:
            raise DataFileError(
                f"{path}: fondo.perfil is {behind!r}; it must be another profile that has a file "
                "and no fondo itself"
            )
    return profile


def profile_names(folder: Path = DATA_FOLDER) -> tuple[str, ...]:
    """Return the names of the profiles that have a file, sorted."""
    return tuple(sorted(path.stem for path in (folder / "profiles").glob("*.yaml")))


def _place(content: Any, location: tuple[int | str, ...]) -> str:
    """Return a field's path, list items by what they are rather than by their number."""
    parts: list[str] = []
    for step in location:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            content = None
        named = content.get("tipo") if isinstance(step, int) and isinstance(content, dict) else None
        parts.append(f"[{named}]" if named else str(step))
    return ".".join(parts)


def _known(where: str, word: str, known: Any, file: str) -> None:
    if word not in known:
        raise ValueError(f"{where}: {word!r} must be one of {sorted(known)} ({file})")


def _check_sum(name: str, shares: Any) -> None:
    total = math.fsum(shares)
    if abs(total - 1) > _TOLERANCE:
        raise ValueError(f"{name}: the shares add up to {total:.6g}; it must be 1")


def _check_mean(name: str, said: float, found: float) -> None:
    if abs(said - found) > _MEAN_TOLERANCE:
        raise ValueError(f"{name} is {said:g}, but the shares given make {found:.3f}")
