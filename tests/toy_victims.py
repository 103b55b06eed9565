"""Victims whose worst case is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.attack import Texts
from gruland.data.encoded import encode
from gruland.regularizers import Draw
from gruland.task import Task

BINARY = Task("binary", ("negative", "positive"))
WORDS = ["good", "fine", "gold", "goad", "bad", "dull", "film", "plot", "the"]


class Words:
    """A vocabulary: row 0 for padding, row 1 for unknown words."""

    words = WORDS

    def ids(self, words: Sequence[str]) -> np.ndarray:
        return np.array([WORDS.index(w) + 2 if w in WORDS else 1 for w in words], dtype=np.int32)


class Linear:
    """The logit is the sum over a review's words of their vectors' product with fixed weights."""

    task = BINARY

    def __init__(self, dimension: int = 3) -> None:
        random = torch.Generator().manual_seed(3)
        self.vocabulary = Words()
        self.vectors = torch.randn(len(WORDS) + 2, dimension, generator=random)
        self.vectors[0] = 0
        self.weights = 0.2 * torch.randn(dimension, generator=random)

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        return [text.lower().split() for text in texts]

    def logits_of_vectors(
        self, embedded_BTD: Tensor, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw | None = None
    ) -> Tensor:
        real_BT1 = (torch.arange(tokens_BT.shape[1]) < lengths_B[:, None]).unsqueeze(2)
        return ((embedded_BTD * real_BT1) @ self.weights).sum(1, keepdim=True)

    def logits(self, texts: Sequence[str]) -> Tensor:
        tokens_BT, lengths_B = encode(self.words(texts), self.vocabulary).padded()  # type: ignore[arg-type]
        return self.logits_of_vectors(F.embedding(tokens_BT, self.vectors), tokens_BT, lengths_B)


class Answering:
    """A victim that answers what a table says: from a text to its logit, or to that of each draw."""

    task = BINARY

    def __init__(self, table: dict[str, Sequence[float]]) -> None:
        self.table = table

    def logits(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(np.mean(self.table[text]))] for text in texts])


class AnsweringInDraws(Answering):
    """The fresh draws are the table's; the attack's are all those of a table of its own."""

    def __init__(self, table: dict[str, Sequence[float]], own: dict[str, Sequence[float]], seed: int) -> None:
        super().__init__(table)
        self.own, self.seed = own, seed

    def draws(self, texts: Sequence[str], keys: np.ndarray, *, count: int, seed: int) -> Tensor:
        table = self.own if seed == self.seed else self.table
        return torch.tensor([[[table[text][draw]] for text in texts] for draw in range(count)])


def labelled(texts: Sequence[str], labels: Sequence[int]) -> Texts:
    return Texts(np.arange(len(texts)) + 100, list(texts), np.array(labels))


def reviews(count: int, seed: int = 0) -> Texts:
    """Made-up reviews of different lengths with the labels that :class:`Linear` gives them, but for a few."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(2, 8))) for _ in range(count)]
    predicted = (Linear().logits(texts) >= 0).long().squeeze(1).numpy()
    return labelled(texts, [int(p) ^ (place % 5 == 4) for place, p in enumerate(predicted)])
