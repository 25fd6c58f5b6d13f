from __future__ import annotations

import json

import httpx
import pytest

from emergencias_cli.airflow_api import AirflowApi, TaskState
from local_stack.errors import StackError

URL = "http://127.0.0.1:8080"


class Airflow:
    """Answers as Airflow 3.3 does; `answers` come first, in their order."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        if request.url.path == "/auth/token":
            if json.loads(request.content)["password"] != "right":
                return httpx.Response(401, json={"detail": "Invalid credentials"})
            return httpx.Response(201, json={"access_token": "token"})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def api(self, password="right"):
        transport = httpx.MockTransport(self)
        return AirflowApi(URL, "admin", password, transport=transport, pause_s=0)


def test_a_run_is_triggered_with_its_params_and_the_token():
    airflow = Airflow(httpx.Response(200, json={"dag_run_id": "manual__1", "state": "queued"}))
    with airflow.api() as api:
        assert api.trigger("a/dag", {"alerts": 7}) == "manual__1"
    request = airflow.asked[-1]
    assert request.url.raw_path == b"/api/v2/dags/a%2Fdag/dagRuns"
    assert request.headers["Authorization"] == "Bearer token"
    assert json.loads(request.content) == {"logical_date": None, "conf": {"alerts": 7}}


def test_a_wrong_password_says_where_the_right_one_is():
    with pytest.raises(StackError, match=r"password of 'admin' that \.env holds"):
        Airflow().api(password="wrong").__enter__()


def test_a_refusal_carries_airflows_reason():
    airflow = Airflow(httpx.Response(400, json={"detail": "alerts: 0 is less than 1"}))
    with airflow.api() as api, pytest.raises(StackError, match="alerts: 0 is less than 1"):
        api.trigger("dag", {"alerts": 0})


def test_a_trigger_without_an_answer_is_not_sent_twice():
    airflow = Airflow(httpx.ReadTimeout("slow"), httpx.Response(200, json={}))
    with airflow.api() as api, pytest.raises(StackError, match="does not answer"):
        api.trigger("dag", {})
    assert len(airflow.asked) == 2  # the token's, and the one


def test_a_question_is_asked_again_while_airflow_restarts():
    restarting = [httpx.ConnectError("refused"), httpx.Response(503)]
    airflow = Airflow(*restarting, httpx.Response(200, json={"state": "running"}))
    with airflow.api() as api:
        assert api.run_state("dag", "run") == "running"


def test_a_dag_that_is_not_read_yet_is_waited_for():
    unknown = httpx.Response(404, json={"detail": "not found"})
    airflow = Airflow(unknown, unknown, httpx.Response(200, json={}))
    with airflow.api() as api:
        api.unpause("dag")
    assert json.loads(airflow.asked[-1].content) == {"is_paused": False}


def test_a_dag_that_never_comes_is_named_with_where_to_look():
    airflow = Airflow(*[httpx.Response(404, json={})] * 2)
    with airflow.api() as api, pytest.raises(StackError, match=r"no DAG dag .*dag-processor"):
        api.unpause("dag", timeout_s=-1)


def test_tasks_come_with_state_and_time():
    instance = {"task_id": "plan_run", "state": None, "duration": None, "try_number": 0}
    airflow = Airflow(httpx.Response(200, json={"task_instances": [instance]}))
    with airflow.api() as api:
        assert api.tasks("dag", "run") == [TaskState("plan_run", None, None)]
