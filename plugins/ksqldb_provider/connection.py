"""What an Airflow connection of type `ksqldb` says, checked before anything is connected."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from ksqldb_provider.client import KsqlDbClient

DEFAULT_PORT = 8088


def client_of(connection: Connection) -> KsqlDbClient:
    """Return a client of the cluster that a connection describes; nothing is connected yet.

    Raises:
        ValueError: The connection says something that cannot be used; names the field.
    """
    from ksqldb_provider.client import KsqlDbClient

    return KsqlDbClient(
        _addresses(connection),
        auth=(connection.login, connection.password or "") if connection.login else None,
        verify=_tls(connection),
        connect_timeout_s=_seconds(connection, "connect_timeout_s", default=5.0),
        read_timeout_s=_seconds(connection, "read_timeout_s", default=40.0),
    )


def browser_url(connection: Connection, address: str) -> str:
    """Return where a browser finds the server that `address` names for Airflow's workers."""
    return str(connection.extra_dejson.get("browser_url") or address).rstrip("/")


def _addresses(connection: Connection) -> list[str]:
    scheme = _scheme(connection)
    hosts = [host.strip() for host in (connection.host or "").split(",") if host.strip()]
    if not hosts:
        raise ValueError(f"connection {connection.conn_id!r} has no host: give that of ksqlDB")
    port = connection.port or DEFAULT_PORT
    return [_address(connection, scheme, host, port) for host in hosts]


def _address(connection: Connection, scheme: str, host: str, port: int) -> str:
    address = f"{scheme}://{host if _has_port(host) else f'{host}:{port}'}"
    try:
        parts = urlsplit(address)
        (parts.hostname or "").encode("idna")
        usable = bool(parts.hostname and parts.port) and "/" not in host and "@" not in host
    except ValueError:  # also what idna raises
        usable = False
    if not usable:
        raise ValueError(
            f"connection {connection.conn_id!r}: host {host!r} is not a name or address, with or "
            "without a port (scheme, user and password have fields of their own)"
        )
    return address


def _scheme(connection: Connection) -> str:
    scheme = connection.schema or "http"
    if scheme not in ("http", "https"):
        raise ValueError(
            f"connection {connection.conn_id!r}: scheme {scheme!r} is neither http nor https"
        )
    return scheme


def _has_port(host: str) -> bool:
    """Tell `a:8088` and `[::1]:8088` from `a` and `[::1]`."""
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _tls(connection: Connection) -> bool | ssl.SSLContext:
    extra: Mapping[str, Any] = connection.extra_dejson
    ca, certificate, key = (
        str(extra.get(name) or "") or None for name in ("ca_file", "client_cert", "client_key")
    )
    verify = extra.get("verify")
    if verify not in (True, False, None):
        raise ValueError(
            f"connection {connection.conn_id!r}: verify is {verify!r}, neither true nor false"
        )
    if _scheme(connection) == "http":
        if ca or certificate or key:
            raise ValueError(
                f"connection {connection.conn_id!r} gives certificates, but its scheme is http, "
                "which would not use them: make it https"
            )
        return True
    if key and not certificate:
        raise ValueError(
            f"connection {connection.conn_id!r}: client_key is given, client_cert is not"
        )
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(file for file in (ca, certificate, key) if file)
        raise ValueError(
            f"connection {connection.conn_id!r}: cannot load the certificates {files}: {error}"
        ) from error
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _seconds(connection: Connection, name: str, *, default: float) -> float:
    value = connection.extra_dejson.get(name)
    if value in (None, ""):
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(
            f"connection {connection.conn_id!r}: {name} is {value!r}, not a number above 0"
        )
    return seconds
