"""`airflow standalone` without its log servers, which would listen on every network interface.

Scheduler and triggerer each start one for components on other machines, and no setting binds it to
loopback. Here every component reads the log files themselves.
"""

from __future__ import annotations

import signal

from airflow.cli.commands import standalone_command

WITH_LOG_SERVER = {"scheduler", "triggerer"}


class SubCommand(standalone_command.SubCommand):
    """A component of Airflow that serves no logs."""

    def __init__(
        self,
        parent: standalone_command.StandaloneCommand,
        name: str,
        command: list[str],
        env: dict[str, str],
    ) -> None:
        if name in WITH_LOG_SERVER:
            command = [*command, "--skip-serve-logs"]
        super().__init__(parent, name=name, command=command, env=env)


if __name__ == "__main__":
    standalone_command.SubCommand = SubCommand  # type: ignore[misc]
    # Airflow stops its components on Ctrl-C only; a SIGTERM would leave all of them running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    standalone_command.StandaloneCommand().run()  # type: ignore[no-untyped-call]
