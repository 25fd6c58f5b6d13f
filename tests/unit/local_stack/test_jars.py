from __future__ import annotations

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from local_stack import jars
from local_stack.errors import JarError
from local_stack.jars import LOCK_FILE, LockedJar, fetch, read_lock, verified_classpath
from local_stack.preflight import free_ports


def locked(artifact: str, content: bytes) -> LockedJar:
    return LockedJar("org.example", artifact, "1.0", hashlib.sha256(content).hexdigest())


def put(jar: LockedJar, repository, content: bytes):
    path = jar.path_in(repository)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A Maven repository on HTTP that jgo is told to use; yields its folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(jars, "_remote_repositories", lambda: {"central": address})
    yield folder
    server.shutdown()
    server.server_close()


def test_the_lock_pins_kafka_and_a_log_with_a_sha256_each():
    pinned = {jar.artifact: jar for jar in read_lock()}
    assert pinned["kafka_2.13"].version == pinned["kafka-clients"].version == "4.3.1"
    assert "slf4j-simple" in pinned
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in pinned.values())


def test_the_lock_names_no_host():
    assert "://" not in LOCK_FILE.read_text()


@pytest.mark.parametrize(
    "text",
    [
        '[[dependencies]]\ngroupId = "a"\nartifactId = "b"\nversion = "1"\n',
        "[metadata]\n",
        "dependencies = []\n",
        "not toml",
    ],
    ids=["no checksum", "no dependencies", "empty", "garbage"],
)
def test_a_lock_that_pins_nothing_is_refused(tmp_path, text):
    path = tmp_path / "jgo.lock.toml"
    path.write_text(text)
    with pytest.raises(JarError, match="restore it from version control"):
        read_lock(path)


def test_the_class_path_is_exactly_the_locked_jars_in_their_order(tmp_path):
    first, second = locked("zeta", b"z"), locked("alpha", b"a")
    paths = [put(first, tmp_path, b"z"), put(second, tmp_path, b"a")]
    put(locked("stranger", b"x"), tmp_path, b"x")
    assert verified_classpath([first, second], tmp_path) == paths


def test_a_tampered_jar_is_refused_and_named(tmp_path):
    good, bad = locked("good", b"g"), locked("bad", b"b")
    put(good, tmp_path, b"g")
    path = put(bad, tmp_path, b"b and a back door")
    with pytest.raises(JarError, match="SHA-256 differs") as error:
        verified_classpath([good, bad], tmp_path)
    assert str(path) in str(error.value)
    assert "good" not in str(error.value)


def test_a_missing_jar_is_refused_with_the_command_that_fetches_it(tmp_path):
    with pytest.raises(JarError, match=r"org\.example:gone:1\.0.*emergencias stack jars"):
        verified_classpath([locked("gone", b"")], tmp_path)


def test_only_missing_jars_are_downloaded(tmp_path, mirror):
    here, there = locked("here", b"h"), locked("there", b"t")
    repository = tmp_path / "m2"
    put(here, repository, b"h")
    put(there, mirror, b"t")
    asked = []
    paths = fetch([here, there], repository, on_fetch=asked.append)
    assert asked == [there]
    assert [path.read_bytes() for path in paths] == [b"h", b"t"]
    assert fetch([here, there], repository, on_fetch=asked.append) == paths
    assert asked == [there]


def test_a_download_that_is_not_the_locked_jar_is_refused(tmp_path, mirror):
    jar = locked("swapped", b"what was locked")
    put(jar, mirror, b"what the mirror serves")
    with pytest.raises(JarError, match="SHA-256 differs"):
        fetch([jar], tmp_path / "m2")


def test_a_jar_that_no_repository_has_is_an_error_that_says_what_to_do(tmp_path, mirror):
    with pytest.raises(JarError, match=r"cannot download org\.example:gone:1\.0.*network"):
        fetch([locked("gone", b"")], tmp_path / "m2")


def test_without_network_nothing_is_left_that_could_pass_for_a_jar(tmp_path, monkeypatch):
    (closed,) = free_ports(1)
    address = f"http://127.0.0.1:{closed}"
    monkeypatch.setattr(jars, "_remote_repositories", lambda: {"central": address})
    with pytest.raises(JarError, match="cannot download"):
        fetch([locked("far", b"")], tmp_path)
    assert list(tmp_path.rglob("*.jar")) == []
