"""Sensors for a ksqlDB server and its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import poke_mode_only
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ksqldb_provider.caught_up import CaughtUp

ASK_TIMEOUT_S = 10.0


class KsqlDbReadySensor(BaseSensorOperator):
    """Succeeds when a ksqlDB server serves requests and says that it is healthy.

    An answer with HTTP 200 is not enough: while it starts, or when Kafka is away, a server
    answers and can do nothing.

    Args:
        ksqldb_conn_id: Connection of the ksqlDB cluster.
    """

    template_fields = ("ksqldb_conn_id",)

    def __init__(self, *, ksqldb_conn_id: str = "ksqldb_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ksqldb_conn_id = ksqldb_conn_id
        self._problem = "it was not asked yet"

    def poke(self, context: Context) -> bool:
        """Ask once.

        Raises:
            AirflowFailException: Waiting cannot help (wrong login, not a ksqlDB server).
        """
        from ksqldb_provider.client import KsqlDbError
        from ksqldb_provider.hooks import KsqlDbHook

        try:
            with KsqlDbHook(self.ksqldb_conn_id).get_client() as client:
                info = client.check_ready(timeout_s=ASK_TIMEOUT_S)
        except KsqlDbError as error:
            if not error.retryable:
                raise AirflowFailException(str(error)) from error
            self._problem = str(error)
            self.log.info("Not ready: %s", error)
            return False
        self.log.info("ksqlDB %s is ready (service %s)", info.version, info.ksql_service_id)
        return True

    def execute(self, context: Context) -> Any:
        """Wait until it is ready.

        Raises:
            AirflowSensorTimeout: It was not in time; names the address and the next step.
        """
        with _timing_out(
            lambda: (
                f"ksqlDB was not ready within {self.timeout:.0f} s: {self._problem} "
                f"(connection {self.ksqldb_conn_id!r})"
            )
        ):
            return super().execute(context)


class KsqlQueryRunningSensor(BaseSensorOperator):
    """Succeeds when persistent queries run on every server that has them.

    A query that is gone or has failed fails the task at once with its error. That is seen in
    EXPLAIN's `queryErrors` only: its state goes on saying RUNNING.

    Args:
        query_ids: Ids of the queries, for instance the XCom `query_ids` of the deployment.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
    """

    template_fields = ("query_ids", "ksqldb_conn_id")

    def __init__(
        self,
        *,
        query_ids: Sequence[str] | Any,
        ksqldb_conn_id: str = "ksqldb_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.query_ids = query_ids
        self.ksqldb_conn_id = ksqldb_conn_id
        self._problem = "they were not asked for yet"

    def poke(self, context: Context) -> bool:
        """Ask once; a server that is away for a moment is asked again.

        Raises:
            AirflowFailException: A query is gone or has failed.
        """
        from ksqldb_provider.caught_up import check_queries
        from ksqldb_provider.client import KsqlDbError
        from ksqldb_provider.hooks import KsqlDbHook

        query_ids = checked_ids(self.query_ids)
        try:
            with _failing_at_once(), KsqlDbHook(self.ksqldb_conn_id).get_client() as client:
                queries = check_queries(client, query_ids)
        except KsqlDbError as error:
            self._problem = str(error)
        else:
            self._problem = ", ".join(
                f"{query.id} is {'/'.join(sorted(query.states))}"
                for query in queries
                if not query.is_running
            )
        if self._problem:
            self.log.info("Not running: %s", self._problem)
        return not self._problem

    def execute(self, context: Context) -> Any:
        """Wait until they run.

        Raises:
            AirflowSensorTimeout: They did not in time; says which and in what state they are.
        """
        with _timing_out(
            lambda: f"Queries were not running within {self.timeout:.0f} s: {self._problem}"
        ):
            return super().execute(context)


@poke_mode_only
class KsqlQueriesCaughtUpSensor(BaseSensorOperator):
    """Succeeds when persistent queries have handled everything that was there at the start.

    Sources come before what reads them: the ends of a query's sink topics are taken only when
    that query has caught up. A query that is gone or has failed fails the task at once.

    Args:
        query_ids: Ids of the queries, for instance the XCom `query_ids` of the deployment.
        ksqldb_conn_id: Connection of the ksqlDB cluster.
        kafka_conn_id: Connection of its Kafka cluster.
        deferrable: Wait in the triggerer, without occupying a worker. It is not deferred when
            everything has caught up already.
        timeout: Seconds without any query coming nearer to its end (without `deferrable`: seconds
            in all) after which the task fails, naming which query lags where by how much. A long
            backlog takes as long as it takes, up to the task's `execution_timeout`.
    """

    template_fields = ("query_ids", "ksqldb_conn_id", "kafka_conn_id")

    def __init__(
        self,
        *,
        query_ids: Sequence[str] | Any,
        ksqldb_conn_id: str = "ksqldb_default",
        kafka_conn_id: str = "kafka_default",
        deferrable: bool = True,
        poke_interval: float = 1.0,
        timeout: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.query_ids = query_ids
        self.ksqldb_conn_id = ksqldb_conn_id
        self.kafka_conn_id = kafka_conn_id
        self.deferrable = deferrable
        self._caught_up: CaughtUp | None = None

    def execute(self, context: Context) -> Any:
        """Look once and, if there is something to wait for, wait.

        Raises:
            AirflowFailException: A query is gone or has failed, or its records were deleted.
            AirflowSensorTimeout: Not caught up in time.
        """
        from ksqldb_provider.caught_up import CatchUpTimeoutError, CaughtUp, watch
        from ksqldb_provider.hooks import KsqlDbHook, kafka_config
        from ksqldb_provider.triggers import KsqlQueriesCaughtUpTrigger, encode_targets

        query_ids = checked_ids(self.query_ids)
        with KsqlDbHook(self.ksqldb_conn_id).get_client() as client:
            with _failing_at_once():
                queries = watch(client, query_ids)
                self._caught_up = CaughtUp(client, kafka_config(self.kafka_conn_id), queries)
                if self._caught_up.check():
                    self.log.info("Caught up: %s", ", ".join(query_ids))
                    return None
            self._log_lags()
            if not self.deferrable:
                caught_up = self._caught_up
                with _timing_out(
                    lambda: str(CatchUpTimeoutError(caught_up.lags, self.timeout, client.address))
                ):
                    return super().execute(context)
        self.defer(
            trigger=KsqlQueriesCaughtUpTrigger(
                query_ids=query_ids,
                ksqldb_conn_id=self.ksqldb_conn_id,
                kafka_conn_id=self.kafka_conn_id,
                targets=encode_targets(self._caught_up.targets),
                timeout_s=self.timeout,
                poll_interval_s=self.poke_interval,
            ),
            method_name="execute_complete",
            # The trigger itself says who is late; this only ends a task whose triggerer is dead.
            timeout=self.execution_timeout,
        )
        return None

    def poke(self, context: Context) -> bool:
        """Look once more; a server or broker that is away for a moment is asked again."""
        from kafka_io import BrokerUnavailableError
        from ksqldb_provider.client import KsqlDbError

        if self._caught_up is None:
            raise RuntimeError("poke is only called from execute")
        try:
            with _failing_at_once():
                done = self._caught_up.check()
        except (KsqlDbError, BrokerUnavailableError) as error:
            self.log.warning("Looking again later: %s", error)
            return False
        if not done:
            self._log_lags()
        return done

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Say how the wait in the triggerer ended."""
        match event["status"]:
            case "success":
                self.log.info("Caught up: %s", ", ".join(event["query_ids"]))
            case "timeout":
                raise AirflowSensorTimeout(event["message"])
            case _:
                raise AirflowFailException(event["message"])

    def _log_lags(self) -> None:
        if self._caught_up is not None:
            for lag in self._caught_up.lags:
                self.log.info("%s", lag)


def checked_ids(query_ids: Any) -> list[str]:
    """Return query ids that came as an argument or as XCom.

    Raises:
        AirflowFailException: They are anything but a list of at least one id.
    """
    what = "query id, for instance the XCom 'query_ids' of the deployment"
    return checked_texts("query_ids", query_ids, what)


def checked_texts(argument: str, values: Any, what: str) -> list[str]:
    """Return a list of texts that came as an argument, a template or XCom.

    One text would be taken letter by letter: a template that is no native one gives such.

    Raises:
        AirflowFailException: They are anything but a list of at least one text.
    """
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not values
        or not all(isinstance(value, str) and value for value in values)
    ):
        raise AirflowFailException(f"{argument} is {values!r}: give a list of at least one {what}")
    return list(values)


@contextmanager
def _failing_at_once() -> Iterator[None]:
    """Fail without a retry on what a retry cannot mend."""
    from kafka_io import OffsetsLostError, TopicMissingError
    from ksqldb_provider.client import KsqlDbError

    try:
        yield
    except KsqlDbError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
    except (OffsetsLostError, TopicMissingError) as error:
        raise AirflowFailException(str(error)) from error


@contextmanager
def _timing_out(message: Callable[[], str]) -> Iterator[None]:
    """Say more in a time-out than that it was one."""
    try:
        yield
    except AirflowSensorTimeout as timeout:
        raise AirflowSensorTimeout(message()) from timeout
