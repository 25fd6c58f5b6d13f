"""Gives every urgent medical alert an address for the ambulance: T2 to T2.1, exactly once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import orjson

from emergencias import model
from emergencias.places import Address, AddressBook
from kafka_io import LoopResult, Offsets, OutRecord, high_watermarks, run_exactly_once

if TYPE_CHECKING:
    from confluent_kafka import Message

    from kafka_io import ClientConfig

T2_TEXT_FIELDS = tuple(
    name.upper()
    for name in (
        "tipo_emergencia",
        "grado",
        "cuerpo_necesario",
        "localizacion",
        "fecha",
        "requiere_medico",
        "contacto",
        "id_ejecucion",
        "codigo_provincia",
        "latitud",
        "longitud",
    )
)
T2_NUMBER_FIELDS = ("T1_PARTICION", "T1_OFFSET")
T2_LATER_TEXT_FIELDS = ("PRECISION_M", "ID_INCIDENTE")
"""T2's columns, VARCHAR but for the numbers, in the order of the stream that writes it."""


class UnreadableAlertError(ValueError):
    """A record of T2 that the SQL cannot read either; it goes to manual review."""


class Enricher:
    """Turns a record of T2 into what the ambulance service gets."""

    def __init__(self, addresses: AddressBook) -> None:
        self._addresses = addresses

    def __call__(self, message: Message) -> list[OutRecord]:
        """Return the T2.1 record of a medical alert, nothing for the others.

        The others are in T2.2, whose SQL filter is the complement of the test made here. A place
        that is not known gets no invented address: the alert goes out at once, DIRECCION null and
        the reason in DIRECCION_MOTIVO.

        Raises:
            UnreadableAlertError: The SQL cannot read the record either; the loop then sends
                `dead_letter`'s record instead.
        """
        value = message.value()
        if value is None:
            return []
        alert = read_t2(value)
        if not model.needs_ambulance(alert["REQUIERE_MEDICO"], alert["CUERPO_NECESARIO"]):
            return []
        key = message.key()
        found = self._addresses.find(
            alert["LOCALIZACION"],
            alert["CODIGO_PROVINCIA"],
            key.decode("utf-8", "replace") if key else _coordinates(alert, message),
            latitud=_number(alert["LATITUD"]),
            longitud=_number(alert["LONGITUD"]),
        )
        if isinstance(found, Address):
            alert |= {"DIRECCION": found.direccion, "DIRECCION_FUENTE": found.fuente}
            alert["DIRECCION_MOTIVO"] = None
        else:
            alert |= {"DIRECCION": None, "DIRECCION_FUENTE": None}
            alert["DIRECCION_MOTIVO"] = found.motivo
        return [_routed(message, model.T2_1, alert)]


def dead_letter(message: Message, error: Exception) -> OutRecord:
    """Return the T4 record of a T2 record that could not be enriched, with the reason.

    Never raises: an exception here would stop the enrichment of everything behind the record.
    """
    value = message.value() or b""
    partition, offset = None, None
    if isinstance(error, UnreadableAlertError):
        reason = str(error)
    else:
        reason = f"el enriquecimiento fallo: {type(error).__name__}"
        try:
            alert = read_t2(value)
            partition, offset = alert["T1_PARTICION"], alert["T1_OFFSET"]
        except UnreadableAlertError as unreadable:
            reason = str(unreadable)
    return _routed(
        message,
        model.T4,
        {
            "MOTIVO": reason,
            "ORIGEN": model.T2,
            "TEXTO": value.decode("utf-8", "replace"),
            "T1_PARTICION": partition,
            "T1_OFFSET": offset,
        },
    )


def enrich(
    config: ClientConfig,
    addresses: AddressBook,
    *,
    group_id: str,
    transactional_id: str,
    timeout_s: float,
    follow: bool = False,
    on_progress: Callable[..., None] | None = None,
    stop: threading.Event | None = None,
) -> LoopResult:
    """Enrich every record of T2 up to its end now, whoever sent it.

    Args:
        config: Settings of the Kafka clients.
        addresses: Where addresses come from.
        group_id: The one consumer group of the enrichment.
        transactional_id: The same for every retry of a task, so that a retry aborts what its
            predecessor left open.
        timeout_s: How long no progress is waited for.
        follow: Go on for ever instead of ending at T2's present end.
        on_progress: See `kafka_io.run_exactly_once`.
        stop: Ends the loop when set.

    Raises:
        kafka_io.OffsetsLostError: The group's offsets are gone although T2.1 holds records; going
            on would enrich everything again.
        kafka_io.KafkaIoError: See `kafka_io.run_exactly_once`.

    Guarantees that when it returns the group has committed past the end that T2 had at the start,
    each record's outcome (T2.1, T4 or none) written in the transaction of that commit.
    """
    until: Offsets | None = None if follow else high_watermarks(config, [model.T2])
    return run_exactly_once(
        config,
        group_id=group_id,
        source_topic=model.T2,
        transactional_id=transactional_id,
        sink_topics=[model.T2_1],
        transform=Enricher(addresses),
        dead_letter=dead_letter,
        until=until,
        timeout_s=timeout_s,
        on_progress=on_progress,
        stop=stop,
    )


def read_t2(value: bytes) -> dict[str, Any]:
    """Return T2's columns in order, read as a ksqlDB stream over T2 reads them.

    Names match in any case, the upper-case one first; what is not text becomes text; fields
    that T2 does not have are dropped. Agreement matters: a record that T2.2's query can read and
    this cannot, or the other way round, would be lost or told twice.

    Raises:
        UnreadableAlertError: Says why; also ksqlDB skips such a record.
    """
    raw = _json_object(value)
    columns: dict[str, Any] = {}
    for name, item in raw.items():
        upper = name.upper()
        if name == upper or upper not in raw:
            columns[upper] = item
    alert: dict[str, Any] = {name: _varchar(columns.get(name)) for name in T2_TEXT_FIELDS}
    for name in T2_NUMBER_FIELDS:
        alert[name] = _integer(name, columns.get(name))
    alert |= {name: _varchar(columns.get(name)) for name in T2_LATER_TEXT_FIELDS}
    return alert


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        parsed = _lenient_json(value)
    if not isinstance(parsed, dict):
        raise UnreadableAlertError("no es un objeto JSON")
    return parsed


def _lenient_json(value: bytes) -> Any:
    """Read what ksqlDB's parser takes and orjson does not: a BOM, text after the object."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        text = value.decode("utf-8-sig").lstrip()
        return json.JSONDecoder(parse_constant=refuse).raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise UnreadableAlertError("JSON no valido") from error


def _varchar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _integer(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError(value)
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableAlertError(f"{name} no es un numero") from error
    if abs(number) >= 2**63:
        raise UnreadableAlertError(f"{name} no es un numero")
    return number


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _coordinates(alert: dict[str, Any], message: Message) -> str:
    if alert["T1_OFFSET"] is not None:
        return f"{alert['T1_PARTICION']}:{alert['T1_OFFSET']}"
    return f"{model.T2}:{message.partition()}:{message.offset()}"


def _routed(message: Message, topic: str, value: dict[str, Any]) -> OutRecord:
    """Keep key, headers and time, as the SQL does for the records that it routes."""
    return OutRecord(
        topic=topic,
        key=message.key(),
        value=_json_bytes(value),
        headers=cast("Sequence[tuple[str, bytes | None]]", message.headers() or ()),
        timestamp_ms=message.timestamp()[1],
    )


def _json_bytes(value: dict[str, Any]) -> bytes:
    """Write JSON whatever the text holds: half a surrogate pair goes out as its escape."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value).encode()
