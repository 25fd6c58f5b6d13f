"""TLS, against a server that really speaks it."""

from __future__ import annotations

import json
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ksqldb_provider.client import ServerUnavailableError
from ksqldb_provider.hooks import KsqlDbHook

INFO = {"version": "7.6.0", "kafkaClusterId": "c", "ksqlServiceId": "s", "serverStatus": "RUNNING"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> dict[str, str]:
    """A certificate for 127.0.0.1 that has signed itself, its key, and the key under a password."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = {"cert": made.public_bytes(serialization.Encoding.PEM)}
    for file, encryption in (
        ("key", serialization.NoEncryption()),
        ("locked_key", serialization.BestAvailableEncryption(b"secret")),
    ):
        files[file] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return {file: str(folder / file) for file in files}


@pytest.fixture(params=[False, True], ids=["TLS", "mTLS"])
def server(request, certificate):
    """A TLS server, which asks for a client certificate or not; its port and whether it does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"KsqlServerInfo": INFO}).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:
            """A refused handshake is what the tests want."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate["cert"], certificate["key"])
    if request.param:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate["cert"])
    with Quiet(("127.0.0.1", 0), Handler) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_port, request.param
        http.shutdown()


@pytest.fixture
def ask(monkeypatch):
    """Ask the server of a connection with the given extra who it is."""

    def asked(port: int, extra: dict[str, object], schema: str = "https") -> str:
        connection = {"conn_type": "ksqldb", "schema": schema, "host": "127.0.0.1", "port": port}
        monkeypatch.setenv(
            "AIRFLOW_CONN_KSQLDB_DEFAULT", json.dumps({**connection, "extra": extra})
        )
        with KsqlDbHook().get_client() as client:
            return client.info().version

    return asked


def test_the_server_is_trusted_by_its_ca_and_the_client_by_its_certificate(
    server, certificate, ask
):
    port, wants_certificate = server
    client = {"client_cert": certificate["cert"], "client_key": certificate["key"]}
    assert ask(port, {"ca_file": certificate["cert"], **client}) == "7.6.0"
    assert ask(port, {"verify": False, **client}) == "7.6.0"
    if wants_certificate:
        with pytest.raises(ServerUnavailableError):
            ask(port, {"ca_file": certificate["cert"]})
    else:
        assert ask(port, {"ca_file": certificate["cert"]}) == "7.6.0"


def test_an_unknown_server_is_not_trusted(server, ask):
    with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(server[0], {})


@pytest.mark.parametrize(
    ("extra", "schema", "problem"),
    [
        ({"ca_file": "/no/ca.pem"}, "https", r"cannot load the certificates /no/ca\.pem"),
        ({"client_key": "/no/key.pem"}, "https", "client_key is given, client_cert is not"),
        ({"ca_file": "/a"}, "http", "its scheme is http"),
        ({"verify": "no"}, "https", "verify is 'no', neither true nor false"),
    ],
)
def test_settings_that_would_not_protect_are_refused(ask, extra, schema, problem):
    with pytest.raises(ValueError, match=problem):
        ask(1, extra, schema)


def test_a_locked_key_is_refused_instead_of_asking_the_terminal(ask, certificate):
    extra = {"client_cert": certificate["cert"], "client_key": certificate["locked_key"]}
    with pytest.raises(ValueError, match="cannot load the certificates"):
        ask(1, extra)
