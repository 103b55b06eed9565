"""Loss surfaces in three dimensions: on paper, and in a browser, where the cameras of several move together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.reading import certainty, heading, is_line, titled
from gruland.landscape.pictures.scale import COLORS, Scale

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray
    from matplotlib.figure import Figure

    from gruland.landscape.pictures.reading import Surfaces

_PANEL, _HEIGHT, _RIGHT = 2.6, 2.4, 0.8  # inches: a panel's sides, and room for the colour bar


# -- on paper


def surface_figure(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> Figure:
    """The loss as a surface over the plane (figure 4 of the paper).

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it; cells that are not finite are holes.
        title: the model's name.
        scale: shared with other pictures; the surface's own where None.

    Raises:
        ValueError: the surface is a line, or no loss is finite.
    """
    from matplotlib.figure import Figure

    check_plane(surface)
    scale = scale or Scale.of(surface)
    figure = Figure(figsize=(6.4, 5.2), dpi=150)
    axes: Any = figure.add_axes((0.0, 0.05, 0.92, 0.88), projection="3d")
    _draw_surface(axes, surface, scale)
    axes.set_xlabel("α", labelpad=6)
    axes.set_ylabel("β", labelpad=6)
    axes.set_zlabel(scale.label, labelpad=8)
    axes.set_zticks(list(scale.ticks), labels=list(scale.ticks.values()))
    axes.set_box_aspect((4, 4, 3), zoom=0.98)
    figure.suptitle(heading(surface, title), fontsize="medium")
    return figure


def surface_sheet(surfaces: Surfaces, columns: int | None = None) -> Figure:
    """Several models' surfaces on one height axis and one colour scale.

    Args:
        surfaces: by title, all over the same extent.
        columns: panels in a row; None for up to 3.

    Raises:
        ValueError: there is none, or two differ in extent or unit.
    """
    from matplotlib.figure import Figure

    pairs = titled(surfaces)
    scale = Scale.of(*(surface for _, surface in pairs))
    wide = columns or min(3, len(pairs))
    rows = math.ceil(len(pairs) / wide)
    width = _PANEL * wide + _RIGHT
    figure = Figure(figsize=(width, _HEIGHT * rows), dpi=200)
    for index, (title, surface) in enumerate(pairs):
        row, column = divmod(index, wide)
        place = (column * _PANEL / width, 1 - (row + 0.95) / rows, _PANEL / width, 0.86 / rows)
        colors = _draw_small(figure.add_axes(place, projection="3d"), title, surface, scale)
    place = (1 - (_RIGHT - 0.1) / width, 0.5 - 0.35 / rows, 0.13 / width, 0.7 / rows)
    bar = figure.colorbar(colors, cax=figure.add_axes(place))
    bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()), minor=False)
    bar.set_label(scale.label, size=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_small(axes: Any, title: str, surface: xarray.Dataset, scale: Scale) -> Any:
    colors = _draw_surface(axes, surface, scale)
    axes.set_title(title, fontsize=9, y=1.0)
    axes.set_xlabel("α", labelpad=-9, fontsize=8)
    axes.set_ylabel("β", labelpad=-9, fontsize=8)
    for name, set_ticks in (("alpha", axes.set_xticks), ("beta", axes.set_yticks)):
        set_ticks(np.linspace(float(surface[name].min()), float(surface[name].max()), 3))
    few = dict(list(scale.ticks.items())[::2])
    axes.set_zticks(list(few), labels=list(few.values()))
    axes.tick_params(labelsize=7, pad=-3)
    axes.tick_params(axis="z", pad=-1)
    axes.set_box_aspect((4, 4, 3), zoom=1.0)
    return colors


def check_plane(surface: xarray.Dataset) -> None:
    """Raise ValueError for a line."""
    if is_line(surface):
        raise ValueError(
            "a line is no surface: expected at least two rows and two columns, see contour_figure"
        )


def _draw_surface(axes: Any, surface: xarray.Dataset, scale: Scale) -> Any:
    """The surface, a mesh line for each row and column of cells; returns what a colour bar needs."""
    alpha, beta = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    low, high = scale.limits
    mesh = {"rcount": alpha.shape[0], "ccount": alpha.shape[1], "edgecolor": "black", "linewidth": 0.15}
    height = scale.height(surface["loss"].values)
    colors = axes.plot_surface(alpha, beta, height, cmap=COLORS, vmin=low, vmax=high, **mesh)
    axes.set(zlim=(low, high))
    axes.set_xticks(np.linspace(alpha.min(), alpha.max(), 5))
    axes.set_yticks(np.linspace(beta.min(), beta.max(), 5))
    axes.view_init(elev=32, azim=-58)
    return colors


# -- in a browser

#: More scenes than that exhaust what browsers grant a page (16 WebGL contexts, with some to spare).
MOST_SCENES = 9

#: Gives the camera of the scene that was moved to all others. Its own change comes back as an event, too, but then
#: finds all cameras equal, and nothing is left to do: no loop.
LINK = """
const plot = document.getElementById("{plot_id}");
const scenes = () => Object.keys(plot.layout).filter(key => /^scene[0-9]*$/.test(key));
plot.on("plotly_relayout", change => {
  const moved = Object.keys(change).map(key => key.match(/^(scene[0-9]*)[.]camera/)).find(found => found);
  if (!moved) return;
  const camera = plot.layout[moved[1]].camera, text = JSON.stringify(camera);
  const others = scenes().filter(scene => JSON.stringify(plot.layout[scene].camera) !== text);
  const update = others.map(scene => [scene + ".camera", JSON.parse(text)]);
  if (update.length) Plotly.relayout(plot, Object.fromEntries(update));
});
"""

#: Without WebGL (a remote desktop, a hardened browser) plotly draws nothing: the still picture takes the plot's place.
STILL = """
const canvas = document.createElement("canvas");
if (!canvas.getContext("webgl") && !canvas.getContext("webgl2")) {{
  const image = new Image();
  image.src = "data:image/png;base64,{png}";
  image.alt = "The loss surface, still: this browser has no WebGL";
  image.style.maxWidth = "100%";
  document.getElementById("{{plot_id}}").replaceWith(image);
}}
"""

_EYE = {"x": 1.2, "y": -1.6, "z": 0.9}
_FARTHER = 1.35  # in the narrower scenes of several surfaces


def figure_3d(surface: xarray.Dataset, title: str = "", scale: Scale | None = None) -> go.Figure:
    """An interactive surface; pointing at a cell shows its loss and accuracy.

    Args:
        surface: as :func:`gruland.landscape.load_surface` gives it; cells that are not finite are holes.
        title: the model's name.
        scale: shared with other pictures; the surface's own where None.

    Raises:
        ValueError: the surface is a line, or no loss is finite.
    """
    import plotly.graph_objects as go

    check_plane(surface)
    scale = scale or Scale.of(surface)
    text = {"text": heading(surface, title).replace("\n", "<br>"), "font": {"size": 14}}
    layout = {
        "title": text,
        "scene": _scene(scale),
        "margin": {"l": 0, "r": 0, "b": 0, "t": 60},
    }
    return go.Figure(_trace(surface, scale, **_colors(scale)), layout)


def linked_surfaces(surfaces: Surfaces, title: str = "") -> go.Figure:
    """2 to 9 interactive surfaces side by side on one height axis and one colour scale.

    In the page that :func:`gruland.landscape.write` makes of it, turning one surface turns all.

    Args:
        surfaces: by title, all over the same extent.
        title: above them.

    Raises:
        ValueError: fewer than 2 or more than 9, or two differ in extent or unit.
    """
    from plotly.subplots import make_subplots

    pairs = titled(surfaces)
    if not 2 <= len(pairs) <= MOST_SCENES:
        raise ValueError(f"{len(pairs)} surfaces: expected 2 to {MOST_SCENES} to link")
    scale = Scale.of(*(surface for _, surface in pairs))
    wide = math.ceil(math.sqrt(len(pairs))) if len(pairs) > 3 else len(pairs)
    rows = math.ceil(len(pairs) / wide)
    figure = make_subplots(
        rows, wide, specs=[[{"type": "scene"}] * wide] * rows, subplot_titles=[name for name, _ in pairs],
        horizontal_spacing=0.01, vertical_spacing=0.05,
    )  # fmt: skip
    for index, (_, surface) in enumerate(pairs):
        figure.add_trace(_trace(surface, scale, coloraxis="coloraxis"), index // wide + 1, index % wide + 1)
    figure.update_scenes(_scene(scale, _FARTHER))
    figure.update_layout(
        title={"text": title} if title else None,
        coloraxis=_colors(scale),
        margin={"l": 0, "r": 0, "b": 0, "t": 60 if title else 30},
    )
    return figure


def _trace(surface: xarray.Dataset, scale: Scale, **colors: Any) -> go.Surface:
    import plotly.graph_objects as go

    measures = [surface[name].values for name in ("loss", "accuracy")]
    return go.Surface(
        x=surface["alpha"].values,
        y=surface["beta"].values,
        z=scale.height(surface["loss"].values),
        customdata=np.stack(measures, axis=-1),
        text=certainty(surface),
        hovertemplate="α %{x:.2f}, β %{y:.2f}<br>loss %{customdata[0]:.4g} %{text}"
        "<br>accuracy %{customdata[1]:.1%}<extra></extra>",
        # Little shading, so that a colour means the same everywhere.
        lighting={"ambient": 0.8, "diffuse": 0.4, "specular": 0.05},
        **colors,
    )


def _ticks(scale: Scale) -> dict[str, Any]:
    return {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}


def _colors(scale: Scale) -> dict[str, Any]:
    low, high = scale.limits
    return {
        "colorscale": COLORS,
        "cmin": low,
        "cmax": high,
        "colorbar": {"title": {"text": "loss"}, **_ticks(scale)},
    }


def _scene(scale: Scale, distance: float = 1.0) -> dict[str, Any]:
    eye = {name: distance * step for name, step in _EYE.items()}
    return {
        "xaxis": {"title": {"text": "α"}},
        "yaxis": {"title": {"text": "β"}},
        "zaxis": {"title": {"text": scale.label}, "range": list(scale.limits), **_ticks(scale)},
        "aspectratio": {"x": 1, "y": 1, "z": 0.75},
        "camera": {"eye": eye, "center": {"x": 0, "y": 0, "z": -0.12}},
    }
