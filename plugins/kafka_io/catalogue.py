"""The topic catalogue: a YAML file that says which topics there are and what they are like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kafka_io.errors import KafkaIoError
from kafka_io.topics import TopicSpec

_MS_PER_DAY = 24 * 60 * 60 * 1000


class CatalogueError(KafkaIoError):
    """Report a catalogue that cannot be used, naming file, line, field and what is allowed."""

    retryable = False


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    partitions: int = Field(ge=1)
    retention_days: float = Field(gt=0)
    cleanup_policy: str = Field(pattern=r"^(delete|compact|compact,delete|delete,compact)$")
    replication_factor: int = Field(ge=-1)
    config: dict[str, str] = {}
    description: str = ""


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    defaults: dict[str, Any] = {}
    topics: dict[str, dict[str, Any] | None] = Field(min_length=1)


def load_catalogue(path: Path) -> tuple[TopicSpec, ...]:
    """Return the topics of a catalogue file, in its order.

    The file has `defaults` and `topics`; a topic takes from the defaults what it does not say
    itself. Fields: partitions, retention_days, cleanup_policy, replication_factor (-1: the
    broker's default), config (further settings by Kafka's names), description.

    Raises:
        CatalogueError: The file is missing, not YAML or has a wrong field; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise CatalogueError(f"Topic catalogue {path} cannot be read: {exc}") from exc
    twice = next(_keys_that_are_there_twice(root), None)
    if twice is not None:
        raise CatalogueError(
            f"Topic catalogue {path} is not valid: line {twice.start_mark.line + 1}, "
            f"{twice.value!r} is there a second time; remove one of the two."
        )
    try:
        catalogue = _Catalogue.model_validate(content)
    except ValidationError as exc:
        raise _error(path, root, (), exc) from exc
    return tuple(
        _spec(path, root, name, {**catalogue.defaults, **(own or {})})
        for name, own in catalogue.topics.items()
    )


def _spec(path: Path, root: yaml.Node | None, name: str, fields: dict[str, Any]) -> TopicSpec:
    try:
        settings = _Settings.model_validate(fields)
    except ValidationError as exc:
        raise _error(path, root, ("topics", name), exc) from exc
    return TopicSpec(
        name=name,
        partitions=settings.partitions,
        retention_ms=round(settings.retention_days * _MS_PER_DAY),
        cleanup_policy=settings.cleanup_policy,
        replication_factor=settings.replication_factor,
        config=settings.config,
        description=settings.description,
    )


def _keys_that_are_there_twice(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield repeated keys: YAML would silently take the last of them."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key
            seen.add(key.value)
            yield from _keys_that_are_there_twice(value)


def _error(
    path: Path, root: yaml.Node | None, where: tuple[str, ...], exc: ValidationError
) -> CatalogueError:
    problems = []
    for error in exc.errors(include_url=False):
        location = where + tuple(str(part) for part in error["loc"])
        line = _line(root, location) or _line(root, ("defaults", *location[2:])) or 1
        problems.append(
            f"line {line}, {'.'.join(location) or 'the whole file'}: {error['msg']} "
            f"(found {error['input']!r})"
        )
    return CatalogueError(f"Topic catalogue {path} is not valid: " + "; ".join(problems))


def _line(node: yaml.Node | None, location: tuple[str, ...]) -> int | None:
    """Return the line of a field, or None if the file does not have it."""
    line = node.start_mark.line + 1 if node else None
    for name in location:
        if not isinstance(node, yaml.MappingNode):
            return None
        for key, value in node.value:
            if key.value == name:
                line, node = key.start_mark.line + 1, value
                break
        else:
            return None
    return line
