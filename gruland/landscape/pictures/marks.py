"""What is drawn over the losses of a plane: contour lines, marked cells and weights, the path of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.reading import columns, minimum, origin_loss
from gruland.landscape.pictures.scale import ABSENT, COLORS, Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

#: Where contours of the excess loss are drawn, in nats.
EXCESS_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# Shares of the plane's side: a line too short for a label, labels too close to each other, far enough apart.
_SHORT, _CLOSE, _FAR = 0.15, 0.07, 0.25

_MARKERS = "s^DvP<>"

#: The columns alpha, beta, epoch and loss of a training, in the order of the epochs.
TrainingPath = dict[str, np.ndarray]


# -- contour lines


def loss_lines(axes: Axes, surface: xarray.Dataset, scale: Scale) -> None:
    """Lines of equal loss, one label for each level; white on dark and black on light colours."""
    height = np.ma.masked_invalid(scale.height(surface["loss"].values))
    texts = {h: text for h, text in scale.texts(scale.levels).items() if height.min() < h < height.max()}
    if not texts:
        return
    middle = 0.5 * sum(scale.limits)
    colors = ["white" if h < middle else "black" for h in texts]
    alpha, beta = surface["alpha"].values, surface["beta"].values
    lines = axes.contour(alpha, beta, height, list(texts), colors=colors, linewidths=0.8)
    low, high = (np.array([end(alpha), end(beta)]) for end in (np.min, np.max))
    pieces = [piece for path in lines.get_paths() for piece in path.to_polygons(closed_only=False)]
    places = label_places(pieces, low, high)
    axes.clabel(lines, fmt=texts, fontsize=8, manual=[tuple(place) for place in places])


def label_places(lines: Sequence[Any], low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """Where to put the labels of lines: on a vertex away from the border, the centre and the other labels.

    Args:
        lines: vertices [V, 2] of each connected line.
        low, high: the corners of the box [2].

    Returns:
        A place [2] for each line that has one: not for a short line, nor for one beside others that have theirs.
    """
    taken = [np.array([0.5, 0.5])]
    for vertices in lines:
        line = (np.asarray(vertices, float).reshape(-1, 2) - low) / (high - low)
        inside = line[((line > 0.06) & (line < 0.94)).all(axis=1)]
        if np.ptp(line, axis=0).max() < _SHORT or not len(inside):
            continue
        distance = np.min([np.linalg.norm(inside - other, axis=1) for other in taken], axis=0)
        if distance.max() > _CLOSE:
            taken.append(inside[np.argmax(np.minimum(distance, _FAR))])
    return [low + place * (high - low) for place in taken[1:]]


def excess_lines(axes: Axes, surface: xarray.Dataset, levels: Sequence[float] = EXCESS_LEVELS) -> None:
    """Lines of equal excess loss over the surface's own origin; :func:`excess_handles` is their legend."""
    excess = np.ma.masked_invalid(surface["loss"].values - origin_loss(surface))
    for index, level in enumerate(levels):
        if excess.min() < level < excess.max():
            style = _style(index)
            color, rim = style.pop("color"), style.pop("path_effects")
            style = {"colors": color, "linewidths": style["linewidth"], "linestyles": [style["linestyle"]]}
            lines = axes.contour(surface["alpha"], surface["beta"], excess, [level], **style)
            lines.set(path_effects=rim, gid=f"excess {level:g}")


def excess_handles(levels: Sequence[float] = EXCESS_LEVELS) -> list[Any]:
    """A line for each level, to put into a legend."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=f"{level:g}", **_style(i)) for i, level in enumerate(levels)]


def _style(index: int) -> dict[str, Any]:
    """Dotted, dashed, solid, and again so, thicker; white with a dark rim, seen on every colour."""
    from matplotlib.patheffects import withStroke

    group, place = divmod(index, 3)
    width = (0.8, 1.5, 2.4)[min(group, 2)]
    dashes = ((0, (1, 1.6)), (0, (4, 2)), "solid")
    return {
        "color": "white",
        "linestyle": dashes[place if group < 2 else 2],
        "linewidth": width,
        "path_effects": [withStroke(linewidth=width + 0.7, foreground="#202020")],
    }


# -- cells, weights and points


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


def widen(axes: Axes, surface: xarray.Dataset, points: Sequence[tuple[float, float]] = ()) -> None:
    """Limit the axes to the grid, and to points beyond it with a margin."""
    for name, limit, place in (("alpha", axes.set_xlim, 0), ("beta", axes.set_ylim, 1)):
        low, high = float(surface[name].min()), float(surface[name].max())
        margin = 0.08 * (high - low)
        beyond = [float(point[place]) for point in points if not low <= point[place] <= high]
        limit(min([low, *(b - margin for b in beyond)]), max([high, *(b + margin for b in beyond)]))


# -- the path of a training


def path_of(table: Any) -> TrainingPath:
    """The columns alpha, beta, epoch and loss of a table, in the order of the epochs.

    Raises:
        ValueError: one is missing, or there is no row.
    """
    names = ("alpha", "beta", "epoch", "loss")
    found = columns(table, *names)
    if not len(found[0]):
        raise ValueError("the trajectory has no checkpoint")
    order = np.argsort(found[2], kind="stable")
    return {name: np.asarray(column, float)[order] for name, column in zip(names, found, strict=True)}


def draw_trajectory(axes: Axes, path: TrainingPath, scale: Scale) -> None:
    """The path, its markers coloured by the checkpoints' true losses, with the epochs' numbers where there is room."""
    from matplotlib.patheffects import withStroke

    low, high = scale.limits
    axes.plot(
        path["alpha"], path["beta"], "-", color="white", linewidth=1.4, zorder=4, label="trajectory"
    ).pop().set_path_effects([withStroke(linewidth=2.8, foreground="black")])
    axes.scatter(
        path["alpha"], path["beta"], c=scale.height(path["loss"]), cmap=COLORS, vmin=low, vmax=high,
        s=40, edgecolors="black", linewidths=0.9, zorder=5, plotnonfinite=True,
    )  # fmt: skip
    places = np.stack([path["alpha"], path["beta"]], axis=1)
    for index in readable(places):
        axes.annotate(
            f"{path['epoch'][index]:g}", places[index], (5, 4), textcoords="offset points", fontsize=8, zorder=6,
            color="white", path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip


def readable(places: np.ndarray, apart: float = 0.07) -> list[int]:
    """Which of the points [N, 2] can be labelled: the first, then the last and others if far from any labelled one.

    Args:
        apart: the least distance, as a share of the larger side of the path's bounding box.
    """
    least = apart * float(np.ptp(places, axis=0).max())
    chosen: list[int] = []
    for index in (0, len(places) - 1, *range(1, len(places) - 1)):
        if index not in chosen and all(np.linalg.norm(places[index] - places[c]) > least for c in chosen):
            chosen.append(index)
    return chosen
