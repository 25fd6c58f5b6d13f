"""A run's manifest: what was counted, what was checked, and with what."""

from __future__ import annotations

import io
import platform
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from emergencias.files import replacing
from emergencias.sources import REFUSED_FILE, SourceReport

if TYPE_CHECKING:
    from upath import UPath

MANIFEST_FILE = "manifest.json"
FIRST_IDS = 10
"""How many ids a check names; the rest are found by their T1 coordinates."""

_PACKAGES = (
    "emergencias-112",
    "apache-airflow",
    "confluent-kafka",
    "duckdb",
    "faker",
    "orjson",
    "pyarrow",
    "sqlglot",
)


class ReconciliationError(RuntimeError):
    """A run lost, doubled or misdirected alerts, or its files do not tell all of them."""

    retryable = False


class Check(BaseModel):
    """One thing that must hold for a run.

    Attributes:
        name: What must hold.
        expected: How many records should.
        found: How many do.
        topics: Where to look.
        first_ids: The first alerts that break it, in T1's order: id_aviso, or
            "partition:offset" of T1 for a record without key.
        detail: What is wrong, in words; empty when all is well.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    ok: bool
    expected: int
    found: int
    topics: tuple[str, ...]
    first_ids: tuple[str, ...] = ()
    detail: str = ""


class TopicCount(BaseModel):
    """How many records of the window on one topic are whose, and whether its checks held."""

    model_config = ConfigDict(frozen=True)
    topic: str
    run: int
    otras_ejecuciones: int
    ajenos: int
    tombstones: int
    ok: bool


class OffsetRange(BaseModel):
    """The part of a partition that was read: from inclusive, to exclusive."""

    model_config = ConfigDict(frozen=True)
    topic: str
    partition: int
    start: int
    end: int


class Review(BaseModel):
    """The run's alerts on T4, which a person must look at."""

    model_config = ConfigDict(frozen=True)
    alerts: int
    first_ids: tuple[str, ...]
    motivos: dict[str, int]


class FileEntry(BaseModel):
    """A file of the run as it was read back."""

    model_config = ConfigDict(frozen=True)
    name: str
    rows: int
    size: int
    sha256: str


class Manifest(BaseModel):
    """What `manifest.json` holds.

    A second look at a run that is done tells the same of the run's own alerts, checks and files.
    `generated_at` differs, and what was produced by others meanwhile shows too: a window ends at
    the topics' ends of now, so the ends in `offsets` and the counts `otras_ejecuciones`, `ajenos`
    and `tombstones` may have grown. `versions` are those of the software that looked.
    """

    model_config = ConfigDict(frozen=True)
    version: int = 1
    generated_at: datetime
    ok: bool
    id_ejecucion: str
    instance: str
    dag_id: str
    run_id: str
    plan_sha256: str
    alerts: int
    input: SourceReport | None = None
    topics: tuple[TopicCount, ...]
    review: Review
    checks: tuple[Check, ...]
    files: tuple[FileEntry, ...]
    offsets: tuple[OffsetRange, ...]
    versions: dict[str, str]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.ok)

    def summary(self) -> dict[str, Any]:
        """Return the numbers alone, as plain JSON values for an XCom."""
        return {
            "id_ejecucion": self.id_ejecucion,
            "ok": self.ok,
            "alerts": self.alerts,
            "refused": 0 if self.input is None else self.input.refused,
            "topics": {count.topic: count.run for count in self.topics},
            "ajenos": {count.topic: count.ajenos for count in self.topics if count.ajenos},
            "review": self.review.alerts,
            "checks": len(self.checks),
            "failed": [check.name for check in self.failed],
        }

    def raise_if_failed(self) -> None:
        """Fail the run if anything does not hold.

        Raises:
            ReconciliationError: Names each broken check, its topics, counts and first ids.
        """
        if not self.failed:
            return
        lines = [f"Run {self.id_ejecucion}: {len(self.failed)} check(s) do not hold."]
        lines += [f"- {describe(check)}" for check in self.failed]
        lines.append(
            "The topics still hold the records: find the ids there, mend the cause, then clear the "
            "run's tasks from the first broken topic on. Nothing that is right is sent again."
        )
        raise ReconciliationError("\n".join(lines))


def describe(check: Check) -> str:
    """Return a broken check as one line."""
    where = ", ".join(check.topics)
    text = f"{check.name} [{where}]: expected {check.expected}, found {check.found}"
    if check.detail:
        text += f" ({check.detail})"
    if check.first_ids:
        text += f"; first: {', '.join(check.first_ids)}"
    return text


def software_versions() -> dict[str, str]:
    """Return the versions of what takes part in a run's result."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        versions[name] = metadata.version(name)
    return versions


def write_manifest(manifest: Manifest, folder: UPath) -> UPath:
    """Write manifest.json into the run's folder, whole or not at all, and return its path."""
    path = folder / MANIFEST_FILE
    with replacing(path) as sink:
        sink.write((manifest.model_dump_json(indent=2) + "\n").encode())
    return path


def read_manifest(folder: UPath) -> Manifest:
    """Return the manifest in a run's folder.

    Raises:
        FileNotFoundError: The run was not reconciled yet.
    """
    return Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())


def render_table(manifest: Manifest) -> str:
    """Return the run's result as text: topic, alerts, check; then what needs attention."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=f"Run {manifest.id_ejecucion}", title_justify="left")
    table.add_column("topic")
    table.add_column("alerts", justify="right")
    table.add_column("other runs", justify="right")
    table.add_column("ajenos", justify="right")
    table.add_column("check")
    for count in manifest.topics:
        table.add_row(
            count.topic,
            f"{count.run:,}",
            f"{count.otras_ejecuciones:,}",
            f"{count.ajenos:,}",
            "ok" if count.ok else "FAILED",
        )
    text = io.StringIO()
    console = Console(file=text, width=100, color_system=None, highlight=False, markup=False)
    console.print(table)
    lines = [text.getvalue().rstrip()]
    held = len(manifest.checks) - len(manifest.failed)
    lines.append(f"{held} of {len(manifest.checks)} checks hold.")
    lines += [f"FAILED: {describe(check)}" for check in manifest.failed]
    if manifest.review.alerts:
        reasons = ", ".join(f"{motivo}: {n}" for motivo, n in manifest.review.motivos.items())
        lines.append(
            f"{manifest.review.alerts} alert(s) need a person ({reasons}); "
            f"first: {', '.join(manifest.review.first_ids)}"
        )
    if manifest.input is not None and manifest.input.refused:
        lines.append(
            f"{manifest.input.refused} of {manifest.input.rows} rows of {manifest.input.path} were "
            f"refused: see {REFUSED_FILE}."
        )
    tombstones = sum(count.tombstones for count in manifest.topics)
    if tombstones:
        lines.append(f"{tombstones} record(s) without a value were passed over.")
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())
