from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from upath import UPath

from emergencias.export import ExportResult, export_run
from emergencias.plan import PLAN_FILE


def export(hand_routed: Any, plan: Any, folder: UPath, *formats: str) -> ExportResult:
    return export_run(
        hand_routed.config,
        plan,
        folder,
        formats or ("json", "parquet"),
        timeout_s=30,
    )


def contents(folder: UPath) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_runs_files_hold_its_records(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    result = export(hand_routed, plan, folder)

    assert [(file.name, file.rows) for file in result.files] == [
        ("TOTAL_AVISOS.json", 21),
        ("TOTAL_AVISOS_SANITARIOS_112.json", 6),
        ("avisos.parquet", 21),
        ("entregas.parquet", 45),
    ]
    alerts = json.loads((folder / "TOTAL_AVISOS.json").read_bytes())
    assert {alert["id_aviso"] for alert in alerts} == {plan.alert_id(n) for n in range(21)}
    fechas = [alert["fecha"] for alert in alerts]
    assert fechas == sorted(fechas)
    table = pq.read_table(str(folder / "avisos.parquet"))
    assert table["id_aviso"].to_pylist() == [alert["id_aviso"] for alert in alerts]


def test_exporting_again_changes_no_byte(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    first = export(hand_routed, plan, folder)
    before = contents(folder)

    assert export(hand_routed, plan, folder) == first
    assert contents(folder) == before
    assert set(before) == {PLAN_FILE, *(file.name for file in first.files)}


def test_runs_at_the_same_time_do_not_mix(hand_routed: Any) -> None:
    one, folder_one = hand_routed.plan("one")
    two, folder_two = hand_routed.plan("two")
    for n in range(21):
        hand_routed.send(one, [n])
        hand_routed.send(two, [n])
    for plan, folder in ((one, folder_one), (two, folder_two)):
        export(hand_routed, plan, folder)
        alerts = json.loads((folder / "TOTAL_AVISOS.json").read_bytes())
        assert {alert["id_ejecucion"] for alert in alerts} == {plan.id_ejecucion}
        assert len(alerts) == 21
        deliveries = pq.read_table(str(folder / "entregas.parquet"))["id_aviso"].to_pylist()
        assert set(deliveries) == {plan.alert_id(n) for n in range(21)}


def test_only_the_formats_asked_for_are_written(hand_routed: Any) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(3))
    export(hand_routed, plan, folder, "parquet")

    assert set(contents(folder)) == {PLAN_FILE, "avisos.parquet", "entregas.parquet"}


@pytest.mark.parametrize("scheme", ["memory"])
def test_an_object_store_gets_the_same_bytes(hand_routed: Any, scheme: str) -> None:
    plan, folder = hand_routed.plan("this")
    hand_routed.send(plan, range(21))
    export(hand_routed, plan, folder)
    remote = UPath(f"{scheme}://{folder}")
    export(hand_routed, plan, remote)

    local = contents(folder)
    del local[PLAN_FILE]
    assert contents(remote) == local
