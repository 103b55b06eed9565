"""Which texts are the same but for markup, case, digits and punctuation: what a model saw is no test for it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

_TAG, _WORD = re.compile(r"</?[a-zA-Z][^<>]*>"), re.compile(r"[^\W\d_]+")


def letters(text: str) -> str:
    """The letters of a text alone: ``"It's <br/>GOOD!"`` -> ``"it s good"``."""
    return " ".join(_WORD.findall(_TAG.sub(" ", text).lower()))


def shared(texts: Iterable[str], others: frozenset[str]) -> np.ndarray:
    """Which of N texts have the :func:`letters` of one of the others [N]; a text without a letter is none of them."""
    return np.array([found in others and bool(found) for found in map(letters, texts)], dtype=bool)
