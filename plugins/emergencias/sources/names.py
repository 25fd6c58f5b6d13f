"""When two names or words are the same."""

from __future__ import annotations

from functools import lru_cache

from emergencias.places import normalise

_LONGEST_KEPT = 200

_fold_short = lru_cache(maxsize=8192)(normalise)


def fold(text: str) -> str:
    """Return a text without accents, case and superfluous blanks.

    Two texts that give the same are the same word. Long ones are no words: they are not kept.
    """
    return _fold_short(text) if len(text) <= _LONGEST_KEPT else normalise(text)
