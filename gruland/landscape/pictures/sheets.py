"""Small multiples: many models' surfaces on one loss scale, one set of excess-loss contours, one radius.

Colours are losses. Lines are excess losses over each model's own trained weights, the same levels in every panel, told
apart by their style and named once, in the legend. The number in a panel's corner is the loss of the trained weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.contours import color_bar, shade
from gruland.landscape.pictures.marks import (
    EXCESS_LEVELS,
    excess_handles,
    excess_lines,
    mark_cells,
    mark_weights,
    widen,
)
from gruland.landscape.pictures.reading import origin_loss, step_unit, titled
from gruland.landscape.pictures.scale import ABSENT, Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gruland.landscape.pictures.reading import Surfaces

    Panels = Mapping[tuple[int, int], xarray.Dataset]

# Inches: a panel, the margins around all of them, the gaps between two.
_PANEL, _LEFT, _RIGHT, _TOP, _BOTTOM = 1.9, 0.75, 0.95, 0.3, 1.15
_ACROSS, _DOWN = 0.12, 0.12
_SMALL = 7  # points


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
        columns: panels in a row; None for up to 4 in one row, more as square as can be.
        title: above all.
        levels: excess losses to draw lines at, in nats, rising.
        scale: shared with other pictures; that of all the surfaces where None.

    Raises:
        ValueError: there is none, two differ in extent or unit, or a surface has no loss at its origin.
    """
    pairs = titled(surfaces)
    wide = columns or (len(pairs) if len(pairs) <= 4 else math.ceil(math.sqrt(len(pairs))))
    rows = math.ceil(len(pairs) / wide)
    figure, grid = _panels(rows, wide, title, down=0.32)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    for axes, (name, _) in zip(grid.flat, pairs, strict=False):
        axes.set_title(name, fontsize=8.5, pad=4)
    panels = dict(zip(_places(rows, wide), (surface for _, surface in pairs), strict=False))
    _draw(figure, grid, panels, levels, scale)
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
    titled([(f"{row_label} {row}, {column_label} {column}", cells[row, column]) for row, column in cells])
    rows, columns = _values(row for row, _ in cells), _values(column for _, column in cells)
    figure, grid = _panels(len(rows), len(columns), title)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(f"{column_label} {_text(column)}", fontsize=8.5, pad=4)
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{row_label} {_text(row)}", fontsize=8.5)
    for axes in grid.flat:
        axes.set_facecolor(ABSENT)
    panels = {(rows.index(row), columns.index(column)): surface for (row, column), surface in cells.items()}
    for place in set(_places(len(rows), len(columns))) - set(panels):
        absent: Any = grid[place]
        absent.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=8, transform=absent.transAxes)
    _draw(figure, grid, panels, levels, scale)
    return figure


def _values(found: Iterable[Any]) -> list[Any]:
    """The different values, rising where they can be compared, else in the order of their appearance."""
    values = list(dict.fromkeys(found))
    try:
        return sorted(values)
    except TypeError:
        return values


def _places(rows: int, columns: int) -> list[tuple[int, int]]:
    """Row by row."""
    return [(row, column) for row in range(rows) for column in range(columns)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _panels(rows: int, columns: int, title: str, down: float = _DOWN) -> tuple[Figure, np.ndarray]:
    """Square panels of a fixed size, with room for the legends below them."""
    from matplotlib.figure import Figure

    top = _TOP + (0.3 if title else 0)
    width = _LEFT + columns * _PANEL + (columns - 1) * _ACROSS + _RIGHT
    height = top + rows * _PANEL + (rows - 1) * down + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=200)
    if title:
        figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", fontsize=10)
    sides = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "bottom": _BOTTOM / height}
    gaps = {"wspace": _ACROSS / _PANEL, "hspace": down / _PANEL, "top": 1 - top / height}
    return figure, figure.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False, gridspec_kw={**sides, **gaps}
    )


def _draw(
    figure: Figure, grid: np.ndarray, panels: Panels, levels: Sequence[float], scale: Scale | None
) -> None:
    scale = scale or Scale.of(*panels.values())
    for place, surface in panels.items():
        colors = _draw_panel(grid[place], surface, levels, scale)
    for axes in grid.flat:
        axes.set_box_aspect(1)
        axes.tick_params(labelsize=_SMALL)
    bar = color_bar(grid[0, -1], colors, scale, _bar_place(figure, grid))
    bar.ax.tick_params(labelsize=_SMALL)
    bar.set_label(scale.label, size=8)
    _explain(figure, grid, next(iter(panels.values())), levels)


def _draw_panel(axes: Axes, surface: xarray.Dataset, levels: Sequence[float], scale: Scale) -> Any:
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    colors = shade(axes, surface, scale)
    excess_lines(axes, surface, levels)
    mark_cells(axes, surface)
    mark_weights(axes, surface, size=6.0)
    rim = [withStroke(linewidth=1.6, foreground="black")]
    corner: dict[str, Any] = {"ha": "left", "va": "top", "transform": axes.transAxes, "path_effects": rim}
    axes.text(0.04, 0.96, f"{origin_loss(surface):.3f}", color="white", fontsize=7.5, zorder=5, **corner)
    widen(axes, surface)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, prune="both"))  # no label runs into the next panel's
    return colors


def _bar_place(figure: Figure, grid: np.ndarray) -> tuple[float, float, float, float]:
    """Right of the last column, as high as the rows (at most three of them), in units of the first row's last panel."""
    rows = len(grid)
    panel, bottom = grid[0, -1].get_position(), grid[-1, -1].get_position().y0
    whole = (panel.y1 - bottom) / panel.height
    high = min(whole, 3.2)
    return 1.07, 1 - (whole + high) / 2 if rows > 1 else 0.0, 0.07, high


def _explain(figure: Figure, grid: np.ndarray, surface: xarray.Dataset, levels: Sequence[float]) -> None:
    """The axes' names, one legend for the marks and one for the levels, on a colour on which all lines are seen."""
    width, height = figure.get_size_inches()
    middle = (grid[0, 0].get_position().x0 + grid[0, -1].get_position().x1) / 2
    center = (grid[0, 0].get_position().y1 + grid[-1, 0].get_position().y0) / 2
    unit = f" ({step_unit(surface)})" if step_unit(surface) else ""
    figure.text(middle, (_BOTTOM - 0.3) / height, f"α{unit}", ha="center", va="top", fontsize=8)
    figure.text(0.08 / width, center, f"β{unit}", ha="left", va="center", rotation=90, fontsize=8)
    marks: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(label.split(":")[0], handle)
    narrow = grid.shape[1] == 1
    shared: dict[str, Any] = {
        "loc": "lower center",
        "fontsize": _SMALL,
        "borderpad": 0.3,
        "columnspacing": 1.2,
    }
    place: dict[str, Any] = {"bbox_to_anchor": (middle, 0.47 / height), "ncols": 2 if narrow else len(marks)}
    figure.legend(list(marks.values()), list(marks), frameon=False, handletextpad=0.3, **place, **shared)
    place = {
        "bbox_to_anchor": (middle, 0.02 / height),
        "ncols": 4 if narrow else len(levels),
        "handlelength": 2.2,
    }
    ground: dict[str, Any] = {
        "facecolor": "#4c8f8f",
        "labelcolor": "white",
        "framealpha": 1,
        "edgecolor": "none",
    }
    legend = figure.legend(handles=excess_handles(levels), fancybox=False, **place, **ground, **shared)
    legend.set_title("excess loss over the trained weights’ (in the corner), nats")
    legend.get_title().set(color="white", fontsize=_SMALL)
