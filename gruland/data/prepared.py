"""Reviews divided, cut into words, encoded and counted: what the cache holds.

N reviews, C classes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gruland.arguments import check_whole
from gruland.cache import digest_of
from gruland.data import tokenizer
from gruland.data.corpus import Corpus
from gruland.data.encoded import CLEANING, Encoded, encode, words_of
from gruland.data.overlap import shared
from gruland.data.splits import NAMES, Limit, check_classes, divide, limit_sizes, subset
from gruland.embedding import UNKNOWN, Vocabulary
from gruland.files import read_json, write_json
from gruland.progress import Progress
from gruland.task import Task

#: Part of the cache's key: raise it when the same settings give other arrays or other facts.
VERSION = 2
#: The splits that a training looks at.
SEEN = ("train", "validation")


@dataclass(frozen=True)
class Settings:
    """What determines the encoded reviews, besides the source and the vocabulary; see ``conf/data``.

    Raises:
        ValueError: a value outside its range.
    """

    split: str = "auto"
    fractions: Sequence[float] = (0.5, 0.25, 0.25)
    split_seed: int = 0
    limit: Limit = None
    max_length: int | None = None
    clean: str = "none"

    def __post_init__(self) -> None:
        for key, value, known in (
            ("split", self.split, ("auto", "random", "official")),
            ("clean", self.clean, tuple(CLEANING)),
        ):
            if value not in known:
                raise ValueError(f"data.{key}={value} is unknown: expected {' or '.join(known)}")
        given = list(self.fractions) if isinstance(self.fractions, Sequence) else [self.fractions]
        numbers = [f for f in given if isinstance(f, int | float) and not isinstance(f, bool)]
        if len(given) != 3 or len(numbers) != 3 or not all(0 < f < math.inf for f in numbers):
            raise ValueError(f"data.fractions={given}: expected three numbers above 0")
        check_whole("data.split_seed", self.split_seed, 0)
        check_whole("data.max_length", self.max_length, 1, "whole reviews")
        limits = self.limit if isinstance(self.limit, Mapping) else {"train": self.limit}
        if unknown := sorted(map(str, limits.keys() - set(NAMES))):
            raise ValueError(f"data.limit names {', '.join(unknown)}: expected {', '.join(NAMES)}")
        for limit in limits.values():
            check_whole("data.limit", limit, 1, "all reviews")

    def key(self, source: str, source_hash: str, vocabulary_hash: str) -> str:
        """A hash of all that determines the encoded reviews; a file may be read in two ways: names count."""
        values = asdict(self)
        values["limit"] = dict(self.limit) if isinstance(self.limit, Mapping) else self.limit
        values["fractions"] = [float(f) for f in self.fractions]
        return digest_of(values, source, source_hash, vocabulary_hash, VERSION, tokenizer.VERSION)


def check_text(key: str, value: Any) -> None:
    """Refuse all but texts and None."""
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ValueError(f"data.{key}={value}: expected a text, or null")


class Part(NamedTuple):
    """A split's reviews."""

    encoded: Encoded
    labels: np.ndarray  # int64 [N], or float32 [N, C]
    ids: np.ndarray  # int64 [N], row numbers in the source


@dataclass
class Prepared:
    """All splits and what was counted on the way (see :class:`gruland.data.TextDataModule`)."""

    task: Task
    parts: dict[str, Part]
    facts: dict[str, Any]

    def fingerprint(self, vocabulary: Vocabulary) -> str:
        """A hash of what a model gets to see: word ids, labels and vectors; it knows the run's data again."""
        digest = hashlib.sha256(vocabulary.hash.encode())
        for part in self.parts.values():
            for array in (*part.encoded, part.labels):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write everything into an empty folder."""
        for name, part in self.parts.items():
            for key, array in _arrays(part).items():
                np.save(folder / f"{name}-{key}.npy", array)
        write_json(folder / "facts.json", {"task": self.task.to_dict(), "facts": self.facts})

    @classmethod
    def load(cls, folder: Path) -> Prepared:
        """The inverse of :meth:`save`; words stay memory-mapped. The cache has checked the files."""
        about = read_json(folder / "facts.json")
        parts = {}
        for name in NAMES:
            tokens = np.asarray(np.load(folder / f"{name}-tokens.npy", mmap_mode="c"))
            offsets, labels, ids = (
                np.load(folder / f"{name}-{key}.npy") for key in ("offsets", "labels", "ids")
            )
            parts[name] = Part(Encoded(tokens, offsets), labels, ids)
        return cls(Task.from_dict(about["task"]), parts, about["facts"])


def _arrays(part: Part) -> dict[str, np.ndarray]:
    return {**part.encoded._asdict(), "labels": part.labels, "ids": part.ids}


def prepare(
    corpus: Corpus, vocabulary: Vocabulary, settings: Settings, excluded: frozenset[str] | None = None
) -> Prepared:
    """Divide a corpus, take the limit's part of each split and encode it.

    Args:
        excluded: the :func:`gruland.data.overlap.letters` of texts that are left out of training and validation.

    Raises:
        ValueError: the limit is larger than a split, a class is missing from one, a review is too long to be read
            whole, or hardly a word of them has a vector.
    """
    rows = divide(corpus.labels, corpus.splits, settings.split, settings.fractions, settings.split_seed)
    left_out = {}
    for name in SEEN if excluded is not None else ():
        there = shared((corpus.texts[i] for i in rows[name]), excluded or frozenset())
        rows[name], left_out[name] = rows[name][~there], int(there.sum())
    available = {name: len(rows[name]) for name in NAMES}
    sizes = limit_sizes(settings.limit, available)
    ids = {n: rows[n][subset(corpus.labels[rows[n]], sizes[n], settings.split_seed)] for n in NAMES}
    counts = {
        name: check_classes(corpus.labels[ids[name]], corpus.task, name, sizes[name] < available[name])
        for name in NAMES
    }
    texts = {name: [corpus.texts[i] for i in ids[name]] for name in NAMES}
    census = Census(settings.max_length)
    with Progress(sum(sizes.values()), "data: encoding reviews") as progress:
        encoded = {
            name: encode(census.count(texts[name], ids[name], name, settings.clean, progress), vocabulary)
            for name in NAMES
        }
    refuse_uncovered(encoded["train"], census.words, vocabulary)
    parts = {name: Part(encoded[name], corpus.labels[ids[name]], ids[name]) for name in NAMES}
    facts = {
        "sizes": sizes,
        "available": available,
        "class_counts": counts,
        "duplicates": duplicates(texts),
        "passed_over": dict(corpus.passed_over),
        **({} if excluded is None else {"excluded": left_out}),
    }
    return Prepared(corpus.task, parts, {**facts, **census.facts(encoded, vocabulary)})


@dataclass
class Census:
    """Counts words while they pass."""

    max_length: int | None
    words: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    empty: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))

    def count(
        self, texts: Iterable[str], ids: np.ndarray, name: str, clean: str, progress: Progress
    ) -> Iterator[list[str]]:
        """The words of each text, the first ``max_length`` of them."""
        for text, row in zip(texts, ids, strict=True):
            try:
                words = words_of(text, clean, self.max_length)
            except ValueError as error:
                raise ValueError(f"review {row + 1} of the source: {error}") from error
            kept = words[: self.max_length]
            self.cut[name] += len(kept) < len(words)
            self.empty[name] += not words
            self.words.update(kept)
            progress.advance()
            yield kept

    def facts(self, encoded: Mapping[str, Encoded], vocabulary: Vocabulary) -> dict[str, Any]:
        """What was counted, as plain data."""
        known = int((vocabulary.ids(self.words) != UNKNOWN).sum())
        return {
            "coverage": {
                "tokens": {name: float((part.tokens != UNKNOWN).mean()) for name, part in encoded.items()},
                "words": known / max(1, len(self.words)),
                "distinct_words": len(self.words),
            },
            "lengths": {
                "mean": {name: float(part.lengths.mean()) for name, part in encoded.items()},
                "longest": {name: int(part.lengths.max()) for name, part in encoded.items()},
                "cut": self.cut,
                "empty": self.empty,
            },
        }


#: The least share of the training reviews' words that has to have a vector, of those with a letter.
LEAST_COVERAGE = 0.05


def refuse_uncovered(train: Encoded, words: set[str], vocabulary: Vocabulary) -> None:
    """Vectors that hardly know a word of the reviews are of another language, or were written in another way.

    Punctuation does not count: it has a vector in any language.

    Raises:
        ValueError: with some words of both sides.
    """
    ids, counts = np.unique(train.tokens, return_counts=True)
    lettered = [i > UNKNOWN and any(map(str.isalpha, vocabulary.words[i - 2])) for i in ids.tolist()]
    covered = counts[lettered].sum() / counts.sum()
    unknown = [word for word in sorted(words) if word.isalpha() and vocabulary.ids([word])[0] == UNKNOWN]
    if covered < LEAST_COVERAGE and unknown:
        theirs = [word for word in vocabulary.words[:200] if any(map(str.isalpha, word))]
        raise ValueError(
            f"{covered:.1%} of the words of the reviews have a vector in {vocabulary.name}: the reviews have "
            f"{_quoted(unknown)}, the vectors {_quoted(theirs)}; give vectors of the reviews' language, a plain "
            "lower-case word at the start of each line (embedding.path=FILE)"
        )


def _quoted(words: Sequence[str]) -> str:
    step = max(1, len(words) // 4)  # from the whole alphabet
    return ", ".join(repr(word) for word in words[::step][:4]) or "no word with a letter"


def duplicates(texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Exact repetitions: superfluous reviews within a split, distinct texts that two splits share."""
    distinct = {name: set(texts[name]) for name in NAMES}
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]
    return {
        "within": {name: len(texts[name]) - len(distinct[name]) for name in NAMES},
        "across": {f"{a}-{b}": len(distinct[a] & distinct[b]) for a, b in pairs},
    }
