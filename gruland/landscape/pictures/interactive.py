"""Loss surfaces to turn with the mouse, one or several whose cameras move together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gruland.landscape.pictures.cells import certainty, heading, titled
from gruland.landscape.pictures.palette import COLORS
from gruland.landscape.pictures.scale import Scale
from gruland.landscape.pictures.surfaces import check_plane

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray

    from gruland.landscape.pictures.cells import Surfaces

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
