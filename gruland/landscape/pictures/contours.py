"""Contours of one loss surface, with what lies on the plane: weights, named points, a trajectory.

Shading and lines are those of the cells' losses, none altered. Cells without a finite loss are hatched, interpolated
ones carry a dot; where a cell is missing each cell is drawn as a rectangle, else colours run from cell to cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import axis_label, heading, is_line, minimum, origin_loss
from gruland.landscape.pictures.line import draw_line
from gruland.landscape.pictures.palette import ABSENT, COLORS
from gruland.landscape.pictures.path import draw_trajectory, path_of
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Where contours of the excess loss are drawn, in nats.
EXCESS_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

_POINTS = "s^DvP<>"


def contour_figure(
    surface: xarray.Dataset,
    title: str = "",
    scale: Scale | None = None,
    *,
    trajectory: Any = None,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Labelled contours of the loss (figure 4 of the paper); the trained weights and the least cell marked.

    A surface of one row or column is drawn as a curve of the loss.

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it, of any size and extent, complete or not.
        title: the model's name.
        scale: shared with other pictures; the surface's (and the trajectory's) own where None.
        trajectory: a table with columns alpha, beta, epoch and loss (the checkpoint's true loss), drawn as a path
            whose markers have the colours of the true losses: one that stands out lies off the plane.
        points: named weights on the plane, for instance {"initial": (-1.0, 0.2)}; the axes are widened to hold them.

    Raises:
        ValueError: no loss is finite, or the trajectory has other columns.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 5.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    figure.suptitle(heading(surface, title), fontsize="medium")
    draw_plane(axes, surface, scale, trajectory=trajectory, points=points)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_plane(
    axes: Axes,
    surface: xarray.Dataset,
    scale: Scale | None = None,
    *,
    trajectory: Any = None,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """:func:`contour_figure` in axes of one's own, with a colour bar beside them and no legend."""
    path = None if trajectory is None else path_of(trajectory)
    scale = scale or Scale.of(surface, *([path] if path else []))
    if is_line(surface):
        draw_line(axes, surface, scale)
        return
    axes.set(xlabel=axis_label(surface, "alpha"), ylabel=axis_label(surface, "beta"), aspect="equal")
    colors = shade(axes, surface, scale)
    loss_lines(axes, surface, scale)
    mark_cells(axes, surface)
    points = points or {}
    mark_weights(
        axes, surface, origin=(0.0, 0.0) not in {tuple(map(float, point)) for point in points.values()}
    )
    _mark_points(axes, points)
    if path:
        draw_trajectory(axes, path, scale)
    widen(axes, surface, [*points.values(), *(zip(path["alpha"], path["beta"], strict=True) if path else ())])
    color_bar(axes, colors, scale)


def color_bar(axes: Any, colors: Any, scale: Scale, **options: Any) -> None:
    """A colour bar beside one or several axes, labelled with losses."""
    figure = np.ravel(axes)[0].figure
    bar = figure.colorbar(colors, ax=axes, label=scale.label, **options)
    bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()), minor=False)


def shade(axes: Axes, surface: xarray.Dataset, scale: Scale) -> Any:
    """The losses as colours: from cell to cell where all are finite, else a rectangle for each cell."""
    height = np.ma.masked_invalid(scale.height(surface["loss"].values))
    low, high = scale.limits
    shading: Any = "nearest" if np.ma.is_masked(height) else "gouraud"
    alpha, beta = surface["alpha"].values, surface["beta"].values
    # Rasterized: as vectors each cell would be a gradient of its own.
    return axes.pcolormesh(
        alpha, beta, height, cmap=COLORS, vmin=low, vmax=high, shading=shading, rasterized=True
    )


def loss_lines(axes: Axes, surface: xarray.Dataset, scale: Scale) -> None:
    """Labelled lines of equal loss, white on dark and black on light colours."""
    height = np.ma.masked_invalid(scale.height(surface["loss"].values))
    texts = {h: text for h, text in scale.texts(scale.levels).items() if height.min() < h < height.max()}
    if texts:
        middle = 0.5 * sum(scale.limits)
        colors = ["white" if h < middle else "black" for h in texts]
        lines = axes.contour(
            surface["alpha"], surface["beta"], height, list(texts), colors=colors, linewidths=0.8
        )
        axes.clabel(lines, fmt=texts, fontsize=8)


def excess_lines(axes: Axes, surface: xarray.Dataset, levels: Sequence[float] = EXCESS_LEVELS) -> None:
    """Lines of equal excess loss over the surface's own origin; :func:`excess_handles` is their legend."""
    excess = np.ma.masked_invalid(surface["loss"].values - origin_loss(surface))
    for level, style in zip(levels, map(_level_style, range(len(levels))), strict=True):
        if excess.min() < level < excess.max():
            lines = axes.contour(
                surface["alpha"], surface["beta"], excess, [level],
                colors=style["color"], linewidths=style["linewidth"], linestyles=[style["linestyle"]],
            )  # fmt: skip
            lines.set_gid(f"excess {level:g}")


def excess_handles(levels: Sequence[float] = EXCESS_LEVELS) -> list[Any]:
    """A line for each level, to put into a legend."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=f"{level:g}", **_level_style(i)) for i, level in enumerate(levels)]


def _level_style(index: int) -> dict[str, Any]:
    """Dotted, dashed, solid; white, then black, then black and thick."""
    group, place = divmod(index, 3)
    return {
        "color": "white" if group == 0 else "black",
        "linestyle": ((0, (1, 1.5)), (0, (4, 2)), "solid")[place],
        "linewidth": (1.0, 1.0, 1.0 + group)[min(group, 2)],
    }


def mark_cells(axes: Axes, surface: xarray.Dataset) -> None:
    """Dots on interpolated cells, hatches on those that are not computed or not finite."""
    done, finite = surface["done"].values, np.isfinite(surface["loss"].values)
    alpha, beta = surface["alpha"].values, surface["beta"].values
    for label, cells, hatch in (
        ("not computed", ~done & ~finite, ""),
        ("not finite", done & ~finite, "xxxx"),
    ):
        if cells.any():
            absent = np.ma.masked_array(np.ones(cells.shape), ~cells)
            drawn = axes.pcolor(alpha, beta, absent, shading="nearest", hatch=hatch, linewidth=0, label=label)
            drawn.set_array(None)
            drawn.set(facecolor=ABSENT, edgecolor="#606060")
    rows, columns = np.nonzero(surface["interpolated"].values)
    if rows.size:
        style: dict[str, Any] = {
            "color": "black",
            "markeredgecolor": "white",
            "markeredgewidth": 0.3,
            "markersize": 2.2,
        }
        axes.plot(alpha[columns], beta[rows], "o", linestyle="none", label="interpolated", **style)


def mark_weights(axes: Axes, surface: xarray.Dataset, *, origin: bool = True, size: float = 9.0) -> None:
    """A circle on the trained weights, a cross on the least cell; with their losses for a legend."""
    style: dict[str, Any] = {"markeredgecolor": "black", "linestyle": "none"}
    if origin:
        label = f"trained weights: {_known(surface)}".removesuffix(": ")
        axes.plot(0.0, 0.0, "o", color="white", markersize=size, label=label, **style)
    alpha, beta = minimum(surface)
    label = f"least loss: {float(surface['loss'].sel(alpha=alpha, beta=beta)):#.3g}"
    axes.plot(alpha, beta, "X", color="tab:red", markersize=size * 2 / 3, label=label, **style)


def _known(surface: xarray.Dataset) -> str:
    try:
        return f"{origin_loss(surface):#.3g}"
    except ValueError:
        return ""


def _mark_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    for index, (name, (alpha, beta)) in enumerate(points.items()):
        marker = _POINTS[index % len(_POINTS)]
        style: dict[str, Any] = {"color": "white", "markeredgecolor": "black", "markersize": 8}
        axes.plot(alpha, beta, marker, linestyle="none", zorder=4, **style)
        axes.annotate(
            name, (alpha, beta), (0, 8), textcoords="offset points", ha="center", zorder=5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
        )  # fmt: skip


def widen(axes: Axes, surface: xarray.Dataset, points: Sequence[tuple[float, float]] = ()) -> None:
    """The axes hold the grid exactly, and points beyond it with a margin."""
    for name, limits, place in (("alpha", axes.set_xlim, 0), ("beta", axes.set_ylim, 1)):
        low, high = float(surface[name].min()), float(surface[name].max())
        margin = 0.06 * (high - low)
        beyond = [float(point[place]) for point in points if not low <= point[place] <= high]
        limits(min([low, *(b - margin for b in beyond)]), max([high, *(b + margin for b in beyond)]))
