from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from emergencias import sources
from emergencias.simulator import simulate
from emergencias_cli.main import app
from local_stack.preflight import free_ports

cli = CliRunner()
PERIOD = ["--start", "2024-10-29", "--end", "2024-10-30T00:00+01:00"]


def run(*arguments):
    return cli.invoke(app, ["simulate", *map(str, arguments)])


def test_standard_output_is_json_lines_and_nothing_else():
    result = run("--alerts", 20, "--seed", 7, "--profile", "surge", *PERIOD)
    start = datetime(2024, 10, 28, 23, tzinfo=UTC)

    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == list(
        simulate(7, 20, start, start + timedelta(days=1), profile="surge")
    )


def test_the_message_says_how_to_get_the_same_again():
    first = run("--alerts", 5)
    options = first.stderr.split("Once more: ")[1].split()
    again = run(*options)

    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert run("--alerts", 5).stdout != first.stdout


@pytest.mark.parametrize("name", ["alerts.jsonl", "deep/er/alerts.jsonl.gz"])
def test_a_file_is_one_that_a_run_can_replay_and_always_the_same(tmp_path, name):
    path = tmp_path / name
    digests = set()
    for _ in range(2):
        result = run("--alerts", 5000, "--seed", 1, "--to", path, *PERIOD)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())

    assert len(digests) == 1
    assert sources.inspect(str(path)).alerts == 5000
    text = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert text.count(b"\n") == 5000
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_period_without_limits_is_the_day_before_now():
    before = datetime.now(UTC)
    result = run("--alerts", 300, "--profile", "realistic")
    moments = [datetime.fromisoformat(json.loads(a)["fecha"]) for a in result.stdout.splitlines()]

    assert before - timedelta(days=1, seconds=1) <= moments[0]
    assert moments[-1] < datetime.now(UTC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--end", "2999-01-01"], "is in the future"),
        (["--start", "2024-01-02", "--end", "2024-01-02"], "is not before the end"),
        (["--end", "0001-01-01"], "is before 1970-01-01"),
        (["--start", "0001-01-01"], "is more than 3660 days before the end"),
        (["--start", "yesterday"], "is no moment in ISO 8601"),
        (["--alerts", "0"], "greater than or equal to 1"),
        (["--profile", "real"], "'real' is not one of 'original', 'realistic', 'surge'"),
        (["--seed", "-1"], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, arguments, message):
    path = tmp_path / "alerts.jsonl"
    result = run(*arguments, "--to", path)

    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", "").split())
    assert not path.exists()


@pytest.mark.parametrize("file", ["/proc/no/such/file.jsonl", "nowhere://a/b.jsonl"])
def test_a_file_that_cannot_be_written_is_told_plainly(file):
    result = run("--to", file)

    assert result.exit_code == 1
    assert f"{file} cannot be written" in result.output


def test_a_data_file_that_does_not_fit_is_told_plainly(tmp_path, monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_INCLUDE_DIR", str(tmp_path))
    result = run("--alerts", 5)

    assert result.exit_code == 1
    assert "There is no profile 'original'" in result.output


def test_without_a_broker_the_topic_is_out_of_reach_and_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("EMERGENCIAS_HOME", str(tmp_path))
    (port,) = free_ports(1)
    monkeypatch.setenv("EMERGENCIAS_KAFKA_PORT", str(port))
    result = run("--alerts", 5, "--to", "topic")

    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.output
    assert "emergencias stack up" in result.output


def test_a_reader_that_has_seen_enough_ends_it_without_a_traceback():
    code = "from emergencias_cli.main import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", "--alerts", "200000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    assert process.stderr is not None
    told = process.stderr.read().decode()

    assert process.wait(timeout=60) == 0
    assert told == ""
