"""Which review goes into which split; seeded and stratified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NAMES = ("train", "validation", "test")


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A seeded permutation of the rows in which every stretch holds the classes in their proportion.

    The k-th of a class's n rows, shuffled, gets the place (k + u) / n with one random u per class; rows are
    sorted by place. A class of a multilabel task is a combination of labels.
    """
    random = np.random.default_rng(seed)
    _, strata, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(strata[shuffled], kind="stable")]
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (ranks + np.repeat(random.random(len(counts)), counts)) / np.repeat(counts, counts)
    return by_class[np.argsort(places, kind="stable")]


def subset(labels: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """The sorted row numbers of a seeded stratified subset; a larger one of the same seed contains a smaller one.

    Args:
        labels: [N] or [N, C].
        size: at most N; None takes all.

    Raises:
        ValueError: ``size`` is below 1 or above N.
    """
    if size is None:
        return np.arange(len(labels))
    if not 1 <= size <= len(labels):
        raise ValueError(f"{size:,} of {len(labels):,} reviews: expected 1 to {len(labels):,}")
    return np.sort(stratified_order(labels, seed)[:size])


def cut(labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Sorted row numbers of stratified parts in the given proportions; every row is in one part."""
    bounds = np.round(np.cumsum(fractions) / np.sum(fractions) * len(labels)).astype(int)
    return [np.sort(part) for part in np.split(stratified_order(labels, seed), bounds[:-1])]


def divide(
    labels: np.ndarray, official: np.ndarray | None, how: str, fractions: Sequence[float], seed: int
) -> dict[str, np.ndarray]:
    """Row numbers of the three splits.

    Args:
        labels: [N] or [N, C].
        official: the source's own split per row (``train``, ``validation``, ``test``), or None.
        how: ``auto`` keeps the official training part and divides the rest by seed where the source has splits,
            and divides all rows where it has none; ``official`` refuses the latter, ``random`` always divides all.
            A source with all three splits keeps them.
        fractions: proportions of train, validation and test; those of the latter two also divide an official rest.
    """
    if how not in ("auto", "official", "random"):
        raise ValueError(f"data.split={how} is unknown: expected auto, official or random")
    if how == "official" and official is None:
        raise ValueError(
            "data.split=official needs a source with its own split, this one has none: take auto or random"
        )
    if official is None or how == "random":
        return dict(zip(NAMES, cut(labels, fractions, seed), strict=True))
    parts = {name: np.flatnonzero(official == name) for name in NAMES}
    if not len(parts["validation"]):
        rest = parts["test"]
        halves = cut(labels[rest], fractions[1:], seed)
        parts["validation"], parts["test"] = rest[halves[0]], rest[halves[1]]
    return parts


def limits(limit: int | Mapping[str, int | None] | None, sizes: Mapping[str, int]) -> dict[str, int | None]:
    """How many reviews of each split are taken; one number is the training split's, the others keep their proportion."""
    if limit is None or isinstance(limit, Mapping):
        return {name: (limit or {}).get(name) for name in NAMES}
    share = limit / sizes["train"]
    return {name: max(1, round(share * sizes[name])) for name in NAMES}
