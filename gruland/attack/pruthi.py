"""Pruthi et al. 2019 (arXiv 1905.11268): the single worst typing error inside a word."""

from __future__ import annotations

from dataclasses import dataclass

from gruland.arguments import check_whole
from gruland.attack.base import Victim
from gruland.attack.edits import Candidate, EditedText, different_words
from gruland.attack.queries import QueryAttack
from gruland.attack.search import Recipe
from gruland.perturbation import swaps


@dataclass(frozen=True)
class Pruthi(QueryAttack):
    """TextAttack's ``Pruthi2019``: of all errors inside all words the worst, again and again.

    Neighbouring letters are exchanged, letters are deleted, inserted and mistyped on a QWERTY keyboard, never the first
    or the last one of a word, nor in words of fewer than four letters and in stopwords.

    Args:
        swaps: words that may be changed.
    """

    swaps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("swaps", self.swaps, 1)

    def recipe(self, victim: Victim) -> Recipe:
        """``Pruthi2019.build``."""
        cut = swaps.load().words
        from textattack import transformations

        names = (
            "WordSwapNeighboringCharacterSwap",
            "WordSwapRandomCharacterDeletion",
            "WordSwapRandomCharacterInsertion",
            "WordSwapQWERTY",
        )
        options = {"random_one": False, "skip_first_char": True, "skip_last_char": True}
        words, about = swaps.stopwords()
        return Recipe(
            cut,
            [getattr(transformations, name)(**options) for name in names],
            ranking=None,
            stopwords=words,
            least_letters=4,
            constraints=[MostWords(self.swaps)],
            stand_ins={"stopwords": about},
        )


class MostWords:
    """TextAttack's ``MaxWordsPerturbed``: at most so many words differ from the original's in their place."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """The candidates with few enough changes."""
        return [c for c in candidates if different_words(c, original) <= self._most]
