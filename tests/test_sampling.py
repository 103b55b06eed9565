"""Intervals and tests over reviews, against statsmodels, tables and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from gruland import sampling
from gruland.stats import sign_flip


def test_a_share_has_wilsons_interval() -> None:
    found = sampling.mean([1] * 130 + [0] * 70)
    assert found.estimate == 0.65
    assert (found.low, found.high) == pytest.approx(proportion_confint(130, 200, method="wilson"))
    # 200 reviews leave a share of one half uncertain by 6.9 points.
    assert sampling.mean([1, 0] * 100).width / 2 == pytest.approx(0.0686, abs=5e-4)


def test_a_mean_of_other_values_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    found = [sampling.mean(random.normal(2, 3, 60)) for _ in range(100)]
    assert 0.88 <= np.mean([interval.low <= 2 <= interval.high for interval in found]) <= 0.99


def test_a_ratio_counts_the_wholes_alone() -> None:
    parts, wholes = [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]
    found = sampling.ratio(parts, wholes)
    assert found is not None
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (2 / 3, *proportion_confint(2, 3, method="wilson"))
    )
    assert sampling.ratio([0, 0], [0, 0]) is None
    shares = sampling.ratio([0.5, 0.25], [1, 0.5])
    assert shares is not None
    assert (shares.estimate, shares.low, shares.high) == (0.5, 0.5, 0.5)


def test_the_median_lies_between_the_order_statistics_of_the_table() -> None:
    # Conover 1999, "Practical nonparametric statistics", table A3: n = 10, p = 1/2, 95%: the 2nd and the 9th.
    found = sampling.median(np.arange(10) * 10)
    assert (found.estimate, found.low, found.high) == (45, 10, 80)
    assert sampling.median([7]).low == sampling.median([7]).high == 7


@pytest.mark.parametrize("offset", [0.0, 0.15])
def test_the_calibration_error_covers_the_true_one(offset: float) -> None:
    random, covered = np.random.default_rng(1), []
    for _ in range(25):
        confidence = random.uniform(0.5, 1, 300)
        right = random.random(300) < confidence - offset
        found = sampling.calibration_error(confidence, right)
        covered.append(found.low <= offset <= found.high)
    assert np.mean(covered) >= 0.8


def test_the_calibration_error_of_one_bin_and_of_several_labels() -> None:
    assert sampling.calibration_error([0.9] * 10, [1] * 7 + [0] * 3).estimate == pytest.approx(0.2)
    both = sampling.calibration_error([[0.9, 0.6]] * 10, [[1, 0]] * 7 + [[0, 0]] * 3)
    assert both.estimate == pytest.approx((0.2 + 0.6) / 2)


def test_two_models_on_the_same_reviews_are_compared_by_mcnemars_exact_test() -> None:
    a = np.array([1] * 12 + [0] * 3 + [1] * 20 + [0] * 5)
    b = np.array([0] * 12 + [1] * 3 + [1] * 20 + [0] * 5)
    found = sampling.compare(a, b)
    assert found.interval.estimate == pytest.approx(9 / 40)
    assert found.p == pytest.approx(mcnemar([[20, 12], [3, 5]], exact=True).pvalue)
    assert sampling.compare(a, a).p == 1
    shares = a * 0.5
    assert sampling.compare(shares, b).p == float(sign_flip(shares - b))
    with pytest.raises(ValueError, match="the same ones of both"):
        sampling.compare(a, b[1:])


def test_plain_data_have_no_infinity() -> None:
    one = sampling.mean([0.3])
    assert one.low == -math.inf
    assert sampling.plain(one, reviews=1) == {"estimate": 0.3, "low": None, "high": None, "reviews": 1}
    assert sampling.plain(None) is None
    with pytest.raises(ValueError, match="at least one number a review"):
        sampling.mean([])
