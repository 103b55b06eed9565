"""Intervals and tests over reviews: what a sample of them says of one trained model, or of two on the same reviews.

Each interval is about other reviews of the same kind, with the model as it was trained; :mod:`gruland.stats` has those
over trainings. Its ``over`` is ``("reviews",)``.

N reviews, X columns, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from gruland.stats import Difference, Interval, sign_flip

REVIEWS = "reviews"
CONFIDENCE = 0.95
#: Resamples of a bootstrap, and the seed that all of them share.
RESAMPLES, SEED = 1000, 0
#: Bins of equal width of the calibration error.
BINS = 15


def mean(values: ArrayLike) -> Interval:
    """The mean of N values: Wilson's interval (1927) where each is 0 or 1, else the bootstrap's percentiles.

    Raises:
        ValueError: no value.
    """
    values_N = _checked(values)
    if np.isin(values_N, (0, 1)).all():
        return _wilson(int(values_N.sum()), len(values_N))
    return _bootstrap(values_N[:, None], lambda means_RX: means_RX[:, 0])


def ratio(parts: ArrayLike, wholes: ArrayLike) -> Interval | None:
    """The sum of the parts over that of the wholes, e.g. of successes over correct reviews; None where these sum to 0.

    Wilson's interval where every review is a part, a rest or nothing; else the bootstrap's percentiles.
    """
    parts_N, wholes_N = _checked(parts), _checked(wholes)
    if not wholes_N.sum():
        return None
    if np.isin(parts_N, (0, 1)).all() and np.isin(wholes_N, (0, 1)).all():
        return _wilson(int(parts_N.sum()), int(wholes_N.sum()))
    columns_NX = np.stack([parts_N, wholes_N], 1)
    with np.errstate(invalid="ignore"):
        return _bootstrap(columns_NX, lambda means_RX: means_RX[:, 0] / means_RX[:, 1])


def median(values: ArrayLike) -> Interval:
    """The median of N values, between the order statistics that hold it with a chance of at least 95%.

    Source: David & Nagaraja 2003, "Order Statistics", section 7.1. Too few values end at the least and the greatest.
    """
    from scipy.stats import binom

    ordered = np.sort(_checked(values))
    rank = max(1, int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5)))
    return Interval(float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank]), (REVIEWS,))


def calibration_error(confidences: ArrayLike, rights: ArrayLike) -> Interval:
    """The expected calibration error: how far confidence and accuracy lie apart, on average over bins of confidence.

    Guo et al. 2017, "On calibration of modern neural networks", equation 3, with 15 bins. Noise has no sign there: on
    few reviews it lies above the model's own, and a resample's lies above it once more. So the interval is the basic
    bootstrap's, which is reflected, and it begins at zero where a perfectly calibrated model would often show as much
    (consistency resampling: Bröcker & Smith 2007, "Increasing the reliability of reliability diagrams"). It is
    approximate: of calibrated and overconfident models it held the true error in 83 to 90% of draws of 200 reviews, in
    92% of 1,000.

    Args:
        confidences: [N] or [N, C], of the predicted label, or of each label's prediction.
        rights: the same shape, 1 where the prediction is right.
    """
    found_NC = [np.asarray(values, dtype=np.float64) for values in (confidences, rights)]
    confidences_NC, rights_NC = (values.reshape(len(values), -1) for values in found_NC)
    N, C = confidences_NC.shape
    bins_NC = np.clip(np.ceil(confidences_NC * BINS) - 1, 0, BINS - 1)
    belongs_NCX = bins_NC[..., None] == np.arange(BINS)
    gaps_NX = ((confidences_NC - rights_NC)[..., None] * belongs_NCX).sum(1) / C
    found = _bootstrap(gaps_NX, lambda means_RX: np.abs(means_RX).sum(1))
    if N < 2:
        return found
    low, high = (max(0.0, 2 * found.estimate - end) for end in (found.high, found.low))
    high = max(high, found.estimate)
    random, calibrated = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES // 5):
        gaps_NC = confidences_NC - (random.random((N, C)) < confidences_NC)
        calibrated.append(np.abs((gaps_NC[..., None] * belongs_NCX).sum((0, 1))).sum() / (N * C))
    often = found.estimate <= np.quantile(calibrated, CONFIDENCE)
    return Interval(found.estimate, 0.0 if often else low, high, (REVIEWS,))


def compare(a: ArrayLike, b: ArrayLike) -> Difference:
    """The mean of a less that of b on the same N reviews, with an exact test that nothing tells the two apart.

    The test is McNemar's (1947) where every value is 0 or 1, which asks the reviews alone on which the two differ; else
    it flips the signs of the reviews' differences (:func:`gruland.stats.sign_flip`). Both are about these two trained
    models, whatever else their kinds may train.

    Returns:
        ``trainings`` of it is 1: p is over reviews.

    Raises:
        ValueError: different numbers of reviews, or fewer than two.
    """
    a_N, b_N = _checked(a), _checked(b)
    if len(a_N) != len(b_N) or len(a_N) < 2:
        raise ValueError(f"{len(a_N)} and {len(b_N)} reviews: expected the same ones of both, at least two")
    interval = _bootstrap((a_N - b_N)[:, None], lambda means_RX: means_RX[:, 0])
    if np.isin(a_N, (0, 1)).all() and np.isin(b_N, (0, 1)).all():
        from scipy.stats import binomtest

        wins, losses = int((a_N > b_N).sum()), int((a_N < b_N).sum())
        p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    else:
        p = sign_flip(a_N - b_N)
    return Difference(interval, 1, float(p))


def plain(interval: Interval | None, **more: object) -> dict[str, object] | None:
    """An interval for results.json; its ends are null where nothing is known of them."""
    if interval is None:
        return None
    ends = {end: value if math.isfinite(value) else None for end, value in _ends(interval).items()}
    return {"estimate": interval.estimate, **ends, **more}


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}


def _wilson(count: int, of: int) -> Interval:
    from scipy.stats import binomtest

    ends = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(count / of, float(ends.low), float(ends.high), (REVIEWS,))


def _bootstrap(columns_NX: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """The percentile interval of a function of the columns' means (Efron & Tibshirani 1993, chapter 13).

    Args:
        statistic: from means [R, X] to values [R].
    """
    N = len(columns_NX)
    estimate = float(statistic(columns_NX.mean(0, keepdims=True))[0])
    if N < 2:
        return Interval(estimate, -math.inf, math.inf, ())
    # How often a resample has each review: a product with the columns gives all its means. 100 resamples at a time.
    random, shares = np.random.default_rng(SEED), np.full(N, 1 / N)
    blocks = [random.multinomial(N, shares, 100) @ columns_NX / N for _ in range(RESAMPLES // 100)]
    values_R = statistic(np.concatenate(blocks))
    low, high = np.nanquantile(values_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(estimate, float(low), float(high), (REVIEWS,))


def _checked(values: ArrayLike) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"values of shape {list(found.shape)}: expected at least one number a review")
    return found
