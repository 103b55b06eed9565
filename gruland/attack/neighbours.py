"""Near words and similar texts without a download: what stands in for TextAttack's counter-fitted vectors and encoders.

TextAttack downloads counter-fitted vectors (:class:`FileNeighbours` or :class:`VectorNeighbours` stand in for them) and
the Universal Sentence Encoder (:class:`MeanVectors`). Each says what it is; a result names it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gruland.attack.answers import Encoder
from gruland.attack.edits import Candidate, EditedText
from gruland.attack.victims import ClassifierVictim
from gruland.embedding import UNKNOWN, Vocabulary
from gruland.files import read_json


def neighbours_file(path: str | Path) -> Path:
    """The file of near words. Raises FileNotFoundError where there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"neighbours={path}: no such file; expected JSON, a word's neighbours by the word"
        )
    return file


class FileNeighbours:
    """Near words from a JSON file, ``{"good": ["excellent", "nice"]}``, the nearest first.

    Raises:
        FileNotFoundError, ValueError: no file, or one of another form.
    """

    def __init__(self, path: str | Path) -> None:
        words = read_json(file := neighbours_file(path))
        if not isinstance(words, dict) or not all(
            isinstance(near, list) and all(isinstance(word, str) for word in near) for near in words.values()
        ):
            raise ValueError(f'neighbours={path}: expected JSON such as {{"good": ["excellent", "nice"]}}')
        self._words: dict[str, list[str]] = words
        self.about = f"neighbours in {file.name} ({len(words):,} words)"

    def near(self, word: str, count: int) -> list[str]:
        """At most ``count`` neighbours. Raises KeyError for a word that has none."""
        return self._words[word][:count]

    def similarity(self, word: str, other: str) -> float | None:
        """None: a file says no more than which words are near."""
        return None


class VectorNeighbours:
    """Near words by the distance of their vectors, as TextAttack's ``WordEmbedding`` measures it.

    Args:
        vocabulary: the run's own word vectors, such as GloVe's.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._index = {word: UNKNOWN + 1 + i for i, word in enumerate(vocabulary.words)}
        self._vectors = np.asarray(vocabulary.vectors)
        self._squares = (self._vectors.astype(np.float64) ** 2).sum(1).astype(np.float32)
        # Neither what belongs to no word nor punctuation takes a word's place.
        words = [any(map(str.isalpha, word)) for word in vocabulary.words]
        self._squares[~np.array([False] * (UNKNOWN + 1) + words)] = np.inf
        self._near: dict[tuple[str, int], list[str]] = {}
        self.about = (
            f"neighbours by the vectors {vocabulary.name}; they are not counter-fitted, antonyms are near"
        )

    def near(self, word: str, count: int) -> list[str]:
        """The ``count`` words of the least Euclidean distance. Raises KeyError for a word without a vector."""
        key = word, count
        if key not in self._near:
            index = self._index[word]
            distances = self._squares - 2 * (self._vectors @ self._vectors[index])
            distances[index] = np.inf
            nearest = np.argpartition(distances, min(count, len(distances) - 1))[:count]
            nearest = nearest[np.lexsort((nearest, distances[nearest]))]
            words = self._vocabulary.words
            self._near[key] = [words[i - UNKNOWN - 1] for i in nearest.tolist() if np.isfinite(distances[i])]
        return self._near[key]

    def similarity(self, word: str, other: str) -> float | None:
        """The cosine of the two vectors; None where a word has none."""
        if word not in self._index or other not in self._index:
            return None
        a, b = (self._vectors[self._index[w]].astype(np.float64) for w in (word, other))
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


Neighbours = FileNeighbours | VectorNeighbours


def embedding_of(neighbours: Neighbours) -> Any:
    """The neighbours as one of TextAttack's embeddings, whose words are their own indices."""
    from textattack.shared import AbstractWordEmbedding

    class Words(AbstractWordEmbedding):
        def __getitem__(self, index: Any) -> None:
            return None

        def word2index(self, word: str) -> str:
            neighbours.near(word, 1)  # KeyError: a word that is not there
            return word

        def index2word(self, index: str) -> str:
            return index

        def nearest_neighbours(self, index: str, topn: int) -> list[str]:
            return neighbours.near(index, topn)

        def get_cos_sim(self, a: str, b: str) -> float | None:
            return neighbours.similarity(a, b)

        def get_mse_dist(self, a: str, b: str) -> float:
            raise ValueError(
                "these neighbours have a cosine alone: a constraint on a distance cannot be held"
            )

    return Words()


class MeanVectors:
    """What a text means, as the mean of its words' vectors: a plain stand-in for a sentence encoder.

    Args:
        encoder: gives a text's word ids.
        vectors: [V, D].
    """

    about = "the mean of the run's word vectors in place of the Universal Sentence Encoder"

    def __init__(self, encoder: Encoder, vectors: np.ndarray) -> None:
        self._encoder, self._vectors = encoder, vectors

    @classmethod
    def of(cls, victim: ClassifierVictim) -> MeanVectors:
        """By the words and vectors of a model."""
        return cls(Encoder(victim.data), victim.model.vectors.detach().cpu().numpy())

    def __call__(self, text: str) -> np.ndarray:
        """float64 [D]."""
        ids = self._encoder.encode(text)
        return np.asarray(self._vectors[ids].astype(np.float64).mean(0))


class SimilarMeaning:
    """TextAttack's ``SentenceEncoder`` constraint: the meanings of two texts are near, perhaps around the change alone.

    Args:
        meaning: from a text to its vector.
        threshold: the least similarity.
        metric: ``cosine``, or ``angular``: 1 - angle / pi.
        window: words around the changed one; None: the whole text.
        to_original: whether the original is what a candidate is compared with, or the text that it was made from.
        short_pass: whether texts shorter than the window pass.
    """

    def __init__(
        self,
        meaning: MeanVectors,
        threshold: float,
        *,
        metric: str = "cosine",
        window: int | None = None,
        to_original: bool = True,
        short_pass: bool = False,
    ) -> None:
        self._meaning, self._threshold, self._metric = meaning, threshold, metric
        self._window, self._to_original, self._short_pass = window, to_original, short_pass

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """The candidates that are similar enough; each gets its similarity."""
        reference = original if self._to_original else candidates[0].base
        meanings: dict[str, np.ndarray] = {}
        for candidate in candidates:
            text = EditedText(candidate.text, original.cut)
            if self._short_pass and self._window is not None and len(text.words) < self._window:
                candidate.similarity = 1.0
                continue
            own, other = (self._around(part, candidate.index) for part in (text, reference))
            if other not in meanings:
                meanings[other] = self._meaning(other)
            candidate.similarity = self._similarity(self._meaning(own), meanings[other])
        return [c for c in candidates if c.similarity is not None and c.similarity >= self._threshold]

    def _around(self, text: EditedText, index: int) -> str:
        """``AttackedText.text_window_around_index``."""
        words, size = len(text.words), self._window
        if size is None or index - (size - 1) / 2 < 0:
            first, last = 0, words - 1 if size is None else min(size - 1, words - 1)
        elif index + (size - 1) / 2 >= words:
            first, last = max(0, words - size), words - 1
        else:
            first, last = index - math.ceil((size - 1) / 2), index + math.floor((size - 1) / 2)
        return text.text[text.starts[first] : text.starts[last] + len(text.words[last])]

    def _similarity(self, a: np.ndarray, b: np.ndarray) -> float:
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = float(a @ b) / lengths if lengths else 0.0
        return cosine if self._metric == "cosine" else 1 - math.acos(max(-1.0, min(1.0, cosine))) / math.pi


class NearWords:
    """TextAttack's ``WordEmbeddingDistance``: the cosine of a word and its replacement is at least ``threshold``."""

    def __init__(self, neighbours: Neighbours, threshold: float) -> None:
        self._neighbours, self._threshold = neighbours, threshold

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """A candidate is compared with the original; a word without a vector passes."""
        return [candidate for candidate in candidates if self._passes(candidate, original)]

    def _passes(self, candidate: Candidate, original: EditedText) -> bool:
        words = original.cut(candidate.replacement)
        places = range(candidate.index, candidate.index + len(words))
        if places.stop > len(original.words):
            return False
        for place, word in zip(places, words, strict=True):
            cosine = self._neighbours.similarity(original.words[place].lower(), word.lower())
            if cosine is not None and cosine < self._threshold:
                return False
        return True


class SamePartOfSpeech:
    """TextAttack's ``PartOfSpeech``: NLTK's tagger gives a word and its replacement one part of speech.

    Args:
        constraint: TextAttack's own.
    """

    def __init__(self, constraint: Any) -> None:
        self._constraint = constraint

    def __call__(self, candidates: list[Candidate], original: EditedText) -> list[Candidate]:
        """Nouns and verbs may take each other's place."""
        return [candidate for candidate in candidates if self._passes(candidate, original)]

    def _passes(self, candidate: Candidate, original: EditedText) -> bool:
        constraint, words = self._constraint, original.words
        for place, word in enumerate(original.cut(candidate.replacement), candidate.index):
            before, after = words[max(place - 4, 0) : place], words[place + 1 : min(place + 4, len(words))]
            tags = [constraint._get_pos(before, which, after) for which in (words[place], word)]
            if not constraint._can_replace_pos(*tags):
                return False
        return True
