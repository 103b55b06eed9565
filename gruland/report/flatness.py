"""The paper's Figure 4 in numbers."""

from __future__ import annotations

from gruland.report import commands
from gruland.report.collect import Study, alike, landscape_setting
from gruland.report.tables import NOTHING, Row, Table, number, run_label
from gruland.runs import Run
from gruland.stats import crossed_interval


def landscapes(study: Study, areas: dict[Run, float | None], radius: float) -> Table:
    """Figure 4 in numbers.

    Args:
        areas: the flat area of each run's surface, see :mod:`gruland.landscape.measures.area`; None where it has none.
        radius: of the disc.
    """
    rows = [_landscape_row(run, area, study) for run, area in areas.items()]
    for model in study.models:
        measured = {run: area for run in model.runs.values() if (area := areas.get(run)) is not None}
        # Areas of surfaces of other settings do not compare with these.
        shown = alike({run: run.results["landscape"].get("settings") for run in measured})
        if len(shown) > 1:
            interval = crossed_interval([[measured[run]] for run in shown]).within(0, 1)  # a share
            apart = len(measured) - len(shown)
            without = f" ({apart} with other settings of the surface left out)" if apart else ""
            label = f"{model.label}, mean of {len(shown)} trainings{without}"
            rows.append(Row(label, [*[NOTHING] * 6, str(interval)]))
    return Table(
        f"{study.key}-landscapes",
        "Figure 4 in numbers",
        [
            "Run",
            "Normalization",
            "Cells",
            "Reviews",
            "Loss at the\ncentre",
            "Least loss",
            "Greatest loss",
            "Flat area\n(0.1 nats)",
        ],
        rows,
        [
            f"Best checkpoint; {landscape_setting(areas)}. Normalized as named (filter: Li et al. 2018; tensor: the "
            "paper’s formula to the letter).",
            f"Flat area: the share of the disc of radius {radius:g} around the trained weights in which the loss is at "
            "most 0.1 nats above theirs, the paper’s “area of minimum loss” as a number. One plane of one training "
            "says little of a model: python -m gruland.landscape compare gives it an interval over trainings "
            "and planes.",
            "Cells: where some are interpolated, those that were evaluated come first.",
        ],
        commands.measuring("gruland.landscape", "landscape", list(areas)),
    )


def _landscape_row(run: Run, area: float | None, study: Study) -> Row:
    landscape = run.results["landscape"]
    whole = [str(landscape.get(key, NOTHING)) for key in ("normalization", "cells", "reviews")]
    if landscape.get("interpolated"):
        whole[1] = f"{landscape['evaluated']} of {landscape['cells']}"
    values = [number(landscape.get(key)) for key in ("center_loss", "min_loss", "max_loss")]
    return Row(run_label(run, study), [*whole, *values, number(area)])
