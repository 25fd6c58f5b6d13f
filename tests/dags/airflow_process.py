"""Runs the DAG again and again in one process; started and spoken to by the fixture `airflow`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import datetime
from typing import Any


def run(order: dict[str, Any]) -> int:
    from airflow.dag_processing.dagbag import DagBag

    os.environ.update(order["env"])
    # The file is parsed anew for each run, so that it sees the environment of that run.
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    dag = DagBag(dag_folder=folder).dags["emergencias_112"]
    when = datetime.fromisoformat(order["when"]) if order["when"] else None
    dates = {"run_after": when, "logical_date": when} if when else {}
    only = f"^(?!{order['only']}$).*" if order["only"] else None
    done = dag.test(**dates, run_conf=order["conf"], mark_success_pattern=only)
    return int(done.state != "success")


if __name__ == "__main__":
    for line in sys.stdin:
        before = dict(os.environ)
        try:
            status = run(json.loads(line))
        except Exception:
            traceback.print_exc()
            status = 1
        os.environ.clear()
        os.environ.update(before)
        sys.stderr.flush()
        print(f"\n@@status {status}", flush=True)
