"""A file sent by `emergencias intake`, on a real broker."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emergencias import model
from emergencias.file_run import DAG_ID, plan_file
from emergencias.intake import send_planned_alerts
from emergencias.plan import PlanConflictError
from emergencias.settings import Settings
from emergencias_cli.main import app
from kafka_io import high_watermarks, read_range

ROW = dict.fromkeys(model.ORIGINAL_FIELDS, "x")
cli = CliRunner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [json.dumps(ROW | {"contacto": str(n)}) for n in range(3)]
    path.write_text("\n".join([*rows, "{oops", f"{tmp_path}"]))  # content of its own in each test
    return path


@pytest.fixture
def intake(
    kafka: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    monkeypatch.setenv("EMERGENCIAS_EXPORT_ROOT", settings.export_root)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> str:
        result = cli.invoke(
            app,
            [
                *("intake", *map(str, arguments)),
                *("--bootstrap-servers", kafka["bootstrap.servers"]),
            ],
        )
        assert result.exit_code == 3, result.output
        return result.stderr

    return run


def test_the_same_content_is_sent_once_wherever_it_lies_and_its_refused_rows_are_kept(
    intake: Callable[..., str],
    file: Path,
    settings: Settings,
    keys_on: Callable[[str], Counter[str]],
) -> None:
    first = intake(file)
    sent = keys_on(model.T1)
    moved = file.with_name("moved.jsonl")
    shutil.move(file, moved)
    again = intake(moved)

    assert "Sent 3 alerts to T1; 0 were there already" in first
    assert "Sent 0 alerts to T1; 3 were there already" in again
    assert keys_on(model.T1) == sent
    (folder,) = (Path(settings.export_root) / DAG_ID).iterdir()
    refused = [json.loads(line) for line in (folder / "refused.jsonl").read_text().splitlines()]
    assert [row["line"] for row in refused] == [4, 5]


def test_the_same_content_is_sent_once_although_its_plan_was_lost(
    intake: Callable[..., str], file: Path, settings: Settings
) -> None:
    intake(file)
    shutil.rmtree(settings.export_root)

    assert "Sent 0 alerts to T1; 3 were there already" in intake(file)


def test_a_named_run_with_another_mapping_is_refused(
    kafka: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    file, mapping = tmp_path / "a.csv", tmp_path / "m.yaml"
    file.write_text(f"p,x\nroja,{tmp_path}\n")
    mapping.write_text("fields: {grado: {column: p, table: {roja: Leve}}}")
    plan_file(kafka, settings, str(file), str(mapping), run_id="mine")
    mapping.write_text("fields: {grado: {column: p, table: {roja: Urgente}}}")

    with pytest.raises(PlanConflictError, match="mapping"):
        plan_file(kafka, settings, str(file), str(mapping), run_id="mine")


def test_a_run_with_a_name_of_its_own_sends_the_content_again(
    intake: Callable[..., str], file: Path
) -> None:
    intake(file)

    assert "Sent 3 alerts" in intake(file, "--run-id", f"again-{file.parent.name}")


def test_a_run_name_with_other_content_is_refused(
    kafka: dict[str, str], settings: Settings, file: Path
) -> None:
    plan_file(kafka, settings, str(file), None, run_id="mine")
    file.write_text(json.dumps(ROW))

    with pytest.raises(PlanConflictError, match="changed since"):
        plan_file(kafka, settings, str(file), None, run_id="mine")


def test_editing_mapping_and_words_changes_nothing_of_a_planned_run(
    kafka: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    file, mapping = tmp_path / "a.csv", tmp_path / "m.yaml"
    file.write_text(f"p,x\nroja,{tmp_path}\n")
    mapping.write_text("fields: {grado: {column: p, table: {roja: Urgente}}}")
    plan = plan_file(kafka, settings, str(file), str(mapping))
    mapping.write_text("fields: {grado: {column: p, table: {roja: Leve}}}")

    send_planned_alerts(kafka, plan, data_dir=settings.data_dir)
    ends = high_watermarks(kafka, [model.T1])
    starts = {part: plan.t1_start_offsets.get(str(part[1]), 0) for part in ends}
    (value,) = (
        message.value()
        for batch in read_range(kafka, starts, ends, timeout_s=30)
        for message in batch
        if message.key() == plan.alert_id(0).encode()
    )
    assert json.loads(value)["grado"] == "Urgente"
