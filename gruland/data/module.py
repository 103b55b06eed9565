"""From a source of reviews to batches of word ids.

N reviews, C classes.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from gruland.arguments import check_whole
from gruland.cache import cache_folder, cached, content_hash, digest_of
from gruland.data.batches import (
    WHOLE,
    Batch,
    Batches,
    EpochBuckets,
    LengthBuckets,
    LengthSorted,
    RewrittenBatches,
    Share,
    loader,
    padding,
)
from gruland.data.corpus import Corpus, Source
from gruland.data.encoded import Encoded, encode_texts
from gruland.data.labels import Classes
from gruland.data.overlap import letters
from gruland.data.prepared import Prepared, Settings, check_text, prepare
from gruland.data.sources import File, Reviews
from gruland.data.splits import NAMES, Limit
from gruland.embedding import Vocabulary
from gruland.task import Task

log = logging.getLogger("gruland")

Rewrite = Callable[[Sequence[str], np.ndarray, int], Sequence[str]]


@dataclass
class Split:
    """The reviews of a split."""

    encoded: Encoded
    labels: np.ndarray  # int64 [N], or float32 [N, C] of a multilabel task
    ids: np.ndarray  # int64 [N]: row numbers in the source, a review's identity
    corpus: Callable[[], Corpus] = field(repr=False)

    @cached_property
    def texts(self) -> list[str]:
        """The raw texts [N], before cleaning; read from the source when they are first asked for."""
        texts = self.corpus().texts
        return [texts[i] for i in self.ids]


class TextDataModule(LightningDataModule):
    """Labelled reviews, divided, cut into words and batched by length; ``setup()`` has to be called once.

    Attributes:
        task: outputs, loss and metrics that the labels ask for.
        vocabulary: as given.
        splits: ``train``, ``validation`` and ``test``.
        rewrite: from raw texts, their ids and the epoch (from 0) to what training reads in their place; None: it reads
            them as they are. It is called in processes beside the training.
        report: plain data about what the model sees: ``source``; ``passed_over`` (what was not read, e.g. blank
            lines -> how many); ``sizes``, ``available`` (before the limit) and ``class_counts`` of each split;
            ``limited``; ``duplicates`` (exact repetitions within a split, distinct texts that two splits share);
            ``coverage`` (the share of the words, and of the distinct
            words, that have a vector); ``lengths`` in words, with the numbers of reviews ``cut`` at
            ``max_length`` and ``empty`` (they become one unknown word); ``padding`` (share of the first
            epoch's batches); ``vocabulary``; ``fingerprint`` (a hash of word ids, labels and vectors).

    Args:
        vocabulary: the words that have a vector.
        source: an object of ``gruland.data.sources``, or any other :class:`gruland.data.Source`; None: the reviews
            that ship with a package.
        path: a file or folder instead (:class:`gruland.data.sources.File`), whose columns are named by ``text``,
            ``label``, ``split_column``, whose classes may be chosen by ``classes``, and of which ``incomplete`` says
            what becomes of rows that lack something.
        exclude: a file of reviews that training and validation have to do without, e.g. those that a contrast set
            begins from: what differs from one in markup, case, digits and punctuation alone is left out, too.
        split: ``auto``, ``random`` or ``official`` (:func:`gruland.data.splits.divide`).
        fractions: proportions of train, validation and test.
        split_seed: of the division and of the limit.
        limit: reviews to take (:func:`gruland.data.splits.limit_sizes`).
        max_length: words of a review that are kept, from its start; None keeps all.
        clean: ``none``, or ``breaks`` to drop ``<br />``.
        batch_size: training reviews of a step, which several devices share.
        eval_batch_size: validation or test reviews side by side; no result depends on it beyond the
            rounding of the linear layer (2e-7 of a logit).
        num_workers: processes that make batches; 0 makes them where they are used.
        seed: of the order of the training batches.
        cache_dir: see :func:`gruland.cache.cache_folder`.

    Raises:
        ValueError: a value that cannot work. Nothing is read yet.
    """

    task: Task
    splits: dict[str, Split]
    report: dict[str, Any]

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: Source | None = None,
        *,
        path: str | None = None,
        text: str | None = None,
        label: str | Sequence[str] | None = None,
        split_column: str | None = None,
        classes: Classes = None,
        incomplete: str = "refuse",
        exclude: str | None = None,
        split: str = "auto",
        fractions: Sequence[float] = (0.5, 0.25, 0.25),
        split_seed: int = 0,
        limit: Limit = None,
        max_length: int | None = None,
        clean: str = "none",
        batch_size: int = 32,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        check_whole("data.batch_size", batch_size, 1)
        check_whole("data.eval_batch_size", eval_batch_size, 1)
        check_whole("data.num_workers", num_workers, 0)
        check_whole("data.seed", seed, 0)
        check_text("cache_dir", cache_dir)
        check_text("exclude", exclude)
        self.vocabulary = vocabulary
        columns: dict[str, Any] = {
            "text": text,
            "label": label,
            "split_column": split_column,
            "classes": classes,
        }
        if path is not None:
            self.source: Source = File(path, **columns, incomplete=incomplete)
        else:
            self.source = _checked(Reviews() if source is None else source, columns, incomplete)
        self.settings = Settings(split, fractions, split_seed, limit, max_length, clean)
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.seed, self.cache_dir = seed, cache_dir
        self.exclude = None if exclude is None else Path(exclude).expanduser()
        self.rewrite: Rewrite | None = None
        self._epoch = 0
        self._samplers: list[LengthBuckets] = []

    @cached_property
    def _corpus(self) -> Corpus:
        return self.source.read(self.source.files(cache_folder(self.cache_dir)))

    def _read(self) -> Corpus:
        return self._corpus

    def setup(self, stage: str | None = None) -> None:
        """Read, divide and encode the reviews, or map what an earlier call left in the cache.

        Raises:
            ValueError, OSError: the source cannot be read, or not be divided as asked.
        """
        if hasattr(self, "splits"):
            return
        cache = cache_folder(self.cache_dir)
        files = self.source.files(cache)
        key = self.settings.key(source_key(self.source), content_hash(files, cache), self.vocabulary.hash)
        if self.exclude is not None:
            if not self.exclude.is_file():
                raise FileNotFoundError(
                    f"data.exclude={self.exclude} does not exist: expected a file of reviews"
                )
            key = digest_of(key, content_hash([self.exclude], cache))
        prepared = cached(
            cache / f"reviews-{key[:16]}",
            Prepared.load,
            lambda folder: prepare(self._corpus, self.vocabulary, self.settings, self._excluded()).save(
                folder
            ),
        )
        self.task = prepared.task
        self.splits = {name: Split(*part, self._read) for name, part in prepared.parts.items()}
        self.report = self._report(prepared)
        log.info("%s", self.summary())

    def _excluded(self) -> frozenset[str] | None:
        return None if self.exclude is None else frozenset(map(letters, File(self.exclude).texts()))

    def _report(self, prepared: Prepared) -> dict[str, Any]:
        lengths = prepared.parts["train"].encoded.lengths
        vocabulary = self.vocabulary
        return {
            "source": self.source.name,
            "limited": prepared.facts["sizes"] != prepared.facts["available"],
            **prepared.facts,
            "padding": padding(LengthBuckets(lengths, self.batch_size, self.seed), lengths),
            "vocabulary": {
                "name": vocabulary.name,
                "hash": vocabulary.hash,
                "rows": len(vocabulary),
                "dimension": vocabulary.dimension,
            },
            "fingerprint": prepared.fingerprint(vocabulary),
        }

    def summary(self) -> str:
        """The report in one line."""
        sizes, available = self.report["sizes"], self.report["available"]
        parts = [
            f"{sizes[n]:,} of {available[n]:,}" if self.report["limited"] else f"{sizes[n]:,}" for n in NAMES
        ]
        max_length = self.settings.max_length
        repeated = self.report["duplicates"]
        passed_over = [f"{count:,} {what}" for what, count in self.report["passed_over"].items()]
        return (
            f"data: {self.report['source']}, {' / '.join(parts)} reviews (train / validation / test), "
            f"{'whole' if max_length is None else f'the first {max_length} words'}, "
            f"{self.report['coverage']['tokens']['train']:.1%} of the words have a vector, "
            f"repeated texts: {sum(repeated['within'].values())} within splits, "
            f"{sum(repeated['across'].values())} across"
            + (f"; passed over: {', '.join(passed_over)}" if passed_over else "")
            + (f"; excluded: {sum(self.report['excluded'].values())}" if "excluded" in self.report else "")
        )

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Texts as the model sees them: the training's cleaning, tokenizer and ``max_length``."""
        return self._encoder()(texts)

    def _encoder(self) -> Callable[[Sequence[str]], Encoded]:
        return partial(
            encode_texts,
            vocabulary=self.vocabulary,
            clean=self.settings.clean,
            max_length=self.settings.max_length,
        )

    def set_epoch(self, epoch: int) -> None:
        """Order the training batches, of loaders handed out before and after, as in that epoch (from 0).

        Lightning does it by itself for the loader that it trains on.
        """
        self._epoch = epoch
        for sampler in self._samplers:
            sampler.set_epoch(epoch)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of like length in a new order each epoch; the last, smaller batch is kept."""
        part = self.splits["train"]
        kind = LengthBuckets if self.rewrite is None else EpochBuckets
        sampler = kind(part.encoded.lengths, self.batch_size, self.seed)
        sampler.set_epoch(self._epoch if self.trainer is None else _epoch_of(self.trainer))
        self._samplers.append(sampler)
        if self.rewrite is None:
            return loader(Batches(part.encoded, part.labels, self._share), sampler, self.num_workers)
        batches = RewrittenBatches(
            part.texts, part.labels, part.ids, self.rewrite, self._encoder(), self._share
        )
        # At least one process: the next texts are written while the model learns from the last.
        return loader(batches, sampler, max(1, self.num_workers))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split by falling length."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split by falling length."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> DataLoader[Batch]:
        part = self.splits[name]
        sampler = LengthSorted(part.encoded.lengths, self.eval_batch_size)
        return loader(Batches(part.encoded, part.labels, self._share), sampler, self.num_workers)

    @property
    def _share(self) -> Share:
        """What this process has of each batch."""
        return WHOLE if self.trainer is None else Share(self.trainer.global_rank, self.trainer.world_size)


def _checked(source: Any, columns: dict[str, Any], incomplete: str) -> Source:
    """A source with the interface of one; what is said of a file's columns needs a file.

    Raises:
        ValueError: it is something else, or has columns of its own.
    """
    if not all(hasattr(source, part) for part in ("name", "files", "read")):
        raise ValueError(
            f"data.source={source}: expected the source's class under _target_ (docs/extending.md); data=reviews and "
            "data=imdb choose those that are there, data.path=FILE any file"
        )
    given = {key: value for key, value in columns.items() if value is not None}
    if incomplete != "refuse":
        given["incomplete"] = incomplete
    for key, value in given.items():
        raise ValueError(
            f"data.{key}={value}: it is read with data.path=FILE alone, the source {source.name} has its own"
        )
    return source


def source_key(source: Source) -> str:
    """A hash of all that determines how a source reads its files: its class, the file of that, its attributes.

    The path is none of them, for what lies there counts by its content. An attribute that is no plain data counts as
    it prints itself: reviews may be encoded once more, never mistaken.
    """
    kind = type(source)
    values = {key: value for key, value in vars(source).items() if key != "path"}
    try:
        code = Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    except (OSError, TypeError):  # defined on the spot, as in a notebook
        code = ""
    return digest_of(kind.__module__, kind.__qualname__, source.name, json.dumps(values, default=str), code)


def _epoch_of(trainer: Any) -> int:
    """The epoch to come: Lightning starts to iterate before it tells a resumed training's sampler."""
    return trainer.fit_loop.epoch_progress.current.processed
