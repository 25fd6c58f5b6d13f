"""The examples of the guide are executed."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[3] / "docs" / "ksqldb_provider.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_dag_of_the_guide_orders_its_tasks():
    names: dict[str, object] = {}
    exec(compile(examples()[0], str(GUIDE), "exec"), names)
    routed = names["routed"]
    assert routed.upstream_task_ids == {"deploy_streams"}
    assert names["deploy"].upstream_task_ids == {"wait_for_ksqldb"}
    assert "query_ids" in routed.template_fields


def test_the_orders_of_the_guide_are_created_asked_for_and_dropped(
    connections, client, task_instance, tmp_path
):
    name = f"orders_{uuid.uuid4().hex[:8]}"
    code = re.sub(r"\b(orders|ORDERS)\b", lambda match: name.upper(), examples()[1])
    code = code.replace(f"/tmp/{name.upper()}.jsonl", str(tmp_path / "rows.jsonl"))
    names: dict[str, Any] = {}
    exec(compile(code, str(GUIDE), "exec"), names)

    def run(operator: Any) -> Any:
        operator.render_template_fields({"params": {"product": "Nuts 'n' bolts"}})
        return operator.execute({"ti": task_instance})

    assert len(run(names["create"])) == 2
    assert names["order_more"].function() == "Nuts 'n' bolts"
    assert run(names["big"]) == [{"ID": "1", "PIECES": 12}]
    assert run(names["follow"])["rows"] == 2
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["PRODUCT"] for row in rows] == ["Nuts 'n' bolts", "Screws"]
    assert run(names["drop"]) == [name.upper()]
    assert name.upper() not in {stream.name for stream in client.streams()}
    assert {task.task_id for task in names["drop"].dag.tasks} == {
        *("create", "order_more", "big", "follow", "drop")
    }


def test_the_client_of_the_guide_deploys(rules, ksqldb_url, bootstrap_servers, capsys):
    code = examples()[2]
    for written, here in (
        ("http://127.0.0.1:8088", ksqldb_url),
        ("127.0.0.1:9092", bootstrap_servers),
        ("include/ksql", str(rules.folder)),
    ):
        assert written in code
        code = code.replace(written, here)
    exec(compile(code, str(GUIDE), "exec"), {})
    assert capsys.readouterr().out.count("create") == 12
