"""What is marked on a plane: cells without a measured loss, the trained weights, the least cell, named points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import minimum, origin_loss
from gruland.landscape.pictures.palette import ABSENT

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

_MARKERS = "s^DvP<>"


def mark_cells(axes: Axes, surface: xarray.Dataset) -> None:
    """Dots on interpolated cells, hatches on those that are not finite, grey on those that are not computed."""
    from matplotlib.collections import PolyCollection

    done, finite = surface["done"].values, np.isfinite(surface["loss"].values)
    alpha, beta = surface["alpha"].values, surface["beta"].values
    style: dict[str, Any] = {"facecolor": ABSENT, "edgecolor": "#606060", "linewidth": 0, "zorder": 1.5}
    for label, cells, hatch in (
        ("not computed", ~done & ~finite, ""),
        ("not finite", done & ~finite, "xxxxx"),
    ):
        if cells.any():
            rectangles = PolyCollection(corners(alpha, beta)[cells], hatch=hatch, label=label, **style)
            axes.add_collection(rectangles)
    rows, columns = np.nonzero(surface["interpolated"].values & finite)
    if rows.size:
        dots: dict[str, Any] = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.3}
        dots |= {"marker": "o", "markersize": 2.0, "linestyle": "none", "label": "interpolated"}
        axes.plot(alpha[columns], beta[rows], **dots)


def corners(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """The corners [R, C, 4, 2] of the rectangle around each cell, whose borders lie halfway to the next cells.

    Args:
        alpha: [C]; beta: [R], R and C at least 2.
    """
    (left, right), (low, high) = _borders(alpha), _borders(beta)
    x = np.stack([left, right, right, left], axis=-1)
    y = np.stack([low, low, high, high], axis=-1)
    return np.stack(np.broadcast_arrays(x[None], y[:, None]), axis=-1)


def _borders(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middles = (steps[1:] + steps[:-1]) / 2
    ends = np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])
    return ends[:-1], ends[1:]


def mark_weights(axes: Axes, surface: xarray.Dataset, *, origin: bool = True, size: float = 9.0) -> None:
    """A circle on the trained weights, a cross on the least cell; with their losses for a legend."""
    style: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": size / 9, "linestyle": "none"}
    if origin:
        label = f"trained weights: {_known(surface)}".removesuffix(": ")
        axes.plot(0.0, 0.0, "o", color="white", markersize=size, label=label, **style)
    alpha, beta = minimum(surface)
    label = f"least loss: {float(surface['loss'].sel(alpha=alpha, beta=beta)):#.3g}"
    axes.plot(alpha, beta, "X", color="#ff5a4d", markersize=size * 0.7, label=label, **style)


def _known(surface: xarray.Dataset) -> str:
    try:
        return f"{origin_loss(surface):#.3g}"
    except ValueError:
        return ""


def mark_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """A marker and a name on each of the named weights."""
    style: dict[str, Any] = {
        "color": "white",
        "markeredgecolor": "black",
        "markersize": 8,
        "linestyle": "none",
    }
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85, "linewidth": 0}
    for index, (name, place) in enumerate(points.items()):
        axes.plot(*place, _MARKERS[index % len(_MARKERS)], zorder=4, **style)
        axes.annotate(
            name, place, (0, 9), textcoords="offset points", ha="center", fontsize=9, zorder=7, bbox=box
        )


def hold(axes: Axes, surface: xarray.Dataset, points: Sequence[tuple[float, float]] = ()) -> None:
    """Limit the axes to the grid, and to points beyond it with a margin."""
    for name, limit, place in (("alpha", axes.set_xlim, 0), ("beta", axes.set_ylim, 1)):
        low, high = float(surface[name].min()), float(surface[name].max())
        margin = 0.08 * (high - low)
        beyond = [float(point[place]) for point in points if not low <= point[place] <= high]
        limit(min([low, *(b - margin for b in beyond)]), max([high, *(b + margin for b in beyond)]))
