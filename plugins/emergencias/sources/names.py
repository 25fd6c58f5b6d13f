"""When two names or words are the same."""

from __future__ import annotations

from functools import lru_cache

from emergencias.places import normalise

fold = lru_cache(maxsize=8192)(normalise)
"""A text without accents, case and superfluous blanks: two with the same are the same word."""
