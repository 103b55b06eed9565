"""A loss surface of one row or column, drawn as a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gruland.landscape.pictures.cells import axis_label, minimum
from gruland.landscape.pictures.palette import CATEGORIES
from gruland.landscape.pictures.scale import Scale

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


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
