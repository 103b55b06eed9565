"""The measures of each model with their intervals, and what tells a model from its reference.

S training seeds, D directions, X points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        bounds: the least and the greatest value that there can be: a model's interval ends there.
    """

    key: str
    title: str
    unit: str
    definition: str
    larger: str = ""
    smaller: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def within(self, interval: Interval) -> Interval:
        """The interval without values that cannot be; its coverage is the same. One that says nothing stays so."""
        if not math.isfinite(interval.width):
            return interval
        low, high = (min(max(end, self.bounds[0]), self.bounds[1]) for end in (interval.low, interval.high))
        return replace(interval, low=low, high=high)


@dataclass(frozen=True)
class Row:
    """A quantity of every model.

    Attributes:
        values: from a model's label to its mean over training seeds and directions.
        differences: from the label of every model that has a reference to its mean less the reference's, paired.
        references: from that label to the reference's.
    """

    quantity: Quantity
    values: dict[str, Interval]
    differences: dict[str, Interval]
    references: Mapping[str, str]

    def verdict(self, label: str) -> str:
        """What the difference of a model to its reference says, in a word or two."""
        difference = self.differences[label]
        if not math.isfinite(difference.width):
            return "undetermined"
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
                label: {
                    **_plain(interval),
                    "less": self.references[label],
                    "verdict": self.verdict(label),
                }
                for label, interval in self.differences.items()
            },
        }


def row(quantity: Quantity, measured: Mapping[str, Values], references: Mapping[str, str]) -> Row:
    """A row from the values of each model and the label of what it is compared with.

    A model without values is left out, as is a difference that lacks one side; a run with fewer directions than the
    others cuts the model to those that all of its runs have.
    """
    arrays = {label: _rectangle(values) for label, values in measured.items() if values}
    values = {label: quantity.within(crossed_interval(array)) for label, (_, array) in arrays.items()}
    differences = {
        label: _difference(*arrays[label], *arrays[reference])
        for label, reference in references.items()
        if label in arrays and reference in arrays
    }
    return Row(quantity, values, differences, references)


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
    """The rows as two tables: each model's values, and the differences to its reference."""
    values = [["measure", "unit", *labels], ["---"] * (2 + len(labels))]
    for item in rows:
        cells = [str(item.values[label]) if label in item.values else "–" for label in labels]
        values.append([item.quantity.title, item.quantity.unit, *cells])
    references = rows[0].references
    heads = [f"{label} **less** {reference}" for label, reference in references.items()]
    differences = [["measure", *heads], ["---"] * (1 + len(heads))]
    for item in rows:
        cells = [
            f"{_signed(item.differences[label])}: {item.verdict(label)}" if label in item.differences else "–"
            for label in references
        ]
        differences.append([item.quantity.title, *cells])
    parts = [_grid(values)]
    if references:
        parts += ["Differences, paired by training seed and direction seed:", _grid(differences)]
    return "\n\n".join(parts)


def _signed(interval: Interval) -> str:
    text = str(interval)
    return text if text.startswith("-") else f"+{text}"


def _grid(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
