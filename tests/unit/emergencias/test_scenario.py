from __future__ import annotations

from itertools import product

import pytest

from emergencias.places import load_gazetteer
from emergencias.scenario import MAX_REACH, load_scenario


def test_every_position_within_reach_of_a_town_is_nearest_to_it():
    places = load_scenario("original").places
    number = 0
    for province in load_gazetteer().provinces:
        for town in province.municipalities:
            reach = places.reach[number]
            assert 100 < reach <= MAX_REACH
            for north, east in product((-1, 0, 1), repeat=2):
                at = (town.latitude + north * reach / 1e5, town.longitude + east * reach / 1e5)
                assert province.nearest(*at) is town, (town.name, reach)
            number += 1
    assert number == len(places.reach)


@pytest.mark.parametrize("profile", ["original", "realistic", "surge"])
def test_the_rates_of_all_flows_come_to_one_whole(profile):
    flows = load_scenario(profile).flows
    whole = sum(flow.rates.mean() for flow in flows)

    # Months have their days and rates are whole numbers: a little is lost to both.
    assert whole == pytest.approx(1_000_000, rel=0.01)
