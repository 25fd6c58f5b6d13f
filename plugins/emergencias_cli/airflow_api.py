"""What the command line asks of a running Airflow through its REST API."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from local_stack.errors import StackError

_TIMEOUT_S = 30.0
_SILENCE_S = 120.0
"""How long Airflow may not answer: longer than its API server takes to start again."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task of a run: its state as Airflow names it, None before it is scheduled."""

    task_id: str
    state: str | None
    seconds: float | None


class AirflowApi:
    """Airflow's REST API with a token of its own; to be closed, or used in a `with`.

    Raises:
        StackError: From every call: Airflow does not answer, or refuses; says what to do.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        transport: httpx.BaseTransport | None = None,
        pause_s: float = 1.0,
    ) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        self._pause_s = pause_s
        self._pause = threading.Event()
        # A proxy of the environment leads away from this machine.
        self._http = httpx.Client(
            base_url=url, timeout=_TIMEOUT_S, trust_env=False, transport=transport
        )

    def __enter__(self) -> Self:
        """Log in."""
        answer = self._ask("POST", "/auth/token", json=self._login)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise StackError(
                f"Airflow at {self.url} does not take the password of '{self._login['username']}' "
                "that .env holds. If .env was changed after the start, run `make compose-up`."
            )
        token = self._checked(answer)["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def unpause(self, dag_id: str, *, timeout_s: float = 120.0) -> None:
        """Let the DAG's runs start, as soon as the DAG processor has read its file.

        Args:
            dag_id: The DAG.
            timeout_s: How long the file may not have been read yet.
        """
        deadline = time.monotonic() + timeout_s
        path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        while True:
            answer = self._ask("PATCH", path, json={"is_paused": False})
            if answer.status_code != httpx.codes.NOT_FOUND:
                self._checked(answer)
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"Airflow at {self.url} knows no DAG {dag_id} after {timeout_s:.0f} s: its "
                    "file has an error, or the DAG processor does not run; see "
                    "`docker compose logs airflow-dag-processor`."
                )
            self._pause.wait(self._pause_s)

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run and return its run id; params that the DAG refuses raise."""
        path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns"
        # Sent once: a request without an answer may have started a run.
        answer = self._ask("POST", path, again=False, json={"logical_date": None, "conf": conf})
        return str(self._checked(answer)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the run's state: queued, running, success or failed."""
        return str(self._checked(self._ask("GET", _run_path(dag_id, run_id)))["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """Return the run's tasks."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        found = self._checked(self._ask("GET", path))["task_instances"]
        return [TaskState(t["task_id"], t["state"], t["duration"]) for t in found]

    def _ask(self, method: str, path: str, *, again: bool = True, **content: Any) -> httpx.Response:
        """Return the answer; without one ask again for a while, if asking twice does no harm."""
        deadline = time.monotonic() + _SILENCE_S
        while True:
            try:
                answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                if not again or time.monotonic() > deadline:
                    raise StackError(
                        f"Airflow at {self.url} does not answer ({error or type(error).__name__}). "
                        "`make compose-up` starts it; `docker compose ps` shows what runs."
                    ) from error
            else:
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return answer
                if not again or time.monotonic() > deadline:
                    return answer
            self._pause.wait(self._pause_s)

    def _checked(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json()
        try:
            detail = answer.json()["detail"]
        except (ValueError, LookupError, TypeError):
            detail = answer.text[:1000]
        raise StackError(
            f"Airflow at {self.url} refuses {answer.request.method} {answer.request.url.path} "
            f"(status {answer.status_code}): {detail}"
        )


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
