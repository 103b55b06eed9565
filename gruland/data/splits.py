"""Which review goes into which split; seeded and stratified.

N reviews, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gruland.task import Task

NAMES = ("train", "validation", "test")
Limit = int | Mapping[str, int | None] | None


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A seeded permutation of the rows of which every stretch holds the classes in their proportion.

    A class's n rows are shuffled; its k-th gets the place (k + u) / n with one random u for the class; all
    rows are sorted by place. A class of a multilabel task is a combination of labels.
    """
    random = np.random.default_rng(seed)
    _, strata, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(strata.reshape(-1)[shuffled], kind="stable")]
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (ranks + np.repeat(random.random(len(counts)), counts)) / np.repeat(counts, counts)
    return by_class[np.argsort(places, kind="stable")]


def subset(labels: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Sorted row numbers of a seeded stratified subset; a larger one of the same seed contains a smaller one.

    Args:
        labels: [N] or [N, C].
        size: at most N; None takes all.

    Raises:
        ValueError: ``size`` is below 1 or above N.
    """
    if size is None:
        return np.arange(len(labels))
    if not 1 <= size <= len(labels):
        raise ValueError(f"a subset of {size} reviews was asked for: expected 1 to {len(labels)}, or all")
    return np.sort(stratified_order(labels, seed)[:size])


def cut(labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Sorted row numbers of stratified parts in the given proportions; each row is in one part."""
    bounds = np.round(np.cumsum(fractions) / np.sum(fractions) * len(labels)).astype(int)
    return [np.sort(part) for part in np.split(stratified_order(labels, seed), bounds[:-1])]


def divide(
    labels: np.ndarray, official: np.ndarray | None, how: str, fractions: Sequence[float], seed: int
) -> dict[str, np.ndarray]:
    """Row numbers of the three splits.

    Args:
        labels: [N] or [N, C].
        official: the source's own split of each row (``train``, ``validation``, ``test``), or None.
        how: ``auto`` keeps the official training part and divides the other half by seed, or divides all rows
            where the source has no splits; ``official`` refuses to do the latter; ``random`` always does.
            A source with all three splits keeps the three.
        fractions: proportions of train, validation and test; the last two also divide an official other half.

    Raises:
        ValueError: ``official`` without official splits, or official splits without reviews for one of the three.
    """
    if how == "official" and official is None:
        raise ValueError(
            "data.split=official needs a source that has a split, this one has none: take auto or random"
        )
    if official is None or how == "random":
        return dict(zip(NAMES, cut(labels, fractions, seed), strict=True))
    parts = {name: np.flatnonzero(official == name) for name in NAMES}
    if not all(map(len, parts.values())):
        rest = np.flatnonzero(official != "train")
        if not len(rest) or not len(parts["train"]):
            missing = "training" if len(rest) else "validation and test"
            only = ", ".join(sorted(set(official.tolist())))
            raise ValueError(
                f"the source's own split has no {missing} reviews, all {len(official):,} are {only}: give "
                "data.split=random to divide all rows by seed"
            )
        parts["validation"], parts["test"] = (rest[part] for part in cut(labels[rest], fractions[1:], seed))
    return parts


def limit_sizes(limit: Limit, available: Mapping[str, int]) -> dict[str, int]:
    """How many reviews each split gets.

    Args:
        limit: a number of training reviews, with the other splits in proportion; or a number for each split
            by name (None or no name: all of it); None for all.

    Raises:
        ValueError: an unknown split, or a number that is below 1 or above what there is.
    """
    if isinstance(limit, int):
        others = {name: max(1, round(limit / max(1, available["train"]) * available[name])) for name in NAMES}
        limit = {**others, "train": limit}
    asked = dict(limit or {})
    unknown = set(asked) - set(NAMES)
    if unknown:
        raise ValueError(f"data.limit names {', '.join(sorted(unknown))}: expected {', '.join(NAMES)}")
    sizes = {name: available[name] if (size := asked.get(name)) is None else size for name in NAMES}
    for name, size in sizes.items():
        if not 1 <= size <= available[name]:
            raise ValueError(
                f"data.limit asks for {size} {name} reviews: expected 1 to {available[name]}, or null for all"
            )
    return sizes


def check_classes(labels: np.ndarray, task: Task, name: str, limited: bool) -> dict[str, int]:
    """The number of reviews of each class.

    Args:
        limited: whether data.limit has left reviews out of the split.

    Raises:
        ValueError: a class has none. A rare label of a multilabel task has to be in the training split alone.
    """
    ones = labels if task.kind == "multilabel" else np.eye(len(task.classes))[labels]
    counts = dict(zip(task.classes, ones.sum(0).astype(int).tolist(), strict=True))
    missing = [label for label, count in counts.items() if not count]
    if missing and (task.kind != "multilabel" or name == "train"):
        more = "raise data.limit" if limited else "give more reviews"
        raise ValueError(
            f"the {name} split has no review of class {', '.join(missing)} among its {len(labels)}: "
            f"{more}, or divide otherwise (data.split, data.fractions)"
        )
    return counts
