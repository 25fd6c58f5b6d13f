"""How the command line speaks: one console for people, and errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from local_stack.errors import StackError
from local_stack.settings import StackSettings

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def fail(message: str) -> typer.Exit:
    """Print what is wrong and return the exception that ends the command with status 1."""
    errors.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
    return typer.Exit(1)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's standard error; the function given takes what is done so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that a user can do something about into their message and exit status 1."""
    try:
        yield
    except StackError as error:
        raise fail(str(error)) from error


def load_settings() -> StackSettings:
    """Read the stack's settings, or end the command naming the variable that is wrong."""
    try:
        return StackSettings()
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = "_".join(["EMERGENCIAS", *(str(part).upper() for part in problem["loc"])])
            given = f"={problem['input']}" if problem["loc"] else ""
            problems.append(f"{name}{given}: {problem['msg']}")
        raise fail("these settings cannot be used:\n  " + "\n  ".join(problems)) from error
