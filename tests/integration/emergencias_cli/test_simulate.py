from __future__ import annotations

import orjson
from typer.testing import CliRunner

from emergencias import model
from emergencias.settings import PROJECT_ROOT
from emergencias_cli.main import app
from kafka_io import ensure_topics, high_watermarks, load_catalogue, read_range


def test_alerts_on_the_topic_are_the_files_each_once_under_its_id(
    bootstrap_servers, monkeypatch, tmp_path
):
    monkeypatch.setenv("EMERGENCIAS_KAFKA_PORT", bootstrap_servers.rsplit(":", 1)[1])
    monkeypatch.setenv("EMERGENCIAS_INSTANCE", "test")
    options = {"alerts": 9000, "profile": "surge", "seed": 3, "start": "2024-10-29"}
    arguments = [f"--{name}={value}" for name, value in (options | {"end": "2024-10-30"}).items()]
    file = tmp_path / "alerts.jsonl"
    config = {"bootstrap.servers": bootstrap_servers}
    ensure_topics(config, load_catalogue(PROJECT_ROOT / "include/kafka/topics.yaml"))
    starts = high_watermarks(config, [model.T1])  # before them, other tests' records

    for to in ("topic", str(file)):
        result = CliRunner().invoke(app, ["simulate", *arguments, "--to", to])
        assert result.exit_code == 0, result.output
    ends = high_watermarks(config, [model.T1])
    found = {}
    for batch in read_range(config, starts, ends, timeout_s=30):
        for message in batch:
            assert message.key() not in found
            found[message.key()] = orjson.loads(message.value())

    (run,) = {alert.pop("id_ejecucion") for alert in found.values()}
    assert run.startswith("test/simulate/")
    wanted = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert len(wanted) == 9000
    assert found == {
        model.alert_id(run, number).encode(): alert for number, alert in enumerate(wanted)
    }
