"""PWWS (Ren et al. 2019, ACL P19-1103): synonyms, in the order of probability-weighted word saliency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gruland.attack.base import Victim
from gruland.attack.queries import QueryAttack
from gruland.attack.search import Recipe
from gruland.perturbation import swaps


@dataclass(frozen=True)
class PWWS(QueryAttack):
    """TextAttack's ``PWWSRen2019``: WordNet's synonyms, without the paper's swaps of named entities.

    The words come by the softmax of their saliency (the score of the text with ``[UNK]`` in their place) times the
    score that their best synonym reaches. Stopwords stay.

    Raises:
        ImportError: NLTK's WordNet is not installed.
    """

    def recipe(self, victim: Victim) -> Recipe:
        """``PWWSRen2019.build``."""
        cut, swap = swaps.load().words, swaps.wordnet()
        words, about = swaps.stopwords()
        return Recipe(
            cut,
            [Remembered(swap)],
            ranking="weighted-saliency",
            stopwords=words,
            stand_ins={"stopwords": about},
        )


class Remembered:
    """A word swap that draws nothing, asked once for each word.

    Args:
        swap: one of TextAttack's.
    """

    draws = False

    def __init__(self, swap: Any) -> None:
        self._swap, self._offers = swap, dict[str, list[str]]()

    def _get_replacement_words(self, word: str) -> list[str]:
        if word not in self._offers:
            self._offers[word] = self._swap._get_replacement_words(word)
        return self._offers[word]
