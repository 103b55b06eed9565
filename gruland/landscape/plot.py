"""Pictures of a loss surface: contours, a 3D surface, and one to turn with the mouse.

Heights, colours and contour levels are linear in the loss, so that a flat valley looks flat. Where a few
cells at the rim are far above all others (more than ten times the median's height above the least loss), they
are compressed: linear up to that median, logarithmic beyond. Axes are labelled with the loss itself either
way, and no value is clipped or smoothed. Colours are viridis, which rises in lightness: it survives grey
print and colour blindness.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.files import atomic_path

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray
    from matplotlib.figure import Figure

#: The files that :func:`write_pictures` makes.
PICTURES = ("contour.png", "surface.png", "surface.html")

COLORS = "viridis"
_LINES = 15  # at most so many contour lines
_TAIL = 10.0  # heights above the median's, in units of it, from which the axis is compressed


@dataclass(frozen=True)
class Scale:
    """One loss axis for all pictures that are to be compared.

    Attributes:
        low, high: the range of the finite losses.
        knee: None where the axis is linear, else the loss up to which it is.
        levels: contour levels, rising, round numbers within the range.
    """

    low: float
    high: float
    knee: float | None
    levels: tuple[float, ...]

    @classmethod
    def of(cls, *surfaces: xarray.Dataset) -> Scale:
        """The scale that holds every finite loss of the surfaces.

        Raises:
            ValueError: no loss is finite.
        """
        losses = np.concatenate([surface["loss"].values.ravel() for surface in surfaces])
        finite = losses[np.isfinite(losses)]
        if not finite.size:
            raise ValueError("no cell of the loss surface is finite: there is nothing to draw")
        low, high = float(finite.min()), float(finite.max())
        median = float(np.median(finite[finite > low])) if low < high else high
        knee = median if high - low > _TAIL * (median - low) else None
        return cls(low, high, knee, _levels(low, high, knee))

    def height(self, loss: np.ndarray | float) -> np.ndarray:
        """Losses as heights on this axis; NaN where a loss is not finite."""
        above = np.where(np.isfinite(loss), loss, np.nan) - self.low
        if self.knee is None:
            return above
        return np.arcsinh(above / (self.knee - self.low))

    @property
    def limits(self) -> tuple[float, float]:
        """The axis's ends as heights, apart even where every loss is the same."""
        top = float(self.height(self.high))
        return (0.0, top) if top > 0 else (-0.5, 0.5)

    @property
    def ticks(self) -> dict[float, str]:
        """Height -> loss of every other level, for axes and colour bars."""
        return self.texts(self.levels[:: max(1, round(len(self.levels) / 7))])

    def texts(self, levels: tuple[float, ...]) -> dict[float, str]:
        """Height -> loss of the given levels."""
        return {float(self.height(level)): f"{level:.12g}" for level in levels}

    @property
    def label(self) -> str:
        """What to write beside the axis."""
        return "loss" if self.knee is None else f"loss (logarithmic above {self.knee:.2g})"


def _levels(low: float, high: float, knee: float | None) -> tuple[float, ...]:
    """Round numbers within (low, high), evenly spaced on the axis (nearly, where it is compressed)."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        return (low,)
    spaced: Iterable[float]
    if knee is None:
        spaced = MaxNLocator(_LINES, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    else:
        width = knee - low
        above = width * np.sinh(np.linspace(0, np.arcsinh((high - low) / width), _LINES)[1:])
        spaced = [round(low + a, 1 - int(np.floor(np.log10(a)))) for a in above.tolist()]
    return tuple(sorted({float(level) for level in spaced if low < level < high})) or (low,)


def contour_figure(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> Figure:
    """Labelled contours of the loss (figure 4 of the paper); the trained weights and the least cell marked.

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it.
        title: the model's name.
        scale: shared with other pictures; the surface's own where None.
    """
    from matplotlib.figure import Figure

    scale = scale or Scale.of(surface)
    figure = Figure(figsize=(6.0, 5.8), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel="α (first direction)", ylabel="β (second direction)", aspect="equal")
    figure.suptitle(_heading(surface, title), fontsize="medium")
    colors = _draw_contours(axes, surface, scale)
    _mark_points(axes, surface)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    bar = figure.colorbar(colors, ax=axes, label=scale.label)
    bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()), minor=False)
    return figure


def _draw_contours(axes: Any, surface: xarray.Dataset, scale: Scale) -> Any:
    """Shading and labelled lines; returns the shading."""
    alpha, beta = surface["alpha"].values, surface["beta"].values
    height = np.ma.masked_invalid(scale.height(surface["loss"].values))
    low, high = scale.limits
    colors = axes.pcolormesh(alpha, beta, height, cmap=COLORS, vmin=low, vmax=high, shading="gouraud")
    texts = {h: text for h, text in scale.texts(scale.levels).items() if height.min() < h < height.max()}
    if texts:
        lines = axes.contour(alpha, beta, height, list(texts), colors="black", linewidths=0.7)
        axes.clabel(lines, fmt=texts, fontsize=7)
    return colors


def _mark_points(axes: Any, surface: xarray.Dataset) -> None:
    points = {
        "trained weights": ((0.0, 0.0), "o", "white", 9),
        "least loss": (minimum(surface), "X", "tab:red", 6),
    }
    for name, ((alpha, beta), marker, color, size) in points.items():
        loss = float(surface["loss"].sel(alpha=alpha, beta=beta))
        style = {"color": color, "markersize": size, "markeredgecolor": "black", "linestyle": "none"}
        axes.plot(alpha, beta, marker, label=f"{name}: {loss:#.3g}", **style)


def surface_figure(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> Figure:
    """The loss as a surface over the plane (figure 4 of the paper); see :func:`contour_figure`."""
    from matplotlib.figure import Figure

    scale = scale or Scale.of(surface)
    figure = Figure(figsize=(6.4, 5.4), dpi=150)
    axes: Any = figure.add_axes((0.0, 0.02, 0.92, 0.9), projection="3d")
    alpha, beta = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    low, high = scale.limits
    mesh = {"rcount": len(beta), "ccount": len(alpha), "edgecolor": "black", "linewidth": 0.15}
    axes.plot_surface(
        alpha, beta, scale.height(surface["loss"].values), cmap=COLORS, vmin=low, vmax=high, **mesh
    )
    axes.set(xlabel="α", ylabel="β", zlim=(low, high))
    axes.set_zlabel(scale.label, labelpad=8)
    axes.set_zticks(list(scale.ticks), labels=list(scale.ticks.values()))
    axes.set_xticks(np.linspace(alpha.min(), alpha.max(), 5))
    axes.set_yticks(np.linspace(beta.min(), beta.max(), 5))
    axes.view_init(elev=32, azim=-58)
    figure.suptitle(_heading(surface, title), fontsize="medium")
    return figure


def figure_3d(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> go.Figure:
    """An interactive surface, see :func:`contour_figure`; pointing at a cell shows its loss and accuracy."""
    import plotly.graph_objects as go

    scale = scale or Scale.of(surface)
    measures = [surface[name].values for name in ("loss", "accuracy")]
    ticks = {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    trace = go.Surface(
        x=surface["alpha"].values,
        y=surface["beta"].values,
        z=scale.height(surface["loss"].values),
        customdata=np.stack(measures, axis=-1),
        text=_certainty(surface),
        hovertemplate="α %{x:.2f}, β %{y:.2f}<br>loss %{customdata[0]:.4g} %{text}"
        "<br>accuracy %{customdata[1]:.1%}<extra></extra>",
        colorscale=COLORS,
        cmin=scale.limits[0],
        cmax=scale.limits[1],
        colorbar={"title": {"text": "loss"}, **ticks},
        # Little shading, so that a colour means the same everywhere.
        lighting={"ambient": 0.8, "diffuse": 0.4, "specular": 0.05},
    )
    scene = {
        "xaxis": {"title": {"text": "α"}},
        "yaxis": {"title": {"text": "β"}},
        "zaxis": {"title": {"text": scale.label}, "range": list(scale.limits), **ticks},
        "aspectratio": {"x": 1, "y": 1, "z": 0.75},
        "camera": {"eye": {"x": 1.2, "y": -1.6, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.12}},
    }
    heading = {"text": _heading(surface, title).replace("\n", "<br>"), "font": {"size": 14}}
    return go.Figure(trace, {"title": heading, "scene": scene, "margin": {"l": 0, "r": 0, "b": 0, "t": 60}})


def _certainty(surface: xarray.Dataset) -> np.ndarray:
    """What stands behind each cell's loss: its standard error, or that it is interpolated."""
    cells = zip(surface["loss_se"].values.flat, surface["interpolated"].values.flat, strict=True)
    texts = ["(interpolated)" if interpolated else f"± {error:.2g}" for error, interpolated in cells]
    return np.reshape(texts, surface["loss"].shape)


def minimum(surface: xarray.Dataset) -> tuple[float, float]:
    """(alpha, beta) of the least finite loss; the cell nearest to the centre where several have it."""
    loss = np.where(np.isfinite(surface["loss"].values), surface["loss"].values, np.inf)
    rows, columns = np.nonzero(loss == loss.min())
    alpha, beta = surface["alpha"].values[columns], surface["beta"].values[rows]
    nearest = int(np.argmin(alpha**2 + beta**2))
    return float(alpha[nearest]), float(beta[nearest])


def _heading(surface: xarray.Dataset, title: str) -> str:
    """The model's name, then how the surface was made and how many cells are interpolated or not finite."""
    about, interpolated = surface.attrs, int(surface["interpolated"].sum())
    lost = int(surface["done"].sum() - np.isfinite(surface["loss"]).sum())
    parts = [
        f"{about['normalization']}-normalized directions" if "normalization" in about else "",
        f"{about['reviews']:,} training reviews" if "reviews" in about else "",
        f"{interpolated:,} of {surface['loss'].size:,} cells interpolated" if interpolated else "",
        f"{lost} cells not finite" if lost else "",
    ]
    return "\n".join(line for line in (title, ", ".join(part for part in parts if part)) if line)


def write_pictures(surface: xarray.Dataset, folder: str | Path, title: str = "") -> None:
    """Write contour.png, surface.png and surface.html (interactive, 5 MB, opens without a network).

    Raises:
        ValueError: no loss is finite.
    """
    scale = Scale.of(surface)
    for name, draw in zip(PICTURES, (contour_figure, surface_figure, figure_3d), strict=True):
        with atomic_path(Path(folder) / name) as temporary:
            figure: Any = draw(surface, title, scale)
            if temporary.suffix == ".html":
                figure.write_html(temporary, include_plotlyjs=True)
            else:
                figure.savefig(temporary)
