from __future__ import annotations

from typing import Any

import pytest

from ksqldb_local.errors import DeserializationError, UnsupportedError
from ksqldb_local.formats import SourceReader, kafka_writer, value_writer
from ksqldb_local.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DOUBLE,
    INTEGER,
    STRING,
    STRINGS,
    Column,
    Schema,
    SqlType,
)


def no_headers() -> None:
    return None


def read(raw: bytes | None, *columns: Column) -> tuple[Any, ...] | None:
    return SourceReader(Schema(columns), "KAFKA", "JSON").read(None, raw, no_headers)


G, LOWER = Column("G", STRING), Column("g", STRING)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"g":"x"}', "x"),
        (b'{"G":"x"}', "x"),
        (b'{"G":"upper","g":"lower"}', "upper"),
        (b'{"g":"lower","G":"upper"}', "upper"),
        (b'{"g":null}', None),
        (b"{}", None),
        (b'{"g":12}', "12"),
        (b'{"g":1.50}', "1.50"),
        (b'{"g":123456789012345678901}', "123456789012345678901"),
        (b'{"g":true}', "true"),
        (b'{"g":{"lat":37.10,"lon":-5}}', '{"lat":37.10,"lon":-5}'),
        (b'{"g":["a","b"]}', "[a, b]"),
        (b'\xef\xbb\xbf{"g":"x"} garbage', "x"),
    ],
)
def test_text_column_of_a_json_record(raw: bytes, value: str | None) -> None:
    assert read(raw, G) == (value,)


def test_quoted_column_matches_its_exact_case_only() -> None:
    assert read(b'{"g":"x"}', LOWER) == ("x",)
    assert read(b'{"G":"x"}', LOWER) == (None,)


@pytest.mark.parametrize(
    "raw",
    [b"hola", b"[1]", b'"x"', b"5", b"null", b"", b'{"g":"C\xe1diz"}', b'{"o":NaN}', b"\x00\x00"],
)
def test_record_that_is_not_an_object_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(DeserializationError):
        read(raw, G)


def test_one_value_of_the_wrong_type_makes_the_record_unreadable() -> None:
    with pytest.raises(DeserializationError, match=r"\$\.D"):
        read(b'{"g":"x","d":"37,1"}', G, Column("D", DOUBLE))


def test_values_of_all_types() -> None:
    columns = (
        Column("I", INTEGER),
        Column("L", BIGINT),
        Column("D", DOUBLE),
        Column("T", BOOLEAN),
        Column("X", BYTES),
        Column("S", STRINGS),
        Column("M", SqlType("MAP", element=INTEGER)),
        Column("R", SqlType("STRUCT", fields=(("A", STRING), ("b", INTEGER)))),
    )

    assert read(
        b'{"i":"7","l":4294967296,"d":"1.5","t":false,"x":"aGk=","s":["a",1,null],'
        b'"m":{"k":1},"r":{"a":"x","b":2,"c":3}}',
        *columns,
    ) == (7, 4294967296, 1.5, False, b"hi", ["a", "1", None], {"k": 1}, {"A": "x", "b": 2})


def test_tombstone_has_no_row() -> None:
    assert read(None, G) is None


def test_kafka_format_reads_text_with_replacement_and_numbers_by_size() -> None:
    text = SourceReader(Schema((Column("K", BIGINT, "KEY"), G)), "KAFKA", "KAFKA")

    assert text.read(b"\x00\x00\x00\x00\x00\x00\x00\x05", b"\xff\xfe", no_headers) == (
        5,
        "\ufffd\ufffd",
    )
    assert text.read(None, b"", no_headers) == (None, "")
    with pytest.raises(DeserializationError, match="Size of data received is not 8") as error:
        text.read(b"abc", b"x", no_headers)
    assert error.value.target == "key"


def test_rows_follow_the_declared_order_and_headers_are_a_column() -> None:
    headers = SqlType(
        "ARRAY", element=SqlType("STRUCT", fields=(("KEY", STRING), ("VALUE", BYTES)))
    )
    reader = SourceReader(
        Schema((Column("H", headers, "HEADERS"), G, Column("K", STRING, "KEY"))), "KAFKA", "JSON"
    )

    row = reader.read(b"k", b'{"g":"x"}', lambda: [("h", b"1")])

    assert row == ([{"KEY": "h", "VALUE": b"1"}], "x", "k")


def test_formats_that_only_a_server_has_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        SourceReader(Schema((G,)), "KAFKA", "DELIMITED")
    with pytest.raises(UnsupportedError):
        SourceReader(Schema((G, Column("B", STRING))), "KAFKA", "KAFKA")
    with pytest.raises(UnsupportedError):
        SourceReader(Schema((Column("K", STRING, "KEY"), G)), "JSON", "JSON")


def test_json_is_written_with_nulls_in_order_and_java_numbers() -> None:
    columns = [Column("B", DOUBLE), Column("A", BYTES), G]

    assert value_writer(columns, "JSON")({"B": 1e10, "A": b"hi", "G": None}) == (
        b'{"B":1.0E10,"A":"aGk=","G":null}'
    )


def test_kafka_format_is_written_as_it_is_read() -> None:
    assert kafka_writer(INTEGER)(-1) == b"\xff\xff\xff\xff"
    assert kafka_writer(STRING)("ñ") == "ñ".encode()
    assert kafka_writer(STRING)(None) is None
    assert value_writer([G], "KAFKA")({"G": "x"}) == b"x"
