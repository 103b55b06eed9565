"""TextFooler (Jin et al. 2019, arXiv 1907.11932): near words of the same part of speech."""

from __future__ import annotations

from dataclasses import dataclass

from gruland.attack.base import Victim
from gruland.attack.neighbours import NearWords, SamePartOfSpeech, SimilarMeaning, embedding_of
from gruland.attack.queries import QueryAttack, hashes, meaning_of, neighbours_of
from gruland.attack.search import Recipe
from gruland.attack.threat import check_number
from gruland.perturbation import swaps


@dataclass(frozen=True)
class TextFooler(QueryAttack):
    """TextAttack's ``TextFoolerJin2019`` with stand-ins for its downloads, which the results name.

    The words come by the score of the text without them. Each gets the worst of its near words, at most 50, of the same
    part of speech (nouns and verbs may take each other's place), in a surrounding of a similar meaning.

    Args:
        neighbours: a JSON file of near words, ``{"good": ["excellent", "nice"]}``; None: by the run's word vectors.
        cosine: the least one of a word's vector and its neighbour's; a file has none.
        similarity: the least one of the 15 words around a change before and after it, as 1 - angle / pi.

    Raises:
        ImportError: NLTK's tagger is not installed.
    """

    neighbours: str | None = None
    cosine: float = 0.5
    similarity: float = 0.840845057

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("cosine", self.cosine, -1, 1)
        check_number("similarity", self.similarity, 0, 1)

    def inputs(self) -> dict[str, str]:
        """The checksum of the file of near words."""
        return hashes(self.neighbours)

    def recipe(self, victim: Victim) -> Recipe:
        """``TextFoolerJin2019.build``."""
        near, meaning = neighbours_of(victim, self.neighbours), meaning_of(victim)
        cut = swaps.load().words
        swaps.check_tagger()
        from textattack.constraints.grammaticality import PartOfSpeech
        from textattack.transformations import WordSwapEmbedding

        around = SimilarMeaning(
            meaning, self.similarity, metric="angular", window=15, to_original=False, short_pass=True
        )
        return Recipe(
            cut,
            [WordSwapEmbedding(max_candidates=50, embedding=embedding_of(near))],
            ranking="delete",
            stopwords=swaps.stopwords_of_textfooler(),
            constraints=[NearWords(near, self.cosine), SamePartOfSpeech(PartOfSpeech()), around],
            stand_ins={"neighbours": near.about, "sentence encoder": meaning.about},
        )
