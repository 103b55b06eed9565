"""Curves of several models with their intervals: loss along lines, flat area, Hessian spectra, barriers.

K replicates, X points along a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.reading import is_line, origin_loss, step_unit
from gruland.landscape.pictures.scale import category

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: x, and for each of its points the middle, the lower and the upper end of an interval.
Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

#: Densities are drawn over so many powers of ten below the highest.
DECADES = 6


def replicate_band(x: Any, replicates: Any, coverage: float = 0.9) -> Band:
    """The median of K curves at each of X points, and the interval that holds the share ``coverage`` of them.

    Args:
        x: [X].
        replicates: [K, X]; NaN and infinity count as infinitely high.

    Returns:
        x, median, low, high, each [X].

    Raises:
        ValueError: the shapes do not fit.
    """
    points, values = np.asarray(x, float), np.asarray(replicates, float)
    if points.ndim != 1 or values.ndim != 2 or values.shape[1] != len(points) or not len(values):
        raise ValueError(
            f"replicates of shape {values.shape} over x of shape {points.shape}: expected [K, X] over [X]"
        )
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=0)
    middle, low, high = (_quantile(ordered, share) for share in (0.5, 0.5 - coverage / 2, 0.5 + coverage / 2))
    return points, middle, low, high


def _quantile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Of K ordered rows, linear between two of them; unlike numpy's not NaN where one of them is infinite."""
    place = round(share * (len(ordered) - 1), 9)
    below, part = int(place), place % 1
    return ordered[below] if part == 0 else (1 - part) * ordered[below] + part * ordered[below + 1]


def bands(
    lines: Mapping[str, Any],
    *,
    models: Sequence[str] | None = None,
    x: Any = None,
    coverage: float = 0.9,
    x_label: str | None = None,
    title: str = "",
) -> Figure:
    """Excess loss along random directions: a curve and an interval for each model.

    Args:
        lines: by model, either (x, middle, low, high), or K replicates: an array [K, X] of excess losses over ``x``,
            or K surfaces of one row, whose excess over their own origin is taken. Of replicates the median is
            drawn and the interval that holds the share ``coverage`` of them at each point.
        x: [X] steps of replicates given as arrays.
        models: all models' names, which settle the colours alike in every figure; None for those of this one.
        coverage: of the interval around replicates.
        x_label: what a step is; None for what the surfaces say.
        title: above the curves.

    Raises:
        ValueError: shapes that do not fit.
    """
    found = {name: _line_band(name, value, x, coverage) for name, value in lines.items()}
    unit = next((unit for value in lines.values() if (unit := _unit(value))), "")
    figure, axes = _figure(title)
    _draw_bands(axes, found, models)
    axes.axhline(0, color="#606060", linewidth=0.8, zorder=0)
    axes.set(xlabel=x_label or f"step along the direction{f' ({unit})' if unit else ''}")
    axes.set_ylabel("excess loss (nats)")
    _legend(axes)
    return figure


def _line_band(name: str, value: Any, x: Any, coverage: float) -> Band:
    if isinstance(value, tuple):
        return _band(name, value)
    if not isinstance(value, np.ndarray) and len(value) and hasattr(value[0], "data_vars"):
        if not all(is_line(surface) for surface in value):
            raise ValueError(f"{name!r} has a plane among its lines: expected surfaces of one row")
        steps = value[0]["alpha"].values
        if any(not np.array_equal(surface["alpha"].values, steps) for surface in value):
            raise ValueError(f"the lines of {name!r} have different steps")
        return replicate_band(steps, [s["loss"].values.ravel() - origin_loss(s) for s in value], coverage)
    if x is None:
        raise ValueError(f"{name!r} is an array of replicates: expected x as well, or (x, middle, low, high)")
    return replicate_band(x, value, coverage)


def _unit(value: Any) -> str:
    first: Any = value[0] if len(value) else None
    return step_unit(first) if hasattr(first, "data_vars") else ""


def area_curves(curves: Mapping[str, Any], *, models: Sequence[str] | None = None, title: str = "") -> Figure:
    """The share of a plane's cells whose excess loss is at most a threshold, against the threshold.

    Args:
        curves: by model, (thresholds in nats, mean, low, high), each [X].
        models, title: as in :func:`bands`.

    Raises:
        ValueError: arrays that differ in length.
    """
    figure, axes = _figure(title)
    _draw_bands(axes, {name: _band(name, value) for name, value in curves.items()}, models)
    axes.set(
        xscale="log",
        ylim=(0, 1.03),
        xlabel="threshold of the excess loss (nats)",
        ylabel="flat-area fraction",
    )
    _legend(axes)
    return figure


def spectra(
    densities: Mapping[str, Any],
    *,
    models: Sequence[str] | None = None,
    title: str = "",
    decades: float = DECADES,
) -> Figure:
    """Densities of the Hessian's eigenvalues, logarithmic.

    Args:
        densities: by model, (eigenvalues, density), each [X].
        models, title: as in :func:`bands`.
        decades: powers of ten below the highest density that the axis shows; what lies below is off the axis.

    Raises:
        ValueError: arrays that differ in length, or no density is positive.
    """
    found = {name: _arrays(name, value, 2) for name, value in densities.items()}
    top = max((float(density.max()) for _, density in found.values()), default=0.0)
    if not top > 0:
        raise ValueError("no density is positive: there is nothing to draw")
    figure, axes = _figure(title)
    for name, (grid, density) in found.items():
        style = {**_style(name, models or list(found), len(grid)), "marker": ""}
        axes.plot(grid, np.where(density > 0, density, np.nan), label=name, **style)
    axes.axvline(0, color="#606060", linewidth=0.8, zorder=0)
    axes.set(
        yscale="log",
        ylim=(top * 10.0**-decades, top * 3),
        xlabel="eigenvalue of the Hessian",
        ylabel="density",
    )
    _legend(axes)
    return figure


def barrier_curves(curves: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """The loss on the way from one model to another: a panel for each pair, a curve for each stage.

    Args:
        curves: pair -> stage ("before alignment", "after alignment") -> (t, loss) or (t, mean, low, high),
            t from 0 (the one) to 1 (the other). The same stages in every pair share a style.
        title: above the panels.

    Raises:
        ValueError: arrays that differ in length, or no pair.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("there is no pair of models to draw")
    figure = Figure(figsize=(max(4.8, 2.6 * len(curves) + 0.8), 3.6), dpi=200, layout="constrained")
    if title:
        figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    stages = list(dict.fromkeys(stage for pair in curves.values() for stage in pair))
    for axes, (pair, by_stage) in zip(panels, curves.items(), strict=True):
        for stage, value in by_stage.items():
            wide = value if len(value) == 4 else (value[0], value[1], value[1], value[1])
            _draw_band(axes, stage, _band(f"{pair}, {stage}", wide), stages)
        axes.set_title(pair, fontsize=9)
        axes.set(xlim=(-0.03, 1.03))
        axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
        _plain(axes)
    panels[0].set_ylabel("loss (nats)")
    panels[len(panels) // 2].set_xlabel("t, from the one model to the other", fontsize=9)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    if title:
        axes.set_title(title, fontsize="medium")
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, handlelength=3.2)


def _draw_bands(axes: Axes, found: Mapping[str, Band], models: Sequence[str] | None) -> None:
    for name, band in found.items():
        _draw_band(axes, name, band, models or list(found))


def _draw_band(axes: Axes, name: str, band: Band, models: Sequence[str]) -> None:
    x, middle, low, high = (np.where(np.isfinite(values), values, np.nan) for values in band)
    style = _style(name, models, len(x))
    axes.plot(x, middle, label=name, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
    for end in (low, high):  # seen where bands overlap
        axes.plot(x, end, color=style["color"], linestyle=style["linestyle"], linewidth=0.5)


def _style(name: str, models: Sequence[str], points: int) -> dict[str, Any]:
    """A model's style; its markers are few, and not beside those of its neighbours.

    Raises:
        ValueError: ``models`` lacks the model.
    """
    if name not in models:
        raise ValueError(f"{name!r} is none of the models {', '.join(models)}")
    index = list(models).index(name)
    every = max(1, points // 8)
    return {**category(index), "markersize": 4, "linewidth": 1.4, "markevery": (index % every, every)}


def _band(name: str, value: Sequence[Any]) -> Band:
    x, middle, low, high = _arrays(name, value, 4)
    return x, middle, low, high


def _arrays(name: str, value: Sequence[Any], count: int) -> list[np.ndarray]:
    arrays = [np.asarray(part, float) for part in value]
    if len(arrays) != count or any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
        shapes = ", ".join(str(list(a.shape)) for a in arrays)
        raise ValueError(f"{name!r}: expected {count} arrays of one length, got shapes {shapes}")
    return arrays
