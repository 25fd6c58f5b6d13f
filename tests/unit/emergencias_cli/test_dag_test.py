from __future__ import annotations

import sys

import pytest

from emergencias_cli import dag_test
from emergencias_cli.dag_test import (
    Finished,
    LogReader,
    TaskEnded,
    TaskOutcome,
    TaskStarted,
    run_dag,
)

# Shortened from `airflow dags test` of Airflow 3.3.2.
LOG = """\
2026-11-25T02:24:06.000000Z [info     ] DAG bundles loaded: dags-folder [airflow] loc=manager.py:304
2026-11-25T02:24:06.100000Z [info     ] Created dag run.               [airflow.models.dagrun] \
dagrun=<DagRun emergencias_112 @ 2026-11-25 02:23:35.320168+00:00: \
manual__2026-11-25T02:23:37.413646+00:00, state:running, queued_at: None. run_type: manual> loc=1
2026-11-25T02:24:06.200000Z [info     ] [DAG TEST] starting task_id=wait map_index=-1 [airflow]
2026-11-25T02:24:06.300000Z [info     ] Task instance state updated    [airflow] \
loc=task_instances.py:485 new_state=success rows_affected=1
2026-11-25T02:24:06.500000Z [info     ] [DAG TEST] end task task_id=wait map_index=-1 [airflow]
2026-11-25T02:24:07.000000Z [info     ] [DAG TEST] starting task_id=produce map_index=2 [airflow]
2026-11-25T02:24:07.100000Z [error    ] Task failed with exception     [task]
Traceback (most recent call last):
  File "x.py", line 3, in inner
    open(path)
OSError: first cause

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 5, in outer
    raise SourceError(text) from error
emergencias.sources.SourceError: row 3: grado 'Grave'
allowed: Leve, Moderado
    (see docs)
2026-11-25T02:24:07.200000Z [info     ] ::group::Post Execute          [task]
2026-11-25T02:24:07.300000Z [info     ] Task instance state updated    [airflow] new_state=failed
2026-11-25T02:24:08.000000Z [info     ] [DAG TEST] end task task_id=produce map_index=2 [airflow]
DagRun failed
"""


def test_the_log_tells_the_run_its_tasks_and_why_one_failed():
    reader = LogReader()
    events = list(reader.feed(LOG.splitlines(keepends=True)))
    message = "emergencias.sources.SourceError: row 3: grado 'Grave'\nallowed: Leve, Moderado"
    message += "\n    (see docs)"
    assert events == [
        TaskStarted("wait"),
        TaskEnded("wait", TaskOutcome.SUCCESS, 0.3, ""),
        TaskStarted("produce[2]"),
        TaskEnded("produce[2]", TaskOutcome.FAILED, 1.0, message),
    ]
    assert reader.run_id == "manual__2026-11-25T02:23:37.413646+00:00"
    assert reader.error == message


def test_an_error_before_any_task_is_told_without_its_frames():
    reader = LogReader()
    output = f"""\
{LOG.splitlines()[0]}
Traceback (most recent call last):
  File "/bin/airflow", line 7, in <module>
    sys.exit(main())
             ^^^^^^
  File "param.py", line 151, in _validate_one
    raise ParamValidationError(text) from None
airflow.sdk.exceptions.ParamValidationError: Invalid input for param alerts: 0 is less than 1

On instance:
    0
"""
    assert list(reader.feed(output.splitlines())) == []
    assert reader.error == (
        "airflow.sdk.exceptions.ParamValidationError: Invalid input for param alerts: "
        "0 is less than 1\n\nOn instance:\n    0"
    )


def test_an_exception_that_a_task_handled_is_not_why_the_run_failed():
    reader = LogReader()
    list(reader.feed(LOG.replace("new_state=failed", "new_state=success").splitlines()))
    assert reader.error == ""


def test_lines_can_come_one_at_a_time():
    at_once, one_by_one = LogReader(), LogReader()
    lines = LOG.splitlines(keepends=True)
    expected = list(at_once.feed(lines))
    assert [event for line in lines for event in one_by_one.feed([line])] == expected


def test_a_state_that_airflow_may_add_is_unknown_not_an_error():
    reader = LogReader()
    events = list(reader.feed(LOG.replace("new_state=success", "new_state=dreaming").splitlines()))
    assert events[1] == TaskEnded("wait", TaskOutcome.UNKNOWN, 0.3, "")


def test_output_that_is_no_airflow_log_tells_nothing():
    reader = LogReader()
    assert list(reader.feed(["Segmentation fault", "", "  File"])) == []
    assert reader.run_id is None


@pytest.fixture
def airflow(monkeypatch):
    """Put Python code in Airflow's place that shows its arguments and fails."""
    code = "import sys; print(*sys.argv[1:], sep='|'); print('worse', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(dag_test, "AIRFLOW", (sys.executable, "-c", code))


@pytest.mark.parametrize(
    ("conf", "arguments"),
    [
        (None, "dags|test|emergencias_112"),
        ('{"alerts": 1}', 'dags|test|emergencias_112|--conf|{"alerts": 1}'),
    ],
)
def test_the_output_is_shown_and_kept_and_ends_with_the_exit_status(
    airflow, tmp_path, conf, arguments
):
    log = tmp_path / "logs" / "run.log"
    output = list(run_dag("emergencias_112", conf, env={}, cwd=tmp_path, log=log))
    finished = output.pop()
    assert isinstance(finished, Finished)
    assert finished.exit_status == 3
    assert output == [f"{arguments}\n", "worse\n"]
    assert log.read_text() == "".join(line for line in output if isinstance(line, str))
