from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergencias import model
from emergencias.alert_lines import CHUNK, Columns, LineWriter
from emergencias.places import load_gazetteer
from emergencias.vocabulary import load_vocabulary

VOCABULARY, GAZETTEER = load_vocabulary(), load_gazetteer()

ALERT = st.fixed_dictionaries(
    {
        "type": st.integers(0, len(VOCABULARY.types) - 1),
        "body": st.integers(0, len(VOCABULARY.bodies) - 1),
        "degree": st.integers(0, len(VOCABULARY.degrees) - 1),
        "province": st.integers(0, len(GAZETTEER.provinces) - 1),
        "second": st.integers(-(10**10), 10**11),
        "offset": st.sampled_from([0, 3600, 7200, -3600, 19_800, -884]),
        "doctor": st.integers(0, 1),
        "contact": st.integers(600_000_000, 999_999_999),
        "latitude": st.integers(-9_000_000, 9_000_000),
        "longitude": st.integers(-18_000_000, 18_000_000) | st.integers(-20, 20),
        "precision": st.integers(1, 10**6),
        "incident": st.integers(-1, 2),
    }
)


def columns(rows, names=(b"0123456789abcdef", b"0" * 16, b"f" * 16)):
    return Columns(
        **{name: np.array([row[name] for row in rows], np.int64) for name in rows[0]},
        names=np.array(names, "S16"),
    )


def as_alert(row):
    """Return the alert that a row of columns stands for, in plain Python."""
    zone = timezone(timedelta(seconds=row["offset"]))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=row["second"])
    province = GAZETTEER.provinces[row["province"]]
    names = ["0123456789abcdef", "0" * 16, "f" * 16, None]
    return {
        "tipo_emergencia": VOCABULARY.types[row["type"]].name,
        "cuerpo_necesario": VOCABULARY.bodies[row["body"]].name,
        "grado": VOCABULARY.degrees[row["degree"]].name,
        "localizacion": province.name,
        "fecha": moment.astimezone(zone).isoformat(),
        "requiere_medico": "Si" if row["doctor"] else "No",
        "contacto": f"+34{row['contact']}",
        "codigo_provincia": province.code,
        "latitud": row["latitude"] / 100_000,
        "longitud": row["longitude"] / 100_000,
        "precision_m": row["precision"],
        "id_incidente": names[row["incident"]],
    }


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(ALERT, min_size=1, max_size=20), run=st.text(st.characters(codec="utf-8")))
def test_a_line_is_what_encode_alert_writes(rows, run):
    lines = b"".join(LineWriter(VOCABULARY, GAZETTEER, run).write(columns(rows)))

    # JSON escapes every control character, so only whole alerts end a line.
    assert lines.split(b"\n") == [*(model.encode_alert(as_alert(row), run) for row in rows), b""]


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_no_alert_is_left_out_where_a_chunk_ends(size):
    rows = [
        {
            **dict.fromkeys(("type", "body", "degree", "province", "offset", "doctor"), 0),
            **{"contact": 730_000_000 + n, "second": n, "latitude": n, "longitude": -n},
            **{"precision": 20, "incident": n % 3},
        }
        for n in range(size)
    ]
    lines = b"".join(LineWriter(VOCABULARY, GAZETTEER, "r").write(columns(rows))).splitlines()

    assert lines == [model.encode_alert(as_alert(row), "r") for row in rows]
