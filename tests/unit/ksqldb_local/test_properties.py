from __future__ import annotations

import pytest

from ksqldb_local.errors import KsqlError
from ksqldb_local.properties import check, offset_reset


@pytest.mark.parametrize("name", ["auto.offset.reset", "ksql.streams.auto.offset.reset"])
def test_both_names_of_the_offset_reset_work(name: str) -> None:
    checked = check({name: "earliest"}, "")

    assert checked == {name: "earliest"}
    assert offset_reset(checked) == "earliest"


def test_queries_begin_at_latest_by_default() -> None:
    assert offset_reset({}) == "latest"


@pytest.mark.parametrize(
    ("name", "value", "status", "code"),
    [
        ("auto.offset.reset", "begin", 400, 40000),
        ("auto.offset.reset", "none", 400, 40000),
        ("processing.guarantee", "exactly_twice", 400, 40000),
        ("ksql.service.id", "other", 400, 40000),
        ("no.such.property", "1", 500, 50000),
        ("ksql.streams.no.such.property", "1", 500, 50000),
    ],
)
def test_wrong_property_is_refused_as_recorded(
    name: str, value: str, status: int, code: int
) -> None:
    with pytest.raises(KsqlError) as error:
        check({name: value}, "SELECT;")
    assert (error.value.status, error.value.error_code) == (status, code)
    assert name.removeprefix("ksql.streams.") in error.value.message
