"""The contract's words, and the other ways in which people write them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from emergencias import model
from emergencias.places import normalise
from emergencias.vocabulary import load_vocabulary, read_rows

Words: TypeAlias = dict[str, dict[str, str]]
"""Of each field that has a vocabulary: the word meant, by what is written (without accents, case
and superfluous blanks)."""

SYNONYMS_FILE = "sinonimos.csv"
YES, NO = "Si", "No"


def load_words(folder: Path) -> Words:
    """Return every way to write a word: the word itself, and its synonyms of `sinonimos.csv`.

    Args:
        folder: The vocabulary's.

    Raises:
        emergencias.vocabulary.DataFileError: A line of the file does not fit; it names the line.
    """
    vocabulary = load_vocabulary(folder)
    contract = {
        "tipo_emergencia": [kind.name for kind in vocabulary.types],
        # The simulator never draws 'Medicos', but the routing knows it.
        "cuerpo_necesario": sorted(
            {body.name for body in vocabulary.bodies} | model.MEDICAL_BODIES
        ),
        "grado": [degree.name for degree in vocabulary.degrees],
        "requiere_medico": [YES, NO],
    }
    words = {field: {normalise(word): word for word in known} for field, known in contract.items()}
    for row in read_rows(folder / SYNONYMS_FILE, ("campo", "escrito", "palabra")):
        field, written, word = row.text("campo"), row.text("escrito"), row.text("palabra")
        if field not in contract:
            raise row.error("campo", f"one of {', '.join(contract)}")
        if word not in contract[field]:
            raise row.error("palabra", f"one of {', '.join(contract[field])}")
        if words[field].setdefault(normalise(written), word) != word:
            raise row.error("escrito", f"written for one word only, not for {word!r} as well")
    return words
