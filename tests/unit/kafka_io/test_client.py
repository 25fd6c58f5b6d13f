from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_io import BrokerUnavailableError, KafkaIoError, TopicMissingError
from kafka_io.client import LastError, client_config, mapped_errors

CONFIG = {"bootstrap.servers": "kafka.example:9092", "sasl.password": "secret"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._TRANSPORT, BrokerUnavailableError),
        (KafkaError._ALL_BROKERS_DOWN, BrokerUnavailableError),
        (KafkaError._TIMED_OUT, BrokerUnavailableError),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, BrokerUnavailableError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissingError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaIoError),
    ],
)
def test_an_error_becomes_the_one_that_says_what_to_do(
    code: int, expected: type[KafkaIoError]
) -> None:
    with pytest.raises(KafkaIoError) as caught, mapped_errors(CONFIG, "counting sheep"):
        raise KafkaException(KafkaError(code))
    assert type(caught.value) is expected
    assert "kafka.example:9092" in str(caught.value)
    assert "counting sheep" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_cause_that_a_client_reported_is_told_instead_of_a_bare_time_out() -> None:
    last = LastError()
    last(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
    last(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    with pytest.raises(BrokerUnavailableError, match="invalid credentials"):  # noqa: SIM117
        with mapped_errors(CONFIG, "asking", last):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_an_error_of_another_kind_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), mapped_errors(CONFIG, "dividing"):
        raise ZeroDivisionError


def test_settings_win_over_the_configuration_which_stays_as_it_was() -> None:
    config = {"bootstrap.servers": "a:1", "group.id": "theirs"}
    made = client_config(config, {"group.id": "ours"})
    assert made["group.id"] == "ours"
    assert config == {"bootstrap.servers": "a:1", "group.id": "theirs"}


def test_the_clients_own_log_lines_are_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    logger = client_config(CONFIG, {})["logger"]
    with caplog.at_level(logging.DEBUG, logger="kafka_io"):
        logger.log(3, "%s [%s] %s", "rdkafka#1", "FAIL", "Connection refused")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.DEBUG, "rdkafka#1 [FAIL] Connection refused")
    ]
