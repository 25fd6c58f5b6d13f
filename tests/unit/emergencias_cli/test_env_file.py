from __future__ import annotations

from cryptography.fernet import Fernet

from emergencias_cli.env_file import SECRETS, fill_in
from local_stack.settings import PROJECT_ROOT

EXAMPLE = PROJECT_ROOT / ".env.example"


def values(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_secret_is_drawn_and_only_the_owner_can_read_them(tmp_path):
    target = tmp_path / ".env"
    assert fill_in(EXAMPLE, target) == list(SECRETS)
    drawn = values(target)
    assert drawn.keys() == SECRETS.keys()
    assert min(map(len, drawn.values())) >= 32
    assert len(set(drawn.values())) == len(SECRETS)
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_two_installations_share_no_secret(tmp_path):
    fill_in(EXAMPLE, tmp_path / "a")
    fill_in(EXAMPLE, tmp_path / "b")
    a, b = values(tmp_path / "a"), values(tmp_path / "b")
    assert not set(a.values()) & set(b.values())


def test_airflow_can_encrypt_with_the_key(tmp_path):
    fill_in(EXAMPLE, tmp_path / ".env")
    Fernet(values(tmp_path / ".env")["AIRFLOW_FERNET_KEY"])


def test_what_is_there_stays_and_only_what_lacks_is_drawn(tmp_path):
    target = tmp_path / ".env"
    target.write_text("POSTGRES_PASSWORD=mine\nAIRFLOW_JWT_SECRET=\nAIRFLOW_PORT=9000\n")
    drawn = fill_in(EXAMPLE, target)
    assert "POSTGRES_PASSWORD" not in drawn
    found = values(target)
    assert found["POSTGRES_PASSWORD"] == "mine"
    assert found["AIRFLOW_PORT"] == "9000"
    assert all(found[name] for name in SECRETS)


def test_a_complete_file_is_not_touched(tmp_path):
    target = tmp_path / ".env"
    fill_in(EXAMPLE, target)
    before = target.read_bytes(), target.stat().st_mtime_ns
    assert fill_in(EXAMPLE, target) == []
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
