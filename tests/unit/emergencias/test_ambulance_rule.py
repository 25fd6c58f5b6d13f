from __future__ import annotations

import duckdb
import pytest

from emergencias import model
from emergencias.routes import Routes
from emergencias.vocabulary import DATA_FOLDER, load_vocabulary

BODIES = [body.name for body in load_vocabulary(DATA_FOLDER).bodies]
ODD = [None, "", "null", "Medicos", "Médicos", "ambulancia", " Ambulancia"]


@pytest.mark.parametrize("doctor", ["Si", "No", "Sí", "SI", "", "null", None])
@pytest.mark.parametrize("body", [*BODIES, *ODD])
def test_sql_and_python_agree_who_of_t2_needs_an_ambulance(
    routes: Routes, doctor: str | None, body: str | None
) -> None:
    (command_post,) = [r for r in routes.routes if r.sink_topic == model.T2_2]

    (others,) = duckdb.execute(
        f'SELECT {command_post.predicate.sql} FROM (SELECT ?::VARCHAR AS "REQUIERE_MEDICO", '
        '?::VARCHAR AS "CUERPO_NECESARIO")',
        [doctor, body],
    ).fetchone() or (None,)

    assert others is not model.needs_ambulance(doctor, body)
