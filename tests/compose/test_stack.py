"""The stack of docker-compose.yml in real containers; run by `make test-compose` alone.

What is real: Docker, Docker Compose, docker-compose.yml, the project's Dockerfile, Airflow with
PostgreSQL, Apache Kafka. What stands in for the official images is said in `stand_ins`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import docker_engine
import pytest
import stand_ins

from emergencias_cli.compose import Compose
from emergencias_cli.env_file import fill_in
from local_stack.preflight import free_ports
from local_stack.settings import PROJECT_ROOT

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

ALERTS = 300
EMERGENCIAS = PROJECT_ROOT / ".venv" / "bin" / "emergencias"


@dataclass(frozen=True)
class Containers:
    """A started stack."""

    environment: dict[str, str]
    compose: Compose

    def emergencias(self, *arguments: str, timeout: float = 600) -> str:
        """Return what `emergencias compose …` printed; it must end well."""
        return stand_ins.run(
            [str(EMERGENCIAS), "compose", *arguments], env=self.environment, timeout=timeout
        )

    def ask(self, *arguments: str) -> str:
        return stand_ins.run([*self.compose.program, *arguments], env=self.environment)

    def inspect(self, service: str, format_: str) -> str:
        container = self.ask("ps", "--all", "--quiet", service).strip()
        asked = ["docker", "inspect", "--format", format_, container]
        return stand_ins.run(asked, env=self.environment).strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    # Not below pytest's folder: pytest keeps that of the last runs, and images are large.
    work = Path(tmp_path_factory.mktemp("compose"))
    with ExitStack() as last, pytest.MonkeyPatch.context() as monkeypatch:
        last.callback(shutil.rmtree, work, ignore_errors=True)
        print(f"\n{stand_ins.__doc__}\nPreparing:")
        (work / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}")
        docker_engine.install_tools()
        environment = last.enter_context(docker_engine.engine(work))
        monkeypatch.setattr(os, "environ", os.environ | environment)
        docker_engine.install_compose(work / "bin")

        images = stand_ins.Images()
        # The builder that needs no plugin of `docker`.
        last.callback(stand_ins.remove, images, environment)
        (work / "images").mkdir()
        stand_ins.build(images, work / "images", environment | {"DOCKER_BUILDKIT": "0"})

        fill_in(PROJECT_ROOT / ".env.example", work / "secrets.env")
        airflow, kafka, ksqldb, ui = map(str, free_ports(4))
        ports = {"AIRFLOW_PORT": airflow, "KAFKA_PORT": kafka}
        ports |= {"KSQLDB_PORT": ksqldb, "KAFKA_UI_PORT": ui}
        project = {
            "COMPOSE_PROJECT_NAME": f"emergencias-test-{os.getpid()}",
            "COMPOSE_ENV_FILES": str(work / "secrets.env"),
            "COMPOSE_FILE": str(PROJECT_ROOT / "docker-compose.yml"),
            "COMPOSE_PROGRESS": "quiet",
            "COLUMNS": "120",
        }
        containers = Containers(environment | images.variables() | ports | project, Compose.find())
        last.callback(containers.emergencias, "reset", "--yes")
        with stand_ins.step("starting the stack until everything is healthy"):
            try:
                print(containers.emergencias("up", "--no-build"))
            except RuntimeError:
                print(containers.ask("logs", "--tail", "50"))
                raise
        yield containers


def manifest_of(output: str) -> dict[str, object]:
    print(output)
    folder = re.search(r"^Files: (.*)$", output, re.MULTILINE)
    assert folder, "the run shows no files"
    return json.loads((Path(folder[1]) / "manifest.json").read_text(encoding="utf-8"))


def counts(manifest) -> dict[str, int]:
    return {topic["topic"]: topic["run"] for topic in manifest["topics"]}


def check_green(manifest, alerts: int) -> None:
    assert manifest["checks"]
    assert all(check["ok"] for check in manifest["checks"])
    run = counts(manifest)
    assert run["T1_Recepcion_avisos"] == alerts
    parts = ("T2_Centro_112", "T3_No_Urgencias", "T4_Revision_manual")
    assert sum(run[topic] for topic in parts) == alerts
    rows = {file["name"]: file["rows"] for file in manifest["files"]}
    assert rows["avisos.parquet"] == rows["TOTAL_AVISOS.json"] == alerts
    assert rows["TOTAL_AVISOS_SANITARIOS_112.json"] == run["T2.1_Sanitarios_112"]


def kill_from_outside(stack, service):
    """Kill a container's process as the kernel would, short of memory: Docker restarts it then.

    After `docker kill` it would not: it takes that for the user's wish.
    """
    container, pid = stack.inspect(service, "{{.Id}} {{.State.Pid}}").split()
    # The engine may be on another machine, where the number means another process.
    group = Path(f"/proc/{pid}/cgroup")
    assert group.exists(), f"{service} does not run, or not on this machine"
    assert container in group.read_text(), f"process {pid} is not that of {service}"
    os.kill(int(pid), signal.SIGKILL)


def test_every_service_is_healthy_and_none_runs_as_root(stack):
    services = stack.ask("ps", "--services").split()
    assert len(services) == 7
    for service in services:
        assert stack.inspect(service, "{{.State.Health.Status}}") == "healthy"
    for service in services:
        if service.startswith("airflow"):
            assert stack.ask("exec", "--no-TTY", service, "id", "--user").strip() == "50000"


def test_ports_answer_on_loopback_only(stack):
    for service in ("kafka", "ksqldb", "airflow-api-server"):
        ports = json.loads(stack.inspect(service, "{{json .NetworkSettings.Ports}}"))
        bound = [binding for bindings in ports.values() for binding in bindings or ()]
        assert [binding["HostIp"] for binding in bound] == ["127.0.0.1"]


def test_a_run_triggered_by_rest_is_green_and_its_files_hold_every_alert(stack):
    check_green(manifest_of(stack.emergencias("run", "--alerts", str(ALERTS))), ALERTS)


def test_a_red_run_ends_with_status_1(stack):
    conf = json.dumps({"source": "file", "input_path": "/nowhere.csv"})
    with pytest.raises(RuntimeError, match=r"(?s)status 1:.*plan_run.*FAILED.*The run failed"):
        stack.emergencias("run", "--conf", conf)


def test_a_run_whose_broker_is_killed_ends_green_when_the_broker_is_back(stack):
    conf = json.dumps({"alerts": ALERTS, "rate_per_second": 20})
    command = [str(EMERGENCIAS), "compose", "run", "--conf", conf]
    with subprocess.Popen(
        command, env=stack.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        shown = []
        for line in process.stdout:
            shown.append(line)
            if "plan_run" in line:  # the next task sends alerts for 15 s
                time.sleep(5)
                kill_from_outside(stack, "kafka")
        status = process.wait()
    assert stack.inspect("kafka", "{{.RestartCount}}") != "0", "the broker was not killed"
    assert status == 0, "".join(shown)
    check_green(manifest_of("".join(shown)), ALERTS)
    assert stack.inspect("kafka", "{{.State.Health.Status}}") == "healthy"


def test_what_was_down_goes_on_with_its_data(stack):
    stack.emergencias("down")
    assert not stack.ask("ps", "--all", "--quiet").strip()
    stack.emergencias("up", "--no-build")
    check_green(manifest_of(stack.emergencias("run", "--alerts", str(ALERTS))), ALERTS)


@pytest.mark.parametrize("files", [[], ["docker-compose.dev.yml"]], ids=["stack", "dev"])
@pytest.mark.parametrize("profile", [[], ["ui"]], ids=["plain", "ui"])
def test_docker_compose_finds_nothing_to_say_about_the_files(stack, files, profile):
    options = [f"--file={name}" for name in ("docker-compose.yml", *files)]
    options += [f"--profile={name}" for name in profile]
    program = [*stack.compose.program, "--project-directory", str(PROJECT_ROOT)]
    assert stand_ins.run([*program, *options, "config", "--quiet"], env=stack.environment) == ""
