from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emergencias import model
from emergencias.params import RunParamsError
from emergencias.plan import Plan, PlanConflictError, load_plan, run_folder
from emergencias.settings import Settings
from kafka_io import high_watermarks

ROW = dict.fromkeys(model.ORIGINAL_FIELDS, "x")


def test_a_repeated_run_finds_its_plan_and_goes_on_from_it(
    new_plan: Callable[..., Plan], settings: Settings
) -> None:
    first = new_plan("again", alerts=5)

    assert new_plan("again", alerts=5) == first
    assert load_plan(settings, first.dag_id, first.run_id) == first


def test_the_plan_knows_where_t1_ended_before_the_first_alert(
    new_plan: Callable[..., Plan], kafka: dict[str, str]
) -> None:
    ends = high_watermarks(kafka, [model.T1])

    assert new_plan().t1_start_offsets == {str(p): offset for (_, p), offset in ends.items()}


def test_of_many_tries_at_once_all_get_one_plan(new_plan: Callable[..., Plan]) -> None:
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda _: new_plan("race", alerts=3), range(16)))

    assert all(plan == plans[0] for plan in plans)


def test_other_parameters_for_the_same_run_are_refused_naming_them(
    new_plan: Callable[..., Plan],
) -> None:
    new_plan("changed", alerts=5)

    with pytest.raises(PlanConflictError, match=r"alerts: 5 -> 6.*[Nn]ew run"):
        new_plan("changed", alerts=6)


def test_a_changed_file_for_the_same_run_is_refused(
    new_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    file = tmp_path / "in.json"
    file.write_text(json.dumps([ROW]))
    assert new_plan("file", source="file", input_path=str(file)).alerts == 1
    file.write_text(json.dumps([ROW, ROW]))

    with pytest.raises(PlanConflictError, match="changed since"):
        new_plan("file", source="file", input_path=str(file))


def test_a_plan_older_than_the_retention_is_refused(new_plan: Callable[..., Plan]) -> None:
    new_plan("old")

    with pytest.raises(PlanConflictError, match="new run"):
        new_plan("old", retention_ms=0)


def test_a_t1_that_was_made_anew_is_noticed_before_anything_is_sent_twice(
    new_plan: Callable[..., Plan], settings: Settings
) -> None:
    plan = new_plan("anew")
    path = run_folder(settings.export_root, plan.dag_id, plan.run_id) / "plan.json"
    ahead = {partition: offset + 1 for partition, offset in plan.t1_start_offsets.items()}
    path.write_text(plan.model_copy(update={"t1_start_offsets": ahead}).model_dump_json())

    with pytest.raises(PlanConflictError, match=r"not the one .* new run"):
        new_plan("anew")


def test_a_pace_that_cannot_finish_leaves_no_plan(
    new_plan: Callable[..., Plan], settings: Settings
) -> None:
    with pytest.raises(RunParamsError, match="rate_per_second"):
        new_plan("slow", alerts=250, rate_per_second=0.001)

    assert not run_folder(settings.export_root, "emergencias_112", "slow").exists()


def test_a_run_whose_plan_was_deleted_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(PlanConflictError, match="Clear the task plan_run"):
        load_plan(settings, "emergencias_112", "never-planned")


def test_nothing_but_the_plan_is_left_in_the_folder(
    new_plan: Callable[..., Plan], settings: Settings
) -> None:
    plan = new_plan()

    folder = run_folder(settings.export_root, plan.dag_id, plan.run_id)
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
