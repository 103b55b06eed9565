"""How certain a surface over a sample of the reviews is.

A cell's loss and the centre's are means over the same n reviews, out of N that there are; what is uncertain about
their difference is its paired difference d, review by review. The sample is stratified by label in the reviews' own
proportion, and far from the centre a model errs on one class alone, so that d varies far less within the classes than
over all: its variance is the mean squared distance to the class's own mean. With s for its root, the 95% interval of
the difference over all N reviews is +- 1.96 s / sqrt(n) sqrt(1 - n / N) (Cochran 1977, sections 2.6 and 5.3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray

_NORMAL = 1.96  # the 97.5% quantile of the normal distribution


def standard_error(values: np.ndarray, strata: np.ndarray | None = None) -> float:
    """The standard error of the mean of n values: s / sqrt(n).

    Args:
        values: [n].
        strata: [n] the stratum of each value, in which they were drawn in proportion to its size: s is then the
            pooled standard deviation within the strata, with n less their number in its denominator. None = one.

    Returns:
        NaN if there are no more values than strata, or if one is not finite.
    """
    if strata is None:
        strata = np.zeros(len(values), dtype=np.int64)
    sizes = np.bincount(strata)
    freedom = len(values) - np.count_nonzero(sizes)
    if freedom < 1 or not np.isfinite(values).all():
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.bincount(strata, values) / np.maximum(sizes, 1)
        return math.sqrt(float(((values - means[strata]) ** 2).sum()) / freedom / len(values))


def achieved_tolerance(surface: xarray.Dataset, reviews: int, available: int) -> float | None:
    """Half the width of the widest 95% interval of a difference to the centre, as a share of the range of the loss.

    It bounds each difference by itself with 95% confidence, not all of them at once: of a whole surface some difference
    lies outside more often. Over the evaluated cells whose loss is finite; None where there is no range or no standard
    error.
    """
    loss, error = surface["loss"].values, surface["difference_se"].values
    finite = np.isfinite(loss) & np.isfinite(error)
    spread = float(np.ptp(loss[finite])) if finite.any() else 0.0
    if spread <= 0:
        return None
    return _NORMAL * float(error[finite].max()) * math.sqrt(1 - reviews / available) / spread
