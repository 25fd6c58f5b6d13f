from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from emergencias import model
from emergencias.export import export_run
from emergencias.manifest import Manifest, ReconciliationError, read_manifest
from emergencias.params import RunParams
from emergencias.plan import load_plan, make_plan, run_folder
from emergencias.reconciliation import reconcile_run
from emergencias.settings import Settings


def finish(hand_routed: Any, plan: Any, folder: UPath) -> Manifest:
    """Export and reconcile, as the last steps of a run do."""
    arguments = (hand_routed.config, plan, folder)
    export_run(*arguments, ("json", "parquet"), timeout_s=30)
    return reconcile_run(*arguments, timeout_s=30)


def test_a_complete_run_is_green(hand_routed: Any, own_topics: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    manifest = finish(hand_routed, plan, folder)

    assert manifest.failed == ()
    assert {count.topic: count.run for count in manifest.topics if count.run} == {
        own_topics(topic): n
        for topic, n in {
            "T1_Recepcion_avisos": 21,
            "T2_Centro_112": 9,
            "T2.1_Sanitarios_112": 6,
            "T2.2_Centro_de_mando": 3,
            "T2.3_Cuerpos_112": 3,
            "T3_No_Urgencias": 9,
            "T3.1_Medicos": 6,
            "T3.2_Bomberos": 3,
            "T3.5_Policia": 3,
            "T4_Revision_manual": 3,
        }.items()
    }
    assert manifest.review.alerts == 3
    assert manifest.review.motivos == {"ningun cuerpo lo atiende": 3}
    assert read_manifest(folder) == manifest


@pytest.mark.parametrize(
    ("sequence", "topic"),
    [
        (0, "T2_Centro_112"),
        (0, "T2.1_Sanitarios_112"),
        (2, "T2.2_Centro_de_mando"),
        (1, "T2.3_Cuerpos_112"),
        (5, "T3_No_Urgencias"),
        (3, "T3.5_Policia"),
        (6, "T4_Revision_manual"),
    ],
)
def test_a_lost_record_makes_the_run_red_and_is_named(
    hand_routed: Any, own_topics: Any, sequence: int, topic: str
) -> None:
    plan, folder = hand_routed.plan("this", alerts=7)
    hand_routed.send(plan, range(7), lose=(sequence, topic))
    manifest = finish(hand_routed, plan, folder)

    with pytest.raises(ReconciliationError) as failure:
        manifest.raise_if_failed()
    assert own_topics(topic) in str(failure.value)
    assert plan.alert_id(sequence) in str(failure.value)
    assert not read_manifest(folder).ok


def test_an_alert_that_was_never_sent_makes_the_run_red(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(20))
    (check,) = finish(hand_routed, plan, folder).failed

    assert (check.expected, check.found) == (21, 20)
    assert check.first_ids == (plan.alert_id(20),)


def test_an_alert_sent_twice_makes_the_run_red(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    hand_routed.send(plan, [4])
    manifest = finish(hand_routed, plan, folder)

    (check,) = manifest.failed
    assert check.name == "no planned alert was received twice"
    assert check.first_ids == (plan.alert_id(4),)


def test_garbage_of_others_is_counted_and_the_run_stays_green(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(10))
    for value in (b"", b"nada", b"[1]", b"\xff\xfe", b'{"grado":"Urgente"', b"{}", None):
        hand_routed.put(model.T1, value, None)
        hand_routed.put(model.T2, value, b"\xff")
        hand_routed.put(model.T2_1, value, b"")
    hand_routed.send(plan, range(10, 21))
    manifest = finish(hand_routed, plan, folder)

    assert manifest.failed == ()
    counts = {count.topic: count for count in manifest.topics}
    for topic in (model.T1, model.T2, model.T2_1):
        assert (counts[topic].ajenos, counts[topic].tombstones) == (6, 1)
    assert counts[model.T1].run == 21


def test_runs_at_the_same_time_do_not_mix(hand_routed: Any) -> None:
    one, folder_one = hand_routed.plan("one")
    two, folder_two = hand_routed.plan("two")
    for n in range(21):
        hand_routed.send(one, [n])
        hand_routed.send(two, [n])
    for plan, folder in ((one, folder_one), (two, folder_two)):
        manifest = finish(hand_routed, plan, folder)
        assert manifest.failed == ()
        counts = {count.topic: count for count in manifest.topics}
        assert counts[model.T1].run == counts[model.T1].otras_ejecuciones == 21
        assert counts[model.T2].run == 9
        assert all(count.ajenos == 0 for count in counts.values())


def test_a_second_run_after_the_first_leaves_it_as_it_was(hand_routed: Any) -> None:
    one, folder_one = hand_routed.plan("one")
    hand_routed.send(one, range(21))
    finish(hand_routed, one, folder_one)
    before = {path.name: path.read_bytes() for path in folder_one.iterdir()}
    two, folder_two = hand_routed.plan("two")
    hand_routed.send(two, range(21))

    first = read_manifest(folder_one)
    assert finish(hand_routed, two, folder_two).ok
    second = finish(hand_routed, one, folder_one)
    after = {path.name: path.read_bytes() for path in folder_one.iterdir()}
    del before["manifest.json"], after["manifest.json"]
    assert after == before
    # The manifest tells of the other run's records in the window, and else the same.
    others = {"generated_at": True, "offsets": {"__all__": {"end"}}}
    others["topics"] = {"__all__": {"otras_ejecuciones"}}
    assert second.model_dump(exclude=others) == first.model_dump(exclude=others)
    assert second.topics[0].otras_ejecuciones == 21


def test_reconciling_again_unchanged_topics_changes_the_time_only(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    first, second = (finish(hand_routed, plan, folder) for _ in range(2))

    assert first.model_dump(exclude={"generated_at"}) == second.model_dump(exclude={"generated_at"})


def test_a_run_is_judged_by_the_sql_it_was_planned_with(hand_routed: Any, tmp_path: Path) -> None:
    settings = Settings(include_dir=tmp_path / "include", export_root=str(tmp_path / "exports"))
    settings.sql_dir.mkdir(parents=True)
    for name, text in hand_routed.routing_sql.items():
        (settings.sql_dir / name).write_text(text, encoding="utf-8")
    run = {"dag_id": "emergencias_112", "run_id": "this"}
    interval_end = datetime(2026, 3, 1, tzinfo=UTC)
    make_plan(
        hand_routed.config,
        settings,
        **run,
        params=RunParams(alerts=21),
        interval_end=interval_end,
        retention_ms=2_592_000_000,
    )
    hand_routed.send(load_plan(settings, **run), range(21))
    police = settings.sql_dir / "11_redireccion_policia.sql"
    police.write_text(police.read_text("utf-8").replace("'Policia'", "'GEOs'"), encoding="utf-8")

    plan, folder = load_plan(settings, **run), run_folder(settings.export_root, **run)
    assert finish(hand_routed, plan, folder).failed == ()
    edited = {**plan.routing_sql, police.name: police.read_text("utf-8")}
    (check,) = finish(hand_routed, plan.model_copy(update={"routing_sql": edited}), folder).failed
    assert police.name in check.name


def test_a_file_that_was_cut_makes_the_run_red(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    finish(hand_routed, plan, folder)
    path = folder / "TOTAL_AVISOS.json"
    path.write_bytes(path.read_bytes()[:-2])
    manifest = reconcile_run(hand_routed.config, plan, folder)

    (check,) = manifest.failed
    assert check.name == "TOTAL_AVISOS.json tells every alert once"


def test_no_telephone_number_is_told(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(7), lose=(0, "T2.1_Sanitarios_112"))
    manifest = finish(hand_routed, plan, folder)

    assert "+34600000000" not in manifest.model_dump_json()
    with pytest.raises(ReconciliationError) as failure:
        manifest.raise_if_failed()
    assert "+34600000000" not in str(failure.value)
