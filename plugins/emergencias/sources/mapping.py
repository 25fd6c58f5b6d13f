"""Mappings: YAML files that say how the columns of a file become the fields of an alert."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from upath import UPath

from emergencias import model
from emergencias.sources.names import fold
from emergencias.vocabulary import load_vocabulary
from emergencias.words import load_words

FIELDS = tuple(name for name in model.ALERT_FIELDS if name != "id_ejecucion")
"""What a mapping can fill; id_ejecucion belongs to the run."""

MAPPINGS = "mappings"
"""The ready mappings' folder, below the vocabulary's."""

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
"""A column's name in a template."""


class MappingError(ValueError):
    """A mapping cannot be used; the message names file and field, and what is allowed."""

    retryable = False


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern that finds text without accents and case, as `fold` makes it.

    Raises:
        re.error: It is no regular expression; or an accented sign ends a range like [a-ñ], which
            would be another range without the accent.
    """
    if accented := re.search(r"\[[^\]]*?(\w-[^\x00-\x7f])", pattern):
        raise re.error(f"range {accented[1]}: name the signs one by one, without accents")
    decomposed = unicodedata.normalize("NFKD", pattern)
    plain = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return re.compile(plain, re.IGNORECASE)


_A_MOMENT = datetime(2024, 10, 29, 18, 45, 30, tzinfo=UTC)


def _column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class Rule(BaseModel):
    """Where a field's value comes from, and what becomes of it on the way.

    Exactly one of `column`, `template` and `value` says where from. Then `table` is asked, then
    `patterns`; a value that neither knows passes unchanged.

    Attributes:
        column: A column's name, in any case and with any accents.
        template: Text with names of columns in braces: '{FECHA} {HORA}'.
        value: The same for every row.
        table: Values by what the file has, in any case and with any accents.
        patterns: Values by regular expressions, of which the first that is found in what the file
            has counts. Accents and case make no difference.
        default: What an empty cell means.
        formats: Of `fecha` alone: strptime formats, tried in order before ISO 8601.
        zone: Of `fecha` alone: IANA name of the zone of a local time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = None
    template: str | None = None
    value: str | None = None
    table: dict[str, str] = {}
    patterns: dict[str, str] = {}
    default: str | None = None
    formats: tuple[str, ...] = ()
    zone: str | None = None

    @field_validator("template")
    @classmethod
    def _names_columns(cls, template: str | None) -> str | None:
        if template is None:
            return None
        rest = PLACEHOLDER.sub("", template)
        if not PLACEHOLDER.search(template) or "{" in rest or "}" in rest or "{}" in template:
            raise ValueError("must have names of columns in braces, e.g. '{FECHA} {HORA}'")
        return template

    @field_validator("table")
    @classmethod
    def _different_keys(cls, table: dict[str, str]) -> dict[str, str]:
        seen: dict[str, str] = {}
        for key in table:
            if (other := seen.setdefault(fold(key), key)) != key:
                raise ValueError(f"{other!r} and {key!r} are the same; leave one out")
        return table

    @field_validator("patterns")
    @classmethod
    def _expressions(cls, patterns: dict[str, str]) -> dict[str, str]:
        for pattern in patterns:
            try:
                compiled(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @field_validator("formats")
    @classmethod
    def _dates_with_a_time(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for form in formats:
            try:
                read = datetime.strptime(_A_MOMENT.strftime(form), form)  # noqa: DTZ007
            except (ValueError, re.error) as error:
                raise ValueError(f"{form!r} is no strptime format: {error}") from error
            if read.hour != _A_MOMENT.hour:
                raise ValueError(f"{form!r} has no hour: an alert is of a moment, not of a day")
        return formats

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(
                    f"{zone!r} is no IANA time zone, e.g. Europe/Madrid or Atlantic/Canary"
                ) from error
        return zone

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("column", "template", "value") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "needs exactly one of column, template, value; it has "
                + (" and ".join(given) or "none")
            )
        return self

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns that it reads."""
        if self.template is not None:
            return tuple(PLACEHOLDER.findall(self.template))
        return () if self.column is None else (self.column,)

    @property
    def is_plain(self) -> bool:
        """Whether it gives what a column has as it is (dates apart)."""
        return bool(self.column) and not (self.table or self.patterns or self.default)

    @property
    def results(self) -> Iterator[tuple[str, str]]:
        """Each value that the rule itself gives, with where it stands in the rule."""
        if self.value is not None:
            yield "value", self.value
        if self.default is not None:
            yield "default", self.default
        for place in ("table", "patterns"):
            for key, value in getattr(self, place).items():
                yield f"{place}.{key}", value


class Mapping(BaseModel):
    """How the columns of a file become the fields of an alert.

    Attributes:
        description: What files it is for.
        fields: A rule, or just a column's name, for each field that the files can fill. The others
            are left out of the alert.
        columns: The names of the columns, in order, of CSV files without a header.
        delimiter: What separates a CSV's cells; found out if left out.
        encoding: The text's encoding; found out if left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    fields: dict[str, Annotated[Rule, BeforeValidator(_column)]] = Field(min_length=1)
    columns: tuple[str, ...] = ()
    delimiter: str | None = Field(default=None, pattern=r'^[^\r\n"]$')
    encoding: str | None = None

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: dict[str, Rule]) -> dict[str, Rule]:
        for name, rule in fields.items():
            if name not in FIELDS:
                raise ValueError(f"{name!r} is no field of an alert; allowed: {', '.join(FIELDS)}")
            if name != "fecha" and (rule.formats or rule.zone):
                raise ValueError(f"formats and zone belong to fecha; {name} has no use for them")
        return fields

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            except LookupError as error:
                raise ValueError(
                    f"{encoding!r} is no encoding, e.g. utf-8, cp1252, utf-16"
                ) from error
        return encoding

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        names = [fold(name) for name in self.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"columns: {twice[0]!r} is there twice")
        for field, rule in self.fields.items():
            for column in rule.columns_read:
                if self.columns and fold(column) not in names:
                    raise ValueError(
                        f"fields.{field}: {column!r} is not among the columns "
                        f"{', '.join(self.columns)}"
                    )
        return self


def identity() -> Mapping:
    """Return the mapping of a file that has the alert's own names."""
    return Mapping(fields={name: Rule(column=name) for name in FIELDS})


def is_path(name: str) -> bool:
    """Say whether a mapping is given by its file's path, and not by a ready one's name."""
    return "/" in name or name.lower().endswith((".yaml", ".yml"))


def load_mapping(name: str, data_dir: Path) -> tuple[Mapping, str]:
    """Return a mapping and the SHA-256 of its file, in hex.

    Args:
        name: The name of a ready mapping, or the path of a YAML file (any URI of fsspec).
        data_dir: The folder of the vocabulary, with the ready mappings in `mappings`.

    Raises:
        MappingError: There is no such mapping, or it is not a valid one.
        emergencias.vocabulary.DataFileError: The vocabulary does not fit.
    """
    folder = data_dir / MAPPINGS
    where = name if is_path(name) else str(folder / f"{name}.yaml")
    try:
        path = UPath(where)
        content = path.read_bytes()
    except (OSError, ValueError, ImportError) as error:
        ready = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise MappingError(
            f"There is no mapping {name!r}: {where} cannot be read ({type(error).__name__}). Give "
            f"one of the ready ones ({ready}) or the path of a YAML file."
        ) from error
    mapping = _parse(str(path), content)
    _check_words(str(path), mapping, data_dir)
    return mapping, hashlib.sha256(content).hexdigest()


def _parse(path: str, content: bytes) -> Mapping:
    try:
        # BaseLoader leaves every scalar a text: 'No' and 'Si' are words here, no booleans.
        root = yaml.compose(content, Loader=yaml.BaseLoader)
        _refuse_twice(path, root)
        plain = yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506 (it makes texts only)
        return Mapping.model_validate(plain)
    except RecursionError as error:
        raise MappingError(f"Mapping {path} is nested too deeply to be one.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MappingError(f"Mapping {path} is not YAML: {error}") from error
    except ValidationError as error:
        raise MappingError(
            f"Mapping {path} is not valid. {'; '.join(_problems(error))}."
        ) from error


def _problems(error: ValidationError) -> Iterator[str]:
    for issue in error.errors(include_url=False):
        # Pydantic counts its own validators among the places.
        where = ".".join(str(part) for part in issue["loc"] if not str(part).startswith("function"))
        what = issue["msg"].removeprefix("Value error, ")
        if issue["type"] == "extra_forbidden":
            owner = Mapping if len(issue["loc"]) == 1 else Rule
            what = f"unknown; allowed: {', '.join(owner.model_fields)}"
        yield f"{where}: {what}" if where else what


def _refuse_twice(path: str, node: yaml.Node | None, above: tuple[yaml.Node, ...] = ()) -> None:
    """Refuse what YAML lets pass and no mapping means: equal keys, keys of parts, loops."""

    def refuse(at: yaml.Node, what: str) -> MappingError:
        line = at.start_mark.line + 1
        return MappingError(f"Mapping {path} is not valid. Line {line}: {what}")

    if node is None or isinstance(node, yaml.ScalarNode):
        return
    if any(node is other for other in above):
        raise refuse(node, "an alias (*) of what it stands in; write it out.")
    above = (*above, node)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refuse(key, "a key that begins with [ or {; put it into quotes.")
            if key.value in seen:
                raise refuse(key, f"{key.value!r} is there a second time; remove one of the two.")
            seen.add(key.value)
            _refuse_twice(path, value, above)
    else:
        for item in node.value:
            _refuse_twice(path, item, above)


def _check_words(path: str, mapping: Mapping, data_dir: Path) -> None:
    """Refuse results that are no words of the contract, and a default that plays an alert down."""
    words = load_words(data_dir)
    urgent = {degree.name for degree in load_vocabulary(data_dir).degrees if degree.urgent}
    for field, rule in mapping.fields.items():
        allowed: Collection[str] = sorted(set(words.get(field, {}).values()))
        for place, value in rule.results:
            if allowed and value not in allowed:
                raise MappingError(
                    f"Mapping {path} is not valid. fields.{field}.{place}: {value!r} is no "
                    f"{field}; allowed: {', '.join(allowed)}."
                )
        if field == "grado":
            _refuse_everything(path, rule, urgent)
        if field == "grado" and rule.default is not None and rule.default not in urgent:
            raise MappingError(
                f"Mapping {path} is not valid. fields.grado.default: {rule.default!r} would guess "
                "that an alert without a degree can wait; leave the default out, so that a person "
                f"looks at it, or give one of: {', '.join(sorted(urgent))}."
            )


_UNKNOWN_TO_ALL = ("", "?", "xyzzy")
"""Degrees that no scale has: a pattern that fits one of them takes what nobody knows."""


def _refuse_everything(path: str, rule: Rule, urgent: Collection[str]) -> None:
    """Refuse a key that an empty or unknown degree fits too, if what it gives can wait."""
    fits_all = {f"table.{key}": value for key, value in rule.table.items() if not fold(key)}
    fits_all |= {
        f"patterns.{key}": value
        for key, value in rule.patterns.items()
        if any(compiled(key).search(text) for text in _UNKNOWN_TO_ALL)
    }
    for place, value in fits_all.items():
        if value not in urgent:
            raise MappingError(
                f"Mapping {path} is not valid. fields.grado.{place}: it fits an empty or any "
                f"text, so an alert whose degree nobody knows would be {value!r} and wait; give a "
                "key that fits only what it means."
            )
