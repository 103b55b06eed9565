"""What the sampling of a surface leaves open about a measure of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gruland.stats import Interval

if TYPE_CHECKING:
    import xarray

#: What such an interval is over.
EXAMPLES = "examples"


def sampling_interval(
    measure: Callable[[xarray.Dataset], float], surface: xarray.Dataset, *, draws: int = 200, seed: int = 0
) -> Interval:
    """The 95% interval of a measure by the errors of the cells, which are correlated (parametric bootstrap).

    Surfaces are drawn from the estimated one with its ``modes``, and the measure is taken of each. The interval is the
    basic one, estimate +- quantiles of what the draws differ by (Davison & Hinkley 1997, "Bootstrap methods and their
    application", section 5.2). It says nothing about the interpolation (attribute ``interpolation_error``).

    Args:
        measure: from a surface to a number: ``lambda surface: flat_area(surface, 0.1)``.
        surface: of :func:`gruland.landscape.compute_surface` with a tolerance; one whose every cell was evaluated on
            every example has no such errors, and an interval of width 0.
        draws: how many.
        seed: of the draws.

    Raises:
        ValueError: fewer than 20 draws.
    """
    if draws < 20:
        raise ValueError(f"draws={draws}: expected at least 20")
    estimate = float(measure(surface))
    if "modes" not in surface or not surface.sizes["mode"]:
        return Interval(estimate, estimate, estimate, (EXAMPLES,))
    normal = np.random.default_rng(seed).standard_normal((draws, surface.sizes["mode"]))
    errors = np.tensordot(normal, surface["modes"].values, 1)
    found = [measure(surface.assign(loss=surface["loss"] + error)) for error in errors]
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(estimate, 2 * estimate - float(high), 2 * estimate - float(low), (EXAMPLES,))
