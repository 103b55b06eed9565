"""The measures of each model with their intervals, and what tells a model from the first one.

S training seeds, D directions, X points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gruland.stats import Interval, crossed_interval, paired_difference

#: From training seed to that run's values, one for each direction seed (a single one where there are no directions).
Values = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Quantity:
    """What a row of the table is about.

    Attributes:
        key: its name in comparison.json.
        title, unit, definition: for readers.
        larger: what a larger value means, e.g. ``"flatter"``; empty where it means nothing of the kind.
        smaller: what a smaller one means.
    """

    key: str
    title: str
    unit: str
    definition: str
    larger: str = ""
    smaller: str = ""


@dataclass(frozen=True)
class Row:
    """A quantity of every model.

    Attributes:
        values: from a model's label to its mean over training seeds and directions.
        differences: from the label of every model but the first to its mean less that of the first, paired.
    """

    quantity: Quantity
    values: dict[str, Interval]
    differences: dict[str, Interval]

    def verdict(self, label: str) -> str:
        """What the difference of a model to the first says, in a word or two."""
        difference = self.differences[label]
        if not math.isfinite(difference.width):
            return "undetermined (one training each)"
        if not difference.excludes(0.0):
            return "not distinguishable"
        sign, meaning = (
            ("larger", self.quantity.larger)
            if difference.estimate > 0
            else ("smaller", self.quantity.smaller)
        )
        scope = "" if "seeds" in difference.over else " (these trainings alone)"
        return f"{sign}{f': {meaning}' if meaning else ''}{scope}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "unit": self.quantity.unit,
            "definition": self.quantity.definition,
            "values": {label: _plain(interval) for label, interval in self.values.items()},
            "differences": {
                label: {**_plain(interval), "verdict": self.verdict(label)}
                for label, interval in self.differences.items()
            },
        }


def row(quantity: Quantity, measured: Mapping[str, Values]) -> Row:
    """A row from the values of each model; the first model is the one that the others are compared with.

    A model without values is left out; a run with fewer directions than the others cuts the model to those that all of
    its runs have.
    """
    arrays = {label: _rectangle(values) for label, values in measured.items() if values}
    values = {label: crossed_interval(array) for label, (_, array) in arrays.items()}
    differences = {}
    first = next(iter(measured), None)
    if first in arrays:
        for label, (seeds, array) in arrays.items():
            if label != first:
                differences[label] = _difference(seeds, array, *arrays[first])
    return Row(quantity, values, differences)


def _rectangle(values: Values) -> tuple[list[int], np.ndarray]:
    """The training seeds and their values [S, D]."""
    directions = min(len(found) for found in values.values())
    return list(values), np.array([list(found)[:directions] for found in values.values()], dtype=np.float64)


def _difference(seeds: list[int], a_SD: np.ndarray, base_seeds: list[int], base_SD: np.ndarray) -> Interval:
    directions = (list(range(a_SD.shape[1])), list(range(base_SD.shape[1])))
    return paired_difference(a_SD, base_SD, seeds=(seeds, base_seeds), directions=directions)


def _plain(interval: Interval) -> dict[str, Any]:
    return {
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "over": list(interval.over),
    }


def markdown(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """The rows as two tables: each model's values, and the differences to the first model."""
    values = [["measure", "unit", *labels], ["---"] * (2 + len(labels))]
    for item in rows:
        cells = [str(item.values[label]) if label in item.values else "–" for label in labels]
        values.append([item.quantity.title, item.quantity.unit, *cells])
    others = labels[1:]
    differences = [["measure", *others], ["---"] * (1 + len(others))]
    for item in rows:
        cells = [
            f"{_signed(item.differences[label])}: {item.verdict(label)}" if label in item.differences else "–"
            for label in others
        ]
        differences.append([item.quantity.title, *cells])
    parts = [_grid(values)]
    if others:
        parts += [f"Less **{labels[0]}**, paired by training seed and direction seed:", _grid(differences)]
    return "\n\n".join(parts)


def _signed(interval: Interval) -> str:
    text = str(interval)
    return text if text.startswith("-") else f"+{text}"


def _grid(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
