"""What Airflow has to know about this provider."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as the `apache_airflow_provider` entry point wants it."""
    return {
        "package-name": "emergencias-112",
        "name": "ksqlDB",
        "description": "Deploys, executes and queries stream SQL, and waits for its queries.",
        "integrations": [
            {
                "integration-name": "ksqlDB",
                "external-doc-url": "https://docs.ksqldb.io/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "ksqlDB", "python-modules": ["ksqldb_provider.hooks"]}],
        "operators": [
            {"integration-name": "ksqlDB", "python-modules": ["ksqldb_provider.operators"]}
        ],
        "sensors": [{"integration-name": "ksqlDB", "python-modules": ["ksqldb_provider.sensors"]}],
        "triggers": [
            {"integration-name": "ksqlDB", "python-modules": ["ksqldb_provider.triggers"]}
        ],
        "extra-links": ["ksqldb_provider.links.KsqlDbLink"],
        "connection-types": [
            {
                "connection-type": "ksqldb",
                "hook-class-name": "ksqldb_provider.hooks.KsqlDbHook",
                "hook-name": "ksqlDB",
                "ui-field-behaviour": {
                    "hidden-fields": ["extra"],
                    "relabeling": {
                        "schema": "Scheme",
                        "host": "Host (or several, separated by commas)",
                        "login": "User or API key",
                        "password": "Password or API secret",
                    },
                    "placeholders": {"schema": "http", "host": "localhost", "port": "8088"},
                },
                "conn-fields": {
                    "verify": {
                        "label": "Verify the certificate",
                        "schema": {"type": ["boolean", "null"], "default": True},
                        "description": "With https: off only for a server of your own.",
                    },
                    "ca_file": _file("CA certificate", "PEM file of who signed the server's."),
                    "client_cert": _file(
                        "Client certificate", "PEM file, where the server asks for one (mTLS)."
                    ),
                    "client_key": _file(
                        "Client key", "PEM file, if not within the client certificate's."
                    ),
                    "connect_timeout_s": {
                        "label": "Connect time-out (s)",
                        "schema": {"type": ["number", "null"], "default": 5},
                        "description": "Longest wait for a connection.",
                    },
                    "read_timeout_s": {
                        "label": "Read time-out (s)",
                        "schema": {"type": ["number", "null"], "default": 40},
                        "description": "Longest wait for an answer; a server needs up to 30 s for "
                        "a health check when Kafka is away.",
                    },
                    "browser_url": {
                        "label": "Address for browsers",
                        "schema": {"type": ["string", "null"], "format": "url"},
                        "description": "Where links of tasks lead, if browsers reach the server "
                        "at another address than Airflow does.",
                    },
                },
            }
        ],
    }


def _file(label: str, description: str) -> dict[str, Any]:
    return {
        "label": label,
        "schema": {"type": ["string", "null"]},
        "description": f"Path on the workers (and the triggerer). {description}",
    }
