"""The path of a training on a plane through its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import columns
from gruland.landscape.pictures.palette import COLORS
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TrainingPath = dict[str, np.ndarray]


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
