"""Loss surfaces in three dimensions, still: one, or several on one height axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import heading, is_line, titled
from gruland.landscape.pictures.contours import color_bar
from gruland.landscape.pictures.palette import COLORS
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gruland.landscape.pictures.cells import Surfaces

_VIEW = {"elev": 32, "azim": -58}


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
    figure = Figure(figsize=(6.4, 5.4), dpi=150)
    axes: Any = figure.add_axes((0.0, 0.02, 0.92, 0.9), projection="3d")
    draw_surface(axes, surface, scale)
    axes.set(xlabel="α", ylabel="β")
    axes.set_zlabel(scale.label, labelpad=8)
    figure.suptitle(heading(surface, title), fontsize="medium")
    return figure


def surface_sheet(surfaces: Surfaces, columns: int | None = None) -> Figure:
    """Several models' surfaces on one height axis and one colour scale.

    Args:
        surfaces: by title, all over the same extent.
        columns: panels in a row; None for about as many as rows, at most 3.

    Raises:
        ValueError: there is none, or two differ in extent or unit.
    """
    from matplotlib.figure import Figure

    pairs = titled(surfaces)
    scale = Scale.of(*(surface for _, surface in pairs))
    wide = columns or min(3, len(pairs))
    rows = math.ceil(len(pairs) / wide)
    figure = Figure(figsize=(2.9 * wide + 0.9, 2.8 * rows), dpi=200)
    figure.subplots_adjust(left=0.01, right=1 - 1.05 / (2.9 * wide + 0.9), bottom=0.03, top=0.97, wspace=0.05)
    for index, (title, surface) in enumerate(pairs, 1):
        axes: Any = figure.add_subplot(rows, wide, index, projection="3d")
        colors = draw_surface(axes, surface, scale)
        axes.set_title(title, fontsize=9, y=0.96)
        axes.set_xlabel("α", labelpad=-8, fontsize=8)
        axes.set_ylabel("β", labelpad=-8, fontsize=8)
        axes.tick_params(labelsize=7, pad=-3)
        axes.tick_params(axis="z", pad=0)
        axes.set_box_aspect((1, 1, 0.75), zoom=0.92)
    place = figure.add_axes(
        (1 - 0.85 / (2.9 * wide + 0.9), 0.5 - 0.8 / (2.8 * rows), 0.012, 1.6 / (2.8 * rows))
    )
    color_bar(figure.axes[:-1], colors, scale, cax=place)
    return figure


def check_plane(surface: xarray.Dataset) -> None:
    """Raise ValueError for a line."""
    if is_line(surface):
        raise ValueError(
            "a line is no surface: expected at least two rows and two columns, see contour_figure"
        )


def draw_surface(axes: Any, surface: xarray.Dataset, scale: Scale) -> Any:
    """The surface, a mesh line for each row and column of cells; returns what a colour bar needs."""
    alpha, beta = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    low, high = scale.limits
    mesh = {"rcount": alpha.shape[0], "ccount": alpha.shape[1], "edgecolor": "black", "linewidth": 0.15}
    colors = axes.plot_surface(
        alpha, beta, scale.height(surface["loss"].values), cmap=COLORS, vmin=low, vmax=high, **mesh
    )
    axes.set(zlim=(low, high))
    axes.set_zticks(list(scale.ticks), labels=list(scale.ticks.values()))
    axes.set_xticks(np.linspace(alpha.min(), alpha.max(), 5))
    axes.set_yticks(np.linspace(beta.min(), beta.max(), 5))
    axes.view_init(**_VIEW)
    return colors
