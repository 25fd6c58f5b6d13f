"""The parameters of a run, and what each may be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

MAX_ALERTS = 10_000_000
MAX_SEED = 2**63 - 1
MAX_SENDING_S = 90 * 60
"""Longest time that a run may take to send; the task that sends is stopped half an hour later."""


class Source(StrEnum):
    """Where a run's alerts come from."""

    SIMULATOR = "simulator"
    FILE = "file"


class Format(StrEnum):
    """What a run's exports are written as."""

    JSON = "json"
    PARQUET = "parquet"


class Profile(StrEnum):
    """How the simulator draws its alerts; each is a file of `include/data/profiles`."""

    ORIGINAL = "original"
    REALISTIC = "realistic"
    SURGE = "surge"


class RunParamsError(ValueError):
    """A parameter of the run has a value that it may not have."""

    retryable = False


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


class RunParams(BaseModel):
    """Validated parameters; an unknown one is refused, so that a typo cannot pass unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    alerts: int = Field(default=250, ge=1, le=MAX_ALERTS)
    rate_per_second: float = Field(default=0, ge=0, allow_inf_nan=False)
    seed: Annotated[int | None, BeforeValidator(_blank_is_none)] = Field(
        default=None, ge=0, le=MAX_SEED
    )
    source: Source = Source.SIMULATOR
    input_path: Annotated[str | None, BeforeValidator(_blank_is_none)] = None
    mapping: Annotated[str | None, BeforeValidator(_blank_is_none)] = None
    formats: tuple[Format, ...] = Field(default=(Format.JSON, Format.PARQUET), min_length=1)
    profile: Profile = Profile.ORIGINAL

    @model_validator(mode="after")
    def _file_needs_a_path(self) -> Self:
        if self.source is Source.FILE and self.input_path is None:
            raise ValueError(
                "source 'file' needs input_path, e.g. "
                '{"source": "file", "input_path": "TOTAL_AVISOS.json"}'
            )
        if self.source is Source.SIMULATOR and self.input_path is not None:
            raise ValueError(
                f"input_path {self.input_path!r} is read only with source 'file'; "
                "set source to 'file' or leave input_path empty"
            )
        if self.source is Source.SIMULATOR and self.mapping is not None:
            raise ValueError(
                f"mapping {self.mapping!r} is used only with source 'file'; "
                "set source to 'file' or leave mapping empty"
            )
        return self

    def check_duration(self, alerts: int) -> None:
        """Refuse a pace at which so many alerts cannot be sent in time.

        Raises:
            RunParamsError: Names the pace that would do.
        """
        if self.rate_per_second and alerts / self.rate_per_second > MAX_SENDING_S:
            raise RunParamsError(
                f"Refused, nothing was sent. rate_per_second = {self.rate_per_second:g}: "
                f"{alerts} alerts would take longer than {MAX_SENDING_S // 60} minutes. Give "
                f"{alerts / MAX_SENDING_S:.3g} or more, 0 for no pause, or fewer alerts."
            )

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> RunParams:
        """Validate what a person typed.

        Args:
            raw: The DAG run's params.

        Raises:
            RunParamsError: Names each bad parameter, its value and what is allowed.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            problems = []
            for issue in error.errors(include_url=False):
                name = ".".join(str(part) for part in issue["loc"]) or "params"
                if issue["type"] == "extra_forbidden":
                    known = ", ".join(cls.model_fields)
                    problems.append(f"{name}: unknown parameter; the known ones are {known}")
                elif issue["loc"]:
                    problems.append(f"{name} = {issue['input']!r}: {issue['msg']}")
                else:
                    problems.append(issue["msg"])
            raise RunParamsError("Refused, nothing was sent. " + "; ".join(problems)) from error
