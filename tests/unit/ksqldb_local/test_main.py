from __future__ import annotations

import pytest

from ksqldb_local.__main__ import parse_arguments

BROKER = ("--bootstrap-servers", "127.0.0.1:9092")


def test_defaults_are_those_of_ksqldb() -> None:
    options = parse_arguments(BROKER)

    assert options.listen == ("127.0.0.1", 8088)
    assert options.service_id == "default_"
    assert not options.no_processing_log_stream


@pytest.mark.parametrize("address", ["0.0.0.0:8088", "192.168.1.2:80", "example.org:80", "8088"])
def test_listens_on_loopback_only(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([*BROKER, "--listen", address])
    assert address.rpartition(":")[0] in capsys.readouterr().err
