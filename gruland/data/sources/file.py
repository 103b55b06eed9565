"""A user's file or folder of labelled reviews."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gruland.data.corpus import Corpus
from gruland.data.labels import Classes
from gruland.data.sources import delimited, folders, json_lines, parquet, saved
from gruland.data.sources.table import Columns, Table
from gruland.text_files import HEAD, refuse_foreign

#: What `data.path` may name.
KINDS = (
    "a file .csv, .tsv, .jsonl or .parquet, a folder of classes such as the unpacked aclImdb, or a data set that the "
    "library datasets saved to disk"
)


class File:
    """A CSV, TSV, JSON lines or Parquet file, a folder of classes, or a saved data set of ``datasets``.

    Args:
        path: need not exist before it is read.
        text, label, split_column, classes, incomplete: see :class:`gruland.data.sources.table.Columns`.

    Raises:
        ValueError: a value that cannot work.
    """

    def __init__(
        self,
        path: str | Path,
        text: str | None = None,
        label: str | Sequence[str] | None = None,
        split_column: str | None = None,
        classes: Classes = None,
        incomplete: str = "refuse",
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise ValueError(f"data.path={path}: expected {KINDS}")
        self.path = Path(path).expanduser()
        self.columns = Columns(text, label, split_column, classes, incomplete)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def files(self, cache: Path) -> list[Path]:
        """The file itself, or the files of the folder that are read.

        Raises:
            FileNotFoundError: there is nothing at the path, or nothing to read in it.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"data.path={self.path} does not exist: expected {KINDS}")
        if not self.path.is_dir():
            return [self.path]
        if saved.is_saved(self.path):
            return sorted(path for path in self.path.rglob("*") if path.is_file())
        return folders.review_files(self.path)[0]

    def read(self, files: list[Path]) -> Corpus:
        """The labelled reviews.

        Raises:
            ValueError: something in it cannot be read as what it seems to be.
        """
        return self._table().corpus(self.columns)

    def texts(self) -> list[str]:
        """The texts alone, without a look at labels.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or no column of texts.
        """
        self.files(Path())
        return self._table().texts(self.columns)

    def _table(self) -> Table:
        path, suffix = self.path, self.path.suffix.lower()
        if path.is_dir():
            return (
                saved.read(path) if saved.is_saved(path) else folders.read(path, *folders.review_files(path))
            )
        if suffix in (".csv", ".tsv", ".tab"):
            return delimited.read(path)
        if suffix in (".jsonl", ".ndjson"):
            return json_lines.read(path)
        if suffix in (".parquet", ".pq"):
            return parquet.read(path, self.columns.names)
        with path.open("rb") as file:
            refuse_foreign(path, file.read(HEAD))
        raise ValueError(f"data.path={path} is none of the known kinds: expected {KINDS}")
