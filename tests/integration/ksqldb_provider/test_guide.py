"""The examples of the guide are executed."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_the_client_of_the_guide_deploys(rules, ksqldb_url, bootstrap_servers, capsys):
    code = examples()[1]
    for written, here in (
        ("http://127.0.0.1:8088", ksqldb_url),
        ("127.0.0.1:9092", bootstrap_servers),
        ("include/ksql", str(rules.folder)),
    ):
        assert written in code
        code = code.replace(written, here)
    exec(compile(code, str(GUIDE), "exec"), {})
    assert capsys.readouterr().out.count("create") == 12
