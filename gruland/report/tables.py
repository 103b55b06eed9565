"""A table of the report, its numbers as they are printed, and the table of differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gruland.report import differences
from gruland.report.collect import Study
from gruland.runs import Run
from gruland.stats import Interval, crossed_interval

NOT_RUN = "not run"
NOTHING = "–"
#: Scores that lie between 0 and 1: so do their intervals.
SHARES = ("accuracy", "f1")
#: Differences of one pair of trainings that a table lists.
MOST_UNTESTED = 3

ONE_OR_MANY = (
    "One run: value ± its standard error over the reviews. Several: one value per seed and their mean, from "
    "three seeds on with its 95% interval [low, high] (Student’s t over the seeds)."
)


@dataclass(frozen=True)
class Row:
    """One row: its head, its cells (a newline parts two lines of a cell) and whether the paper printed it."""

    head: str
    cells: Sequence[str]
    printed: bool = False


@dataclass(frozen=True)
class Table:
    """A table and how its numbers were obtained.

    Args:
        key: the anchor on the page.
        columns: the heads, that of the row heads first.
        how: sentences; ``commands``: what to type for the same numbers.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    how: Sequence[str]
    commands: Sequence[str] = field(default=())
    kind: str = "table"


def number(value: Any) -> str:
    """Three decimals, or a dash where there is no number."""
    return NOTHING if value is None else f"{float(value):.3f}"


def percent(value: Any) -> str:
    """``0.8123`` -> ``81.2%``."""
    return NOTHING if value is None else f"{float(value):.1%}"


def over_seeds(found: Sequence[dict[str, Any]], key: str = "loss") -> str:
    """One run: the value ± its standard error; several: each value, the mean, from three on its interval."""
    values = [float(score[key]) for score in found if score.get(key) is not None]
    if not values:
        return NOTHING
    if len(values) == 1:
        error = found[0].get(f"{key}_se")
        return number(values[0]) if error is None or math.isnan(error) else f"{values[0]:.3f} ± {error:.3f}"
    text = f"{', '.join(map(number, values))}\nmean {math.fsum(values) / len(values):.3f}"
    if len(values) < 3:
        return text
    bounds = crossed_interval([[value] for value in values])
    if key in SHARES:
        bounds = bounds.within(0, 1)
    return f"{text} [{bounds.low:.3f}, {bounds.high:.3f}]"


def mean_of(values: dict[int, float], *, share: bool = False) -> str:
    """The mean over the seeds, from three on with its interval, that of a share within 0 and 1."""
    if not values:
        return NOTHING
    found: Interval = crossed_interval([[value] for value in values.values()])
    found = found.within(0, 1) if share else found
    return (
        number(found.estimate)
        if len(values) < 3
        else f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
    )


def run_label(run: Run, study: Study) -> str:
    """A run's model and seed."""
    label = next(model.label for model in study.models if run in model.runs.values())
    return f"{label}, seed {run.results['seed']}"


def seeds_of(runs: Sequence[Run]) -> str:
    """``0, 1, 2``, or that there is no run."""
    return ", ".join(str(run.results["seed"]) for run in runs) or NOT_RUN


def difference_table(
    key: str, title: str, rows: Sequence[differences.Row], more: Sequence[str] = ()
) -> Table | None:
    """Each difference with its interval, its test and what it says; None where there is no difference.

    More than :data:`MOST_UNTESTED` models with one training in common with their reference are counted below the table:
    nothing can be said of their differences.

    Args:
        more: sentences about how the numbers were obtained.
    """
    tests = differences.count_tests(rows)
    every = list(dict.fromkeys(label for row in rows for label in row.differences))
    told = [label for label in every if any(differences.says_something(row, label) for row in rows)]
    labels = every if len(every) - len(told) <= MOST_UNTESTED else told
    lines = [
        Row(
            f"{label}\nless {row.references[label]}" if first else "",
            [
                f"{row.quantity.title}{f', {row.quantity.unit}' if row.quantity.unit not in ('', '1') else ''}",
                differences.signed(found.interval),
                str(found.trainings),
                differences.p_value(found.p),
                differences.p_value(found.corrected),
                row.verdict(label, tests) or NOTHING,
            ],
        )
        for label in labels
        for first, (row, found) in _first(
            [(row, row.differences[label]) for row in rows if label in row.differences]
        )
    ]
    heads = [
        "Models",
        "Measure",
        "Difference\n[95% interval]",
        "Paired\ntrainings",
        "p",
        "Corrected\np",
        "Says",
    ]
    how = [*more, *differences.remark(rows)]
    if silent := len(every) - len(labels):
        how = [*how, f"Left out: {silent} with one training in common with what they are compared with."]
    return Table(key, title, heads, lines, how) if lines else None


def _first(items: Sequence[Any]) -> Iterable[tuple[bool, Any]]:
    return ((place == 0, item) for place, item in enumerate(items))
