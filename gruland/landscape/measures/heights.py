"""A surface's loss as the measures read it: heights on an evenly spaced grid, and between its points.

R rows (beta), C columns (alpha); r, c points between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray

_HUGE = 1e100  # beyond it slopes would overflow


def heights(surface: xarray.Dataset) -> np.ndarray:
    """The losses [R, C], nats; one that is NaN or infinite is infinitely high.

    Raises:
        ValueError: the surface is not complete.
    """
    missing = int((~surface["done"].values).sum()) if "done" in surface else 0
    if missing:
        raise ValueError(
            f"{missing} of {surface['loss'].size} cells are not computed: complete the surface first"
        )
    loss = surface["loss"].values.astype(np.float64)
    return np.where(np.isfinite(loss), loss, np.inf)


def excess_loss(surface: xarray.Dataset) -> np.ndarray:
    """``heights`` above the unmoved model's loss [R, C], nats.

    That is the attribute ``origin_loss``; where it is not known (NaN) the cell at alpha = beta = 0.

    Raises:
        ValueError: neither is there, or it is not finite; the surface is not complete.
    """
    above, origin = heights(surface), float(surface.attrs.get("origin_loss", np.nan))
    if np.isnan(origin):
        centre = (surface["beta"].values[:, None] == 0) & (surface["alpha"].values == 0)
        if not centre.any():
            raise ValueError("the surface has neither an origin_loss nor a cell at alpha = beta = 0")
        origin = float(surface["loss"].values[centre][0])
    if not np.isfinite(origin):
        raise ValueError(f"the unmoved model's loss is {origin}: expected a number to measure from")
    return above - origin


def axes(surface: xarray.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates beta [R] and alpha [C]. Raises ValueError where they are not rising and evenly spaced."""
    beta, alpha = (surface[name].values.astype(np.float64) for name in ("beta", "alpha"))
    for name, axis in (("beta", beta), ("alpha", alpha)):
        steps = np.diff(axis)
        if (steps <= 0).any() or not np.allclose(steps, steps[:1], rtol=1e-6, atol=0):
            raise ValueError(
                f"the surface's {name} is {axis.tolist()}: expected rising, evenly spaced values"
            )
    return beta, alpha


def between(
    values: np.ndarray, axes: tuple[np.ndarray, np.ndarray], points: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Interpolate ``values`` [R, C] at the product of the points' beta [r] and alpha [c]: [r, c].

    By Akima's piecewise cubics (Akima 1970, "A new method of interpolation and smooth curve fitting based on local
    procedures", Journal of the ACM 17(4)) along one axis after the other, the mean of both orders. They give quadratics
    exactly and, unlike a spline, do not swing below the plain beside a cliff. In a cell with an infinite corner the
    result is infinite. An axis of one value is constant.
    """
    finite = np.isfinite(values)
    filled = np.where(finite, values, values[finite].max() if finite.any() else 0.0).clip(-_HUGE, _HUGE)
    smooth = (_product(filled, axes, points) + _product(filled.T, axes[::-1], points[::-1]).T) / 2
    return np.where(np.isinf(_highest_corner(values, axes, points)), np.inf, smooth)


def _product(values: np.ndarray, axes: tuple[np.ndarray, ...], points: tuple[np.ndarray, ...]) -> np.ndarray:
    from scipy.interpolate import Akima1DInterpolator

    for axis, new in zip(axes, points, strict=True):
        single = len(axis) == 1
        values = values.repeat(len(new), 0) if single else Akima1DInterpolator(axis, values)(new)
        values = values.T  # the other axis comes to the front
    return values


def _highest_corner(
    values: np.ndarray, axes: tuple[np.ndarray, ...], points: tuple[np.ndarray, ...]
) -> np.ndarray:
    """The greatest value at the corners of the cells in which the points lie; on a grid line those on it."""
    for axis, new in zip(axes, points, strict=True):
        below, above = np.searchsorted(axis, new, "right") - 1, np.searchsorted(axis, new, "left")
        values = np.maximum(values[below], values[above]).T
    return values
