"""Every setting of the pipeline, read in one place.

Each can be given as an environment variable with the prefix `EMERGENCIAS_`, for example
`EMERGENCIAS_EXPORT_ROOT=s3://bucket/112`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """The pipeline's settings; an unknown value raises `pydantic.ValidationError` naming it."""

    model_config = SettingsConfigDict(env_prefix="EMERGENCIAS_", frozen=True)

    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")] = Field(
        default="local",
        description="Names this installation inside id_ejecucion, so that two may share a topic.",
    )
    schedule: str | None = Field(
        default="@daily", description="Schedule of the DAG: a preset, a cron line, or 'none'."
    )
    include_dir: Path = Field(
        default=PROJECT_ROOT / "include", description="Routing SQL, topic catalogue, vocabulary."
    )
    export_root: str = Field(
        default=str(PROJECT_ROOT / "exports"),
        description="Folder, from the project's if relative, or fsspec URI of the runs' files.",
    )
    kafka_conn_id: str = "kafka_default"
    ksqldb_conn_id: str = "ksqldb_default"
    enrichment_group: str = Field(
        default="emergencias-enriquecimiento",
        description="Consumer group of the enrichment, one for the whole system.",
    )
    wait_timeout_s: float = Field(
        default=120,
        gt=0,
        description="How long to wait for Kafka and ksqlDB, and for routing without progress.",
    )
    read_timeout_s: float = Field(
        default=60, gt=0, description="How long a read of a topic may make no progress."
    )

    @field_validator("export_root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        """Take a relative folder from the project, not from wherever a process was started."""
        return root if "://" in root else str(PROJECT_ROOT / root)

    @property
    def airflow_schedule(self) -> str | None:
        """The schedule as Airflow takes it; None when the setting says 'none'."""
        return None if self.schedule in (None, "", "none", "None") else self.schedule

    @property
    def sql_dir(self) -> Path:
        """Folder of the routing SQL."""
        return self.include_dir / "ksql"

    @property
    def topics_file(self) -> Path:
        """The topic catalogue."""
        return self.include_dir / "kafka" / "topics.yaml"

    @property
    def data_dir(self) -> Path:
        """Folder of the vocabulary and the gazetteer."""
        return self.include_dir / "data"

    @property
    def mapping_names(self) -> list[str]:
        """The ready mappings for files of other producers, sorted."""
        return sorted(path.stem for path in (self.data_dir / "mappings").glob("*.yaml"))
