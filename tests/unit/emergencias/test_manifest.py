from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from upath import UPath

from emergencias import model
from emergencias.export import FILES, export_window
from emergencias.manifest import (
    MANIFEST_FILE,
    Manifest,
    ReconciliationError,
    read_manifest,
    render_table,
    write_manifest,
)
from emergencias.plan import PLAN_FILE
from emergencias.reconciliation import reconcile_window
from emergencias.routes import Routes
from emergencias.window import Window


@pytest.fixture
def manifest_of(
    read_window: Callable[..., AbstractContextManager[Window]], routes: Routes, folder: UPath
) -> Callable[[Any], Manifest]:
    def make(corpus: Any) -> Manifest:
        with read_window(corpus) as window:
            export_window(window, folder, ["json", "parquet"])
            return reconcile_window(window, corpus.plan, routes, folder)

    return make


def test_it_says_which_run_and_from_which_plan(
    corpus: Any, manifest_of: Callable[[Any], Manifest], folder: UPath
) -> None:
    manifest = manifest_of(corpus)

    assert manifest.id_ejecucion == corpus.plan.id_ejecucion
    assert manifest.run_id == "run/1"
    assert manifest.alerts == 70
    digest = hashlib.sha256((folder / PLAN_FILE).read_bytes()).hexdigest()
    assert manifest.plan_sha256 == digest


def test_it_holds_rows_and_digests_of_every_file(
    corpus: Any, manifest_of: Callable[[Any], Manifest], folder: UPath
) -> None:
    manifest = manifest_of(corpus)

    assert [file.name for file in manifest.files] == [*FILES["json"], *FILES["parquet"]]
    for file in manifest.files:
        data = (folder / file.name).read_bytes()
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.size == len(data)


def test_two_looks_at_unchanged_topics_differ_in_their_time_only(
    corpus: Any, manifest_of: Callable[[Any], Manifest]
) -> None:
    first, second = manifest_of(corpus), manifest_of(corpus)
    same = {"exclude": {"generated_at"}}

    assert first.generated_at < second.generated_at
    assert first.model_dump_json(**same) == second.model_dump_json(**same)


def test_it_is_read_back_as_it_was_written(
    corpus: Any, manifest_of: Callable[[Any], Manifest], folder: UPath
) -> None:
    manifest = manifest_of(corpus)
    path = write_manifest(manifest, folder)

    assert path == folder / MANIFEST_FILE
    assert read_manifest(folder) == manifest
    raw = json.loads(path.read_bytes())
    assert raw["topics"][0] == {
        "topic": model.T1,
        "run": 70,
        "otras_ejecuciones": 0,
        "ajenos": 0,
        "tombstones": 0,
        "ok": True,
    }
    assert {"python", "duckdb", "confluent-kafka", "emergencias-112"} <= raw["versions"].keys()


def test_the_table_shows_every_topic_in_order(
    corpus: Any, manifest_of: Callable[[Any], Manifest]
) -> None:
    table = render_table(manifest_of(corpus))
    names = [line.split()[0] for line in table.splitlines() if line.strip().startswith("T")]

    assert names == [
        model.T1,
        model.T2,
        model.T2_1,
        model.T2_2,
        model.T2_3,
        model.T3,
        "T3.1_Medicos",
        "T3.2_Bomberos",
        "T3.3_Forestales",
        "T3.4_Guardia_Costera",
        "T3.5_Policia",
        "T3.6_Servicios_de_emergencia",
        model.T4,
    ]
    assert "FAILED" not in table
    assert "need a person" not in table


def test_the_table_shows_what_is_broken_and_who_must_look(
    new_corpus: Callable[..., Any], manifest_of: Callable[[Any], Manifest]
) -> None:
    corpus = new_corpus([{"grado": "Crítica"}, {"grado": "Urgente", "contacto": "+34600000000"}])
    corpus.drop(model.T2_2)
    corpus.receive(None)
    manifest = manifest_of(corpus)
    table = render_table(manifest)

    assert f"{model.T2_2}" in table
    assert "FAILED: " in table
    assert corpus.plan.alert_id(1) in table
    assert f"1 alert(s) need a person (grado desconocido: 1); first: {corpus.plan.alert_id(0)}" in (
        table
    )
    assert "1 record(s) without a value" in table
    assert "+34600000000" not in table


def test_the_summary_is_plain_json(corpus: Any, manifest_of: Callable[[Any], Manifest]) -> None:
    corpus.receive(b"nada")
    summary = manifest_of(corpus).summary()

    assert json.loads(json.dumps(summary)) == summary
    assert summary["ok"] is True
    assert summary["topics"][model.T2] == 36
    assert summary["ajenos"] == {model.T1: 1, model.T4: 1}
    assert summary["failed"] == []


def test_a_red_one_raises_and_a_green_one_does_not(
    corpus: Any, manifest_of: Callable[[Any], Manifest]
) -> None:
    manifest_of(corpus).raise_if_failed()
    corpus.drop(model.T3)
    with pytest.raises(ReconciliationError, match=model.T3):
        manifest_of(corpus).raise_if_failed()
