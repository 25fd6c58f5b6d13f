from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergencias.model import ORIGINAL_FIELDS
from emergencias.places import load_gazetteer
from emergencias.simulator import BLOCK, simulate
from emergencias.vocabulary import load_vocabulary

START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
GOLDEN_HASH = "0c33f80f95bbe809ceb6618504b0e4e68398668da0a76fa0ac88f1a8648af959"
SPAIN_CLOCKS = {"+00:00", "+01:00", "+02:00"}


@pytest.fixture(scope="module")
def many():
    return list(simulate(112, 40_000, START, END))


def share(alerts, **values):
    return sum(all(a[k] == v for k, v in values.items()) for a in alerts) / len(alerts)


def test_a_seed_gives_the_same_alerts_on_every_machine():
    alerts = b"\n".join(orjson.dumps(alert) for alert in simulate(42, 1000, START, END))

    assert hashlib.sha256(alerts).hexdigest() == GOLDEN_HASH


def test_another_seed_gives_other_alerts():
    one, other = (list(simulate(seed, 250, START, END)) for seed in (1, 2))

    assert sum(a == b for a, b in zip(one, other, strict=True)) == 0


def test_an_alert_has_the_original_fields_in_order_and_then_its_place():
    alert = next(simulate(1, 1, START, END))

    assert tuple(alert) == (*ORIGINAL_FIELDS, "codigo_provincia", "latitud", "longitud")


def test_the_type_is_even_and_the_body_even_within_its_type(many):
    for kind in load_vocabulary().types:
        of_kind = [alert for alert in many if alert["tipo_emergencia"] == kind.name]
        assert len(of_kind) / len(many) == pytest.approx(1 / 12, abs=0.006), kind.name
        assert {a["cuerpo_necesario"] for a in of_kind} == {b.name for b, _ in kind.bodies}
        for body, _ in kind.bodies:
            assert share(of_kind, cuerpo_necesario=body.name) == pytest.approx(
                1 / len(kind.bodies), abs=0.035
            ), (kind.name, body.name)


def test_degrees_come_as_often_as_in_the_original(many):
    always = {"GEOs", "Ejercito", "UME"}
    free = [a for a in many if a["cuerpo_necesario"] not in always]
    forced = [a for a in many if a["cuerpo_necesario"] in always]

    for degree, probability in [
        ("Leve", 0.35),
        ("Moderado", 0.35),
        ("Urgente", 0.20),
        ("Urgencia extrema", 0.10),
    ]:
        assert share(free, grado=degree) == pytest.approx(probability, abs=0.01), degree
    assert {a["grado"] for a in forced} == {"Urgente", "Urgencia extrema"}
    assert share(forced, grado="Urgente") == pytest.approx(0.5, abs=0.025)


def test_an_ambulance_always_brings_a_doctor_and_the_others_half_of_the_time(many):
    ambulances = [a for a in many if a["cuerpo_necesario"] == "Ambulancia"]
    others = [a for a in many if a["cuerpo_necesario"] != "Ambulancia"]

    assert share(ambulances, requiere_medico="Si") == 1
    assert share(others, requiere_medico="Si") == pytest.approx(0.5, abs=0.01)
    assert {a["requiere_medico"] for a in others} == {"Si", "No"}


def test_all_52_provinces_come_equally_often_under_their_original_name(many):
    inland_or_not = [a for a in many if a["cuerpo_necesario"] != "Guardia Costera"]
    counts = Counter(a["localizacion"] for a in inland_or_not)

    assert counts.keys() == {p.name for p in load_gazetteer().provinces}
    expected = len(inland_or_not) / 52
    assert all(0.8 * expected < count < 1.2 * expected for count in counts.values())


def test_the_sea_is_only_where_there_is_a_coast(many):
    coast = {p.name for p in load_gazetteer().provinces if p.coastal}
    places = [a["localizacion"] for a in many if a["cuerpo_necesario"] == "Guardia Costera"]

    assert len(places) > 1000
    assert set(places) == coast


def test_province_code_and_coordinates_are_those_of_the_place(many):
    gazetteer = load_gazetteer()
    for alert in many:
        province = gazetteer.province(alert["localizacion"])
        assert alert["codigo_provincia"] == province.code
        town = min(
            province.municipalities,
            key=lambda t: max(
                abs(t.latitude - alert["latitud"]), abs(t.longitude - alert["longitud"])
            ),
        )
        assert abs(town.latitude - alert["latitud"]) <= 0.03001
        assert abs(town.longitude - alert["longitud"]) <= 0.03001
        assert round(alert["latitud"], 5) == alert["latitud"]


def test_big_municipalities_have_more_alerts_than_small_ones(many):
    madrid = [a for a in many if a["localizacion"] == "Madrid"]
    in_the_city = [
        a for a in madrid if abs(a["latitud"] - 40.4165) <= 0.03 >= abs(a["longitud"] + 3.70256)
    ]

    assert len(in_the_city) > len(madrid) / 2


def test_alerts_are_in_order_of_time_over_the_whole_period(many):
    moments = [datetime.fromisoformat(a["fecha"]) for a in many]

    assert all(a <= b for a, b in pairwise(moments))
    assert moments[0] >= START
    assert moments[-1] < END
    per_quarter = Counter((m - START) // ((END - START) / 4) for m in moments)
    assert all(count == pytest.approx(10_000, abs=400) for count in per_quarter.values())


def test_alerts_are_not_evenly_spaced():
    moments = [datetime.fromisoformat(a["fecha"]) for a in simulate(5, 2000, START, END)]
    gaps = [(b - a).total_seconds() for a, b in pairwise(moments)]
    mean = sum(gaps) / len(gaps)

    # Calls that know nothing of each other: the gaps scatter as much as they are long.
    assert (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_fecha_shows_the_clock_of_its_place(many):
    gazetteer = load_gazetteer()
    for alert in many[::37]:
        moment = datetime.fromisoformat(alert["fecha"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", alert["fecha"])
        zone = gazetteer.province(alert["localizacion"]).zone
        assert moment.utcoffset() == moment.astimezone(zone).utcoffset()
    assert {a["fecha"][-6:] for a in many} == SPAIN_CLOCKS


def test_both_hours_of_an_autumn_night_are_told_apart():
    night = datetime(2025, 10, 26, 0, tzinfo=UTC)  # Madrid's clocks show 02:00 to 03:00 twice
    alerts = list(simulate(3, 500, night, night + timedelta(hours=2)))
    mainland = [a["fecha"] for a in alerts if a["codigo_provincia"] not in ("35", "38")]

    assert {fecha[11:13] + fecha[-6:] for fecha in mainland} == {"02+02:00", "02+01:00"}


def test_contacts_are_spanish_mobiles_in_one_layout(many):
    assert all(re.fullmatch(r"\+34(6\d{8}|7[1-4]\d{7})", a["contacto"]) for a in many)
    assert sum(a["contacto"].startswith("+346") for a in many) / len(many) > 0.85
    assert len({a["contacto"] for a in many}) > 0.999 * len(many)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(),
    alerts=st.integers(1, 3 * BLOCK),
    seconds=st.integers(1, 10**7),
    data=st.data(),
)
def test_skipping_changes_no_alert(seed, alerts, seconds, data):
    end = START + timedelta(seconds=seconds)
    first = data.draw(st.integers(0, alerts))
    whole = simulate(seed, alerts, START, end)

    assert list(islice(simulate(seed, alerts, START, end, first=first), 5)) == list(
        islice(whole, first, first + 5)
    )


@pytest.mark.parametrize("alerts", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
def test_it_yields_as_many_alerts_as_asked_for(alerts):
    assert sum(1 for _ in simulate(1, alerts, START, END)) == alerts
    assert list(simulate(1, alerts, START, END, first=alerts)) == []


def test_the_last_of_a_very_large_run_is_within_reach_at_once():
    alerts = list(simulate(1, 10**9, START, END, first=10**9 - 1))

    assert len(alerts) == 1
    assert END - timedelta(hours=1) < datetime.fromisoformat(alerts[0]["fecha"]) < END


def test_period_limits_are_moments_whatever_their_zone():
    plus2 = timezone(timedelta(hours=2))
    here = list(simulate(1, 20, START.astimezone(plus2), END.astimezone(plus2)))

    assert here == list(simulate(1, 20, START, END))


def test_fractions_of_a_second_stay_within_the_period():
    start = datetime(2025, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    end = start + timedelta(seconds=1)
    moments = {datetime.fromisoformat(a["fecha"]) for a in simulate(1, 50, start, end)}

    assert moments == {datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alerts": 0}, "alerts is 0; it must be 1 or more"),
        ({"alerts": -5}, "alerts is -5; it must be 1 or more"),
        ({"first": -1}, "first is -1; it must be from 0 to 10"),
        ({"first": 11}, "first is 11; it must be from 0 to 10"),
        ({"end": START}, "end must be later than start by at least a second"),
        ({"end": START - timedelta(days=1)}, "end must be later than start by at least a second"),
        (
            {"start": START.replace(tzinfo=None)},
            "start is 2025-01-01T00:00:00; it must have a time",
        ),
    ],
)
def test_impossible_arguments_are_refused_at_the_call(changes, message):
    arguments = {"seed": 1, "alerts": 10, "start": START, "end": END} | changes

    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(**arguments)
