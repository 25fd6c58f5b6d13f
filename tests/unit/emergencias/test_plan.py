from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from emergencias.plan import execution_id, run_folder, seed_of


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_dag_or_run_id_leaves_the_export_root(dag_id: str, run_id: str) -> None:
    folder = Path(run_folder("/exports", dag_id, run_id).path)

    assert folder.parent.parent == Path("/exports")
    assert ".." not in folder.parts


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_runs_never_share_a_folder(one: str, other: str) -> None:
    assert (run_folder("/e", "d", one) == run_folder("/e", "d", other)) == (one == other)


def test_the_run_id_is_percent_encoded_whole() -> None:
    folder = run_folder("/e", "emergencias_112", "manual__2026-01-01T00:00:00+00:00")

    assert folder.name == "manual__2026-01-01T00%3A00%3A00%2B00%3A00"


def test_every_retry_of_a_run_without_a_seed_gets_the_same_one() -> None:
    assert seed_of("a") == seed_of("a") != seed_of("b")
    assert 0 <= seed_of("a") < 2**63


def test_the_identity_of_a_run_names_instance_dag_and_run() -> None:
    assert execution_id("local", "emergencias_112", "r") == "local/emergencias_112/r"
