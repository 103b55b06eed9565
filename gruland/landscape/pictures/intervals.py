"""Estimates with their intervals, a panel for each measure (a forest plot)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import columns
from gruland.landscape.pictures.palette import category

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def interval_plot(
    table: Any, *, differences: bool = False, columns_of_panels: int = 3, title: str = ""
) -> Figure:
    """Each model's estimate and interval, a panel for each measure with an axis of its own.

    Args:
        table: a row for each model and measure, with columns model, measure, estimate, low, high (and perhaps unit).
        differences: the estimates are differences: draw a line at zero, and an estimate whose interval holds
            zero hollow (not distinguishable).
        columns_of_panels: panels in a row.
        title: above the panels.

    Raises:
        ValueError: a column is missing, the table is empty, or an estimate lies outside its interval.
    """
    from matplotlib.figure import Figure

    models, measures, *numbers = columns(table, "model", "measure", "estimate", "low", "high")
    estimate, low, high = (np.asarray(column, float) for column in numbers)
    if not len(models):
        raise ValueError("the table of estimates is empty")
    outside = np.flatnonzero((low > estimate) | (estimate > high))
    if outside.size:
        row = outside[0]
        raise ValueError(
            f"{models[row]}, {measures[row]}: the estimate {estimate[row]:g} lies outside {low[row]:g} to {high[row]:g}"
        )
    units = dict(
        zip(measures, columns(table, "unit")[0] if "unit" in table else [""] * len(models), strict=True)
    )
    names, kinds = list(dict.fromkeys(models)), list(dict.fromkeys(measures))
    wide = min(columns_of_panels, len(kinds))
    rows = -(-len(kinds) // wide)
    height = rows * (0.75 + 0.24 * len(names)) + (0.3 if title else 0) + (0.3 if differences else 0)
    figure = Figure(figsize=(2.3 * wide + 1.3, height), dpi=200, layout="constrained")
    if title:
        figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(rows, wide, sharey=True, squeeze=False)
    for axes in grid.flat[len(kinds) :]:
        axes.set_visible(False)
    for axes, kind in zip(grid.flat, kinds, strict=False):
        here = measures == kind
        places = [names.index(model) for model in models[here]]
        _draw_panel(axes, places, (estimate[here], low[here], high[here]), differences)
        axes.set_title(str(kind), fontsize=9)
        axes.set_xlabel(str(units[kind]), fontsize=8)
        axes.set_yticks(range(len(names)), labels=[str(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
    if differences:
        figure.text(0.99, 0.005, "hollow: the interval holds zero", ha="right", va="bottom", fontsize=7)
        figure.get_layout_engine().set(rect=(0, 0.25 / height, 1, 1 - 0.25 / height))  # type: ignore[union-attr,call-arg]
    return figure


def _draw_panel(axes: Axes, places: list[int], numbers: tuple[np.ndarray, ...], differences: bool) -> None:
    for place, estimate, low, high in zip(places, *numbers, strict=True):
        style = category(place)
        hollow = differences and low <= 0 <= high
        axes.errorbar(
            estimate, place, xerr=[[estimate - low], [high - estimate]], fmt=style["marker"], color=style["color"],
            markerfacecolor="white" if hollow else style["color"], markersize=5, capsize=2.5, linewidth=1.3,
        )  # fmt: skip
    if differences:
        axes.axvline(0, color="#606060", linewidth=0.9, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(labelsize=8)
