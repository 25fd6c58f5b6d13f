from __future__ import annotations

import pytest

from emergencias.params import Format, RunParams, RunParamsError, Source


def test_defaults_are_the_simulator_and_both_formats() -> None:
    params = RunParams.parse({})

    assert (params.alerts, params.source) == (250, Source.SIMULATOR)
    assert params.formats == (Format.JSON, Format.PARQUET)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"alerts": 0}, ["alerts = 0", "greater than or equal to 1"]),
        ({"alerts": "many"}, ["alerts = 'many'", "integer"]),
        ({"rate_per_second": -1}, ["rate_per_second = -1", "greater than or equal to 0"]),
        ({"rate_per_second": float("inf")}, ["rate_per_second = inf"]),
        ({"seed": -5}, ["seed = -5"]),
        ({"source": "ftp"}, ["source = 'ftp'", "'simulator' or 'file'"]),
        ({"formats": ["csv"]}, ["'csv'", "'json' or 'parquet'"]),
        ({"formats": []}, ["formats = []"]),
        ({"profile": "calm"}, ["profile = 'calm'", "'original'"]),
        ({"source": "file"}, ["needs input_path"]),
        ({"input_path": "a.json"}, ["'a.json'", "source 'file'"]),
        ({"alert": 3}, ["alert: unknown parameter", "alerts"]),
    ],
)
def test_a_bad_parameter_is_refused_with_its_value_and_what_is_allowed(
    raw: dict[str, object], named: list[str]
) -> None:
    with pytest.raises(RunParamsError) as refused:
        RunParams.parse(raw)

    for part in named:
        assert part in str(refused.value)


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(RunParamsError, match=r"alerts.*rate_per_second"):
        RunParams.parse({"alerts": 0, "rate_per_second": -1})


def test_an_empty_form_field_counts_as_not_given() -> None:
    assert RunParams.parse({"input_path": "  ", "seed": ""}).seed is None


def test_a_pace_too_slow_to_finish_is_refused_with_the_one_that_would_do() -> None:
    slow = RunParams.parse({"alerts": 25_000, "rate_per_second": 1})

    with pytest.raises(RunParamsError, match=r"rate_per_second = 1: .* Give 4.63 or more"):
        slow.check_duration(25_000)
    slow.check_duration(5_000)
