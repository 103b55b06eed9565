"""How much of a plane lies low, and how far the loss rises at a distance.

Distances are in units of the directions: with filter-normalized ones, radius 1 moves every row of the weights by its
own length (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gruland.landscape.measures.heights import axes, between, excess_loss

if TYPE_CHECKING:
    import xarray

_POINTS = 400  # on each side at which the surface is sampled, at least
_ANGLES = 360


def flat_area(surface: xarray.Dataset, threshold: float = 0.1, *, radius: float | None = None) -> float:
    """The share of the plane in which the loss is at most ``threshold`` nats above the unmoved model's.

    F(t) = area{(alpha, beta): L(alpha, beta) - L(0, 0) <= t} / area of the plane, or of its disc
    alpha^2 + beta^2 <= radius^2. Its unit is 1. Between the grid's points L is interpolated by piecewise cubics, exact
    for quadratics (:func:`gruland.landscape.measures.heights.between`), and counted at 400 x 400 points: a count of
    the grid's own points would be off by several percent on 13 x 13. The quantity that a caption such as "dropout
    increases the area having minimum loss" speaks of; t = 0.1 and the disc are conventions, hence the curve.

    Args:
        surface: as :func:`gruland.landscape.compute_surface` gives it; of a line it is the share of its length.
        threshold: t, nats.
        radius: None for the whole plane; planes of different extents are comparable on the same disc alone.

    Raises:
        ValueError: a threshold that is no number, a disc that the surface does not hold, an incomplete surface.
    """
    return float(flat_area_curve(surface, [threshold], radius=radius)[0])


def flat_area_curve(
    surface: xarray.Dataset, thresholds: ArrayLike, *, radius: float | None = None
) -> np.ndarray:
    """:func:`flat_area` at each of the thresholds [X]: the distribution function of the excess loss."""
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim != 1 or np.isnan(limits).any():
        raise ValueError(f"thresholds {limits.tolist()}: expected a list of losses in nats")
    samples = np.sort(_samples(surface, radius))
    return np.searchsorted(samples, limits, side="right") / len(samples)


def loss_gap(surface: xarray.Dataset, radius: float = 1.0) -> float:
    """The mean excess loss at a distance ``radius`` from the unmoved model, nats.

    G(r) = 1 / (2 pi) integral of L(r cos u, r sin u) - L(0, 0) du, on a line the mean of its two points; infinite where
    the circle meets a cell that is. For a quadratic with curvatures a and b along the axes G = r^2 (a + b) / 4; its
    mean over random planes is r^2 / 2 times the expectation of d^T H d over random directions d, a trace of the Hessian
    H in filter-normalized units, but G sees the loss itself and not its quadratic. L is interpolated as in
    :func:`flat_area`.

    Raises:
        ValueError: the surface does not reach that far in every direction, or is incomplete.
    """
    beta, alpha = axes(surface)
    _check_radius(radius, beta, alpha)
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES) if len(beta) > 1 else np.array([0, np.pi])
    points = ((radius * np.sin(angles)).clip(*beta[[0, -1]]), (radius * np.cos(angles)).clip(*alpha[[0, -1]]))
    return float(np.diagonal(between(excess_loss(surface), (beta, alpha), points)).mean())


def _samples(surface: xarray.Dataset, radius: float | None) -> np.ndarray:
    """The excess loss at points that each stand for the same area."""
    beta, alpha = axes(surface)
    points = (_midpoints(beta), _midpoints(alpha))
    samples = between(excess_loss(surface), (beta, alpha), points)
    if radius is None:
        return samples.ravel()
    _check_radius(radius, beta, alpha)
    return samples[points[0][:, None] ** 2 + points[1] ** 2 <= radius**2]


def _midpoints(axis: np.ndarray) -> np.ndarray:
    """The midpoints of equal parts of each interval."""
    if len(axis) == 1:
        return axis
    parts = (len(axis) - 1) * math.ceil(_POINTS / (len(axis) - 1))
    return axis[0] + (np.arange(parts) + 0.5) * (axis[-1] - axis[0]) / parts


def _check_radius(radius: float, beta: np.ndarray, alpha: np.ndarray) -> None:
    across = (-beta[0], beta[-1]) if len(beta) > 1 else ()  # a line has but one axis
    reach = float(min(-alpha[0], alpha[-1], *across))
    if not 0 < radius <= reach * (1 + 1e-9):
        raise ValueError(
            f"radius={radius}: expected a positive number up to {reach:g}, which the surface reaches on every side"
        )
