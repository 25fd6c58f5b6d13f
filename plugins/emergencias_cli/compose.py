"""`emergencias compose …`: the production-like stack of docker-compose.yml."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from emergencias_cli.airflow_api import AirflowApi, TaskState
from emergencias_cli.console import console, errors, plain_errors
from emergencias_cli.env_file import fill_in
from emergencias_cli.run import DAG_ID, run_params, show_result
from local_stack.errors import StackError
from local_stack.settings import PROJECT_ROOT

app = typer.Typer(
    no_args_is_help=True,
    help="The production-like stack in containers: Kafka, ksqlDB, PostgreSQL and Airflow.",
)

MIN_COMPOSE = (2, 23, 1)
"""The first Compose that takes a config's content from the file itself."""

_POLL_S = 1.0
_QUEUED_S = 600.0
EXPORTS_INSIDE = "/opt/airflow/exports"
_ENDED = {"success", "failed"}
_TASK_MARKS = {
    "success": "[green]ok[/]",
    "up_for_retry": "[yellow]failed, will be tried again[/]",
    "failed": "[bold red]FAILED[/]",
    "upstream_failed": "[red]not run[/]",
    "skipped": "[dim]skipped[/]",
}


@dataclass(frozen=True, slots=True)
class Compose:
    """Docker Compose on this project's file.

    Attributes:
        program: How it is called: the plugin of `docker`, or a program of its own.
    """

    program: tuple[str, ...]

    @classmethod
    def find(cls) -> Compose:
        """Return the Compose of this machine.

        Raises:
            StackError: There is none, or it is too old.
        """
        found = []
        for program in (("docker", "compose"), ("docker-compose",)):
            if shutil.which(program[0]) is None:
                continue
            asked = [*program, "version", "--short"]
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            if match := re.match(r"v?(\d+)\.(\d+)\.(\d+)", said.strip()):
                if tuple(map(int, match.groups())) >= MIN_COMPOSE:
                    return cls(program)
                found.append(f"{' '.join(program)} {said.strip()}")
        raise StackError(
            f"Docker Compose {'.'.join(map(str, MIN_COMPOSE))} or later is needed; "
            f"found: {', '.join(found) or 'none'}. Docker's manual says how to install the plugin."
        )

    def show(self, *arguments: str) -> None:
        """Run a command with its output on the terminal.

        Raises:
            StackError: It failed; what it said stands above.
        """
        status = subprocess.run([*self.program, *arguments], cwd=PROJECT_ROOT, check=False)
        if status.returncode:
            raise StackError(
                f"`{' '.join((*self.program, *arguments))}` ended with status {status.returncode}; "
                "the reason stands above"
            )

    def configuration(self) -> dict[str, Any]:
        """Return the file with every variable filled in.

        Raises:
            StackError: A variable is missing, Docker's own message says which; or no Docker.
        """
        asked = [*self.program, "--profile", "*", "config", "--format", "json"]
        done = subprocess.run(asked, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(
                f"docker-compose.yml cannot be used: {done.stderr.strip()}. `make compose-init` "
                "writes .env with every secret."
            )
        configuration: dict[str, Any] = json.loads(done.stdout)
        return configuration


@app.command()
def init() -> None:
    """Write .env with random secrets, or fill in what it lacks; nothing there is changed.

    Example: emergencias compose init
    """
    target = PROJECT_ROOT / ".env"
    drawn = fill_in(PROJECT_ROOT / ".env.example", target)
    if drawn:
        console.print(f"Drawn at random into {target}: {', '.join(drawn)}.", soft_wrap=True)
        console.print("Only you can read it, and Git ignores it. Next: `make compose-up`.")
    else:
        console.print(f"{target} has every secret; nothing changed.", soft_wrap=True)


@app.command()
def up(
    ui: Annotated[bool, typer.Option(help="Also start the Kafka UI.")] = False,
    build: Annotated[
        bool, typer.Option("--build/--no-build", help="Build our image from this folder first.")
    ] = True,
) -> None:
    """Start what does not run, wait until everything is healthy and say where it is.

    Example: emergencias compose up --ui
    """
    profile = ("--profile", "ui") if ui else ()
    with plain_errors():
        compose = Compose.find()
        configuration = compose.configuration()
        if build:
            compose.show("build")
        try:
            compose.show(*profile, "up", "--detach", "--no-build", "--wait")
        except StackError:
            compose.show("ps", "--all")
            raise
    console.print(addresses(configuration, ui=ui))
    console.print("Passwords are in .env. Next: `make compose-run`.")


@app.command()
def run(
    alerts: Annotated[
        int | None, typer.Option(help="How many alerts the simulator sends.", show_default="250")
    ] = None,
    conf: Annotated[
        str | None, typer.Option(help="Any params of the DAG as JSON; the other options win.")
    ] = None,
) -> None:
    """Trigger the DAG through Airflow's REST API, follow the run, fetch and show its result.

    The files are copied to exports/ beside those of `emergencias run`. The exit status is 1 unless
    the run is green. The DAG is unpaused, so that Airflow starts the run.

    Example: emergencias compose run --alerts 1000
    """
    params = run_params(conf, alerts, None)
    with plain_errors():
        compose = Compose.find()
        configuration = compose.configuration()
        with AirflowApi(
            _url(configuration, "airflow-api-server"), "admin", _admin_password(configuration)
        ) as airflow:
            with console.status("Airflow reads the DAG"):
                airflow.unpause(DAG_ID)
            run_id = airflow.trigger(DAG_ID, params)
            console.print(f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}", soft_wrap=True)
            try:
                state = _follow(airflow, run_id)
            except KeyboardInterrupt:
                console.print("The run goes on in Airflow.")
                raise
        shown = _fetch_files(compose, run_id) and show_result(run_id, str(PROJECT_ROOT / "exports"))
    if state != "success":
        errors.print(
            "[bold red]The run failed.[/] The log of the task is behind the address above.",
        )
        raise typer.Exit(1)
    if not shown:
        errors.print(
            "[bold red]The run ended well, but its manifest is not on the volume `exports`[/].",
        )
        raise typer.Exit(1)


@app.command()
def down() -> None:
    """Stop and remove the containers; data, files and secrets stay.

    Example: emergencias compose down
    """
    with plain_errors():
        Compose.find().show("--profile", "*", "down", "--remove-orphans")


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove the containers and the volumes: every alert, run, log and exported file in them.

    Example: emergencias compose reset
    """
    if not yes:
        typer.confirm(
            "Remove every alert, Airflow's database, the logs and the files on the volume "
            "`exports`? .env and the folder exports/ stay.",
            abort=True,
        )
    with plain_errors():
        Compose.find().show("--profile", "*", "down", "--remove-orphans", "--volumes")


def addresses(configuration: dict[str, Any], *, ui: bool) -> Table:
    """Return a table of what a person can open, and how to log in."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("service", "address", "log in"):
        table.add_column(column, overflow="fold")
    kafka = _url(configuration, "kafka").removeprefix("http://")
    table.add_row(
        "Airflow", _url(configuration, "airflow-api-server"), "admin, AIRFLOW_ADMIN_PASSWORD"
    )
    table.add_row("Kafka", kafka, "none; this machine only")
    table.add_row("ksqlDB", _url(configuration, "ksqldb"), "none; this machine only")
    if ui:
        table.add_row("Kafka UI", _url(configuration, "kafka-ui"), "admin, KAFKA_UI_PASSWORD")
    return table


def _url(configuration: dict[str, Any], service: str) -> str:
    port = configuration["services"][service]["ports"][0]
    return f"http://{port['host_ip']}:{port['published']}"


def _admin_password(configuration: dict[str, Any]) -> str:
    passwords: dict[str, str] = json.loads(configuration["configs"]["airflow-passwords"]["content"])
    return passwords["admin"]


def _follow(airflow: AirflowApi, run_id: str) -> str:
    """Show the tasks of a run as they end and return the run's last state."""
    told: dict[str, str | None] = {}
    deadline, pause = time.monotonic() + _QUEUED_S, threading.Event()
    with console.status("The run is queued") as spinner:
        while True:
            # The run's state first: its tasks are then at least as far.
            state = airflow.run_state(DAG_ID, run_id)
            tasks = airflow.tasks(DAG_ID, run_id)
            for task in tasks:
                _tell(task, told)
            running = [task.task_id for task in tasks if task.state == "running"]
            if running:
                spinner.update(f"{escape(', '.join(running))} is running")
            if state in _ENDED:
                return state
            # A run that runs is ended by the DAG's own time-out; one that waits, by nobody.
            if state == "queued" and time.monotonic() > deadline:
                raise StackError(
                    f"Run {run_id} is still queued after {_QUEUED_S:.0f} s: the scheduler does not "
                    "run, or other runs of the DAG are at work. `docker compose ps` and Airflow's "
                    "page show which."
                )
            pause.wait(_POLL_S)


def _tell(task: TaskState, told: dict[str, str | None]) -> None:
    if told.get(task.task_id) == task.state:
        return
    told[task.task_id] = task.state
    if mark := _TASK_MARKS.get(task.state or ""):
        seconds = f"{task.seconds:6.1f} s" if task.seconds is not None else " " * 8
        console.print(f"  {escape(task.task_id):<24} {seconds}  {mark}")


def _fetch_files(compose: Compose, run_id: str) -> bool:
    """Copy the run's files from the volume to this folder's exports/; False if there are none."""
    from emergencias.plan import run_folder

    inside = run_folder(EXPORTS_INSIDE, DAG_ID, run_id)
    local = Path(str(run_folder(str(PROJECT_ROOT / "exports"), DAG_ID, run_id)))
    local.parent.mkdir(parents=True, exist_ok=True)
    copy: Sequence[str] = ("cp", f"airflow-scheduler:{inside}", str(local))
    done = subprocess.run(
        [*compose.program, *copy], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        errors.print(f"No files of the run: {escape(done.stderr.strip())}", soft_wrap=True)
    return done.returncode == 0
