"""Values in the contract's words, whatever accents, case, blanks or synonym they come with."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from emergencias.sources.binding import Payload, text_of
from emergencias.sources.names import fold
from emergencias.words import Words


class Rule(NamedTuple):
    """Why a value was changed.

    Attributes:
        field: Of the alert.
        written: The synonym that was found; '' where only accents, case or blanks differed.
        word: The contract's word that it became.
    """

    field: str
    written: str
    word: str


class Normaliser:
    """Puts the contract's words into alerts, and counts what it changed and what it did not know.

    A word of the contract stays as it is, so that a file of ours comes through exactly. What is
    neither a word nor known as one stays as it is too: the routing sends it to manual review.

    Attributes:
        changed: How many values each rule changed.
        unknown: How many values of each field are no word.
    """

    def __init__(self, words: Words) -> None:
        self._words = [(field, known, set(known.values())) for field, known in words.items()]
        self.changed: Counter[Rule] = Counter()
        self.unknown: Counter[str] = Counter()

    def apply(self, payload: Payload) -> None:
        """Change an alert's values into the words that they mean."""
        for field, known, exact in self._words:
            value = payload.get(field)
            if value is None or (isinstance(value, str) and value in exact):
                continue
            text = text_of(value)
            written = "" if text is None else fold(text)
            word = known.get(written)
            if word is None:
                self.unknown[field] += 1
                continue
            payload[field] = word
            self.changed[Rule(field, "" if written == fold(word) else written, word)] += 1
