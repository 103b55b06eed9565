"""Figures to files: whole or absent, and the same bytes for the same input."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gruland.files import atomic_path
from gruland.landscape.pictures.contours import contour_figure
from gruland.landscape.pictures.reading import is_line
from gruland.landscape.pictures.scale import Scale
from gruland.landscape.pictures.surfaces import LINK, STILL, figure_3d, surface_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray
    from matplotlib.figure import Figure

#: The files that :func:`write_pictures` makes of a surface.
PICTURES = ("contour.png", "contour.pdf", "surface.png", "surface.pdf", "surface.html")

#: A format's date is the only thing in it that differs from one time to the next.
_METADATA: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
_DPI = {"png": 200, "pdf": 300, "svg": 300}


def write(
    figure: Figure | go.Figure,
    path: str | Path,
    formats: Sequence[str] | None = None,
    *,
    still: Path | None = None,
) -> list[Path]:
    """Write a figure, each file atomically; the same figure gives the same bytes.

    Text stays text in a PDF (TrueType fonts, embedded). A page holds plotly (5 MB), opens without a network, and
    the cameras of its surfaces move together.

    Args:
        figure: of matplotlib or plotly.
        path: without a suffix, which each format adds.
        formats: of png, pdf and svg for a figure of matplotlib (None: png and pdf), html for one of plotly.
        still: a PNG that a page shows in a browser without WebGL.

    Returns:
        The files written.

    Raises:
        ValueError: another format.
    """
    known: Sequence[str] = ("html",) if hasattr(figure, "write_html") else tuple(_METADATA)
    chosen = known[:2] if formats is None else [formats] if isinstance(formats, str) else formats
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"format {unknown[0]!r}: expected of {', '.join(known)}")
    path = Path(path)
    files = [path.with_name(f"{path.name}.{name}") for name in chosen]
    for file, name in zip(files, chosen, strict=True):
        with atomic_path(file) as temporary:
            _save(figure, temporary, name, still)
    return files


def _save(figure: Any, path: Path, name: str, still: Path | None) -> None:
    if name == "html":
        scripts = [LINK, *([STILL.format(png=b64encode(still.read_bytes()).decode())] if still else [])]
        figure.write_html(path, include_plotlyjs=True, div_id="landscape", post_script=scripts)
        return
    import matplotlib

    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for all formats
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": path.suffix}):
        figure.savefig(path, format=name, dpi=_DPI[name], metadata=_METADATA[name])


def write_pictures(surface: xarray.Dataset, folder: str | Path, title: str = "") -> None:
    """Write contour and surface as PNG and PDF, and surface.html (interactive, 5 MB); of a line the contour alone.

    Raises:
        ValueError: no loss is finite.
    """
    scale, folder = Scale.of(surface), Path(folder)
    write(contour_figure(surface, title, scale), folder / "contour")
    if not is_line(surface):
        png, _ = write(surface_figure(surface, title, scale), folder / "surface")
        write(figure_3d(surface, title, scale), folder / "surface", still=png)
