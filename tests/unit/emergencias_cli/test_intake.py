from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from emergencias.model import ORIGINAL_FIELDS
from emergencias.settings import PROJECT_ROOT
from emergencias_cli.main import app

cli = CliRunner()
FILES = PROJECT_ROOT / "tests" / "data" / "intake"
ROW = dict.fromkeys(ORIGINAL_FIELDS, "x") | {"grado": "Leve"}


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("EMERGENCIAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMERGENCIAS_EXPORT_ROOT", str(tmp_path / "exports"))


def told(result):
    """Return what was said, without the line breaks that a terminal's width gives it."""
    return " ".join(result.stderr.split())


def intake(*arguments):
    return cli.invoke(app, ["intake", *map(str, arguments)])


@pytest.fixture
def half_good(tmp_path):
    """A file of two good rows and a bad one between them."""
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n{{oops\n{json.dumps(ROW)}\n")
    return file


def test_a_dry_run_reports_and_writes_nothing(tmp_path):
    result = intake(FILES / "original.json", "--map", "original", "--dry-run")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "json, utf-8" in told(result)
    assert "cuerpo_necesario: synonym 'militares' → Ejercito" in told(result)
    assert list(tmp_path.iterdir()) == []


def test_to_standard_output_goes_json_lines_alone():
    result = intake(FILES / "llamadas_911.csv", "--map", "llamadas_911", "--to", "-")

    alerts = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(alerts)) == (0, 30)
    assert alerts[0]["localizacion"] == "STREET 75 & AVENUE 69, BERLIN"


def test_what_was_written_to_a_file_can_be_taken_in_without_a_mapping(tmp_path):
    written, again = tmp_path / "one.jsonl", tmp_path / "two.jsonl"

    first = intake(
        FILES / "despachos_ambulancia.csv", "--map", "despachos_ambulancia", "--to", written
    )
    second = intake(written, "--to", again)

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert written.read_bytes() == again.read_bytes()


def test_a_refused_row_is_told_written_beside_and_in_the_exit_status(tmp_path, half_good):
    out = tmp_path / "out.jsonl"

    result = intake(half_good, "--to", out)

    assert result.exit_code == 3
    assert len(out.read_text().splitlines()) == 2
    refused = json.loads((tmp_path / "out.jsonl.refused.jsonl").read_text())
    assert (refused["line"], refused["text"]) == (2, "{oops")
    assert "line 2: not valid JSON" in told(result)
    assert "1 row(s) refused" in told(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv", "--dry-run"], "none.csv does not exist"),
        (["{file}", "--map", "nada", "--dry-run"], "There is no mapping 'nada'"),
        (["{file}", "--map", "original", "--to", "{file}"], "the file that is read"),
        (["file://{file}", "--to", "{file}"], "the file that is read"),
        (["{file}", "--to", ""], "'' is no file's name"),
        (["{file}", "--map", "llamadas_911", "--dry-run"], "all 3 rows are refused"),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_sentence(half_good, arguments, said):
    result = intake(*(argument.replace("{file}", str(half_good)) for argument in arguments))

    assert result.exit_code == 1
    assert said in told(result)
    assert "Traceback" not in result.output


def test_refused_rows_that_were_mended_are_not_written_over(tmp_path):
    mended = tmp_path / "a.jsonl.refused.jsonl"
    mended.write_text(json.dumps(ROW) + "\n{oops\n")
    before = mended.read_bytes()

    result = intake(mended, "--to", tmp_path / "a.jsonl")

    assert result.exit_code == 1
    assert "the file that is read" in told(result)
    assert mended.read_bytes() == before


def test_a_connection_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", "kafka://broker")

    result = intake(FILES / "original.json")

    assert result.exit_code == 1
    assert "AIRFLOW_CONN_KAFKA_DEFAULT" in told(result)
