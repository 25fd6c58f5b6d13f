"""The record of what the stack started, so that `down` stops exactly that."""

from __future__ import annotations

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from local_stack.errors import StateFileError
from local_stack.process import ProcessId


class StartedService(BaseModel):
    """A process that the stack started.

    Attributes:
        address: Where clients reach it; what counts while it runs, whatever the settings say now.
        pid: Its process id, certain only together with `create_time` (seconds since the epoch).
        since: When it was started.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    pid: int
    create_time: float
    since: AwareDatetime

    @property
    def process(self) -> ProcessId:
        """Return the identity of the process."""
        return ProcessId(self.pid, self.create_time)


class StackState(BaseModel):
    """Everything that the stack started and has not stopped, by service name."""

    model_config = ConfigDict(extra="forbid")

    services: dict[str, StartedService] = {}

    @classmethod
    def load(cls, path: Path) -> StackState:
        """Read the record; an absent file means that nothing was started.

        Raises:
            StateFileError: The file is unreadable. Going on without it would leave processes
                running that nothing could stop any more.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise StateFileError(
                f"cannot read {path}: {why}. If the broker or ksqldb_local still run (see "
                "`ps`), stop them by hand, then delete this file."
            ) from error

    def save(self, path: Path) -> None:
        """Write the record whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        beside.replace(path)
