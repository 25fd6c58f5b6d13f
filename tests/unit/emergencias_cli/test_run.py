from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from rich.console import Console

from emergencias.manifest import Manifest, Review, TopicCount
from emergencias_cli.run import result_table, run_params


def test_no_option_asks_for_no_param():
    assert run_params(None, None, None) == {}


def test_options_win_over_conf():
    assert run_params('{"alerts": 1, "seed": 7}', 1000, None) == {"alerts": 1000, "seed": 7}


def test_an_input_file_is_named_absolutely_since_tasks_run_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_params(None, None, Path("alerts.csv")) == {
        "source": "file",
        "input_path": str(tmp_path.resolve() / "alerts.csv"),
    }


@pytest.mark.parametrize("conf", ["{", "[1]", "250", '"alerts"'])
def test_a_conf_that_is_no_json_object_is_refused(conf):
    with pytest.raises(typer.BadParameter, match="JSON"):
        run_params(conf, None, None)


def test_a_file_and_a_number_of_alerts_contradict_each_other():
    with pytest.raises(typer.BadParameter, match="not both"):
        run_params(None, 5, Path("alerts.csv"))


def manifest(*counts: TopicCount) -> Manifest:
    return Manifest(
        generated_at=datetime(2026, 1, 1, tzinfo=UTC),
        ok=all(count.ok for count in counts),
        id_ejecucion="local/emergencias_112/r1",
        instance="local",
        dag_id="emergencias_112",
        run_id="r1",
        plan_sha256="0" * 64,
        alerts=1250,
        topics=counts,
        review=Review(alerts=0, first_ids=(), motivos={}),
        checks=(),
        files=(),
        offsets=(),
        versions={},
    )


def count(topic: str, run: int, *, ajenos: int = 0, ok: bool = True) -> TopicCount:
    return TopicCount(topic=topic, run=run, otras_ejecuciones=9, ajenos=ajenos, tombstones=0, ok=ok)


def shown(of: Manifest) -> list[list[str]]:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(result_table(of))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_has_topic_alerts_and_check():
    rows = shown(manifest(count("T1_Recepcion_avisos", 1250), count("T2_Centro_112", 7, ok=False)))
    assert ["topic", "alerts", "check"] in rows
    assert ["T1_Recepcion_avisos", "1,250", "ok"] in rows
    assert ["T2_Centro_112", "7", "FAILED"] in rows


def test_strangers_records_are_shown_when_there_are_any():
    rows = shown(manifest(count("T1_Recepcion_avisos", 250, ajenos=3), count("T2_Centro_112", 7)))
    assert ["topic", "alerts", "ajenos", "check"] in rows
    assert ["T1_Recepcion_avisos", "250", "3", "ok"] in rows
    assert ["T2_Centro_112", "7", "0", "ok"] in rows


def test_a_mapping_goes_with_its_file_and_its_path_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = Path("a.csv")

    assert run_params(None, None, file, "original")["mapping"] == "original"
    assert run_params(None, None, file, "my.yaml")["mapping"] == str(tmp_path.resolve() / "my.yaml")
    with pytest.raises(typer.BadParameter, match="give --input too"):
        run_params(None, None, None, "original")
