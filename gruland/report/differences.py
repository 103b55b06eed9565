"""Measures of several models with their intervals, and what tells a model from its reference.

S training seeds, D directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gruland.report.collect import Study
from gruland.stats import (
    LEVEL,
    SEEDS,
    Difference,
    Interval,
    compare,
    crossed_interval,
    holm,
    least_p,
    trainings_needed,
)

#: From training seed to that run's values, one for each direction seed (a single one where there are no directions).
Values = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Quantity:
    """What a row of a table is about.

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


@dataclass(frozen=True)
class Row:
    """A quantity of every model.

    Attributes:
        values: from a model's label to its mean over training seeds and directions.
        differences: from the label of every model that has a reference to its mean less the reference's, paired.
        references: from that label to the reference's.
    """

    quantity: Quantity
    values: Mapping[str, Interval]
    differences: Mapping[str, Difference]
    references: Mapping[str, str]

    def verdict(self, label: str, tests: int = 1) -> str:
        """What the difference of a model to its reference says, in a word or two.

        Args:
            tests: of the table that the row stands in.
        """
        difference = self.differences[label]
        if difference.p is None:
            return "" if math.isfinite(difference.interval.width) else "undetermined"
        if difference.significant:
            above = difference.interval.estimate > 0
            meaning = self.quantity.larger if above else self.quantity.smaller
            return f"{'larger' if above else 'smaller'}{f': {meaning}' if meaning else ''}"
        few = difference.trainings < trainings_needed(tests)
        return "too few trainings to tell" if few else "not distinguishable"

    def to_dict(self, tests: int) -> dict[str, Any]:
        """Plain data."""
        return {
            "title": self.quantity.title,
            "unit": self.quantity.unit,
            "definition": self.quantity.definition,
            "values": {label: _plain(interval) for label, interval in self.values.items()},
            "differences": {
                label: {
                    **_plain(difference.interval),
                    "less": self.references[label],
                    "trainings": difference.trainings,
                    "p": difference.p,
                    "corrected_p": difference.corrected,
                    "verdict": self.verdict(label, tests),
                }
                for label, difference in self.differences.items()
            },
        }

    @classmethod
    def from_dict(cls, key: str, plain: Mapping[str, Any]) -> Row:
        """What :meth:`to_dict` gave, without the meanings of larger and smaller.

        Raises:
            KeyError, TypeError: it gave something else.
        """
        quantity = Quantity(key, str(plain["title"]), str(plain["unit"]), str(plain["definition"]))
        differences = {
            label: Difference(_interval(found), int(found["trainings"]), found["p"], found["corrected_p"])
            for label, found in plain["differences"].items()
        }
        references = {label: str(found["less"]) for label, found in plain["differences"].items()}
        return cls(
            quantity, {label: _interval(v) for label, v in plain["values"].items()}, differences, references
        )


def _plain(interval: Interval) -> dict[str, Any]:
    ends = {"low": interval.low, "high": interval.high}
    return {"estimate": interval.estimate, **ends, "over": list(interval.over)}


def _interval(plain: Mapping[str, Any]) -> Interval:
    estimate, low, high = (float(plain[key]) for key in ("estimate", "low", "high"))
    return Interval(estimate, low, high, tuple(plain["over"]))


def rows(
    measured: Iterable[tuple[Quantity, Mapping[str, Values]]], references: Mapping[str, str]
) -> list[Row]:
    """A row for each quantity from the values of each model, and the label of what a model is compared with.

    All differences together are corrected for their number. A model without values is left out, as is a difference that
    lacks one side; a run with fewer directions than the others cuts the model to those that all of its runs have.
    """
    found = []
    for quantity, by_model in measured:
        arrays = {label: _rectangle(values) for label, values in by_model.items() if values}
        values = {
            label: crossed_interval(array).within(*quantity.bounds) for label, (_, array) in arrays.items()
        }
        differences = {
            label: _difference(*arrays[label], *arrays[reference])
            for label, reference in references.items()
            if label in arrays and reference in arrays
        }
        found.append(Row(quantity, values, differences, references))
    corrected = iter(holm([difference for row in found for difference in row.differences.values()]))
    return [replace(row, differences={label: next(corrected) for label in row.differences}) for row in found]


def _rectangle(values: Values) -> tuple[list[int], np.ndarray]:
    """The training seeds and their values [S, D]."""
    directions = min(len(found) for found in values.values())
    return list(values), np.array([list(found)[:directions] for found in values.values()], dtype=np.float64)


def _difference(seeds: list[int], a_SD: np.ndarray, base_seeds: list[int], base_SD: np.ndarray) -> Difference:
    directions = (list(range(a_SD.shape[1])), list(range(base_SD.shape[1])))
    return compare(a_SD, base_SD, seeds=(seeds, base_seeds), directions=directions)


def says_something(row: Row, label: str) -> bool:
    """Whether a row's difference of a model was tested, or has an interval: not so for one pair of trainings."""
    found = row.differences.get(label)
    return found is not None and (found.p is not None or math.isfinite(found.interval.width))


def count_tests(rows: Iterable[Row]) -> int:
    """How many differences of a table were tested."""
    return sum(difference.p is not None for row in rows for difference in row.differences.values())


def remark(rows: Sequence[Row]) -> list[str]:
    """What a reader must know of the table's differences, in plain sentences."""
    every = [difference for row in rows for difference in row.differences.values()]
    tests = count_tests(rows)
    lines = []
    if tests:
        trainings = max(difference.trainings for difference in every)
        least, needed = least_p(trainings), trainings_needed(tests)
        floor = f"With {trainings} paired trainings the exact test cannot give less than p = {least:.3g}"
        if trainings < trainings_needed():
            lines.append(
                f"{floor}: no difference can be significant at {LEVEL}, however large. It takes {trainings_needed()} "
                f"paired trainings for one difference, {needed} for the {tests} of this table."
            )
        elif trainings < needed:
            lines.append(
                f"{floor}, corrected for {tests} differences {min(1.0, tests * least):.2g}: none can be significant at "
                f"{LEVEL}, however large. It takes {needed} paired trainings."
            )
        lines.append(
            "p: exact sign-flip test of the differences paired by training seed (the same order of reviews and, where "
            f"the sizes agree, the same initial weights); corrected for the {tests} tests of this table after Holm. A "
            f"difference is called one where the corrected p is at most {LEVEL}; the chance of calling any where there "
            "is none is then at most that. The interval beside it is of one difference for itself."
        )
    single = [difference for difference in every if difference.trainings == 1]
    if any(SEEDS in difference.interval.over for difference in single):
        lines.append(
            "Where two models have one training seed in common and others apart, the interval is over independent "
            "trainings: nothing is paired and nothing tested."
        )
    if any(SEEDS not in difference.interval.over for difference in single):
        lines.append(
            "Where two models have one training seed in common, the table is about these two trainings: it says "
            "nothing of how other trainings of the two models would differ."
        )
    if any(difference.trainings == 0 for difference in every):
        lines.append(
            "Where two models have no training seed in common, nothing is paired and nothing tested."
        )
    return lines


def signed(interval: Interval) -> str:
    """The interval with the sign of its estimate."""
    text = str(interval) if math.isfinite(interval.width) else f"{interval.estimate:.3f}"
    return text if text.startswith("-") else f"+{text}"


def p_value(value: float | None) -> str:
    """Two digits, or a dash where nothing was tested."""
    return "–" if value is None else f"{value:.2g}"


def between_models(study: Study, quantities: Iterable[tuple[Quantity, Any]]) -> list[Row]:
    """A row for each quantity, of those models that share a training seed with their reference.

    Args:
        quantities: each with a function from a run to its value, None where it has none.
    """
    measured = []
    for quantity, read in quantities:
        found = {
            model: {
                seed: [float(value)] for seed, run in model.runs.items() if (value := read(run)) is not None
            }
            for model in study.models
        }
        measured.append((quantity, {model.label: values for model, values in found.items() if values}))
    pairs = {
        model.label: reference.label
        for model, reference in study.references.items()
        if set(model.runs) & set(reference.runs)
    }
    return rows(measured, pairs)
