"""What pictures read from a loss surface: its origin, its least cell, its axes' names, how it was made."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

    Surfaces = Mapping[str, xarray.Dataset] | Sequence[tuple[str, xarray.Dataset]]

_SYMBOLS = {"alpha": "α", "beta": "β"}
_ORDINALS = {"alpha": "first", "beta": "second"}


def minimum(surface: xarray.Dataset) -> tuple[float, float]:
    """(alpha, beta) of the least finite loss; the cell nearest to the centre where several have it."""
    loss = np.where(np.isfinite(surface["loss"].values), surface["loss"].values, np.inf)
    rows, columns = np.nonzero(loss == loss.min())
    alpha, beta = surface["alpha"].values[columns], surface["beta"].values[rows]
    nearest = int(np.argmin(alpha**2 + beta**2))
    return float(alpha[nearest]), float(beta[nearest])


def origin_loss(surface: xarray.Dataset) -> float:
    """The loss of the weights at alpha = beta = 0, in nats: the attribute ``origin_loss``, else that cell's.

    Raises:
        ValueError: the surface has neither.
    """
    known = float(surface.attrs.get("origin_loss", math.nan))
    if not math.isnan(known):  # NaN where it is still to be evaluated
        return known
    if 0 in surface["alpha"].values and 0 in surface["beta"].values:
        return float(surface["loss"].sel(alpha=0, beta=0))
    raise ValueError("the surface has neither an attribute origin_loss nor a cell at alpha = beta = 0")


def is_line(surface: xarray.Dataset) -> bool:
    """Whether the surface has one row or one column of cells only."""
    return 1 in surface["loss"].shape


def axis_label(surface: xarray.Dataset, name: str) -> str:
    """What to write beside the axis ``alpha`` or ``beta``: the direction and the unit of a step along it."""
    direction = (
        surface[name].attrs.get("long_name", f"{_ORDINALS[name]} direction").removeprefix("step along the ")
    )
    unit = step_unit(surface, name)
    label = f"{_SYMBOLS[name]}: {direction}{f' ({unit})' if unit and unit != '1' else ''}"
    return textwrap.fill(label, 48)


def step_unit(surface: xarray.Dataset, name: str = "alpha") -> str:
    """The unit of a step, "" where the surface does not say."""
    normalization = surface.attrs.get("normalization")
    return surface[name].attrs.get("units") or (f"{normalization}-normalized radius" if normalization else "")


def heading(surface: xarray.Dataset, title: str) -> str:
    """The model's name, then how the surface was made and how many cells are interpolated or not finite."""
    about, interpolated = surface.attrs, int(surface["interpolated"].sum())
    size, done = surface["loss"].size, int(surface["done"].sum())
    lost = done - int((np.isfinite(surface["loss"]) & surface["done"]).sum())
    parts = [
        f"{about['normalization']}-normalized directions" if "normalization" in about else "",
        about.get("examples", ""),
        f"{interpolated:,} of {size:,} cells interpolated" if interpolated else "",
        f"{size - done:,} of {size:,} cells not computed" if done < size else "",
        f"{lost} cells not finite" if lost else "",
    ]
    whole = ", ".join(part.replace(" ", "\u00a0") for part in parts if part)  # breaks between parts only
    made = textwrap.fill(whole, 82).replace("\u00a0", " ")
    return "\n".join(line for line in (title, made) if line)


def named_points(surface: xarray.Dataset) -> dict[str, tuple[float, float]]:
    """(alpha, beta) of the weights that the plane was made from, by name; a trajectory's are drawn as a path."""
    plane = surface.attrs.get("plane", {})
    points = {} if plane.get("kind") == "trajectory" else plane.get("points", {})
    return {name: (float(alpha), float(beta)) for name, (alpha, beta) in points.items()}


def certainty(surface: xarray.Dataset) -> np.ndarray:
    """What stands behind each cell's loss: its standard error, or that it is interpolated."""
    cells = zip(surface["loss_se"].values.flat, surface["interpolated"].values.flat, strict=True)
    texts = ["(interpolated)" if interpolated else f"± {error:.2g}" for error, interpolated in cells]
    return np.reshape(texts, surface["loss"].shape)


def titled(surfaces: Surfaces) -> list[tuple[str, xarray.Dataset]]:
    """(title, surface) of each, all of them planes over one radius in one unit.

    Raises:
        ValueError: there is none, one is a line, or two differ in extent or unit.
    """
    pairs = list(surfaces.items() if isinstance(surfaces, Mapping) else surfaces)
    if not pairs:
        raise ValueError("there is no surface to draw")
    (first, reference), *_ = pairs
    for title, surface in pairs:
        if is_line(surface):
            raise ValueError(f"{title!r} is a line: expected surfaces, see gruland.landscape.bands for lines")
        for name in ("alpha", "beta"):
            if not np.allclose(_ends(surface, name), _ends(reference, name)):
                raise ValueError(
                    f"{title!r} spans {name} {_span(surface, name)} and {first!r} {_span(reference, name)}: "
                    f"expected one extent, crop with surface.sel({name}=slice(low, high))"
                )
            if step_unit(surface, name) != step_unit(reference, name):
                raise ValueError(
                    f"{name} of {title!r} is in {step_unit(surface, name)!r}, of {first!r} in "
                    f"{step_unit(reference, name)!r}: expected one unit"
                )
    return pairs


def _ends(surface: xarray.Dataset, name: str) -> tuple[float, float]:
    return float(surface[name].min()), float(surface[name].max())


def _span(surface: xarray.Dataset, name: str) -> str:
    return "{:g} to {:g}".format(*_ends(surface, name))


def columns(table: Any, *names: str) -> list[np.ndarray]:
    """The columns of a table (data frame, data set, or mapping of arrays).

    Raises:
        ValueError: one is missing, or they differ in length.
    """
    try:
        found = [np.asarray(table[name]) for name in names]
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"expected a table with the columns {', '.join(names)}, got {_outline(table)}"
        ) from None
    lengths = {len(column) if column.ndim == 1 else -1 for column in found}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(f"the columns {', '.join(names)} of the table differ in length")
    return found


def _outline(table: Any) -> str:
    keys: Iterable[Any] = table.keys() if hasattr(table, "keys") else ()
    return ", ".join(map(str, keys)) or type(table).__name__
