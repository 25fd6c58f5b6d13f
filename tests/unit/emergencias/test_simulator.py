from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import orjson
import phonenumbers
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType, carrier

from emergencias import model
from emergencias.places import SimulatedAddressBook, load_gazetteer
from emergencias.profiles import load_profile, profile_names
from emergencias.simulator import BLOCK, simulate, simulate_lines
from emergencias.vocabulary import DATA_FOLDER, load_vocabulary

START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
RUN = "local/emergencias_112/manual__2025-01-01"
GOLDEN_HASHES = {
    "original": "f5d56cca18b56cdb9ec70dea950b21d7e7039bc6ee134511ec48d1d8e4304b95",
    "realistic": "b93d659df75f65674bb8918f1a334fb1cdc49141d1b1e3766ca6ae9319832087",
    "surge": "d9dea41de74ff0a304d6ddfed74038f7dfa24b63ff49fcd64968f254838aece1",
}
PROFILES = sorted(GOLDEN_HASHES)
MADRID, CANARY = ZoneInfo("Europe/Madrid"), ZoneInfo("Atlantic/Canary")


def simulated(profile, alerts=100_000, seed=112, start=START, end=END):
    return list(simulate(seed, alerts, start, end, profile=profile))


@pytest.fixture(scope="module")
def original():
    return simulated("original", 40_000)


@pytest.fixture(scope="module")
def realistic():
    """Three blocks over a whole year."""
    return simulated("realistic", 180_000)


@pytest.fixture(scope="module")
def surge():
    """A Tuesday in three provinces, local midnight to midnight."""
    start = datetime(2024, 10, 29, tzinfo=MADRID)
    return simulated("surge", 60_000, start=start, end=start + timedelta(days=1))


@pytest.fixture(scope="module")
def disaster(tmp_path_factory):
    """What the surge adds to its background, over a week."""
    folder = shutil.copytree(DATA_FOLDER, tmp_path_factory.mktemp("disaster") / "data")
    path = folder / "profiles" / "surge.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    del content["fondo"]
    path.write_text(yaml.safe_dump(content), "utf-8")
    end = START + timedelta(days=7)
    return list(simulate(112, 120_000, START, end, profile="surge", data_folder=folder))


@pytest.fixture(params=PROFILES)
def alerts(request):
    return request.getfixturevalue(request.param)


def share(alerts, **values):
    return sum(all(a[k] == v for k, v in values.items()) for a in alerts) / len(alerts)


def incidents_of(alerts):
    """Return the alerts of each incident, in order."""
    found = defaultdict(list)
    for alert in alerts:
        if "id_incidente" in alert:
            found[alert["id_incidente"]].append(alert)
    return list(found.values())


def calls_of(alerts):
    """Return the first alert of each call: alerts of one call share contact and moment."""
    return list({(a["contacto"], a["fecha"]): a for a in reversed(alerts)}.values())


def local_hour(alert):
    return int(alert["fecha"][11:13])


# --- the same everywhere --------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_gives_the_same_bytes_on_every_machine_and_version(profile):
    lines = b"".join(simulate_lines(42, 70_000, START, END, RUN, profile=profile))

    assert hashlib.sha256(lines).hexdigest() == GOLDEN_HASHES[profile]


def test_every_profile_has_a_golden_hash():
    assert tuple(PROFILES) == profile_names()


@pytest.mark.parametrize("profile", PROFILES)
def test_another_seed_gives_other_alerts(profile):
    one, other = (simulated(profile, 250, seed) for seed in (1, 2))

    assert sum(a == b for a, b in zip(one, other, strict=True)) == 0


def test_another_period_of_the_same_length_tells_the_same_story_later():
    day = timedelta(days=1)
    one = simulated("original", 500, start=START, end=START + day)
    later = simulated("original", 500, start=START + 7 * day, end=START + 8 * day)

    for a, b in zip(one, later, strict=True):
        assert a | {"fecha": b["fecha"]} == b


def test_period_limits_are_moments_whatever_their_zone():
    plus2 = timezone(timedelta(hours=2))

    assert simulated(
        "realistic", 20, start=START.astimezone(plus2), end=END.astimezone(plus2)
    ) == simulated("realistic", 20)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(),
    count=st.integers(1, 300),
    begin=st.integers(0, 4 * 10**9),
    seconds=st.integers(1, 10**6),
    profile=st.sampled_from(PROFILES),
    run=st.text(),
)
def test_lines_are_what_encode_alert_writes(seed, count, begin, seconds, profile, run):
    start = datetime.fromtimestamp(begin, UTC)
    period = (start, start + timedelta(seconds=seconds))
    run = run.encode("utf-8", "replace").decode()
    lines = b"".join(simulate_lines(seed, count, *period, run, profile=profile)).splitlines()
    plain = list(simulate(seed, count, *period, profile=profile))

    assert len(lines) == count
    for line, alert in zip(lines, plain, strict=True):
        assert line == model.encode_alert(alert, run)
        assert orjson.loads(line) == alert | {"id_ejecucion": run}


# --- what every profile keeps to ------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("count", [1, 2, 1000, BLOCK - 1, BLOCK, BLOCK + 1])
def test_there_are_as_many_alerts_as_asked_for(profile, count):
    lines = b"".join(simulate_lines(1, count, START, END, None, profile=profile))

    assert lines.count(b"\n") == len(lines.splitlines()) == count


def test_fields_come_in_the_contracts_order(alerts):
    order = [name for name in model.ALERT_FIELDS if name != "id_ejecucion"]

    for alert in alerts[:5000]:
        assert list(alert) == [name for name in order if name in alert]
        assert set(order) - set(alert) <= {"id_incidente"}


def test_words_are_those_of_the_vocabulary(alerts):
    vocabulary = load_vocabulary()

    assert {a["tipo_emergencia"] for a in alerts} <= {kind.name for kind in vocabulary.types}
    assert {a["cuerpo_necesario"] for a in alerts} <= {body.name for body in vocabulary.bodies}
    assert {a["grado"] for a in alerts} == {degree.name for degree in vocabulary.degrees}
    assert {a["requiere_medico"] for a in alerts} == {"Si", "No"}


def test_alerts_are_in_order_of_time_and_within_the_period(alerts, surge):
    moments = [datetime.fromisoformat(a["fecha"]) for a in alerts]
    start = datetime(2024, 10, 29, tzinfo=MADRID) if alerts is surge else START
    end = start + timedelta(days=1) if alerts is surge else END

    assert all(a <= b for a, b in pairwise(moments))
    assert start <= moments[0]
    assert moments[-1] < end


def test_province_code_and_coordinates_are_those_of_the_place(alerts):
    gazetteer = load_gazetteer()
    for alert in alerts[::5]:
        province = gazetteer.province(alert["localizacion"])
        assert alert["codigo_provincia"] == province.code
        town = province.nearest(alert["latitud"], alert["longitud"])
        assert abs(town.latitude - alert["latitud"]) <= 0.03
        assert abs(town.longitude - alert["longitud"]) <= 0.03
        assert round(alert["latitud"], 5) == alert["latitud"]


def town_of(alert):
    """Return the municipality that an alert's position belongs to."""
    province = load_gazetteer().province(alert["localizacion"])
    return province.nearest(alert["latitud"], alert["longitud"])


def test_the_ambulances_address_is_in_the_province_and_its_postcode_too(alerts):
    book = SimulatedAddressBook()
    for number, alert in enumerate(alerts[::20]):
        address = book.find(
            alert["localizacion"],
            alert["codigo_provincia"],
            str(number),
            alert["latitud"],
            alert["longitud"],
        )
        assert address.codigo_postal[:2] == alert["codigo_provincia"]
        assert address.provincia == alert["localizacion"]
        assert address.municipio == town_of(alert).name


def test_no_sea_body_is_inland_and_no_forester_where_there_is_no_forest(alerts):
    gazetteer = load_gazetteer()
    sea = [a for a in alerts if a["cuerpo_necesario"] == "Guardia Costera"]
    forest = [a for a in alerts if a["cuerpo_necesario"] == "Forestales"]

    assert sea
    assert forest
    assert all(town_of(alert).coastal for alert in sea)
    assert all(gazetteer.province(a["localizacion"]).forest for a in forest)


def test_fecha_shows_the_clock_of_its_place(alerts):
    for alert in alerts[::37]:
        moment = datetime.fromisoformat(alert["fecha"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", alert["fecha"])
        zone = CANARY if alert["codigo_provincia"] in ("35", "38") else MADRID
        assert moment.utcoffset() == moment.astimezone(zone).utcoffset()


def test_callers_have_valid_mobile_numbers_that_no_operator_has(alerts):
    contacts = {alert["contacto"] for alert in alerts}

    assert len(contacts) > 0.99 * len(calls_of(alerts))
    for contact in contacts:
        assert re.fullmatch(r"\+3473\d{7}", contact)
    for contact in sorted(contacts)[:: max(1, len(contacts) // 2000)]:
        number = phonenumbers.parse(contact)
        assert phonenumbers.is_valid_number(number)
        assert phonenumbers.number_type(number) == PhoneNumberType.MOBILE
        assert carrier.name_for_number(number, "en") == ""


def test_the_body_decides_who_always_gets_a_doctor(alerts):
    ambulances = [a for a in alerts if a["cuerpo_necesario"] == "Ambulancia"]

    assert {a["requiere_medico"] for a in ambulances} == {"Si"}


def test_calls_that_open_no_incident_are_never_urgent_and_somebody_takes_them(alerts):
    idle = {kind.name for kind in load_vocabulary().types if not kind.is_incident}

    for alert in (a for a in alerts if a["tipo_emergencia"] in idle):
        assert alert["grado"] == "Leve"
        assert alert["requiere_medico"] == "No"
        assert alert["cuerpo_necesario"] in ("Policia", "Servicios de emergencia")
        assert "id_incidente" not in alert


def test_alerts_of_one_incident_tell_the_same_story(realistic, surge):
    for alerts, minutes in ((realistic, 20), (surge, 60)):
        for group in incidents_of(alerts):
            first = group[0]
            for alert in group:
                for name in ("tipo_emergencia", "grado", "localizacion", "codigo_provincia"):
                    assert alert[name] == first[name]
                late = datetime.fromisoformat(alert["fecha"]) - datetime.fromisoformat(
                    first["fecha"]
                )
                assert timedelta() <= late <= timedelta(minutes=minutes)
                assert abs(alert["latitud"] - first["latitud"]) < 0.01
                assert abs(alert["longitud"] - first["longitud"]) < 0.01


def test_the_bodies_of_an_incident_are_asked_for_by_its_first_call(realistic):
    for group in incidents_of(realistic):
        first = [a for a in group if a["contacto"] == group[0]["contacto"]]
        assert len({a["cuerpo_necesario"] for a in group}) == len(first)
        assert (
            len({(a["fecha"], a["latitud"], a["longitud"], a["precision_m"]) for a in first}) == 1
        )
        assert {a["cuerpo_necesario"] for a in group[len(first) :]} <= {
            first[0]["cuerpo_necesario"]
        }


def test_one_ambulance_at_most_is_asked_for_by_a_call(realistic):
    for group in incidents_of(realistic):
        asked = Counter(
            a["contacto"]
            for a in group
            if model.needs_ambulance(a["requiere_medico"], a["cuerpo_necesario"])
        )
        assert all(count == 1 for count in asked.values())


# --- the profiles' figures ------------------------------------------------------------------------


def assert_shares(found, expected, count, *, z=4.5):
    """Hold observed shares to the expected ones within z standard deviations of `count` draws."""
    assert set(found) <= {name for name, part in expected.items() if part}
    for name, part in expected.items():
        deviation = (part * (1 - part) / count) ** 0.5
        assert found.get(name, 0) == pytest.approx(part, abs=z * deviation + 1e-9), name


def shares_of(names):
    counts = Counter(names)
    return {name: count / counts.total() for name, count in counts.items()}


def test_the_original_has_every_province_type_body_degree_and_hour_alike(original):
    profile = load_profile("original")
    land = [a for a in original if a["cuerpo_necesario"] not in ("Guardia Costera", "Forestales")]
    sea = [a for a in original if a["cuerpo_necesario"] == "Guardia Costera"]
    provinces = load_gazetteer().provinces
    names, coast = [p.name for p in provinces], [p.name for p in provinces if p.coastal]

    assert all("id_incidente" not in alert for alert in original)
    assert_shares(
        shares_of(a["localizacion"] for a in land), dict.fromkeys(names, 1 / 52), len(land)
    )
    assert_shares(shares_of(a["localizacion"] for a in sea), dict.fromkeys(coast, 1 / 24), len(sea))
    for kind in profile.tipos:
        of_kind = [a for a in original if a["tipo_emergencia"] == kind.tipo]
        assert len(of_kind) / len(original) == pytest.approx(1 / 12, abs=0.006)
        assert_shares(
            shares_of(a["cuerpo_necesario"] for a in of_kind),
            {team.cuerpos[0]: team.proporcion for team in kind.equipos},
            len(of_kind),
        )
    always = {"GEOs", "Ejercito", "UME"}
    free = [a for a in original if a["cuerpo_necesario"] not in always]
    forced = [a for a in original if a["cuerpo_necesario"] in always]
    assert_shares(shares_of(a["grado"] for a in free), profile.tipos[0].grados, len(free))
    halves = {"Urgente": 0.5, "Urgencia extrema": 0.5}
    assert_shares(shares_of(a["grado"] for a in forced), halves, len(forced))
    others = [a for a in original if a["cuerpo_necesario"] != "Ambulancia"]
    assert share(others, requiere_medico="Si") == pytest.approx(0.5, abs=0.01)
    assert_shares(
        shares_of(map(local_hour, original)), dict.fromkeys(range(24), 1 / 24), len(original)
    )


def test_alerts_are_not_evenly_spaced(original):
    moments = [datetime.fromisoformat(a["fecha"]) for a in original]
    gaps = [(b - a).total_seconds() for a, b in pairwise(moments)]
    mean = sum(gaps) / len(gaps)

    # Calls that know nothing of each other: the gaps scatter as much as they are long.
    assert (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_provinces_of_the_realistic_profile_have_their_share_of_the_population(realistic):
    provinces = load_gazetteer().provinces
    people = sum(p.population for p in provinces)
    found = shares_of(a["localizacion"] for a in realistic)

    assert len(found) == 52
    for province in provinces:
        expected = province.population / people
        assert found[province.name] == pytest.approx(expected, abs=0.005), province.name


def test_towns_of_the_realistic_profile_have_their_share_of_their_province(realistic):
    zaragoza = load_gazetteer().province("Zaragoza")
    alerts = [a for a in realistic if a["codigo_provincia"] == "50"]
    found = shares_of(town_of(alert).name for alert in alerts)
    people = sum(town.population for town in zaragoza.municipalities)

    for town in zaragoza.municipalities:
        assert found.get(town.name, 0) == pytest.approx(town.population / people, abs=0.02)


@pytest.mark.parametrize("name", ["realistic", "disaster"])
def test_types_teams_degrees_and_doctors_are_as_the_profile_says(name, request):
    profile = load_profile("surge" if name == "disaster" else name)
    alerts = request.getfixturevalue(name)
    groups = incidents_of(alerts)

    assert_shares(
        shares_of(g[0]["tipo_emergencia"] for g in groups),
        {kind.tipo: kind.proporcion for kind in profile.tipos},
        len(groups),
    )
    by_team = defaultdict(list)
    for group in groups:
        team = tuple(dict.fromkeys(alert["cuerpo_necesario"] for alert in group))
        by_team[group[0]["tipo_emergencia"], team].append(group)
    known = {(kind.tipo, team.cuerpos) for kind in profile.tipos for team in kind.equipos}
    # The last incident of a block may be cut to fit.
    assert sum(len(by_team[team]) for team in by_team.keys() - known) <= -(-len(alerts) // BLOCK)
    for kind in profile.tipos:
        counts = {team.cuerpos: len(by_team[kind.tipo, team.cuerpos]) for team in kind.equipos}
        assert_shares(
            shares_of(Counter(counts).elements()),
            {team.cuerpos: team.proporcion for team in kind.equipos},
            sum(counts.values()),
        )
        for team in kind.equipos:
            of_team = by_team[kind.tipo, team.cuerpos]
            degrees = kind.grados if team.grados is None else team.grados
            assert_shares(shares_of(g[0]["grado"] for g in of_team), degrees, len(of_team))
            doctors = [
                any(
                    alert["requiere_medico"] == "Si"
                    for alert in group
                    if alert["cuerpo_necesario"] != "Ambulancia"
                )
                for group in of_team
            ]
            doctor = 0 if "Ambulancia" in team.cuerpos else kind.medico
            assert_shares(shares_of(doctors), {True: doctor, False: 1 - doctor}, len(of_team))


@pytest.mark.parametrize("name", ["realistic", "disaster"])
def test_calls_and_bodies_per_incident_are_as_the_profile_says(name, request):
    profile = load_profile("surge" if name == "disaster" else name)
    groups = incidents_of(request.getfixturevalue(name))
    calls = [len({alert["contacto"] for alert in group}) for group in groups]
    bodies = [len({alert["cuerpo_necesario"] for alert in group}) for group in groups]

    assert_shares(shares_of(calls), profile.llamadas_por_incidente.reparto, len(groups))
    assert sum(calls) / len(calls) == pytest.approx(profile.llamadas_por_incidente.media, rel=0.02)
    assert sum(bodies) / len(bodies) == pytest.approx(profile.cuerpos_por_incidente.media, rel=0.02)


def test_idle_calls_of_the_realistic_profile_have_their_share_of_all_calls(realistic):
    idle = load_profile("realistic").sin_incidente
    calls = calls_of(realistic)
    found = [call for call in calls if "id_incidente" not in call]

    assert len(found) / len(calls) == pytest.approx(idle.proporcion, abs=0.01)
    assert_shares(
        shares_of(call["tipo_emergencia"] for call in found),
        {kind.tipo: kind.proporcion for kind in idle.tipos},
        len(found),
    )
    assert {(call["tipo_emergencia"], call["cuerpo_necesario"]) for call in found} == {
        (kind.tipo, kind.cuerpo) for kind in idle.tipos
    }


def first_calls(alerts):
    """Return the first alert of each incident and the idle calls: what the curves are about."""
    return [group[0] for group in incidents_of(alerts)] + [
        alert for alert in alerts if "id_incidente" not in alert
    ]


def test_hours_of_the_realistic_profile_follow_its_curve_on_each_weekday(realistic):
    curve = load_profile("realistic").horas
    by_day = defaultdict(list)
    for alert in first_calls(realistic):
        by_day[datetime.fromisoformat(alert["fecha"]).weekday()].append(alert)

    for day, weights in enumerate(curve.week):
        expected = {hour: weight / sum(weights) for hour, weight in enumerate(weights)}
        assert_shares(shares_of(map(local_hour, by_day[day])), expected, len(by_day[day]))
    everywhere = len(first_calls(realistic))
    whole_week = sum(sum(weights) for weights in curve.week)
    for day, weights in enumerate(curve.week):
        assert len(by_day[day]) / everywhere == pytest.approx(sum(weights) / whole_week, abs=0.005)
    night, evening = (shares_of(map(local_hour, realistic))[hour] for hour in (5, 20))
    assert evening > 2.5 * night


def test_hours_are_those_of_the_islands_own_clock(realistic):
    curve = load_profile("realistic").horas
    islands = [a for a in first_calls(realistic) if a["codigo_provincia"] in ("35", "38")]
    total = sum(sum(weights) for weights in curve.week)
    expected = {hour: sum(day[hour] for day in curve.week) / total for hour in range(24)}

    assert_shares(shares_of(map(local_hour, islands)), expected, len(islands))


def test_months_of_the_realistic_profile_follow_the_counts(realistic):
    counts = load_profile("realistic").meses.llamadas
    alerts = first_calls(realistic)
    expected = {f"{n:02}": count / sum(counts) for n, count in enumerate(counts, 1)}

    assert_shares(shares_of(a["fecha"][5:7] for a in alerts), expected, len(alerts), z=6)


@pytest.mark.parametrize("name", ["original", "realistic", "disaster"])
def test_accuracy_radii_are_as_the_profile_says(name, request):
    spans = load_profile("surge" if name == "disaster" else name).precision_m.tramos
    radii = [call["precision_m"] for call in calls_of(request.getfixturevalue(name))]
    found = {
        (span.desde, span.hasta): sum(span.desde <= r <= span.hasta for r in radii) / len(radii)
        for span in spans
    }

    assert_shares(found, {(s.desde, s.hasta): s.proporcion for s in spans}, len(radii))


def test_the_surge_is_the_day_of_one_centre_with_most_of_it_in_one_province(surge):
    people = {p.code: p.population for p in load_gazetteer().provinces}
    background = load_profile("surge").fondo
    calls = calls_of(surge)
    found = shares_of(call["codigo_provincia"] for call in calls)
    three = sum(people[code] for code in background.provincias)

    assert set(found) == {"03", "12", "46"}
    for code, part in found.items():
        ordinary = background.proporcion * people[code] / three
        extra = 1 - background.proporcion if code == "46" else 0
        assert part == pytest.approx(ordinary + extra, abs=0.01)
    # 2,438 of the day's 19,821 calls came between 17 and 18 h; one in 24 is an even hour.
    hours = shares_of(map(local_hour, calls))
    assert hours[17] == max(hours.values()) == pytest.approx(2438 / 19821, abs=0.01)
    assert hours[4] < 0.02


@pytest.mark.parametrize(
    ("month", "day", "hours"), [(3, 30, 23), (10, 26, 25)], ids=["spring", "autumn"]
)
def test_an_hour_that_clocks_leave_out_or_repeat_has_its_share_of_real_time(month, day, hours):
    start = datetime(2025, month, day, tzinfo=MADRID)
    end = datetime(2025, month, day + 1, tzinfo=MADRID)
    alerts = simulated("realistic", 60_000, start=start, end=end)
    mainland = [a for a in first_calls(alerts) if a["codigo_provincia"] not in ("35", "38")]
    curve = load_profile("realistic").horas.domingo
    weights = dict(enumerate(curve))
    if hours == 23:
        del weights[2]
    else:
        weights[2] *= 2
    expected = {hour: weight / sum(weights.values()) for hour, weight in weights.items()}

    assert (end.timestamp() - start.timestamp()) / 3600 == hours
    assert_shares(shares_of(map(local_hour, mainland)), expected, len(mainland))
    if hours == 25:
        twice = {a["fecha"][11:13] + a["fecha"][-6:] for a in mainland if local_hour(a) == 2}
        assert twice == {"02+02:00", "02+01:00"}


# --- what is asked for wrongly --------------------------------------------------------------------


def test_fractions_of_a_second_stay_within_the_period():
    start = datetime(2025, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    alerts = simulated("realistic", 50, start=start, end=start + timedelta(seconds=1))

    assert {datetime.fromisoformat(a["fecha"]) for a in alerts} == {START + timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alerts": 0}, "alerts is 0; it must be 1 or more"),
        ({"alerts": -5}, "alerts is -5; it must be 1 or more"),
        ({"end": START}, "end must be later than start by at least a second"),
        ({"end": START - timedelta(days=1)}, "end must be later than start by at least a second"),
        (
            {"start": START.replace(tzinfo=None)},
            "start is 2025-01-01T00:00:00; it must have a time",
        ),
        ({"profile": "nosuch"}, "There is no profile 'nosuch'"),
    ],
)
def test_impossible_arguments_are_refused_at_the_call(changes, message):
    arguments = {"seed": 1, "alerts": 10, "start": START, "end": END} | changes

    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(**arguments)
