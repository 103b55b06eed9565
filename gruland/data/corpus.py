"""Labelled texts, and the interface of what they come from.

N reviews, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gruland.data.labels import Classes, read_labels
from gruland.task import Task


class Corpus(NamedTuple):
    """All labelled texts of a source."""

    texts: list[str]
    labels: np.ndarray  # int64 [N], or float32 [N, C] of a multilabel task
    splits: np.ndarray | None  # the source's own division, str [N]: train, validation or test
    task: Task
    passed_over: Mapping[str, int] = {}  # what was not read -> how many, e.g. {"blank lines": 2}

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        labels: Sequence[Any],
        splits: Sequence[str] | None = None,
        *,
        classes: Classes = None,
        passed_over: Mapping[str, int] | None = None,
    ) -> Corpus:
        """A corpus whose classes are those that the labels name.

        Args:
            labels: [N] numbers or names, e.g. ``["pos", "neg"]``; lists of names make a multilabel task.
            splits: [N] of ``train``, ``validation`` and ``test``.
            classes: see :func:`gruland.data.labels.read_labels`.

        Raises:
            ValueError: fewer than two classes, or a label that is none.
        """
        numbers, task = read_labels(labels, classes)
        return cls(
            list(texts), numbers, None if splits is None else np.array(splits), task, passed_over or {}
        )


class Source(Protocol):
    """A place that reviews come from. Any class with this interface is one (docs/extending.md).

    Besides the files' content, the attributes of the object count as settings of the reading: reviews that were
    encoded for other ones are not used.
    """

    @property
    def name(self) -> str:
        """For people: ``imdb``, or a file's name."""
        ...

    def files(self, cache: Path) -> list[Path]:
        """The files that hold the reviews; a source that has to fetch them puts them into the folder ``cache``."""
        ...

    def read(self, files: list[Path]) -> Corpus:
        """All reviews of these files."""
        ...
