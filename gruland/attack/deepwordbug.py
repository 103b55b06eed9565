"""DeepWordBug (Gao et al. 2018, arXiv 1801.04354): one typing error each in the words that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from rapidfuzz.distance import Levenshtein

from gruland.arguments import check_whole
from gruland.attack.base import Victim
from gruland.attack.edits import Candidate, EditedText
from gruland.attack.queries import QueryAttack
from gruland.attack.search import Recipe
from gruland.perturbation import swaps


@dataclass(frozen=True)
class DeepWordBug(QueryAttack):
    """TextAttack's ``DeepWordBugGao2018``.

    Of the words by falling importance, which the text with ``[UNK]`` in their place tells, each gets the worst of four
    errors: neighbouring letters exchanged, a letter substituted, deleted, inserted, at random places. Stopwords stay.

    Args:
        distance: the most that all errors of a review may add up to (Levenshtein).
    """

    distance: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("distance", self.distance, 1)

    def recipe(self, victim: Victim) -> Recipe:
        """``DeepWordBugGao2018.build``."""
        cut = swaps.load().words
        from textattack import transformations

        names = (
            "WordSwapNeighboringCharacterSwap",
            "WordSwapRandomCharacterSubstitution",
            "WordSwapRandomCharacterDeletion",
            "WordSwapRandomCharacterInsertion",
        )
        words, about = swaps.stopwords()
        return Recipe(
            cut,
            [getattr(transformations, name)() for name in names],
            ranking="unk",
            stopwords=words,
            constraints=[EditDistance(self.distance)],
            stand_ins={"stopwords": about},
        )


class EditDistance:
    """TextAttack's ``LevenshteinEditDistance``: the whole text is at most so far from the original."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bounds: WeakKeyDictionary[EditedText, int] = WeakKeyDictionary()

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """The candidates that are near enough."""
        return [candidate for candidate in candidates if self._passes(candidate, original)]

    def _passes(self, candidate: Candidate, original: EditedText) -> bool:
        # The errors so far bound the distance from above: as a rule that answers without a look at the whole text.
        if self._bound(candidate) <= self._most:
            return True
        most = self._most
        return bool(Levenshtein.distance(original.text, candidate.text, score_cutoff=most) <= most)

    def _bound(self, candidate: Candidate) -> int:
        base = candidate.base
        if base not in self._bounds:
            self._bounds[base] = 0 if base.origin is None else self._bound(base.origin)
        gone = base.text[candidate.start : candidate.end]
        return self._bounds[base] + int(Levenshtein.distance(gone, candidate.replacement))
