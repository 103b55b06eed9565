"""A training on a plane through its checkpoints: the path, and how far the plane is from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import columns, heading
from gruland.landscape.pictures.contours import draw_plane
from gruland.landscape.pictures.palette import category
from gruland.landscape.pictures.path import TrainingPath, path_of
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        _draw(panels[1], path["epoch"], distance[order], 2, "distance to the plane")
        panels[1].set_ylabel("distance to the plane")
    panels[-1].set_xlabel("epoch")
    return figure


def _draw_losses(axes: Axes, surface: xarray.Dataset, path: TrainingPath) -> None:
    _draw(axes, path["epoch"], path["loss"], 0, "checkpoint")
    on_plane = surface["loss"].interp(
        alpha=("checkpoint", path["alpha"]), beta=("checkpoint", path["beta"]), method="linear"
    )
    _draw(axes, path["epoch"], on_plane.values, 1, "its projection on the plane")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


def _draw(axes: Axes, epochs: np.ndarray, values: np.ndarray, index: int, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.plot(epochs, values, label=label, markersize=5, **category(index))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
