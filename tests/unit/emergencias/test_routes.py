from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergencias.reconciliation import source_rows
from emergencias.routes import Routes, RoutingSqlError, load_routes

SOURCE = """
CREATE STREAM avisos (id VARCHAR KEY, texto VARCHAR)
WITH (KAFKA_TOPIC = 'entrada', KEY_FORMAT = 'KAFKA', VALUE_FORMAT = 'KAFKA');
"""
ROUTED = """
CREATE STREAM primero WITH (KAFKA_TOPIC = 'uno', VALUE_FORMAT = 'JSON') AS
SELECT id, EXTRACTJSONFIELD(texto, '$.a') AS a, EXTRACTJSONFIELD(texto, '$.b') AS b FROM avisos
{where} EMIT CHANGES;
"""
SECOND = """
CREATE STREAM segundo WITH (KAFKA_TOPIC = 'dos', VALUE_FORMAT = 'JSON') AS
SELECT * FROM primero WHERE {where} EMIT CHANGES;
"""


def load(*statements: str) -> Routes:
    return load_routes({f"{n:02}.sql": text for n, text in enumerate(statements)})


@pytest.fixture
def picks() -> Callable[..., bool]:
    """Evaluate a condition over a routed record's columns A and B."""

    def evaluate(where: str, a: str | None, b: str | None = None) -> bool:
        route = load(SOURCE, ROUTED.format(where=""), SECOND.format(where=where)).routes[1]
        with duckdb.connect() as db:
            rows = db.execute(
                f'SELECT {route.predicate.sql} FROM (SELECT ?::VARCHAR AS "A", ?::VARCHAR AS "B")',
                [a, b],
            ).fetchall()
        answer = rows[0][0]
        assert answer is not None
        return bool(answer)

    return evaluate


def test_the_projects_routing_is_read_whole(routes: Routes) -> None:
    assert routes.source_topic == "T1_Recepcion_avisos"
    assert [(route.source_topic, route.sink_topic) for route in routes.routes] == [
        ("T1_Recepcion_avisos", "T2_Centro_112"),
        ("T1_Recepcion_avisos", "T3_No_Urgencias"),
        ("T1_Recepcion_avisos", "T4_Revision_manual"),
        ("T2_Centro_112", "T2.2_Centro_de_mando"),
        ("T2_Centro_112", "T2.3_Cuerpos_112"),
        ("T3_No_Urgencias", "T3.1_Medicos"),
        ("T3_No_Urgencias", "T3.2_Bomberos"),
        ("T3_No_Urgencias", "T3.3_Forestales"),
        ("T3_No_Urgencias", "T3.4_Guardia_Costera"),
        ("T3_No_Urgencias", "T3.5_Policia"),
        ("T3_No_Urgencias", "T3.6_Servicios_de_emergencia"),
    ]


# What ksqlDB answers: a comparison with NULL is false, and its negation true.
@pytest.mark.parametrize(
    ("where", "of_x", "of_y", "of_null"),
    [
        ("a = 'x'", True, False, False),
        ("a <> 'x'", False, True, False),
        ("a != 'x'", False, True, False),
        ("NOT (a = 'x')", False, True, True),
        ("NOT a = 'x'", False, True, True),
        ("a IN ('x', 'z')", True, False, False),
        ("a NOT IN ('x', 'z')", False, True, True),
        ("NOT (a NOT IN ('x'))", True, False, False),
        ("a IS NULL", False, False, True),
        ("a IS NOT NULL", True, True, False),
        ("COALESCE(a, 'x') = 'x'", True, False, True),
        ("IFNULL(a, 'x') = 'x'", True, False, True),
        ("NOT (a = 'x' OR b = 'x')", False, True, True),
        ("NOT (a = 'x' AND b IS NULL)", False, True, True),
        ("CASE WHEN a = 'x' THEN 'si' ELSE 'no' END = 'no'", False, True, True),
        ("UCASE(a) = 'X'", True, False, False),
        ("LCASE(TRIM(primero.a)) = 'x'", True, False, False),
        ("`A` = 'x'", True, False, False),
        ("a = 'x' OR TRUE", True, True, True),
    ],
)
def test_conditions_keep_ksqldbs_logic_of_null(
    picks: Callable[..., bool], where: str, of_x: bool, of_y: bool, of_null: bool
) -> None:
    assert (picks(where, "x"), picks(where, "y"), picks(where, None)) == (of_x, of_y, of_null)


def test_comparison_is_case_sensitive_and_does_not_trim(picks: Callable[..., bool]) -> None:
    assert not picks("a IN ('x')", "X")
    assert not picks("a = 'x'", " x ")


def test_quotes_in_literals_survive(picks: Callable[..., bool]) -> None:
    assert picks("a = 'l''Hospitalet'", "l'Hospitalet")


def test_a_condition_without_a_value_drops_the_row(picks: Callable[..., bool]) -> None:
    # ksqlDB throws on it and drops the row, also where the negation would keep it.
    assert not picks("CASE WHEN a = 'x' THEN TRUE END", "y")
    assert not picks("NOT CASE WHEN a = 'x' THEN TRUE END", "y")


_NAMES = st.sampled_from(["a", "b"])
_LITERALS = st.sampled_from(["'x'", "'y'", "'Si'", "''"])
_ATOMS = st.one_of(
    st.builds("{} = {}".format, _NAMES, _LITERALS),
    st.builds("{} <> {}".format, _NAMES, _LITERALS),
    st.builds("{} IN ({}, {})".format, _NAMES, _LITERALS, _LITERALS),
    st.builds("{} NOT IN ({}, {})".format, _NAMES, _LITERALS, _LITERALS),
    st.builds("{} IS NULL".format, _NAMES),
)
_CONDITIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    condition=_CONDITIONS,
    a=st.sampled_from([None, "x", "y", "Si", "", "X"]),
    b=st.sampled_from([None, "x", "y", "Si", ""]),
)
def test_a_condition_and_its_negation_split_every_record(
    condition: str, a: str | None, b: str | None
) -> None:
    rest = SECOND.replace("segundo", "resto").replace("'dos'", "'tres'")
    _, yes, no = load(
        SOURCE,
        ROUTED.format(where=""),
        SECOND.format(where=condition),
        rest.format(where=f"NOT ({condition})"),
    ).routes
    with duckdb.connect() as db:
        answers = db.execute(
            f"SELECT {yes.predicate.sql}, {no.predicate.sql} "
            'FROM (SELECT ?::VARCHAR AS "A", ?::VARCHAR AS "B")',
            [a, b],
        ).fetchall()
    assert sorted(answers[0]) == [False, True]


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("a LIKE 'x%'", "cannot check"),
        ("LEN(a) > 3", "cannot check"),
        ("CASE a WHEN 'x' THEN TRUE ELSE FALSE END", "cannot check"),
        ("c = 'x'", "unknown column C"),
        ("IS_JSON_STRING(a)", "only on the text column"),
        ("a = 'x' AND", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_files_name(where: str, complaint: str) -> None:
    with pytest.raises(RoutingSqlError, match=complaint) as refused:
        load(SOURCE, ROUTED.format(where=""), SECOND.format(where=where))
    assert "02.sql" in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DROP STREAM primero;", "CREATE STREAM statements only"),
        ("CREATE TABLE t AS SELECT * FROM avisos;", "CREATE STREAM statements only"),
        (SECOND.format(where="a = 'x'").replace("FROM primero", "FROM nadie"), "NADIE"),
        (SECOND.format(where="a = 'x'") + SECOND.format(where="a = 'x'"), "a second statement"),
        (
            "CREATE STREAM j WITH (KAFKA_TOPIC = 'dos') AS SELECT * FROM primero p "
            "JOIN avisos q WITHIN 1 HOURS ON p.id = q.id EMIT CHANGES;",
            "must read one stream",
        ),
        ("CREATE STREAM s AS SELECT * FROM avisos PARTITION BY texto;", "it has also PARTITION"),
        ("CREATE STREAM s (a VARCHAR) WITH (KAFKA_TOPIC = 'x', VALUE_FORMAT = 'JSON');", "second"),
        ("CREATE STREAM s (a VARCHAR;", "not closed"),
        ("CREATE STREAM s AS SELECT * FROM avisos", "does not end with ';'"),
        ("", "no statement"),
        ("CREATE STREAM s AS SELECT * FROM 'x';", "reads nothing"),
        ("CREATE STREAM 'x", "a string is not closed"),
    ],
)
def test_a_statement_that_is_no_route_is_refused(statement: str, complaint: str) -> None:
    with pytest.raises(RoutingSqlError, match=complaint) as refused:
        load(SOURCE, ROUTED.format(where=""), statement)
    assert "02.sql" in str(refused.value)


def test_comments_and_case_of_keywords_do_not_matter() -> None:
    plain = load(SOURCE, ROUTED.format(where=""), SECOND.format(where="a = 'x' AND b <> 'y'"))
    noisy = SECOND.format(where="/* WHERE b = 'z' */ A = 'x' -- EMIT;\n and b <> 'y'")
    assert load(SOURCE, ROUTED.format(where=""), noisy.replace("WHERE", "where", 1)) == plain


def test_files_are_read_in_the_order_of_their_names() -> None:
    files = {"2.sql": SECOND.format(where="a = 'x'"), "1.sql": ROUTED.format(where="")}
    routes = load_routes({**files, "0.sql": SOURCE})
    assert [route.file for route in routes.routes] == ["1.sql", "2.sql"]


def test_a_sink_without_a_topic_of_its_own_has_the_streams_name() -> None:
    (route,) = load(SOURCE, "CREATE STREAM destino AS SELECT * FROM avisos EMIT CHANGES;").routes
    assert route.sink_topic == "DESTINO"


def test_a_typed_source_stream_is_refused() -> None:
    with pytest.raises(RoutingSqlError, match="typed stream drops records"):
        load(
            "CREATE STREAM avisos (grado VARCHAR) WITH (KAFKA_TOPIC = 'x', VALUE_FORMAT = 'JSON');"
        )


@pytest.mark.parametrize("statements", [(), (SOURCE,)])
def test_sql_that_routes_nothing_is_refused(statements: tuple[str, ...]) -> None:
    with pytest.raises(RoutingSqlError, match="0 of them routes"):
        load(*statements)


# value on T1; the topics it goes to. Seen on a real ksqlDB server.
ODD_RECORDS: list[tuple[bytes, set[str]]] = [
    (b"nada", {"T4"}),
    (b"", {"T4"}),
    (b'{"grado":"Urgente"', {"T4"}),
    (b"\xff\xfe", {"T4"}),
    (b'\xef\xbb\xbf{"grado":"Urgente"}', {"T4"}),
    (b'{"a":NaN,"grado":"Urgente"}', {"T4"}),
    (b"[1]", {"T4"}),
    (b'"x"', {"T4"}),
    (b"5", {"T4"}),
    (b"null", {"T4"}),
    (b"{}", {"T4"}),
    (b'{"grado":null}', {"T4"}),
    (b'{"grado":"URGENTE"}', {"T4"}),
    (b'{"grado":" Urgente "}', {"T4"}),
    (b'{"grado":["Urgente"]}', {"T4"}),
    (b'{"grado":{"a":"Urgente"}}', {"T4"}),
    (b'{"Grado":"Urgente"}', {"T4"}),
    (b'{"GRADO":"Urgente"}', {"T4"}),
    (b'{"grado":"Moderado"}', {"T4"}),
    ('{"grado":"Leve","cuerpo_necesario":"Bomberos","requiere_medico":"Sí"}'.encode(), {"T4"}),
    (b'{"grado":"Leve","cuerpo_necesario":"GEOs","requiere_medico":"No"}', {"T4"}),
    (b'{"grado":"Urgente"} basura', {"T2"}),
    (b'{"grado":"Leve","grado":"Urgente"}', {"T2"}),
    (b'{"grado":"Urgente","localizacion":"C\xe1diz"}', {"T2"}),
    (b'{"grado":"Urgente","requiere_medico":null,"latitud":"37,1"}', {"T2"}),
    (b'{"grado":"Urgente","requiere_medico":"Si","latitud":{"x":1}}', {"T2"}),
    (b'{"grado":"Leve","requiere_medico":"Si","cuerpo_necesario":null}', {"T3"}),
]


def test_odd_records_go_where_a_real_server_sent_them(
    new_corpus: Callable[..., Any], read_window: Callable[..., Any], routes: Routes
) -> None:
    corpus = new_corpus([])
    # With planned keys, so that the records are the run's whatever they say.
    corpus.plan = corpus.plan.model_copy(update={"alerts": len(ODD_RECORDS)})
    for n, (value, _) in enumerate(ODD_RECORDS):
        corpus.receive(value, corpus.plan.alert_id(n).encode(), route=False)
    first = routes.reading(routes.source_topic)
    picked = ", ".join(route.predicate.sql for route in first)
    with read_window(corpus) as window:
        answers = window.db.execute(
            f"SELECT {picked} FROM ({source_rows(routes, routes.source_topic)}) ORDER BY o, p"
        ).fetchall()
    found = [
        (value, {route.sink_topic[:2] for route, yes in zip(first, answer, strict=True) if yes})
        for (value, _), answer in zip(ODD_RECORDS, answers, strict=True)
    ]
    assert found == ODD_RECORDS
