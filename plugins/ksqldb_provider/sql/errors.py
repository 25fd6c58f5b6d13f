"""What is wrong with SQL text, and where."""

from __future__ import annotations

from pathlib import Path


class SqlError(ValueError):
    """SQL text that cannot be deployed; the message names the place and what to change."""

    def __init__(
        self, problem: str, *, text: str = "", position: int = 0, path: Path | None = None
    ) -> None:
        self.problem = problem
        self.path = path
        self.line = text.count("\n", 0, position) + 1
        self.column = position - (text.rfind("\n", 0, position) + 1) + 1
        place = f"line {self.line}, column {self.column}" if text else ""
        super().__init__(": ".join(part for part in (str(path or ""), place, problem) if part))

    def in_file(self, path: Path) -> SqlError:
        """Return the same error with the file's name in front."""
        error = SqlError(self.problem, path=path)
        error.line, error.column = self.line, self.column
        error.args = (f"{path}: {self.args[0]}",)
        return error
