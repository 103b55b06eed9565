"""Reviews as word ids.

N reviews, T words of the longest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gruland.data.tokenizer import tokenize
from gruland.embedding import PAD, UNKNOWN, Vocabulary

#: ``clean`` -> what gives way to a space before a review is cut into words.
CLEANING = {"none": None, "breaks": re.compile(r"<br\s*/?>", re.IGNORECASE)}


#: Words of the longest review that is read whole. Memory grows with them, times the reviews beside it in a batch.
LONGEST = 100_000
#: Letters of a word, on average, in a text whose words are counted at all.
MOST_LETTERS = 100
_REMEDY = f"give data.max_length, e.g. 400; whole reviews have at most {LONGEST:,} words"


class Encoded(NamedTuple):
    """Reviews one after the other; the words of review i are ``tokens[offsets[i]:offsets[i + 1]]``."""

    tokens: np.ndarray  # int32 [sum of lengths], may be a memory map
    offsets: np.ndarray  # int64 [N + 1]

    @property
    def size(self) -> int:
        """N (``len`` is the tuple's)."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N], in words, at least 1."""
        return np.diff(self.offsets)

    def sequence(self, index: int) -> np.ndarray:
        """The word ids of one review, int32 [length]."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: np.ndarray | Sequence[int]) -> Encoded:
        """The reviews at ``indices``, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        starts, lengths = self.offsets[indices], self.offsets[indices + 1] - self.offsets[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded(self.tokens[positions], offsets)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Word ids [N, T] (int64, 0 beyond a review's end) and lengths [N] (int64)."""
        lengths = self.lengths
        tokens = np.full((self.size, int(lengths.max(initial=0))), PAD, dtype=np.int64)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = self.tokens
        return torch.from_numpy(tokens), torch.from_numpy(lengths)


def words_of(text: str, clean: str = "none", max_length: int | None = None) -> list[str]:
    """The first ``max_length`` words of a text after cleaning, and one more where it is cut there; None: all.

    Raises:
        ValueError: more than ``LONGEST`` words, and no ``max_length``.
    """
    if max_length is None and len(text) > MOST_LETTERS * LONGEST:
        raise ValueError(f"a review of {len(text):,} characters is too long to be read whole: {_REMEDY}")
    pattern = CLEANING[clean]
    words = tokenize(
        text if pattern is None else pattern.sub(" ", text), None if max_length is None else max_length + 1
    )
    if max_length is None and len(words) > LONGEST:
        raise ValueError(f"a review of {len(words):,} words is too long to be read whole: {_REMEDY}")
    return words


def encode(reviews: Iterable[Sequence[str]], vocabulary: Vocabulary) -> Encoded:
    """Words to ids; a review without a word becomes one unknown word: every review has a last step."""
    ids = [vocabulary.ids(words) if words else np.array([UNKNOWN], np.int32) for words in reviews]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids], dtype=np.int64)])
    return Encoded(np.concatenate([np.empty(0, np.int32), *ids]), offsets)


def encode_texts(
    texts: Iterable[str], vocabulary: Vocabulary, clean: str = "none", max_length: int | None = None
) -> Encoded:
    """Texts to ids: cleaned, cut into words, the first ``max_length`` of them.

    Raises:
        ValueError: see :func:`words_of`.
    """
    return encode((words_of(text, clean, max_length)[:max_length] for text in texts), vocabulary)
