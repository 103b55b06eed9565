"""Rows of a file under named columns, and the labelled texts in them.

N rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gruland.data.corpus import Corpus
from gruland.data.labels import SENTIMENTS, Classes, is_missing, known_classes, label_key, read_labels
from gruland.task import Task

#: Names that the columns usually have.
TEXTS, LABELS, SPLITS = ("text", "review"), ("label", "sentiment"), ("split",)

#: Spellings of the splits.
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, as ``data.text``, ``data.label``, ``data.split_column`` and so on say it.

    Args:
        text: a column's name; None: ``text`` or ``review``.
        label: a column's name; None: ``label`` or ``sentiment``. A list of names is a multilabel task: a column of
            zeros and ones for each class.
        split: the name of the column of the splits; None: ``split`` where there is one.
        classes: see :func:`gruland.data.labels.read_labels`.
        incomplete: what becomes of rows without a text, without a label that is a class, or of another split:
            ``refuse`` or ``skip``, which counts them. A list without a label is left out by ``skip`` alone.

    Raises:
        ValueError: a value of another kind.
    """

    text: str | None = None
    label: str | Sequence[str] | None = None
    split: str | None = None
    classes: Classes = None
    incomplete: str = "refuse"

    def __post_init__(self) -> None:
        labels: Sequence[Any] = [self.label] if self.several is None else self.several
        for key, name in (("text", self.text), ("split_column", self.split), *(("label", n) for n in labels)):
            if name is not None and not isinstance(name, str):
                raise ValueError(f"data.{key}={name}: expected the name of a column")
        if self.several is not None and len(set(self.several)) < 2:
            raise ValueError(f"data.label={list(self.several)}: expected two or more columns, one a class")
        if self.several is not None and self.classes is not None:
            raise ValueError("data.classes: the columns of data.label are the classes, leave it out")
        if self.classes is not None:
            known_classes(self.classes)
        if self.incomplete not in ("refuse", "skip"):
            raise ValueError(f"data.incomplete={self.incomplete} is unknown: expected refuse or skip")

    @property
    def single(self) -> str | None:
        """The one column of labels, where it has another name than usual."""
        return self.label if isinstance(self.label, str) else None

    @property
    def several(self) -> list[str] | None:
        """The columns of a multilabel task, a class each."""
        return None if self.label is None or isinstance(self.label, str) else list(self.label)

    @property
    def names(self) -> list[str]:
        """The columns that are named."""
        return [name for name in (self.text, self.split, self.single, *(self.several or [])) if name]


@dataclass
class Table:
    """What a file holds.

    Attributes:
        columns: name -> values [N].
        place: a row from 0 -> where it lies, for people: ``line 7``.
        passed_over: what was not read -> how many.
        swallowed: see :func:`gruland.data.sources.delimited.read`.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    passed_over: dict[str, int] = field(default_factory=dict)
    swallowed: Callable[[str, set[str]], int | None] = lambda column, labels: None

    def corpus(self, columns: Columns) -> Corpus:
        """The labelled texts of the rows.

        Raises:
            ValueError: a column is missing, a row is incomplete, a label is unknown, no rows.
        """
        texts = self.columns[self._column("text", columns.text, TEXTS)]
        labels = self._labels(columns)
        chosen = self._column("split_column", columns.split, SPLITS, optional=True)
        splits = None if chosen is None else self.columns[chosen]
        rows = self._complete(texts, labels, splits, columns)
        if not rows:
            raise ValueError(f"{self.path} holds no reviews")

        numbers, task = self.numbered([labels[row] for row in rows], columns.several or columns.classes, rows)
        names = None if splits is None else np.array([_split(splits[row]) for row in rows])
        return Corpus([texts[row] for row in rows], numbers, names, task, self.passed_over)

    def numbered(
        self, labels: Sequence[Any], classes: Classes = None, rows: Sequence[int] | None = None
    ) -> tuple[np.ndarray, Task]:
        """Numbers for labels of some rows (None: of all), and the task: :func:`gruland.data.labels.read_labels`.

        Raises:
            ValueError: the same, with the file's name.
        """
        places = range(len(labels)) if rows is None else rows
        try:
            return read_labels(labels, classes, lambda i: f"{self.path}, {self.place(places[i])}")
        except ValueError as error:
            named = str(error) if str(self.path) in str(error) else f"{self.path}: {error}"
            raise ValueError(named) from error

    def texts(self, columns: Columns) -> list[str]:
        """The texts of all rows that have one."""
        found = self.columns[self._column("text", columns.text, TEXTS)]
        return [text for text in found if isinstance(text, str)]

    def _column(self, key: str, given: str | None, usual: Sequence[str], *, optional: bool = False) -> Any:
        """The column that is meant. Columns of the usual names are found whatever their case."""
        names = list(self.columns)
        if given is not None:
            if given not in names:
                near = difflib.get_close_matches(given, names, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{self.path} has no column {given} (data.{key}): found {', '.join(names)}{hint}"
                )
            return given
        found = [name for name in names if name.strip().lower() in usual]
        if len(found) == 1 or (optional and not found):
            return found[0] if found else None
        what = f"the columns {' and '.join(found)}" if found else f"no column {' or '.join(usual)}"
        raise ValueError(
            f"{self.path} has {what}: give data.{key}=COLUMN, one of {', '.join(names)}"
            + _about_separators(names)
        )

    def _labels(self, columns: Columns) -> Sequence[Any]:
        if columns.several is None:
            name = self._column("label", columns.single, LABELS)
            labels = self.columns[name]
            distinct = {str(label).strip() for label in labels if not is_missing(label)}
            if distinct <= SENTIMENTS.keys():
                distinct = set(SENTIMENTS)
            if len(distinct) < 100 and (row := self.swallowed(name, distinct)) is not None:
                raise ValueError(
                    f"{self.path}, {self.place(row)}: a quote that is opened here is closed lines below, and what lies "
                    'between looks like rows of their own: close it, or write quotes inside a text twice ("")'
                )
            return labels
        chosen = [self.columns[self._column("label", name, ())] for name in columns.several]
        return [
            [
                name
                for name, value in zip(columns.several, values, strict=True)
                if self._is_one(value, row, name)
            ]
            for row, values in enumerate(zip(*chosen, strict=True))
        ]

    def _is_one(self, value: Any, row: int, name: str) -> bool:
        key = label_key(value, lambda _: f"{self.path}, {self.place(row)}", row).lower()
        if key not in ("0", "1", "false", "true"):
            raise ValueError(
                f"{self.path}, {self.place(row)} has the value {value!r} in the column {name}: expected 1 or 0"
            )
        return key in ("1", "true")

    def _complete(
        self, texts: Sequence[Any], labels: Sequence[Any], splits: Sequence[Any] | None, columns: Columns
    ) -> list[int]:
        """The rows that have everything; the others are refused, or counted."""
        classes = None if columns.classes is None else known_classes(columns.classes)
        rows = []
        for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
            if not isinstance(text, str):
                what, short = f"is no text but {text!r}", "rows without a text"
            elif columns.several is None and _is_no_label(label, classes, columns.incomplete):
                expected = f", expected one of {', '.join(classes)}" if classes else ": expected a class"
                what, short = f"has the label {label!r}{expected}", "rows without a label"
            elif splits is not None and _split(splits[row]) is None:
                what = f"has the split {splits[row]!r}, expected train, validation or test"
                short = "rows of another split"
            else:
                rows.append(row)
                continue
            if columns.incomplete == "refuse":
                raise ValueError(
                    f"{self.path}, {self.place(row)} {what}; data.incomplete=skip leaves such rows out"
                )
            self.passed_over[short] = self.passed_over.get(short, 0) + 1
        return rows


def _is_no_label(label: Any, classes: Mapping[str, str] | None, incomplete: str) -> bool:
    if isinstance(label, list):
        known = [value for value in label if classes is None or label_key(value, str, 0) in classes]
        return not known and incomplete == "skip"
    return is_missing(label) or (classes is not None and label_key(label, str, 0) not in classes)


def _split(value: Any) -> str | None:
    return SPLIT_NAMES.get(str(value).strip().lower())


def _about_separators(names: Sequence[str]) -> str:
    """A header that is not cut at all has another separator."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
        if len(names) == 1 and separator in names[0]:
            return f" (its columns seem to be separated by {name})"
    return ""
