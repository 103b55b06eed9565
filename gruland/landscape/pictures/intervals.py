"""Estimates with their intervals, a panel for each measure (a forest plot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gruland.landscape.pictures import reading
from gruland.landscape.pictures.scale import category

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Estimate:
    model: str
    measure: str
    unit: str
    estimate: float
    low: float
    high: float
    significant: bool


def interval_plot(
    table: Any,
    *,
    differences: bool = False,
    models: Sequence[str] | None = None,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Each model's estimate and interval, a panel for each measure with an axis of its own.

    Args:
        table: a row for each model and measure, with columns model, measure, estimate, low, high, and perhaps unit and
            significant (whether a difference is more than chance after the correction for all of them).
        differences: the estimates are differences: draw a line at zero, and those that are not significant hollow.
        models: all models' names, which settle the colours alike in every figure; None for those of the table.
        columns: panels in a row.
        title: above the panels.

    Raises:
        ValueError: a column is missing, the table is empty, or an estimate lies outside its interval.
    """
    from matplotlib.figure import Figure

    estimates = _read(table)
    names = list(dict.fromkeys(e.model for e in estimates))
    styles = {
        name: category(list(models or names).index(name)) for name in names if name in (models or names)
    }
    if len(styles) < len(names):
        raise ValueError(f"the table has models {', '.join(names)}, expected of {', '.join(models or ())}")
    measures = list(dict.fromkeys(e.measure for e in estimates))
    wide = min(columns, len(measures))
    rows = -(-len(measures) // wide)
    height = rows * (0.75 + 0.24 * len(names)) + (0.3 if title else 0) + (0.25 if differences else 0)
    figure = Figure(figsize=(2.3 * wide + 1.3, height), dpi=200, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(rows, wide, sharey=True, squeeze=False)
    for axes in grid.flat[len(measures) :]:
        axes.set_visible(False)
    for axes, measure in zip(grid.flat, measures, strict=False):
        here = [e for e in estimates if e.measure == measure]
        _draw_panel(axes, here, names, styles, differences)
    if differences:
        _explain(figure)
    return figure


def _read(table: Any) -> list[_Estimate]:
    models, measures, estimate, low, high = reading.columns(
        table, "model", "measure", "estimate", "low", "high"
    )
    units = reading.columns(table, "model", "unit")[1] if "unit" in table else [""] * len(models)
    significant = (
        reading.columns(table, "model", "significant")[1] if "significant" in table else [False] * len(models)
    )
    rows = zip(models, measures, units, estimate, low, high, significant, strict=True)
    found = [
        _Estimate(str(model), str(measure), str(unit), float(value), float(start), float(end), bool(told))
        for model, measure, unit, value, start, end, told in rows
    ]
    if not found:
        raise ValueError("the table of estimates is empty")
    for e in found:
        if e.low > e.estimate or e.estimate > e.high:
            raise ValueError(f"{e.model}, {e.measure}: {e.estimate:g} lies outside {e.low:g} to {e.high:g}")
    return found


def _draw_panel(
    axes: Axes,
    estimates: Sequence[_Estimate],
    names: Sequence[str],
    styles: dict[str, dict[str, Any]],
    differences: bool,
) -> None:
    for e in estimates:
        marker, color = styles[e.model]["marker"], styles[e.model]["color"]
        face = "white" if differences and not e.significant else color
        spread = [[e.estimate - e.low], [e.high - e.estimate]]
        axes.errorbar(
            e.estimate, names.index(e.model), xerr=spread, fmt=marker, color=color, markerfacecolor=face,
            markersize=5.5, capsize=2.5, linewidth=1.3,
        )  # fmt: skip
    if len({value for e in estimates for value in (e.low, e.high)}) == 1:  # nothing to scale the axis by
        axes.set_xlim(estimates[0].estimate - 0.5, estimates[0].estimate + 0.5)
    if differences:
        axes.axvline(0, color="#606060", linewidth=0.9, zorder=0)
    axes.set_title(estimates[0].measure, fontsize=9)
    axes.set_xlabel(estimates[0].unit.removeprefix("1"), fontsize=8)
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(labelsize=8)


def _explain(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    hollow = Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="none")
    text = "hollow: no more than chance, corrected for the number of differences"
    figure.legend([hollow], [text], loc="outside lower right", frameon=False, fontsize=7.5)
