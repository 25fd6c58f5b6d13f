from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergencias.settings import Settings
from emergencias.sources.names import fold
from emergencias.sources.normaliser import Normaliser, Rule
from emergencias.vocabulary import DataFileError, load_vocabulary
from emergencias.words import load_words

DATA = Settings().data_dir
WORDS = load_words(DATA)
URGENT = {degree.name for degree in load_vocabulary(DATA).degrees if degree.urgent}
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())
)


def disguised(word):
    """Ways in which people write a word: case, blanks, without accents."""
    return st.sampled_from(
        [word, word.upper(), word.lower(), f" {word} ", word.replace(" ", "  "), fold(word)]
    )


def normalised(field, value):
    payload = {field: value}
    Normaliser(WORDS).apply(payload)
    return payload[field]


@pytest.mark.parametrize(
    ("field", "written", "word"),
    [
        ("cuerpo_necesario", "Policía", "Policia"),
        ("cuerpo_necesario", "Ejército", "Ejercito"),
        ("cuerpo_necesario", "Médicos", "Medicos"),
        ("cuerpo_necesario", "Militares", "Ejercito"),
        ("cuerpo_necesario", "guardia civil", "Policia"),
        ("grado", "urgente ", "Urgente"),
        ("grado", "URGENCIA  EXTREMA", "Urgencia extrema"),
        ("requiere_medico", "SI", "Si"),
        ("requiere_medico", "Sí", "Si"),
        ("requiere_medico", True, "Si"),
        ("requiere_medico", 0, "No"),
        ("tipo_emergencia", "accidentes de trafico", "Accidentes de tráfico"),
    ],
)
def test_what_people_write_becomes_the_contracts_word(field, written, word):
    assert normalised(field, written) == word


@pytest.mark.parametrize("value", ["Grave", "", " ", "Leve o moderado", "No urgente", None, [], 7])
def test_what_is_unknown_stays_as_it_is(value):
    assert normalised("grado", value) == value


def test_each_rule_is_counted_and_so_is_what_no_rule_knows():
    normaliser = Normaliser(WORDS)
    for body in ("Policía", "POLICIA", "Guardia Civil", "Policia", "Alguaciles"):
        normaliser.apply({"cuerpo_necesario": body})

    assert normaliser.changed == {
        Rule("cuerpo_necesario", "", "Policia"): 2,
        Rule("cuerpo_necesario", "guardia civil", "Policia"): 1,
    }
    assert normaliser.unknown == {"cuerpo_necesario": 1}


@given(field=st.sampled_from(sorted(WORDS)), value=ANYTHING)
def test_normalising_twice_is_normalising_once(field, value):
    once = normalised(field, value)

    # repr: a NaN is not equal to itself
    assert repr(normalised(field, once)) == repr(once)


@given(field=st.sampled_from(sorted(WORDS)), value=ANYTHING)
def test_a_value_becomes_a_word_that_it_is_known_to_mean_or_stays(field, value):
    result = normalised(field, value)

    if repr(result) != repr(value):
        assert result in set(WORDS[field].values())


@given(word=st.sampled_from(sorted(URGENT)), data=st.data())
def test_an_urgent_degree_is_never_made_less_urgent(word, data):
    written = data.draw(disguised(word))

    assert normalised("grado", written) == word


@given(value=ANYTHING)
def test_only_the_words_for_it_make_an_alert_not_urgent(value):
    result = normalised("grado", value)

    if isinstance(result, str) and result in {"Leve", "Moderado"}:
        assert fold(value) in {"leve", "leves", "moderado", "moderada"}


def test_no_synonym_plays_an_alert_down():
    for written, word in WORDS["grado"].items():
        if word not in URGENT:
            assert not any(sign in written for sign in ("urg", "extrem", "crit", "grav"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("color,rojo,Leve", "campo is 'color'; it must be one of tipo_emergencia, cuerpo"),
        ("grado,rojo,Grave", "palabra is 'Grave'; it must be one of Leve, Moderado"),
        ("grado,URGENTE,Leve", "escrito is 'URGENTE'; it must be written for one word only"),
        ("grado,,Leve", "escrito is ''; it must be a text"),
    ],
)
def test_a_line_of_the_synonyms_that_does_not_fit_is_named(tmp_path, line, message):
    for file in DATA.glob("*.csv"):
        shutil.copy(file, tmp_path)
    synonyms = tmp_path / "sinonimos.csv"
    synonyms.write_text(f"campo,escrito,palabra\n{line}\n", encoding="utf-8")

    with pytest.raises(DataFileError) as error:
        load_words(tmp_path)

    assert f"{synonyms}, line 2" in str(error.value)
    assert message in str(error.value)
