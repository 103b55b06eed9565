"""Loss surfaces in three dimensions, still: one, or several on one height axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import heading, is_line, titled
from gruland.landscape.pictures.palette import COLORS
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gruland.landscape.pictures.cells import Surfaces

_PANEL, _HEIGHT, _RIGHT = 2.6, 2.4, 0.8  # inches: a panel's sides, and room for the colour bar


def surface_figure(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> Figure:
    """The loss as a surface over the plane (figure 4 of the paper).

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it; cells that are not finite are holes.
        title: the model's name.
        scale: shared with other pictures; the surface's own where None.

    Raises:
        ValueError: the surface is a line, or no loss is finite.
    """
    from matplotlib.figure import Figure

    check_plane(surface)
    scale = scale or Scale.of(surface)
    figure = Figure(figsize=(6.4, 5.2), dpi=150)
    axes: Any = figure.add_axes((0.0, 0.05, 0.92, 0.88), projection="3d")
    _draw_surface(axes, surface, scale)
    axes.set_xlabel("α", labelpad=6)
    axes.set_ylabel("β", labelpad=6)
    axes.set_zlabel(scale.label, labelpad=8)
    axes.set_zticks(list(scale.ticks), labels=list(scale.ticks.values()))
    axes.set_box_aspect((4, 4, 3), zoom=0.98)
    figure.suptitle(heading(surface, title), fontsize="medium")
    return figure


def surface_sheet(surfaces: Surfaces, columns: int | None = None) -> Figure:
    """Several models' surfaces on one height axis and one colour scale.

    Args:
        surfaces: by title, all over the same extent.
        columns: panels in a row; None for up to 3.

    Raises:
        ValueError: there is none, or two differ in extent or unit.
    """
    from matplotlib.figure import Figure

    pairs = titled(surfaces)
    scale = Scale.of(*(surface for _, surface in pairs))
    wide = columns or min(3, len(pairs))
    rows = math.ceil(len(pairs) / wide)
    width = _PANEL * wide + _RIGHT
    figure = Figure(figsize=(width, _HEIGHT * rows), dpi=200)
    for index, (title, surface) in enumerate(pairs):
        row, column = divmod(index, wide)
        place = (column * _PANEL / width, 1 - (row + 0.95) / rows, _PANEL / width, 0.86 / rows)
        colors = _draw_small(figure.add_axes(place, projection="3d"), title, surface, scale)
    place = (1 - (_RIGHT - 0.1) / width, 0.5 - 0.35 / rows, 0.13 / width, 0.7 / rows)
    bar = figure.colorbar(colors, cax=figure.add_axes(place))
    bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()), minor=False)
    bar.set_label(scale.label, size=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_small(axes: Any, title: str, surface: xarray.Dataset, scale: Scale) -> Any:
    colors = _draw_surface(axes, surface, scale)
    axes.set_title(title, fontsize=9, y=1.0)
    axes.set_xlabel("α", labelpad=-9, fontsize=8)
    axes.set_ylabel("β", labelpad=-9, fontsize=8)
    for name, set_ticks in (("alpha", axes.set_xticks), ("beta", axes.set_yticks)):
        set_ticks(np.linspace(float(surface[name].min()), float(surface[name].max()), 3))
    few = dict(list(scale.ticks.items())[::2])
    axes.set_zticks(list(few), labels=list(few.values()))
    axes.tick_params(labelsize=7, pad=-3)
    axes.tick_params(axis="z", pad=-1)
    axes.set_box_aspect((4, 4, 3), zoom=1.0)
    return colors


def check_plane(surface: xarray.Dataset) -> None:
    """Raise ValueError for a line."""
    if is_line(surface):
        raise ValueError(
            "a line is no surface: expected at least two rows and two columns, see contour_figure"
        )


def _draw_surface(axes: Any, surface: xarray.Dataset, scale: Scale) -> Any:
    """The surface, a mesh line for each row and column of cells; returns what a colour bar needs."""
    alpha, beta = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    low, high = scale.limits
    mesh = {"rcount": alpha.shape[0], "ccount": alpha.shape[1], "edgecolor": "black", "linewidth": 0.15}
    height = scale.height(surface["loss"].values)
    colors = axes.plot_surface(alpha, beta, height, cmap=COLORS, vmin=low, vmax=high, **mesh)
    axes.set(zlim=(low, high))
    axes.set_xticks(np.linspace(alpha.min(), alpha.max(), 5))
    axes.set_yticks(np.linspace(beta.min(), beta.max(), 5))
    axes.view_init(elev=32, azim=-58)
    return colors
