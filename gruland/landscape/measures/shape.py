"""How smooth a surface is: its bending, what the locally best quadratic leaves over, where it is convex.

None of these depends on the loss of the unmoved model, nor on what is added to all losses.

R rows (beta), C columns (alpha).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gruland.landscape.measures.heights import axes, heights

if TYPE_CHECKING:
    import xarray


def roughness(surface: xarray.Dataset) -> float:
    """The root mean square bending of the loss, nats per squared unit of the directions.

    rho = sqrt(mean f_aa^2 + 2 mean f_ab^2 + mean f_bb^2) with second differences for the derivatives: the root of the
    thin-plate penalty per area (Green & Silverman 1994, "Nonparametric Regression and Generalized Linear Models",
    chapter 7), the root mean square Frobenius norm of the plane's Hessian. Where the loss is smooth it depends neither
    on the spacing of the grid nor on how the axes lie in the plane. A ripple of amplitude A and wave number k adds
    A^2 k^4 / 2 to its square. It is large for a smooth, narrow bowl, too: :func:`ripple` is not. On a line it is the
    root mean square of f_aa. Infinite where a cell is.

    Raises:
        ValueError: fewer than 3 cells on an axis, unevenly spaced ones, or an incomplete surface.
    """
    f, (h_b, h_a) = heights(surface), _spacings(surface, 3)
    if not np.isfinite(f).all():
        return math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(np.diff(f, 2, axis=1) / h_a**2).mean()
        if len(f) > 1:
            squares += np.square(np.diff(f, 2, axis=0) / h_b**2).mean()
            squares += 2 * np.square(np.diff(np.diff(f, axis=0), axis=1) / (h_a * h_b)).mean()
        return float(np.nan_to_num(np.sqrt(squares), nan=math.inf, posinf=math.inf))


def ripple(surface: xarray.Dataset, *, reach: float = 1 / 3) -> float:
    """What is left of the loss around each cell's locally best quadratic, as a share of all its variation; unit 1.

    q = rms(f - s) / sd(f), s the value at the cell of the least-squares quadratic in alpha and beta over the cells up
    to ``reach`` away along each axis, two at least (the quadratic smoother of Savitzky & Golay 1964, Analytical
    Chemistry 36(8), in two dimensions); the mean runs over the cells that have all of these neighbours, sd over all
    cells. 0 for every quadratic, however narrow, and for a plain; it grows with what changes within less than the
    reach, as wrinkles and cliffs do. Scaling the loss does not change it. Compare surfaces of the same spacing: the
    reach is one of whole cells. Infinite where a cell is.

    Args:
        surface: as :func:`gruland.landscape.compute_surface` gives it; on a line the quadratic is one in alpha.
        reach: in units of the directions, rounded to whole cells.

    Raises:
        ValueError: a reach that the surface does not hold, an uneven grid, or an incomplete surface.
    """
    f, steps = heights(surface), _spacings(surface, 5)
    if not 0 < reach < math.inf:
        raise ValueError(f"reach={reach}: expected a positive number")
    cells = [max(2, round(reach / h)) if size > 1 else 0 for size, h in zip(f.shape, steps, strict=True)]
    window = (2 * cells[0] + 1, 2 * cells[1] + 1)
    if any(wide > size for wide, size in zip(window, f.shape, strict=True)):
        raise ValueError(f"reach={reach}: {window} cells, expected no more than the surface's {f.shape}")
    if not np.isfinite(f).all():
        return math.inf
    f = f / (np.abs(f).max() or 1.0)  # so that no square overflows
    around = np.lib.stride_tricks.sliding_window_view(f, window)
    smooth = np.tensordot(around, _smoother(*cells), 2)
    inner = f[cells[0] : f.shape[0] - cells[0], cells[1] : f.shape[1] - cells[1]]
    spread = f.std()
    flat = spread <= 1e-12  # of the greatest loss: a plain but for rounding
    return 0.0 if flat else float(np.sqrt(np.square(inner - smooth).mean()) / spread)


def _smoother(rows: int, columns: int) -> np.ndarray:
    """Weights of the cells up to so far away in the value at the centre of their least-squares quadratic."""
    y, x = np.mgrid[-rows : rows + 1, -columns : columns + 1].reshape(2, -1)
    weights = np.linalg.pinv(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1).astype(float))[0]
    return weights.reshape(2 * rows + 1, 2 * columns + 1)


def convex_share(surface: xarray.Dataset) -> float:
    """The share of the inner cells in which the loss is convex; unit 1.

    A cell is convex where the matrix [[f_aa, f_ab], [f_ab, f_bb]] of central differences over its 3 x 3 neighbourhood
    is positive semidefinite to rounding, on a line where f_aa >= 0. That is convexity along the plane and at the
    grid's scale; Li et al. 2018 (section 6) map it with the extreme eigenvalues of the full Hessian. Next to a cell
    that is infinitely high nothing is convex.

    Raises:
        ValueError: fewer than 3 cells on an axis, unevenly spaced ones, or an incomplete surface.
    """
    f, (h_b, h_a) = heights(surface), _spacings(surface, 3)
    line = len(f) == 1
    with np.errstate(over="ignore", invalid="ignore"):
        f_aa = (np.diff(f, 2, axis=1) / h_a**2)[slice(None) if line else slice(1, -1)]
        if line:
            least = f_aa
        else:
            f_bb = (np.diff(f, 2, axis=0) / h_b**2)[:, 1:-1]
            f_ab = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * h_a * h_b)
            least = (f_aa + f_bb) / 2 - np.hypot((f_aa - f_bb) / 2, f_ab)  # the smaller eigenvalue
        around = np.lib.stride_tricks.sliding_window_view(f, (1 if line else 3, 3))
        size = np.abs(around).max((2, 3))
        rounding = 16 * np.finfo(float).eps * size / min(h_a, h_a if line else h_b) ** 2
        return float((np.isfinite(size) & (least >= -rounding)).mean())


def _spacings(surface: xarray.Dataset, least: int) -> tuple[float, float]:
    """Distances between rows and between columns (1 where there is one row); at least so many cells on an axis."""
    beta, alpha = axes(surface)
    if len(alpha) < least or 1 < len(beta) < least:
        raise ValueError(
            f"a surface of {len(beta)} x {len(alpha)} cells: expected at least {least} on an axis"
        )
    return float(beta[1] - beta[0]) if len(beta) > 1 else 1.0, float(alpha[1] - alpha[0])
