"""Contours of one loss surface, with what lies on the plane: weights, named points, a trajectory.

Shading and lines are those of the cells' losses, none altered. Cells without a finite loss are hatched, interpolated
ones carry a dot; where a cell is missing each cell is drawn as a rectangle, else colours run from cell to cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.marks import (
    TrainingPath,
    draw_trajectory,
    loss_lines,
    mark_cells,
    mark_points,
    mark_weights,
    path_of,
    widen,
)
from gruland.landscape.pictures.reading import axis_label, columns, heading, is_line, minimum, named_points
from gruland.landscape.pictures.scale import CATEGORIES, COLORS, Scale, category

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Points = Mapping[str, tuple[float, float]]

_THINNEST = 1 / 3  # the least ratio of a plane's sides that is drawn to scale


def contour_figure(
    surface: xarray.Dataset,
    title: str = "",
    scale: Scale | None = None,
    *,
    trajectory: Any = None,
    points: Points | None = None,
) -> Figure:
    """Labelled contours of the loss (figure 4 of the paper); the trained weights and the least cell marked.

    A surface of one row or column is drawn as a curve of the loss.

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it, of any size and extent, complete or not.
        title: the model's name.
        scale: shared with other pictures; the surface's (and the trajectory's) own where None.
        trajectory: a table with columns alpha, beta, epoch and loss (the checkpoint's true loss), drawn as a path
            whose markers have the colours of the true losses: one that stands out lies off the plane.
        points: named weights on the plane, for instance {"initial": (-1.0, 0.2)}; None = those that the plane was made
            from. The axes are widened to widen them.

    Raises:
        ValueError: no loss is finite, or the trajectory has other columns.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 1.8 + 4.1 * _height(surface)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    figure.suptitle(heading(surface, title), fontsize="medium")
    draw_plane(axes, surface, scale, trajectory=trajectory, points=points)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def draw_plane(
    axes: Axes,
    surface: xarray.Dataset,
    scale: Scale | None = None,
    *,
    trajectory: Any = None,
    points: Points | None = None,
) -> None:
    """:func:`contour_figure` in axes of one's own, with a colour bar beside them and no legend."""
    path = None if trajectory is None else path_of(trajectory)
    scale = scale or Scale.of(surface, *([path] if path else []))
    if is_line(surface):
        draw_line(axes, surface, scale)
        return
    named = named_points(surface) if points is None else dict(points)
    axes.set(xlabel=axis_label(surface, "alpha"), ylabel=axis_label(surface, "beta"))
    axes.locator_params(nbins=6)
    colors = shade(axes, surface, scale)
    loss_lines(axes, surface, scale)
    mark_cells(axes, surface)
    mark_weights(axes, surface, origin=not any(tuple(place) == (0, 0) for place in named.values()))
    mark_points(axes, named)
    if path:
        draw_trajectory(axes, path, scale)
    widen(axes, surface, [*named.values(), *(zip(path["alpha"], path["beta"], strict=True) if path else ())])
    if _to_scale(surface):
        axes.set_aspect("equal")
    else:
        axes.set_box_aspect(1)
    color_bar(axes, colors, scale)


def _to_scale(surface: xarray.Dataset) -> bool:
    return _THINNEST <= _ratio(surface) <= 1 / _THINNEST


def _ratio(surface: xarray.Dataset) -> float:
    """The plane's height as a multiple of its width."""
    width, height = (float(np.ptp(surface[name].values)) for name in ("alpha", "beta"))
    return height / width


def _height(surface: xarray.Dataset) -> float:
    """The drawn height as a multiple of the drawn width."""
    if is_line(surface):
        return 0.7
    return _ratio(surface) if _to_scale(surface) else 1.0


def color_bar(
    axes: Axes, colors: Any, scale: Scale, place: tuple[float, float, float, float] = (1.04, 0, 0.05, 1)
) -> Any:
    """A colour bar labelled with losses, as high as the axes, or at a place of theirs (left, bottom, width, height)."""
    bar = axes.figure.colorbar(colors, cax=axes.inset_axes(place), label=scale.label)
    bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()), minor=False)
    return bar


def shade(axes: Axes, surface: xarray.Dataset, scale: Scale) -> Any:
    """The losses as colours: from cell to cell where all are finite, else a rectangle for each cell."""
    height = np.ma.masked_invalid(scale.height(surface["loss"].values))
    low, high = scale.limits
    shading: Any = "nearest" if np.ma.is_masked(height) else "gouraud"
    alpha, beta = surface["alpha"].values, surface["beta"].values
    # Rasterized: as vectors each cell would be a gradient of its own.
    style: dict[str, Any] = {"cmap": COLORS, "vmin": low, "vmax": high, "rasterized": True}
    return axes.pcolormesh(alpha, beta, height, shading=shading, **style)


# -- a surface of one row or column


def draw_line(axes: Axes, surface: xarray.Dataset, scale: Scale) -> None:
    """The loss along the line with its 95% interval over the examples; interpolated cells are hollow."""
    name = "alpha" if surface.sizes["beta"] == 1 else "beta"
    steps, loss = surface[name].values, surface["loss"].values.ravel()
    height = scale.height(loss)
    axes.plot(steps, height, color=CATEGORIES[0])
    errors = 1.96 * np.nan_to_num(surface["loss_se"].values.ravel())
    low, high = (scale.height(loss + sign * errors) for sign in (-1, 1))
    if errors.any():
        axes.fill_between(
            steps, low, high, color=CATEGORIES[0], alpha=0.2, linewidth=0, label="± 1.96 standard errors"
        )
    for label, cells, face in (
        ("evaluated", ~surface["interpolated"].values.ravel(), CATEGORIES[0]),
        ("interpolated", surface["interpolated"].values.ravel(), "white"),
    ):
        if cells.any():
            axes.plot(
                steps[cells],
                height[cells],
                "o",
                color=CATEGORIES[0],
                markerfacecolor=face,
                markersize=4,
                label=label,
            )
    least = dict(zip(("alpha", "beta"), minimum(surface), strict=True))[name]
    value = float(loss[steps == least][0])
    axes.plot(
        least, scale.height(value), "X", color="tab:red", markeredgecolor="black", markersize=8,
        linestyle="none", label=f"least loss: {value:#.3g}",
    )  # fmt: skip
    axes.set(xlabel=axis_label(surface, name), ylabel=scale.label)
    axes.set_yticks(list(scale.ticks), labels=list(scale.ticks.values()))
    axes.margins(x=0.02)
    axes.grid(alpha=0.25)


# -- a training on a plane through its checkpoints


def trajectory_figure(
    surface: xarray.Dataset, table: Any, title: str = "", scale: Scale | None = None
) -> Figure:
    """The path of a training over the loss (left), and each checkpoint's true loss beside the plane's (right).

    Where the curves part, the checkpoint lies off the plane. With a column ``residual`` (the distance from the
    checkpoint to the plane) that distance is drawn below.

    Args:
        surface: over a plane through the checkpoints.
        table: a row for each checkpoint, with columns alpha, beta, epoch, loss (true, nats) and perhaps residual.
        title: the model's name.
        scale: shared with other pictures.

    Raises:
        ValueError: the table has other columns, or no loss is finite.
    """
    from matplotlib.figure import Figure

    path = path_of(table)
    figure = Figure(figsize=(10.0, 5.0), dpi=150, layout="constrained")
    figure.suptitle(heading(surface, title), fontsize="medium")
    plane, sides = np.array(figure.subfigures(1, 2, width_ratios=(1.35, 1.0)))
    draw_plane(plane.subplots(), surface, scale, trajectory=table)
    plane.legend(loc="outside lower center", ncols=3, frameon=False)
    residual = "residual" in table
    panels = sides.subplots(1 + residual, 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(panels[0], surface, path)
    if residual:
        epoch, distance = columns(table, "epoch", "residual")
        order = np.argsort(epoch, kind="stable")
        _draw_epochs(panels[1], path["epoch"], distance[order], 2, "distance to the plane")
        panels[1].set_ylabel("distance to the plane")
    panels[-1].set_xlabel("epoch")
    return figure


def _draw_losses(axes: Axes, surface: xarray.Dataset, path: TrainingPath) -> None:
    _draw_epochs(axes, path["epoch"], path["loss"], 0, "checkpoint")
    on_plane = surface["loss"].interp(
        alpha=("checkpoint", path["alpha"]), beta=("checkpoint", path["beta"]), method="linear"
    )
    _draw_epochs(axes, path["epoch"], on_plane.values, 1, "its projection on the plane")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


def _draw_epochs(axes: Axes, epochs: np.ndarray, values: np.ndarray, index: int, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(epochs, values, label=label, markersize=5, **category(index))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
