"""Batches of reviews of like length.

B reviews of a batch, T words of its longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gruland.data.encoded import Encoded

#: Batches among which reviews are sorted by length: more leave less padding and less chance.
POOL = 100


#: Padded words of a batch for evaluation: one very long review does not stretch 255 others. IMDB's longest batch of 256
#: has 646,000.
EVALUATED_WORDS = 2**20


class Batch(NamedTuple):
    """Reviews side by side, the longest first; where several processes share a batch, those of one process."""

    tokens: Tensor  # int64 [B, T], 0 = padding
    lengths: Tensor  # int64 [B]
    labels: Tensor  # int64 [B], or float32 [B, C] of a multilabel task
    rows: Tensor | None = None  # int64 [B]: places in the split
    places: Tensor | None = None  # int64 [B]: places in the shared batch; None: 0 to B - 1
    shared: int | None = None  # reviews of the shared batch
    #: What the mean over B counts beside those of the other processes, 1 on average: B * processes / shared.
    weight: float = 1.0


class Share(NamedTuple):
    """Which of several processes asks for a batch: each has every so many-th review of it."""

    rank: int = 0
    processes: int = 1

    def of(self, encoded: Encoded, order: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> Batch:
        """This process's part of a batch. One that is left without has the first review, with the weight 0.

        Args:
            encoded: reviews, of which the batch has those at ``order``, the longest first.
            rows: their places in the split, by which ``labels`` are found.
        """
        places = np.arange(self.rank, len(rows), self.processes)
        weight = len(places) * self.processes / len(rows)
        places = places if len(places) else np.zeros(1, np.int64)
        tokens, lengths = encoded.take(order[places]).padded()
        rows_B = rows[places]
        batch = Batch(tokens, lengths, torch.from_numpy(labels[rows_B]), torch.from_numpy(rows_B))
        if self.processes == 1:
            return batch
        return batch._replace(places=torch.from_numpy(places), shared=len(rows), weight=weight)


#: One process has every batch to itself.
WHOLE = Share()


class Batches(Dataset[Batch]):
    """A data set whose item is a whole batch, or a process's share: index it with an array of review numbers."""

    def __init__(self, encoded: Encoded, labels: np.ndarray, share: Share = WHOLE) -> None:
        self.encoded, self.labels, self.share = encoded, labels, share

    def __getitem__(self, indices: np.ndarray) -> Batch:
        return self.share.of(self.encoded, indices, indices, self.labels)


class RewrittenBatches(Dataset[Batch]):
    """Batches of texts that are written anew in every epoch: index it with the epoch and an array of review numbers.

    Args:
        texts: raw texts [N].
        labels, ids: [N].
        rewrite: from the texts of a batch, their ids and the epoch to what is read in their place.
        encode: from texts to word ids.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: np.ndarray,
        ids: np.ndarray,
        rewrite: Callable[[Sequence[str], np.ndarray, int], Sequence[str]],
        encode: Callable[[Sequence[str]], Encoded],
        share: Share = WHOLE,
    ) -> None:
        self.texts, self.labels, self.ids, self.rewrite, self.encode = texts, labels, ids, rewrite, encode
        self.share = share

    def __getitem__(self, item: tuple[int, np.ndarray]) -> Batch:
        epoch, indices = item
        written = self.encode(self.rewrite([self.texts[i] for i in indices], self.ids[indices], epoch))
        order = np.argsort(-written.lengths, kind="stable")
        return self.share.of(written, order, indices[order], self.labels)


class LengthBuckets(Sampler[np.ndarray]):
    """Shuffled batches of reviews of like length, as arrays of review numbers.

    An epoch shuffles the reviews, sorts them by length within pools of ``POOL`` batches, cuts the batches and
    shuffles those. The order is a pure function of ``seed`` and epoch; the last batch is kept.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        step = self.batch_size * POOL
        pools = [order[i : i + step] for i in range(0, len(order), step)]
        batches = [batch for pool in pools for batch in by_length(pool, self.lengths, self.batch_size)]
        return (batches[i] for i in random.permutation(len(batches)))


class EpochBuckets(LengthBuckets):
    """The same batches, each with its epoch, for a data set that differs from one to the next."""

    def __iter__(self) -> Iterator[Any]:
        epoch, batches = self.epoch, super().__iter__()
        return ((epoch, batch) for batch in batches)


class LengthSorted(Sampler[np.ndarray]):
    """All reviews in batches by falling length: the least padding, for evaluation.

    A batch has at most ``batch_size`` reviews and ``EVALUATED_WORDS`` words with its padding, or one review.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int) -> None:
        self.batches = [
            batch[start : start + step]
            for batch in by_length(np.arange(len(lengths)), lengths, batch_size)
            for step in [max(1, EVALUATED_WORDS // int(lengths[batch[0]]))]
            for start in range(0, len(batch), step)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)


def by_length(indices: np.ndarray, lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """``indices`` by falling length, cut into batches."""
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padding(batches: Iterable[np.ndarray], lengths: np.ndarray) -> float:
    """The share of a pass over ``batches`` that is padding, in [0, 1)."""
    sizes = [(lengths[batch].sum(), lengths[batch].max() * len(batch)) for batch in batches]
    words, places = np.sum(sizes, axis=0)
    return float(1 - words / places)


def loader(batches: Dataset[Batch], sampler: Sampler[np.ndarray], num_workers: int) -> DataLoader[Batch]:
    """A loader of batches; its own generator keeps torch's global random state as it is."""
    return DataLoader(
        batches,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        generator=torch.Generator(),
    )
