"""TextBugger (Li et al. 2018, arXiv 1812.05271): typing errors, look-alike letters and near words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gruland.attack.base import Victim
from gruland.attack.neighbours import SimilarMeaning, embedding_of
from gruland.attack.queries import QueryAttack, hashes, meaning_of, neighbours_of
from gruland.attack.search import Recipe
from gruland.attack.threat import check_number
from gruland.perturbation import swaps


@dataclass(frozen=True)
class TextBugger(QueryAttack):
    """TextAttack's ``TextBuggerLi2018`` with stand-ins for its downloads, which the results name.

    The words come by the score of the text without them. Each gets the worst of: a space inserted, a letter deleted,
    letters exchanged, a letter that looks alike, one of five near words. Stopwords stay.

    Args:
        neighbours: a JSON file of near words, ``{"good": ["excellent", "nice"]}``; None: by the run's word vectors.
        similarity: the least one of the meanings of the attacked and the original text, 1 - angle / pi.
    """

    neighbours: str | None = None
    similarity: float = 0.8
    revision: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("similarity", self.similarity, 0, 1)

    def inputs(self) -> dict[str, str]:
        """The checksum of the file of near words."""
        return hashes(self.neighbours)

    def recipe(self, victim: Victim) -> Recipe:
        """``TextBuggerLi2018.build``."""
        near, meaning = neighbours_of(victim, self.neighbours), meaning_of(victim)
        cut = swaps.load().words
        from textattack import transformations as of

        inner = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
        words, about = swaps.stopwords()
        return Recipe(
            cut,
            [
                of.WordSwapRandomCharacterInsertion(letters_to_insert=" ", **inner),
                of.WordSwapRandomCharacterDeletion(**inner),
                of.WordSwapNeighboringCharacterSwap(**inner),
                swaps.homoglyphs(),
                of.WordSwapEmbedding(max_candidates=5, embedding=embedding_of(near)),
            ],
            ranking="delete",
            stopwords=words,
            constraints=[SimilarMeaning(meaning, self.similarity, metric="angular")],
            stand_ins={"stopwords": about, "neighbours": near.about, "sentence encoder": meaning.about},
        )
