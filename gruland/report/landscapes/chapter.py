"""What a comparison says, from comparison.json and its pictures: a chapter of the report, or a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gruland.files import read_json
from gruland.report import differences
from gruland.report.chapters import Chapter, Section
from gruland.report.differences import Row
from gruland.report.figures import Picture
from gruland.report.tables import NOTHING, Table, difference_table
from gruland.report.tables import Row as Line
from gruland.stats import trainings_needed


def read_chapter(file: Path, key: str) -> Chapter:
    """The chapter of a comparison.json.

    Args:
        key: begins the anchors and file names of all that is shown of it; empty on a page of its own.

    Raises:
        OSError, ValueError: it cannot be read, or is not what this version writes.
    """
    plain = read_json(file)
    try:
        return _chapter(plain, file.parent, f"{key}-" if key else "")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not what this version writes ({type(error).__name__}: {error}): compare the runs again"
        ) from error


def _chapter(plain: Mapping[str, Any], folder: Path, key: str) -> Chapter:
    rows = [Row.from_dict(name, found) for name, found in plain["measures"].items()]
    labels = list(plain["models"])
    pictures = [
        Picture(
            f"{key}{name}",
            caption.split(":")[0].rstrip("."),
            caption,
            "",
            (folder / f"{name}.png").read_bytes(),
        )
        for name, caption in plain["pictures"]
        if (folder / f"{name}.png").exists()
    ]
    tables = [
        _models(plain, key),
        _values(rows, labels, key),
        difference_table(f"{key}differences", "Differences of the landscapes", rows),
        _barriers(plain["barriers"], key),
    ]
    text = [*plain["other_data"], *plain["text"]]
    sections = [
        Section(f"{key}measures", "Measures", [table for table in tables if table], text),
        Section(f"{key}pictures", "Pictures", pictures),
    ]
    kept = [section for section in sections if section.blocks or section.text]
    return Chapter(f"{key}landscapes", "Loss landscapes compared", _answer(rows), [], kept)


def _answer(rows: list[Row]) -> list[str]:
    """What the differences say, in a sentence or two."""
    every = [(row, label, found) for row in rows for label, found in row.differences.items()]
    tests = differences.count_tests(rows)
    if not every:
        return ["One model alone: nothing to compare it with."]
    if not tests:
        return [
            "No two models share two training seeds: what stands here is about these trainings and says nothing of "
            "how the models differ."
        ]
    called = [
        f"{label} less {row.references[label]}: {row.quantity.title} {differences.signed(found.interval)}, "
        f"{row.verdict(label, tests)}"
        for row, label, found in every
        if found.significant
    ]
    if called:
        return [f"More than chance, after correction for {tests} tests: {'; '.join(called)}."]
    trainings = max(found.trainings for _, _, found in every)
    why = (
        f" {trainings} paired trainings cannot show any: it takes {trainings_needed(tests)}."
        if trainings < trainings_needed(tests)
        else ""
    )
    return [f"Of {tests} differences tested none is more than chance would give.{why}"]


def _models(plain: Mapping[str, Any], key: str) -> Table:
    rows = [
        Line(
            label,
            [
                ", ".join(found["runs"]),
                ", ".join(f"{loss:.3f}" for loss in found["test_loss"]),
                ", ".join(f"{accuracy:.1%}" for accuracy in found["test_accuracy"]),
            ],
        )
        for label, found in plain["models"].items()
    ]
    return Table(f"{key}models", "Models", ["", "Training seeds", "Test loss", "Test accuracy"], rows, [])


def _values(rows: list[Row], labels: list[str], key: str) -> Table:
    lines = [
        Line(
            f"{row.quantity.title}{f', {row.quantity.unit}' if row.quantity.unit != '1' else ''}",
            [str(row.values[label]) if label in row.values else NOTHING for label in labels],
        )
        for row in rows
    ]
    how = [
        "Mean over training seeds and planes with its 95% interval (both random and crossed, see gruland.stats): of "
        "other training seeds and other directions, not of other reviews. With two or three trainings of a skewed "
        "measure such an interval covers 82 to 89% in simulations.",
        "Definitions: " + "; ".join(f"{row.quantity.title}: {row.quantity.definition}" for row in rows) + ".",
    ]
    return Table(f"{key}values", "Measures of each model", ["", *labels], lines, how)


def _barriers(barriers: Mapping[str, Mapping[str, Any]], key: str) -> Table | None:
    rows = [
        Line(
            f"{label}, {pair}",
            [
                "{:.3f} [{:.3f}, {:.3f}]".format(*found[stage][kind])
                for kind in ("loss", "error")
                for stage in ("before alignment", "after alignment")
            ],
        )
        for label, pairs in barriers.items()
        for pair, found in pairs.items()
    ]
    heads = ["", "Barrier before\nalignment, nats", "After", "Error before", "After"]
    how = ["On the straight line between two trainings, before and after their hidden units are matched."]
    return Table(f"{key}barriers", "Barriers between trainings", heads, rows, how) if rows else None
