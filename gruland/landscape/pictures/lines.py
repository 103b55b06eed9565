"""Contour lines: of the loss, labelled, and of the excess loss, whose levels are told apart by style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import origin_loss
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

#: Where contours of the excess loss are drawn, in nats.
EXCESS_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

# Shares of the plane's side: a line too short for a label, labels too close to each other, far enough apart.
_SHORT, _CLOSE, _FAR = 0.15, 0.07, 0.25


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
