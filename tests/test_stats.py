"""Intervals against textbook loops, scipy, and their coverage in simulations of crossed random effects."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gruland.stats import (
    Difference,
    Interval,
    compare,
    crossed_band,
    crossed_interval,
    holm,
    least_p,
    paired_band,
    paired_difference,
    sign_flip,
    trainings_needed,
)

S, D, TRIALS = 3, 10, 4000

#: Variances of seeds, directions and interaction.
RATIOS = {
    "seeds": (1, 0, 0),
    "directions": (0, 1, 0),
    "interaction": (0, 0, 1),
    "equal": (1, 1, 1),
    "few seeds": (0.1, 1, 0.3),
    "many seeds": (1, 0.1, 0.3),
    "no directions": (0.2, 0, 1),
    "no seeds": (0, 0.3, 1),
}


def crossed(rng, seeds, directions, interaction, shape=(S, D), trials=TRIALS):
    """Random effects [S, D, trials] about 0."""
    rows, columns = shape
    return (
        math.sqrt(seeds) * rng.normal(size=(rows, 1, trials))
        + math.sqrt(directions) * rng.normal(size=(1, columns, trials))
        + math.sqrt(interaction) * rng.normal(size=(rows, columns, trials))
    )


def holds(interval, value):
    """Whether a value lies inside, of a band at each point."""
    return (interval.low <= value) & (value <= interval.high)


@pytest.mark.parametrize("variances", RATIOS.values(), ids=RATIOS)
def test_crossed_intervals_cover_the_mean_and_are_not_absurdly_wide(variances):
    band = crossed_band(crossed(np.random.default_rng(0), *variances))
    covered = holds(band, 0).mean()
    assert covered >= 0.935
    # Beside the interval of someone who knows the three variances.
    known = 1.96 * math.sqrt(variances[0] / S + variances[1] / D + variances[2] / (S * D))
    assert ((band.high - band.low) / 2).mean() < 2.2 * known
    # t with two degrees of freedom, for the seeds as for the directions, is twice as wide where directions dominate.
    if variances == RATIOS["directions"]:
        assert ((band.high - band.low) / 2).mean() < 1.2 * known


def test_bootstrapping_three_seeds_covers_far_too_seldom():
    rng = np.random.default_rng(1)
    values = crossed(rng, 1, 0.1, 0.1, trials=400)
    rows, columns = rng.integers(0, S, (300, S)), rng.integers(0, D, (300, D))
    means = np.stack([values[row][:, column].mean((0, 1)) for row, column in zip(rows, columns, strict=True)])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    assert ((low <= 0) & (high >= 0)).mean() < 0.82
    assert holds(crossed_band(values), 0).mean() > 0.93


def mean_squares(values):
    """Of seeds, directions and interaction, as a textbook's table has them."""
    rows, columns = len(values), len(values[0])
    mean = sum(map(sum, values)) / (rows * columns)
    by_row = [sum(row) / columns for row in values]
    by_column = [sum(row[d] for row in values) / rows for d in range(columns)]
    of_rows = columns * sum((m - mean) ** 2 for m in by_row) / (rows - 1)
    of_columns = rows * sum((m - mean) ** 2 for m in by_column) / (columns - 1)
    rest = sum(
        (values[s][d] - by_row[s] - by_column[d] + mean) ** 2 for s in range(rows) for d in range(columns)
    )
    return of_rows, of_columns, rest / ((rows - 1) * (columns - 1))


@pytest.mark.parametrize("confidence", [0.95, 0.8])
@pytest.mark.parametrize("variances", [(1, 1, 0.1), (0.0, 0.0, 1.0)])
def test_crossed_interval_against_the_analysis_of_variance(variances, confidence):
    values = crossed(np.random.default_rng(5), *variances, shape=(4, 7), trials=1)[..., 0] + 3
    A, B, E = mean_squares(values.tolist())
    t_seeds, t_directions = (scipy_stats.t.ppf((1 + confidence) / 2, freedom) for freedom in (3, 6))
    variance = max(A + B - E, A, B) / 28
    half = (t_seeds * A + t_directions * B) / (A + B) * math.sqrt(variance)
    interval = crossed_interval(values, confidence=confidence)
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert interval.over == ("seeds", "directions")


def test_the_pigeonhole_bootstrap_s_variance_in_closed_form():
    rng = np.random.default_rng(2)
    values = crossed(rng, 1, 2, 3, trials=1)[..., 0]
    A, B, E = mean_squares(values.tolist())
    closed = ((S - 1) / S * A + (D - 1) / D * B + (S - 1) * (D - 1) / (S * D) * E) / (S * D)
    draws = 40_000
    rows, columns = rng.integers(0, S, (draws, S)), rng.integers(0, D, (draws, D))
    means = values[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    assert means.var() == pytest.approx(closed, rel=0.03)


@pytest.mark.parametrize(("axis", "over"), [(0, "directions"), (1, "seeds")])
def test_one_seed_or_one_direction_is_a_t_interval_and_says_so(axis, over):
    values = np.random.default_rng(3).normal(size=8)
    interval = crossed_interval(np.expand_dims(values, axis))
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.over == (over,)
    assert str(interval).endswith("] over directions alone" if over == "directions" else "]")


@pytest.mark.parametrize(
    ("values", "estimate"), [([[2.5]], 2.5), ([[1.0, math.inf], [2.0, 3.0]], math.inf)], ids=["one", "inf"]
)
def test_what_says_nothing_about_the_error_excludes_nothing(values, estimate):
    interval = crossed_interval(values)
    assert (interval.estimate, interval.low, interval.high) == (estimate, -math.inf, math.inf)
    assert holds(interval, 1e9)


@pytest.mark.parametrize("wild", [[math.nan, 1.0], [math.inf, -math.inf], [1e300, -1e300]])
def test_values_that_are_no_numbers_exclude_nothing(wild):
    assert holds(crossed_interval([wild, [1.0, 2.0]]), 0)


def test_equal_replicates_are_a_point():
    assert crossed_interval(np.full((3, 4), 2.0)) == Interval(2.0, 2.0, 2.0, ("seeds", "directions"))


# -- two models


def test_what_both_models_share_drops_out():
    rng = np.random.default_rng(6)
    shared, own = crossed(rng, 9, 9, 9, trials=1)[..., 0], crossed(rng, 0.1, 0.1, 0.1, trials=1)[..., 0]
    interval = paired_difference(shared + own + 1, shared)
    alone = crossed_interval(own + 1)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(
        (alone.estimate, alone.low, alone.high)
    )


def test_seeds_and_directions_that_one_model_lacks_are_left_out():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(4, 5)), rng.normal(size=(3, 6))
    interval = paired_difference(a, b, seeds=("pqrs", "srz"), directions=(range(5), [9, 4, 3, 1, 8, 7]))
    assert interval == crossed_interval(a[[2, 3]][:, [1, 3, 4]] - b[[1, 0]][:, [3, 2, 1]])


def test_trainings_without_a_seed_in_common_are_independent_and_directions_stay_paired():
    rng = np.random.default_rng(8)
    a, b = crossed(rng, 1, 0, 0.2, (3, 8), 1)[..., 0], crossed(rng, 2, 0, 0.1, (4, 8), 1)[..., 0]
    (A_a, _, E_a), (A_b, _, E_b) = mean_squares(a.tolist()), mean_squares(b.tolist())
    terms = [A_a / 24, A_b / 32, (a.mean(0) - b.mean(0)).var(ddof=1) / 8]
    t = np.average([scipy_stats.t.ppf(0.975, f) for f in (2, 3, 7)], weights=terms)
    half = t * math.sqrt(max(sum(terms) - E_a / 24 - E_b / 32, *terms))
    apart = {"seeds": ([0, 1, 2], [5, 6, 7, 8])}
    interval = paired_difference(a, b, **apart)
    assert interval.estimate == pytest.approx(a.mean() - b.mean())
    assert interval.width / 2 == pytest.approx(half)
    assert interval.over == ("seeds", "directions")
    # What a direction does to both drops out.
    common = 100 * rng.normal(size=8)
    assert paired_difference(a + common, b + common, **apart).width == pytest.approx(interval.width)
    # One seed in common of several is no sample of seeds: they count as independent, too.
    assert paired_difference(a, b, seeds=([0, 1, 2], [0, 6, 7, 8])) == interval


def test_independent_trainings_are_covered():
    rng = np.random.default_rng(9)
    seeds = ([0, 1, 2], [3, 4, 5])
    for a, b in [((1, 0, 0.1), (0.1, 0.5, 0.1)), ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0))]:
        band = paired_band(crossed(rng, *a), crossed(rng, *b), seeds=seeds)
        assert holds(band, 0).mean() > 0.935
        known = 1.96 * math.sqrt(sum((p + q) / n for p, q, n in zip(a, b, (S, D, S * D), strict=True)))
        assert (band.high - band.low).mean() / 2 < 2.2 * known


def test_one_training_against_independent_ones_speaks_of_directions_alone():
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=(1, 6)), rng.normal(size=(3, 6))
    interval = paired_difference(a, b, seeds=([0], [1, 2, 3]))
    expected = scipy_stats.ttest_rel(a[0], b.mean(0)).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.over == ("directions",)


def test_bands_are_the_intervals_of_their_points():
    rng = np.random.default_rng(11)
    a, b = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 4))
    apart = {"seeds": ([0, 1, 2], [3, 4, 5])}
    for band, interval in [
        (crossed_band(a), lambda x: crossed_interval(a[..., x])),
        (paired_band(a, b), lambda x: paired_difference(a[..., x], b[..., x])),
        (paired_band(a, b, **apart), lambda x: paired_difference(a[..., x], b[..., x], **apart)),
    ]:
        assert len(band) == 4
        for x in range(4):
            expected = interval(x)
            assert band[x].over == expected.over
            assert (band[x].low, band[x].high) == pytest.approx((expected.low, expected.high))


def test_one_wild_point_leaves_the_others_of_a_band_alone():
    curves = np.random.default_rng(12).normal(size=(3, 5, 4))
    wild = curves.copy()
    wild[1, 2, 3] = np.inf
    for x in range(3):
        assert crossed_band(wild)[x] == crossed_band(curves)[x]
    assert crossed_band(wild)[3].width == math.inf


# -- tests of differences


def flips(values):
    """The share of all choices of signs whose mean is as extreme, by a plain loop."""
    means = [np.mean(np.multiply(signs, values)) for signs in itertools.product([1, -1], repeat=len(values))]
    return np.mean(np.abs(means) >= abs(np.mean(values)) - 1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_sign_flip_test_counts_all_choices_of_signs(count):
    values = np.random.default_rng(count).normal(0.5, 1, count)
    assert sign_flip(values) == pytest.approx(flips(values))
    library = scipy_stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values) == pytest.approx(library.pvalue)
    assert sign_flip(np.abs(values)) == least_p(count) == 2 / 2**count


def test_the_flips_of_many_trainings_are_drawn():
    values = np.random.default_rng(30).normal(0.4, 1, 16)
    expected = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values) == pytest.approx(expected.pvalue, abs=0.015)


def test_five_paired_trainings_reach_no_significance_and_six_do():
    assert least_p(5) == 0.0625
    assert (trainings_needed(), least_p(trainings_needed())) == (6, 0.03125)
    for tests in (1, 2, 12, 40):
        n = trainings_needed(tests)
        assert tests * least_p(n) <= 0.05 < tests * least_p(n - 1)


def test_holm_multiplies_the_least_by_the_number_of_tests():
    point = Interval(1.0, 0.5, 1.5, ("seeds",))
    found = holm([Difference(point, 9, p) for p in (0.01, None, 0.04, 0.03)])
    assert [d.corrected for d in found] == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert [d.significant for d in found] == [True, False, False, False]
    assert holm([]) == []
    assert holm([Difference(point, 1)]) == [Difference(point, 1)]


def test_p_is_the_level_at_which_the_crossed_interval_reaches_zero():
    differences = np.random.default_rng(20).normal(size=(9, 6)) + 3
    found = compare(differences, np.zeros((9, 6)), seeds=(range(9), range(9)))
    assert found.trainings == 9
    assert found.p == least_p(9), "the flips' is the larger one"
    p = 0.01
    few = differences * 1.0
    few[:, :] = np.random.default_rng(21).normal(size=(1, 6)) + 0.9  # what varies are the directions alone
    found = compare(few, np.zeros((9, 6)), seeds=(range(9), range(9)))
    assert found.p > p > least_p(9)
    assert abs(paired_difference(few, np.zeros((9, 6)), confidence=1 - found.p).low) < 1e-6


def test_models_that_share_fewer_than_two_seeds_are_not_tested():
    rng = np.random.default_rng(22)
    found = compare(rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), seeds=("abc", "cde"))
    assert (found.trainings, found.p, found.significant) == (1, None, False)
    assert compare([[math.nan], [1.0]], [[0.0], [0.0]], seeds=("ab", "ab")).p is None


def tables_with_a_call(p_values_TM):
    """The share of tables [T] of M tests each in which at least one is significant after the correction."""
    point = Interval(1.0, 0.5, 1.5)
    found = [holm([Difference(point, 10, p) for p in row]) for row in p_values_TM]
    return np.mean([any(difference.significant for difference in row) for row in found])


@pytest.fixture
def _no_collection(monkeypatch):
    """statsmodels collects garbage in each correction, which takes 0.2 s of hundreds of them."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("skewed", [False, True])
def test_where_nothing_differs_hardly_a_table_of_twelve_calls_a_difference(skewed):
    rng, tables = np.random.default_rng(23), 200
    one, two = rng.normal(size=(2, 10, 12 * tables))
    differences = np.exp(one) - np.exp(two) if skewed else one - two
    p_values = sign_flip(differences).reshape(tables, 12)
    # Three standard errors of a share of 5%.
    assert tables_with_a_call(p_values) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    assert np.mean((p_values <= 0.05).any(1)) > 0.35, "what the correction is for"


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("variances", [(1, 0.3, 0.3), (0.3, 1, 0.3), (0, 0, 1)], ids=str)
def test_directions_that_speak_for_one_model_by_chance_are_no_difference(variances):
    """Six directions are a sample, which the flips of ten trainings alone take for the whole."""
    rng, tables = np.random.default_rng(25), 15
    effects = crossed(rng, *variances, shape=(8, 6), trials=12 * tables)
    zeros, seeds = np.zeros((8, 6)), (range(8), range(8))
    found = [compare(effects[..., i], zeros, seeds=seeds).p for i in range(12 * tables)]
    assert tables_with_a_call(np.reshape(found, (tables, 12))) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    if variances[1] == 1:
        assert np.mean(sign_flip(effects.mean(1)) <= 0.05) > 0.15 > np.mean(np.array(found) <= 0.05)


def test_a_large_difference_of_enough_trainings_is_called_one():
    rng = np.random.default_rng(24)
    found = [
        compare(rng.normal(3 * (i == 0), 1, (10, 6)), rng.normal(0, 1, (10, 6)), seeds=(range(10), range(10)))
        for i in range(12)
    ]
    assert [d.significant for d in holm(found)] == [True, *[False] * 11]


# -- what users see


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.25061, 0.2239, 0.2774), "0.251 [0.224, 0.277]"),
        (Interval(1234.4, 1000.0, 1468.8), "1234 [1000, 1469]"),
        (Interval(0.5, -math.inf, math.inf), "0.500 [-inf, inf]"),
        (Interval(2.0, 2.0, 2.0), "2.0 [2.0, 2.0]"),
        (Interval(0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
    ],
)
def test_intervals_show_two_digits_of_their_half_width(interval, text):
    assert str(interval) == text


PAIR = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crossed_interval([1.0, 2.0]), r"values of shape \[2\]: expected \[training seeds, direct"),
        (lambda: crossed_interval(np.zeros((0, 3))), r"values of shape \[0, 3, 1\]: expected"),
        (
            lambda: crossed_band(PAIR),
            r"values of shape \[2, 2\]: expected \[training seeds, directions, points",
        ),
        (lambda: crossed_interval(PAIR, confidence=95), r"confidence=95: expected a number between 0 and 1"),
        (lambda: sign_flip([1.0]), r"differences \[1.0\]: expected at least two finite numbers"),
        (lambda: sign_flip([1.0, math.inf]), r"differences \[1.0, inf\]: expected"),
        (lambda: paired_difference(PAIR, np.zeros((3, 2))), r"2 and 3 training seeds: expected as many"),
        (lambda: paired_difference(PAIR, np.zeros((2, 3))), r"2 and 3 direction seeds: expected as many"),
        (lambda: paired_difference(PAIR, PAIR, seeds=("ab", "a")), r"training seeds \['a'\]: expected 2"),
        (lambda: paired_difference(PAIR, PAIR, seeds=("aa", "ab")), r"training seeds \['a', 'a'\]: exp"),
        (lambda: paired_difference(PAIR, PAIR, directions=("ab", "cd")), r"no direction seed in common"),
        (lambda: paired_band(np.zeros((2, 2, 3)), np.zeros((2, 2, 4))), r"curves of 3 and 4 points"),
    ],
)
def test_what_cannot_be_compared_is_answered_with_a_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
