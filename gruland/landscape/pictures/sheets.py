"""Small multiples: many models' surfaces on one loss scale, one set of excess-loss contours, one radius.

Colours are losses. Lines are excess losses over each model's own trained weights, the same levels in every panel, told
apart by their style and named once, in the legend. The number in a panel's corner is the loss of the trained weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import origin_loss, step_unit, titled
from gruland.landscape.pictures.contours import (
    EXCESS_LEVELS,
    color_bar,
    excess_handles,
    excess_lines,
    mark_cells,
    mark_weights,
    shade,
    widen,
)
from gruland.landscape.pictures.palette import ABSENT
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gruland.landscape.pictures.cells import Surfaces

_PANEL = 2.1  # inches


def contour_sheet(
    surfaces: Surfaces,
    columns: int | None = None,
    *,
    title: str = "",
    levels: Sequence[float] = EXCESS_LEVELS,
    scale: Scale | None = None,
) -> Figure:
    """Contours of several models' surfaces side by side.

    Args:
        surfaces: by title, all over the same extent; of any size.
        columns: panels in a row; None for at most 4, as square as can be.
        title: above all.
        levels: excess losses to draw lines at, in nats, rising.
        scale: shared with other pictures; that of all the surfaces where None.

    Raises:
        ValueError: there is none, two differ in extent or unit, or a surface has no loss at its origin.
    """
    pairs = titled(surfaces)
    wide = columns or (len(pairs) if len(pairs) <= 4 else math.ceil(math.sqrt(len(pairs))))
    rows = math.ceil(len(pairs) / wide)
    figure, grid = _panels(rows, wide, title)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    for axes, (name, _) in zip(grid.flat, pairs, strict=False):
        axes.set_title(name, fontsize=9)
    shown: dict[tuple[int, ...], xarray.Dataset] = {
        place: surface for place, (_, surface) in zip(np.ndindex(rows, wide), pairs, strict=False)
    }
    _draw_sheet(figure, grid, shown, levels, scale)
    for axes in grid.flat[max(0, len(pairs) - wide) : len(pairs)]:
        axes.tick_params(labelbottom=True)  # the lowest of its column
    return figure


def grid_sheet(
    cells: Mapping[tuple[Any, Any], xarray.Dataset],
    row_label: str,
    column_label: str,
    *,
    title: str = "",
    levels: Sequence[float] = EXCESS_LEVELS,
    scale: Scale | None = None,
) -> Figure:
    """A whole grid of hyper-parameters: a row and a column of panels for each value; a missing cell stays grey.

    Args:
        cells: (row value, column value) -> surface, all over the same extent; rising values run down and right.
        row_label, column_label: the hyper-parameters' names, for instance "hidden units" and "rate".
        title, levels, scale: as in :func:`contour_sheet`.

    Raises:
        ValueError: as in :func:`contour_sheet`.
    """
    titled(
        [(f"{row_label} {row}, {column_label} {column}", surface) for (row, column), surface in cells.items()]
    )
    rows, columns = _values(row for row, _ in cells), _values(column for _, column in cells)
    figure, grid = _panels(len(rows), len(columns), title)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(f"{column_label} {_text(column)}", fontsize=9)
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{row_label} {_text(row)}", fontsize=9)
    shown: dict[tuple[int, ...], xarray.Dataset] = {
        (i, j): cells[row, column]
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
        if (row, column) in cells
    }
    for place, axes in np.ndenumerate(grid):
        if place not in shown:
            axes.set_facecolor(ABSENT)
            axes.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=8, transform=axes.transAxes)
    _draw_sheet(figure, grid, shown, levels, scale)
    return figure


def _values(found: Any) -> list[Any]:
    """The different values, rising where they can be compared, else in the order of their appearance."""
    values = list(dict.fromkeys(found))
    try:
        return sorted(values)
    except TypeError:
        return values


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _panels(rows: int, columns: int, title: str) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    size = (_PANEL * columns + 1.3, _PANEL * rows + 1.1 + (0.3 if title else 0))
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure, figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)


def _draw_sheet(
    figure: Figure,
    grid: np.ndarray,
    shown: Mapping[tuple[int, ...], xarray.Dataset],
    levels: Sequence[float],
    scale: Scale | None,
) -> None:
    scale = scale or Scale.of(*shown.values())
    for place, surface in shown.items():
        colors = _draw_panel(grid[place], surface, levels, scale)
    for axes in grid.flat:
        axes.set_box_aspect(1)
        axes.tick_params(labelsize=7)
    color_bar(
        list(grid.flat), colors, scale, shrink=min(1.0, 1.6 / grid.shape[0] ** 0.5), aspect=30, pad=0.01
    )
    _name_axes(figure, next(iter(shown.values())))
    _explain(figure, grid, levels)


def _draw_panel(axes: Axes, surface: xarray.Dataset, levels: Sequence[float], scale: Scale) -> Any:
    from matplotlib.patheffects import withStroke

    colors = shade(axes, surface, scale)
    excess_lines(axes, surface, levels)
    mark_cells(axes, surface)
    mark_weights(axes, surface, size=5.0)
    axes.text(
        0.04, 0.96, f"{origin_loss(surface):.3f}", transform=axes.transAxes, ha="left", va="top", fontsize=7,
        color="white", path_effects=[withStroke(linewidth=1.8, foreground="black")],
    )  # fmt: skip
    widen(axes, surface)
    return colors


def _name_axes(figure: Figure, surface: xarray.Dataset) -> None:
    unit = step_unit(surface)
    figure.supxlabel(f"α ({unit})" if unit else "α", fontsize=8)
    figure.supylabel(f"β ({unit})" if unit else "β", fontsize=8)


def _explain(figure: Figure, grid: np.ndarray, levels: Sequence[float]) -> None:
    """One legend for the levels, on a colour on which white and black can be seen, and one for the marks."""
    marks: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(label.split(":")[0], handle)
    style: dict[str, Any] = {"fontsize": 7, "title_fontsize": 7}
    figure.legend(
        list(marks.values()),
        list(marks),
        loc="outside lower center",
        ncols=len(marks),
        frameon=False,
        **style,
    )
    figure.legend(
        handles=excess_handles(levels), loc="outside lower center", ncols=len(levels), handlelength=2.4,
        title="excess loss over the trained weights’ own loss (in the corner), nats", facecolor="#3d8a8c",
        labelcolor="white", framealpha=1, fancybox=False, edgecolor="none", **style,
    ).get_title().set_color("white")  # fmt: skip
