"""From a source of reviews to batches of word ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from gruland.data.batches import Batch, LengthBuckets, Sorted, loader, padding
from gruland.data.encoded import CLEANING, Encoded, encode, words_of
from gruland.data.sources import Corpus, Source, open_source
from gruland.data.splits import NAMES, divide, limits, subset
from gruland.embedding import UNKNOWN, Vocabulary
from gruland.task import Task

log = logging.getLogger("gruland")


@dataclass
class Split:
    """The reviews of a split."""

    encoded: Encoded
    labels: np.ndarray  # int64 [N] or float32 [N, C]
    ids: np.ndarray  # int64 [N]: row numbers in the source, a review's identity
    corpus: Callable[[], Corpus] = field(repr=False)

    @property
    def texts(self) -> list[str]:
        """The raw texts [N], read from the source on demand."""
        texts = self.corpus().texts
        return [texts[i] for i in self.ids]


class TextDataModule(LightningDataModule):
    """Reviews, divided, cut into words and batched by length."""

    task: Task
    splits: dict[str, Split]
    report: dict[str, Any]

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: str | Source = "reviews",
        *,
        path: str | None = None,
        split: str = "auto",
        fractions: Sequence[float] = (0.5, 0.25, 0.25),
        split_seed: int = 0,
        limit: int | Mapping[str, int | None] | None = None,
        max_length: int | None = None,
        clean: str = "none",
        batch_size: int = 32,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        if clean not in CLEANING:
            raise ValueError(f"data.clean={clean} is unknown: expected {' or '.join(CLEANING)}")
        self.vocabulary = vocabulary
        self.source = open_source(source, path) if isinstance(source, str) else source
        self.split, self.fractions, self.split_seed, self.limit = split, fractions, split_seed, limit
        self.max_length, self.clean = max_length, clean
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self._samplers, self._corpus = seed, [], None

    def _load(self) -> Corpus:
        if self._corpus is None:
            self._corpus = self.source.load()
        return self._corpus

    def setup(self, stage: str | None = None) -> None:
        """Read, divide and encode; a second call does nothing."""
        if hasattr(self, "splits"):
            return
        corpus = self._load()
        rows = divide(corpus.labels, corpus.splits, self.split, self.fractions, self.split_seed)
        sizes = {name: len(rows[name]) for name in NAMES}
        wanted = limits(self.limit, sizes)
        self.task, self.splits = corpus.task, {}
        for name in NAMES:
            ids = rows[name][subset(corpus.labels[rows[name]], wanted[name], self.split_seed)]
            encoded = self.encode([corpus.texts[i] for i in ids])
            self.splits[name] = Split(encoded, corpus.labels[ids], ids, self._load)
        train = self.splits["train"].encoded.lengths
        digest = hashlib.sha256(self.vocabulary.hash.encode())
        for part in self.splits.values():
            for array in (*part.encoded, part.labels):
                digest.update(np.ascontiguousarray(array).tobytes())
        self.report = {
            "source": self.source.name,
            "sizes": {name: self.splits[name].encoded.size for name in NAMES},
            "available": sizes,
            "limited": self.limit is not None,
            "coverage": {
                name: float((part.encoded.tokens != UNKNOWN).mean()) for name, part in self.splits.items()
            },
            "padding": padding(iter(LengthBuckets(train, self.batch_size, self.seed)), train),
            "fingerprint": digest.hexdigest(),
        }

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Texts as the model sees them: same cleaning, tokenizer and ``max_length`` as in training."""
        return encode((words_of(text, self.clean, self.max_length) for text in texts), self.vocabulary)

    def set_epoch(self, epoch: int) -> None:
        """Order the training batches of the loaders handed out so far as in that epoch."""
        for sampler in self._samplers:
            sampler.set_epoch(epoch)

    def train_dataloader(self) -> DataLoader[Batch]:
        part = self.splits["train"]
        sampler = LengthBuckets(part.encoded.lengths, self.batch_size, self.seed)
        self._samplers.append(sampler)
        return loader(part.encoded, part.labels, sampler, self.num_workers)

    def _evaluation_loader(self, name: str) -> DataLoader[Batch]:
        part = self.splits[name]
        sampler = Sorted(part.encoded.lengths, self.eval_batch_size)
        return loader(part.encoded, part.labels, sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("test")
