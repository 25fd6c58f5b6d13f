"""Start the engine and its REST API: ``python -m ksqldb_local --bootstrap-servers HOST:PORT``."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import uvicorn

from ksqldb_local.engine import Engine
from ksqldb_local.rest import application
from ksqldb_local.settings import Settings

log = logging.getLogger("ksqldb_local")


def _listen(value: str) -> tuple[str, int]:
    host, _, port = value.removeprefix("http://").rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r} is not HOST:PORT")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise argparse.ArgumentTypeError(
            f"{host!r} is not a loopback address: this server has no authentication, so it "
            "listens on "
            "127.0.0.1 only. Beyond one machine, use a ksqlDB server"
        )
    return host, int(port)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(prog="ksqldb_local", description=__doc__)
    parser.add_argument(
        "--bootstrap-servers", required=True, help="Kafka, HOST:PORT[,HOST:PORT...]"
    )
    parser.add_argument("--listen", type=_listen, default=("127.0.0.1", 8088), help="HOST:PORT")
    parser.add_argument(
        "--service-id", default="default_", help="names topics, groups, transactions"
    )
    parser.add_argument("--version", default="7.6.0", help="the ksqlDB version that /info states")
    parser.add_argument(
        "--no-processing-log-stream",
        action="store_true",
        help="do not create the stream KSQL_PROCESSING_LOG",
    )
    return parser.parse_args(arguments)


class _Server(uvicorn.Server):
    """A server that ends on SIGTERM and SIGINT; uvicorn's own would raise the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = parse_arguments(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    host, port = options.listen
    failed = threading.Event()

    def on_fatal(message: str) -> None:
        log.critical("%s", message)
        failed.set()
        server.should_exit = True

    engine = Engine(
        Settings(
            bootstrap_servers=options.bootstrap_servers,
            listen=f"{host}:{port}",
            service_id=options.service_id,
            version=options.version,
            processing_log_stream=not options.no_processing_log_stream,
        ),
        on_fatal=on_fatal,
    )
    server = _Server(
        uvicorn.Config(
            application(engine), host=host, port=port, log_level="warning", lifespan="off"
        )
    )
    engine.start()
    server.run()
    engine.stop()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Clients of a broker that is down would hold the exit up for minutes; nothing is left to lose.
    os._exit(1 if failed.is_set() or not server.started else 0)


if __name__ == "__main__":
    sys.exit(main())
