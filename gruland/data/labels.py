"""Classes from the labels of a data set.

N reviews, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gruland.task import Task

#: The classes that count, None for all: a list of labels in the classes' order, or label -> the class's name.
Classes = Sequence[Any] | Mapping[Any, str] | None

SENTIMENT = Task("binary", ("negative", "positive"))

#: Spellings of the two sentiments.
SENTIMENTS = {"negative": 0, "neg": 0, "0": 0, "positive": 1, "pos": 1, "1": 1}

#: More classes than this are no classes but texts, numbers or identifiers.
MOST_CLASSES = 1000


def read_labels(
    values: Sequence[Any], classes: Classes = None, place: Callable[[int], str] = "row {}".format
) -> tuple[np.ndarray, Task]:
    """Numbers for labels, and the task that they make.

    Two sentiments (positive or negative, pos or neg, 1 or 0) are the paper's task. Of other labels, two make a binary
    task and more a multiclass one; their order is that of the numbers or of the alphabet. Lists of labels, one list a
    review, make a multilabel task.

    Args:
        values: [N]; none of them is missing (:func:`is_missing`).
        classes: the labels that are classes, in this order (negative first); a mapping also names them.
        place: a position from 0 -> where it lies, e.g. ``line 7``.

    Returns:
        int64 [N], or float32 [N, C] of a multilabel task.

    Raises:
        ValueError: a label that is none of ``classes`` or no label at all; fewer than two classes, too many.
    """
    several = [_is_list(value) for value in values]
    if any(several):
        if not all(several):
            place_of = place(several.index(False))
            raise ValueError(f"{place_of} has one label, others have a list of them: expected lists in all")
        return _multilabel(values, classes, place)
    keys = [label_key(value, place, i) for i, value in enumerate(values)]
    if classes is None and keys and all(key.lower() in SENTIMENTS for key in set(keys)):
        return np.array([SENTIMENTS[key.lower()] for key in keys], np.int64), SENTIMENT
    known = known_classes(classes) if classes is not None else _found(keys)
    for i, key in enumerate(keys):
        if key not in known:
            raise ValueError(f"{place(i)} has the label {values[i]!r}, expected one of {_listed(known)}")
    order = {key: number for number, key in enumerate(known)}
    task = Task("binary" if len(known) == 2 else "multiclass", tuple(known.values()))
    return np.array([order[key] for key in keys], np.int64), task


def _multilabel(
    values: Sequence[Any], classes: Classes, place: Callable[[int], str]
) -> tuple[np.ndarray, Task]:
    """Labels that are none of the given ``classes`` are left aside: a review may have further topics."""
    rows = [[label_key(value, place, i) for value in row] for i, row in enumerate(values)]
    found = known_classes(classes) if classes is not None else _found([key for row in rows for key in row])
    order = {key: number for number, key in enumerate(found)}
    labels = np.zeros((len(rows), len(found)), np.float32)
    for i, row in enumerate(rows):
        labels[i, [order[key] for key in row if key in order]] = 1
    return labels, Task("multilabel", tuple(found.values()))


def is_missing(value: Any) -> bool:
    """Nothing, not-a-number, a blank text, or a list without a label."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return not value.strip() if isinstance(value, str) else _is_list(value) and len(value) == 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | np.ndarray)


def label_key(value: Any, place: Callable[[int], str], i: int) -> str:
    """One spelling for a label, whatever the file's format: 1, 1.0 and "1" are ``1``.

    Raises:
        ValueError: a number with a fraction, or something that is neither number nor text.
    """
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and not float(value).is_integer():
        raise ValueError(f"{place(i)} has the label {value}: expected the name or the number of a class")
    if isinstance(value, int | float | np.integer | np.floating):
        return str(int(value))
    if isinstance(value, str):
        return value.strip()
    raise ValueError(f"{place(i)} has the label {value!r}: expected the name or the number of a class")


def known_classes(classes: Sequence[Any] | Mapping[Any, str]) -> dict[str, str]:
    """``data.classes`` as label -> name.

    Raises:
        ValueError: fewer than two, one twice, none of a label's kinds, or no list and no mapping.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence | Mapping):
        raise ValueError(f"data.classes={classes}: expected a list of labels, e.g. data.classes=[neg,pos]")
    keys = [label_key(label, lambda i: f"data.classes[{i}]", i) for i, label in enumerate(classes)]
    names = map(str, classes.values()) if isinstance(classes, Mapping) else keys
    known = dict(zip(keys, names, strict=True))
    if len(known) < max(2, len(classes)):
        raise ValueError(f"data.classes={list(classes)}: expected two or more different labels")
    return known


def _found(keys: Iterable[str]) -> dict[str, str]:
    """The distinct labels in the order of the numbers, or of the alphabet."""
    keys = list(keys)
    distinct = set(keys)
    if len(distinct) < 2:
        only = f"the label {next(iter(distinct))!r} alone" if distinct else "no label"
        raise ValueError(f"the reviews have {only}: expected two or more classes")
    if len(distinct) > min(MOST_CLASSES, max(20, len(keys) // 2)):
        raise ValueError(
            f"the labels have {len(distinct):,} different values in {len(keys):,} rows: expected classes; name the "
            "column of the labels with data.label=COLUMN, or the classes with data.classes=[...]"
        )
    numbers = all(_is_whole(key) for key in distinct)
    return {key: key for key in sorted(distinct, key=int if numbers else None)}


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _listed(known: Mapping[str, str]) -> str:
    names = list(known)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
