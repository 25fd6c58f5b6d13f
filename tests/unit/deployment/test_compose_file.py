from __future__ import annotations

import re

import pytest
import yaml

from emergencias_cli.env_file import SECRETS
from local_stack.jars import read_lock
from local_stack.services import broker_properties
from local_stack.settings import PROJECT_ROOT, StackSettings

TEXT = (PROJECT_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
EXAMPLE = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
AIRFLOW = sorted(name for name in SERVICES if name.startswith("airflow-"))
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(:-|:\?|)([^}]*)\}")

every_service = pytest.mark.parametrize("name", sorted(SERVICES))
long_running = pytest.mark.parametrize("name", LONG_RUNNING)


def defaults(text: str) -> dict[str, str]:
    return {name: value for name, kind, value in VARIABLE.findall(text) if kind == ":-"}


def pinned(package: str) -> str:
    found = re.search(
        rf"^{package}==(\S+)", (PROJECT_ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert found
    return found[1]


@every_service
def test_every_image_is_pinned_to_a_version_that_a_variable_can_change(name):
    [(variable, kind, image)] = VARIABLE.findall(SERVICES[name]["image"])
    assert variable.endswith("_IMAGE")
    assert kind == ":-"
    assert re.fullmatch(r"[a-z0-9/-]+:v?\d+\.\d+(\.\d+)?", image)


def test_the_base_image_is_the_airflow_of_the_constraints_in_both_files():
    image = f"apache/airflow:{pinned('apache-airflow')}-python3.11"
    build = SERVICES["airflow-init"]["build"]["args"]["AIRFLOW_IMAGE"]
    assert defaults(build) == {"AIRFLOW_IMAGE": image}
    assert re.search(r"^ARG AIRFLOW_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)[1] == image


def test_kafka_is_the_version_of_the_locked_jars():
    locked = next(jar.version for jar in read_lock() if jar.artifact == "kafka_2.13")
    assert defaults(SERVICES["kafka"]["image"])["KAFKA_IMAGE"] == f"apache/kafka:{locked}"


def test_kafka_is_set_as_the_embedded_broker_is():
    elsewhere = {
        *("controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"),
        # The embedded broker's thrift for a development machine.
        *("num.network.threads", "num.io.threads", "log.cleaner.dedupe.buffer.size"),
    }
    environment = SERVICES["kafka"]["environment"]
    expected = {
        f"KAFKA_{key.replace('.', '_').upper()}": value
        for key, value in broker_properties(StackSettings()).items()
        if key not in elsewhere
    }
    assert {key: str(environment.get(key)) for key in expected} == expected


@long_running
def test_every_service_that_stays_up_has_a_health_check_with_an_end(name):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@long_running
def test_a_service_comes_back_when_it_dies(name):
    assert SERVICES[name]["restart"] == "unless-stopped"


@every_service
def test_every_service_has_limits(name):
    assert SERVICES[name]["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


@every_service
def test_a_service_waits_for_the_health_of_what_it_needs(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": expected}


@every_service
def test_ports_are_on_loopback_and_can_be_changed(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port)


@every_service
def test_no_service_has_a_fixed_name_a_platform_or_rights_to_spare(name):
    service = SERVICES[name]
    assert not service.keys() & {"container_name", "platform", "privileged", "network_mode"}
    assert service["security_opt"] == ["no-new-privileges:true"]
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", AIRFLOW)
def test_airflow_services_share_image_and_secrets_and_have_no_capability(name):
    service = SERVICES[name]
    for key in ("image", "build"):
        assert service[key] == SERVICES["airflow-init"][key]
    assert service["cap_drop"] == ["ALL"]
    shared = SERVICES["airflow-init"]["environment"].items()
    assert shared <= service["environment"].items()


def test_the_image_runs_without_root():
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["airflow"]


def test_nothing_starts_without_its_secrets_and_none_has_a_default():
    required = {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == ":?"}
    assert required == SECRETS.keys()
    assert not defaults(TEXT).keys() & SECRETS.keys()


def test_the_example_holds_every_variable_with_its_default_and_no_secret():
    assert set(re.findall(r"^([A-Z_]+)=$", EXAMPLE, re.MULTILINE)) == SECRETS.keys()
    assert not re.search(r"^[A-Z_]+=.+$", EXAMPLE, re.MULTILINE)
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert shown == defaults(TEXT)


def test_every_variable_is_in_the_documentation():
    manual = (PROJECT_ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    for name in {*defaults(TEXT), *SECRETS}:
        assert f"`{name}`" in manual


def test_only_what_the_image_needs_goes_to_the_builder():
    lines = (PROJECT_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY --chown=airflow:0 (.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert let_in == {name for names in copied for name in names.split()}
    assert ".env" in (PROJECT_ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_working_copy_replaces_exactly_what_the_image_holds_and_is_read_only():
    dev = yaml.safe_load((PROJECT_ROOT / "docker-compose.dev.yml").read_text(encoding="utf-8"))
    assert sorted(dev["services"]) == AIRFLOW
    for service in dev["services"].values():
        assert service["volumes"] == [
            f"./{name}:/opt/airflow/{name}:ro" for name in ("dags", "include", "plugins")
        ]
