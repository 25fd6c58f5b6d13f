from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from upath import UPath

from emergencias import model
from emergencias.export import (
    ALERTS_JSON,
    ALERTS_PARQUET,
    DELIVERIES_PARQUET,
    MEDICAL_JSON,
    export_window,
)
from emergencias.manifest import Check, Manifest, ReconciliationError
from emergencias.reconciliation import reconcile_window
from emergencias.routes import Routes
from emergencias.window import Window

ReadWindow = Callable[..., AbstractContextManager[Window]]


@pytest.fixture
def reconcile(read_window: ReadWindow, routes: Routes, folder: UPath) -> Callable[..., Manifest]:
    """Export a corpus, let the test harm the files, and reconcile."""

    def run(corpus: Any, harm: Callable[[], Any] = lambda: None, **known: Any) -> Manifest:
        with read_window(corpus, **known) as window:
            export_window(window, folder, [str(f) for f in corpus.plan.params.formats])
            harm()
            return reconcile_window(window, corpus.plan, routes, folder)

    return run


def broken(manifest: Manifest) -> dict[str, Check]:
    return {check.name: check for check in manifest.failed}


def value_of(record: Any) -> dict[str, Any]:
    parsed = orjson.loads(record.value)
    assert isinstance(parsed, dict)
    return parsed


def test_a_run_without_fault_is_green(corpus: Any, reconcile: Callable[..., Manifest]) -> None:
    manifest = reconcile(corpus)

    assert manifest.failed == ()
    assert manifest.ok
    manifest.raise_if_failed()
    assert {c.topic: c.run for c in manifest.topics} == {
        model.T1: 70,
        model.T2: 36,
        model.T2_1: 22,
        model.T2_2: 14,
        model.T2_3: 14,
        model.T3: 34,
        "T3.1_Medicos": 22,
        "T3.2_Bomberos": 4,
        "T3.3_Forestales": 4,
        "T3.4_Guardia_Costera": 4,
        "T3.5_Policia": 8,
        "T3.6_Servicios_de_emergencia": 4,
        model.T4: 0,
    }
    assert all(c.ok and c.ajenos == c.otras_ejecuciones == 0 for c in manifest.topics)


def test_an_alert_that_t1_never_got_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    # Planned, but nothing of it anywhere: T1 alone would never show it.
    corpus.plan = corpus.plan.model_copy(update={"alerts": 72})
    manifest = reconcile(corpus)

    (check,) = manifest.failed
    assert check.name == "every planned alert was received"
    assert (check.expected, check.found) == (72, 70)
    assert check.first_ids == (corpus.plan.alert_id(70), corpus.plan.alert_id(71))


def test_an_alert_sent_twice_is_named(corpus: Any, reconcile: Callable[..., Manifest]) -> None:
    first = corpus.t1[0]
    corpus.receive(first.value, first.key)
    check = broken(reconcile(corpus))["no planned alert was received twice"]

    assert (check.expected, check.found) == (0, 1)
    assert check.first_ids == (corpus.plan.alert_id(0),)
    assert check.topics == (model.T1,)


def test_a_planned_id_with_anothers_value_counts_as_doubled(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    corpus.receive(b'{"grado":"Urgente","id_ejecucion":"otro"}', corpus.t1[3].key)
    check = broken(reconcile(corpus))["no planned alert was received twice"]

    assert check.first_ids == (corpus.plan.alert_id(3),)


@pytest.mark.parametrize("key", [None, b"not-planned"])
def test_an_unplanned_alert_with_the_runs_id_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], key: bytes | None
) -> None:
    value = model.encode_alert({"grado": "Urgente"}, corpus.plan.id_ejecucion)
    corpus.receive(value, key)
    check = broken(reconcile(corpus))["nothing but planned alerts was received"]

    assert check.found == 1
    assert check.first_ids == ("not-planned" if key else "1:23",)


@pytest.mark.parametrize("topic", [model.T2, model.T3])
def test_an_alert_lost_after_t1_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], topic: str
) -> None:
    lost = corpus.drop(topic)
    key = lost.key.decode()
    found = broken(reconcile(corpus))

    in_none = next(check for name, check in found.items() if "is in one of" in name)
    assert in_none.name.startswith(f"every {model.T1} record")
    assert in_none.first_ids == (key,)
    picked = next(check for name, check in found.items() if name.startswith(f"{topic} holds"))
    assert picked.expected == picked.found + 1
    assert picked.first_ids == (key,)
    assert "1 missing, 0 not expected" in picked.detail


def test_an_alert_in_two_of_t2_t3_t4_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    urgent = corpus.on(model.T2)[0]
    corpus.downstream.append(replace(urgent, topic=model.T3))
    corpus.downstream.append(replace(urgent, topic="T3.1_Medicos"))
    found = broken(reconcile(corpus))

    check = next(check for name, check in found.items() if "is in two of" in name)
    assert check.first_ids == (urgent.key.decode(),)
    assert set(check.topics) == {model.T1, model.T2, model.T3, model.T4}
    extra = next(check for name, check in found.items() if name.startswith(f"{model.T3} holds"))
    assert "0 missing, 1 not expected" in extra.detail


@pytest.mark.parametrize("topic", [model.T2_1, model.T2_2])
def test_an_urgent_alert_that_nobody_gets_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], topic: str
) -> None:
    lost = corpus.drop(topic, 2)
    found = broken(reconcile(corpus))

    check = next(c for name, c in found.items() if name.startswith(f"every {model.T2} record"))
    assert check.first_ids == (lost.key.decode(),)
    assert topic in check.topics


def test_an_urgent_alert_in_t2_1_and_t2_2_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    other = corpus.on(model.T2_2)[0]
    address = {"DIRECCION": "Calle", "DIRECCION_FUENTE": "simulada", "DIRECCION_MOTIVO": None}
    value = orjson.dumps({**value_of(other), **address})
    corpus.downstream.append(replace(other, topic=model.T2_1, value=value))

    check = next(c for n, c in broken(reconcile(corpus)).items() if f"no {model.T2} record" in n)
    assert check.first_ids == (other.key.decode(),)


def test_an_urgent_alert_that_enrichment_could_not_read_is_in_t4_and_green(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    medical = corpus.drop(model.T2_1)
    value = value_of(medical)
    review = {
        "MOTIVO": "no se pudo leer",
        "ORIGEN": model.T2,
        "TEXTO": "…",
        "T1_PARTICION": value["T1_PARTICION"],
        "T1_OFFSET": value["T1_OFFSET"],
    }
    corpus.downstream.append(replace(medical, topic=model.T4, value=orjson.dumps(review)))
    manifest = reconcile(corpus)

    assert manifest.failed == ()
    assert manifest.review.alerts == 1
    assert manifest.review.first_ids == (medical.key.decode(),)
    assert manifest.review.motivos == {"no se pudo leer": 1}


@pytest.mark.parametrize(
    "topic",
    [
        model.T2_3,
        "T3.1_Medicos",
        "T3.2_Bomberos",
        "T3.3_Forestales",
        "T3.4_Guardia_Costera",
        "T3.5_Policia",
        "T3.6_Servicios_de_emergencia",
    ],
)
def test_a_body_that_was_not_told_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], topic: str
) -> None:
    lost = corpus.drop(topic)
    found = broken(reconcile(corpus))

    check = next(check for name, check in found.items() if name.startswith(f"{topic} holds"))
    assert check.topics == (topic,)
    assert check.first_ids == (lost.key.decode(),)
    assert check.expected == check.found + 1


def test_a_body_that_was_told_for_nothing_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    fire = corpus.on("T3.2_Bomberos")[0]
    corpus.downstream.append(replace(fire, topic="T3.5_Policia"))
    (check,) = reconcile(corpus).failed

    assert check.name.startswith("T3.5_Policia holds")
    assert check.first_ids == (fire.key.decode(),)
    assert check.found == check.expected + 1


def test_a_mild_alert_that_nobody_gets_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    alone = corpus.on("T3.2_Bomberos")[-1]
    for topic in ("T3.1_Medicos", "T3.2_Bomberos"):
        corpus.downstream = [
            r for r in corpus.downstream if not (r.topic == topic and r.key == alone.key)
        ]
    check = broken(reconcile(corpus))[f"every {model.T3} alert reaches somebody"]

    assert check.first_ids == (alone.key.decode(),)


@pytest.mark.parametrize(
    "topic", [model.T2, model.T2_1, model.T2_2, model.T2_3, model.T3, "T3.1_Medicos"]
)
def test_an_alert_that_is_twice_in_a_topic_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], topic: str
) -> None:
    twice = corpus.on(topic)[1]
    corpus.downstream.append(twice)
    manifest = reconcile(corpus)

    check = broken(manifest)[f"no alert is twice in {topic}"]
    assert check.found == check.expected + 1
    assert check.first_ids == (twice.key.decode(),)
    assert not next(c for c in manifest.topics if c.topic == topic).ok


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ({"DIRECCION": "Calle 1", "DIRECCION_FUENTE": "simulada"}, True),
        ({"DIRECCION": None, "DIRECCION_MOTIVO": "lugar desconocido"}, True),
        ({"DIRECCION": "Calle 1", "DIRECCION_FUENTE": None}, False),
        ({"DIRECCION": "", "DIRECCION_FUENTE": "simulada"}, False),
        ({"DIRECCION": None, "DIRECCION_MOTIVO": "  "}, False),
        ({}, False),
    ],
)
def test_every_medical_alert_needs_an_address_or_the_reason(
    corpus: Any, reconcile: Callable[..., Manifest], address: dict[str, Any], holds: bool
) -> None:
    record = corpus.on(model.T2_1)[0]
    value = {n: v for n, v in value_of(record).items() if not n.startswith("DIRECCION")}
    record.value = orjson.dumps({**value, **address})
    manifest = reconcile(corpus)

    assert manifest.ok is holds
    if not holds:
        check = broken(manifest)["every medical alert has an address or the reason why not"]
        assert (check.expected, check.found) == (22, 21)
        assert check.first_ids == (record.key.decode(),)


def test_a_routed_record_that_comes_from_nowhere_is_named(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    forged = {**value_of(corpus.on(model.T2)[0]), "T1_OFFSET": 999}
    record = replace(corpus.on(model.T2)[0], key=b"x", value=orjson.dumps(forged))
    corpus.downstream.append(record)
    # By its key alone: another value, but an id of the plan.
    corpus.downstream.append(replace(record, key=corpus.t1[0].key, value=b"{}"))
    manifest = reconcile(corpus)

    (check,) = manifest.failed
    assert check.name == "every routed record comes from a received alert"
    assert check.topics == (model.T2,)
    assert check.first_ids == (f"{model.T2} x", f"{model.T2} {corpus.plan.alert_id(0)}")


GARBAGE = (
    b"",
    b"nada",
    b"[1]",
    b"5",
    b"null",
    b"\xff\xfe",
    b'{"grado":"Urgente"',
    b'{"grado":"Urgente","id_ejecucion":7}',
    b'{"GRADO":"Urgente"}',
    b'{"grado":"Leve","requiere_medico":"Si","id_ejecucion":"/"}',
    b'{"grado":"Urgente","fecha":12}',
    b'{"grado":"Urgente","id_ejecucion":"local/emergencias_112/otra"}',
    None,
    None,
)


def test_what_others_send_is_counted_apart_and_breaks_nothing(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    before = {c.topic: c.run for c in reconcile(corpus).topics}
    for n, value in enumerate(GARBAGE):
        corpus.receive(value, None if n % 2 else b"clave \xff")
    manifest = reconcile(corpus)

    assert manifest.failed == ()
    assert {c.topic: c.run for c in manifest.topics} == before
    t1 = manifest.topics[0]
    assert (t1.ajenos, t1.otras_ejecuciones, t1.tombstones) == (12, 0, 2)
    t2 = next(c for c in manifest.topics if c.topic == model.T2)
    assert t2.ajenos == 3


REVIEWED = {"grado": "Critica", "requiere_medico": "Si", "cuerpo_necesario": "Ambulancia"}


@pytest.mark.parametrize("grado", ["Critica", "Urgente", "Leve"])
def test_a_reviewed_alert_sent_again_without_the_runs_marks_is_nobodys(
    new_corpus: Callable[..., Any], reconcile: Callable[..., Manifest], grado: str
) -> None:
    corpus = new_corpus([REVIEWED])
    before = {c.topic: c.run for c in reconcile(corpus).topics}
    text = orjson.loads(value_of(corpus.on(model.T4)[0])["TEXTO"])
    del text["id_ejecucion"]
    corpus.receive(orjson.dumps({**text, "grado": grado}))
    manifest = reconcile(corpus)

    assert manifest.failed == ()
    assert {c.topic: c.run for c in manifest.topics} == before
    assert manifest.review.alerts == 1
    assert manifest.topics[0].ajenos == 1
    (reached,) = [
        c for c in manifest.topics if c.topic in (model.T2, model.T3, model.T4) and c.ajenos
    ]
    assert reached.topic == {"Critica": model.T4, "Urgente": model.T2, "Leve": model.T3}[grado]


@pytest.mark.parametrize(
    ("kept", "broken_check"),
    [
        ("key", "no planned alert was received twice"),
        ("id_ejecucion", "nothing but planned alerts was received"),
    ],
)
def test_a_reviewed_alert_sent_again_with_the_runs_marks_is_one_too_many(
    new_corpus: Callable[..., Any],
    reconcile: Callable[..., Manifest],
    kept: str,
    broken_check: str,
) -> None:
    corpus = new_corpus([REVIEWED])
    text = orjson.loads(value_of(corpus.on(model.T4)[0])["TEXTO"])
    if kept == "key":
        del text["id_ejecucion"]
    corpus.receive(orjson.dumps(text), corpus.t1[0].key if kept == "key" else None)

    assert list(broken(reconcile(corpus))) == [broken_check]


def test_records_of_another_known_run_are_counted_as_such(
    corpus: Any, new_corpus: Callable[..., Any], reconcile: Callable[..., Manifest]
) -> None:
    other = new_corpus(run_id="run/2")
    for record in other.t1:
        corpus.receive(record.value, record.key)
    known = {other.plan.id_ejecucion}
    manifest = reconcile(corpus, is_known=lambda id_ejecucion: id_ejecucion in known)

    assert manifest.failed == ()
    assert [(c.otras_ejecuciones, c.ajenos) for c in manifest.topics] == [
        (c.run, 0) for c in manifest.topics
    ]


@pytest.mark.parametrize("name", [ALERTS_JSON, MEDICAL_JSON, ALERTS_PARQUET, DELIVERIES_PARQUET])
class TestFiles:
    def test_a_missing_one_is_named(
        self, corpus: Any, reconcile: Callable[..., Manifest], folder: UPath, name: str
    ) -> None:
        (check,) = reconcile(corpus, harm=(folder / name).unlink).failed

        assert check.name == f"{name} tells every alert once"
        assert "missing" in check.detail
        assert check.found == 0 < check.expected

    @pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
    def test_a_truncated_one_is_named(
        self,
        corpus: Any,
        reconcile: Callable[..., Manifest],
        folder: UPath,
        name: str,
        kept: float,
    ) -> None:
        def cut() -> None:
            whole = (folder / name).read_bytes()
            end = int(len(whole) * kept) if kept == 0.5 else int(kept)
            (folder / name).write_bytes(whole[:end])

        (check,) = reconcile(corpus, harm=cut).failed
        assert check.name == f"{name} tells every alert once"
        assert check.detail

    def test_one_of_another_run_is_named(
        self,
        corpus: Any,
        new_corpus: Callable[..., Any],
        read_window: ReadWindow,
        reconcile: Callable[..., Manifest],
        folder: UPath,
        name: str,
    ) -> None:
        def swap() -> None:
            other = new_corpus(run_id="run/2")
            with read_window(other) as window:
                export_window(window, folder, ["json", "parquet"])

        manifest = reconcile(corpus, harm=swap)
        check = broken(manifest)[f"{name} tells every alert once"]
        assert "not this run's" in check.detail


def test_a_row_more_or_less_in_a_file_is_named(
    corpus: Any, reconcile: Callable[..., Manifest], folder: UPath
) -> None:
    path = folder / ALERTS_JSON

    def rewrite(change: Callable[[list[Any]], list[Any]]) -> Callable[[], None]:
        return lambda: path.write_bytes(orjson.dumps(change(orjson.loads(path.read_bytes()))))  # type: ignore[func-returns-value]

    (less,) = reconcile(corpus, harm=rewrite(lambda rows: rows[1:])).failed
    assert (less.expected, less.found) == (70, 69)
    assert len(less.first_ids) == 1
    (more,) = reconcile(corpus, harm=rewrite(lambda rows: [*rows, rows[4]])).failed
    assert (more.expected, more.found) == (70, 71)
    (same,) = reconcile(corpus, harm=rewrite(lambda rows: [*rows[1:], rows[4]])).failed
    assert (same.expected, same.found) == (70, 70)
    assert len(same.first_ids) == 2


def test_only_the_formats_that_were_asked_for_are_checked(
    new_corpus: Callable[..., Any], reconcile: Callable[..., Manifest], folder: UPath
) -> None:
    manifest = reconcile(new_corpus(formats=("parquet",)))

    assert manifest.ok
    assert [file.name for file in manifest.files] == [ALERTS_PARQUET, DELIVERIES_PARQUET]
    assert not (folder / ALERTS_JSON).exists()


def test_a_red_run_says_what_where_how_many_and_which(
    corpus: Any, reconcile: Callable[..., Manifest]
) -> None:
    lost = corpus.drop("T3.2_Bomberos")
    manifest = reconcile(corpus)

    with pytest.raises(ReconciliationError) as failure:
        manifest.raise_if_failed()
    message = str(failure.value)
    for part in (
        corpus.plan.id_ejecucion,
        "T3.2_Bomberos",
        "expected 4, found 3",
        lost.key.decode(),
    ):
        assert part in message
    assert "+34600000000" not in message


def test_at_most_ten_ids_are_named(corpus: Any, reconcile: Callable[..., Manifest]) -> None:
    corpus.downstream = [r for r in corpus.downstream if r.topic != model.T2_2]
    check = next(c for c in reconcile(corpus).failed if c.name.startswith(f"{model.T2_2} holds"))

    assert (check.expected, check.found) == (14, 0)
    assert len(check.first_ids) == 10
