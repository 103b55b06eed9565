"""Intervals for means over replicates, and for the difference of two models measured on the same replicates.

A measure of a loss surface varies with the training seed and with the random directions of the plane. S trainings times
D pairs of directions, the same direction seeds for each training, are a crossed design: y_sd = mu + a_s + b_d + e_sd,
all three random. Its values are not S * D independent ones: the variance of their mean is var(a) / S + var(b) / D +
var(e) / (S D), and more planes do not make up for few trainings.

With the mean squares of the seeds A, of the directions B and of the interaction E, that variance is estimated without
bias by (A + B - E) / (S D) (the analysis of variance of balanced random effects; Searle, Casella & McCulloch 1992,
"Variance Components", chapter 4), here never below A / (S D) or B / (S D). The interval is the mean +- its root times
Cochran's t: the mean, weighted by A and B, of the t quantiles with S - 1 and D - 1 degrees of freedom (Cochran 1964,
"Approximate significance levels of the Behrens-Fisher test", Biometrics 20).

The pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)), which draws seeds
and directions anew, independently of each other, gives a mean the variance
((S-1)/S A + (D-1)/D B + (S-1)(D-1)/(S D) E) / (S D), in closed form. With three seeds its 95% intervals cover the
mean in as few as 76% of all cases, for two degrees of freedom need a quantile of 4.3 rather than 1.96. The intervals
here cover it in 94% or more, whatever the ratio of the three variances (normal effects, S = 3, D = 10). With skewed
effects (lognormal ones) and two or three trainings they cover 82 to 89%: few trainings of a skewed measure say less
than their interval claims.

:class:`Difference` adds a test to an interval: that the paired trainings of two models differ. :func:`holm` corrects
for the number of tests that a reader sees at once.

S training seeds, D direction seeds, X points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

#: What an interval can be over: the factors of which there were at least two.
SEEDS, DIRECTIONS = "seeds", "directions"


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate, low, high: in the unit of the values; low and high are infinite where the values say nothing about
            how far off the estimate may be (one replicate, or one that is not finite).
        over: what varied between the replicates: of ``"seeds"`` and ``"directions"``. What is not
            named here was held fixed, and the interval says nothing about it: with one training seed it is
            ``("directions",)``, which makes a statement about that one trained network and not about its kind.
    """

    estimate: float
    low: float
    high: float
    over: tuple[str, ...] = ()

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low

    def within(self, low: float, high: float) -> Interval:
        """Without values that cannot be; its coverage is the same. One that says nothing stays so."""
        if not math.isfinite(self.width):
            return self
        return replace(self, low=min(max(self.low, low), high), high=min(max(self.high, low), high))

    def __str__(self) -> str:
        """Two digits of the half width are shown, and whether the training seed was held fixed."""
        digits = _decimals(self.width / 2 or abs(self.estimate))
        text = f"{self.estimate:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{text} over directions alone" if self.over == (DIRECTIONS,) else text


def _decimals(size: float) -> int:
    """How many decimals show two digits of ``size``; 3 where it is zero or not finite."""
    return max(0, 1 - math.floor(math.log10(size))) if 0 < size < math.inf else 3


@dataclass(frozen=True)
class Band:
    """Intervals at each point of a curve, each for itself (not simultaneous).

    Attributes:
        estimate, low, high: [X].
        over: as :class:`Interval` has it.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    over: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.estimate)

    def __getitem__(self, point: int) -> Interval:
        return Interval(
            float(self.estimate[point]), float(self.low[point]), float(self.high[point]), self.over
        )


def crossed_interval(values_SD: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean over S training seeds x D direction replicates, both random; see the module's description.

    With S = 1 it is the t interval over the directions, with D = 1 that over the seeds; ``over`` says so.

    Args:
        values_SD: [S, D].
        confidence: between 0 and 1.

    Raises:
        ValueError: another number of axes, an empty one, or an impossible confidence.
    """
    return crossed_band(_with_a_point(values_SD), confidence=confidence)[0]


def crossed_band(values_SDX: ArrayLike, *, confidence: float = 0.95) -> Band:
    """:func:`crossed_interval` at each point of S x D curves [S, D, X]."""
    values = _checked(values_SDX)
    _check_confidence(confidence)
    with np.errstate(invalid="ignore", over="ignore"):
        return _band(values.mean((0, 1)), _Parts.of(values), confidence)


def paired_difference(
    a_SD: ArrayLike,
    b_SD: ArrayLike,
    *,
    seeds: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    directions: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """The mean of a minus that of b, for two models with the same training seeds and the same direction seeds.

    What seeds and directions do to both alike drops out: it is :func:`crossed_interval` of the differences. Seeds
    and directions that one of the two lacks are left out. Where they have no two training seeds in common, the
    trainings are independent samples (the seeds' mean squares of both count, each with its own degrees of freedom) and
    the directions stay paired.

    Args:
        a_SD: [S, D].
        b_SD: [S', D'].
        seeds: the training seeds of a (S of them) and of b (S'); None: the same ones in the same order.
        directions: likewise the direction seeds.
        confidence: between 0 and 1; m intervals hold together with at least c if each has 1 - (1 - c) / m (Bonferroni).

    Raises:
        ValueError: shapes that do not fit each other or their labels, labels given twice, no direction in common.
    """
    a_SDX, b_SDX = _with_a_point(a_SD), _with_a_point(b_SD)
    return paired_band(a_SDX, b_SDX, seeds=seeds, directions=directions, confidence=confidence)[0]


def paired_band(
    a_SDX: ArrayLike,
    b_SDX: ArrayLike,
    *,
    seeds: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    directions: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    confidence: float = 0.95,
) -> Band:
    """:func:`paired_difference` at each point of the curves [S, D, X] and [S', D', X]."""
    a, b = _checked(a_SDX), _checked(b_SDX)
    if a.shape[2] != b.shape[2]:
        raise ValueError(f"curves of {a.shape[2]} and {b.shape[2]} points: expected the same points")
    columns = _common("direction", directions, (a.shape[1], b.shape[1]))
    if not len(columns[0]):
        raise ValueError("no direction seed in common: expected two models measured on the same directions")
    a, b = a[:, columns[0]], b[:, columns[1]]
    rows = _common("training", seeds, (len(a), len(b)))
    _check_confidence(confidence)
    with np.errstate(invalid="ignore", over="ignore"):
        if len(rows[0]) >= min(2, len(a), len(b)):
            return crossed_band(a[rows[0]] - b[rows[1]], confidence=confidence)
        between = a.mean(0, keepdims=True) - b.mean(0, keepdims=True)
        parts = _Parts.of(a).against(_Parts.of(b), _Parts.of(between))
        return _band(between.mean((0, 1)), parts, confidence)


#: A difference is called one where its corrected p-value is at most this.
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """How far two models differ on the training seeds that both have, and whether that can be chance.

    Attributes:
        interval: of the mean difference, for itself (not corrected for the number of differences).
        trainings: how many training seeds both have.
        p: of the hypothesis that nothing tells the models apart. None where they share fewer than two seeds: nothing
            is paired then. The interval is over independent trainings where both have several (``over`` has
            seeds), else about these trainings, and nothing can be said of others.
        corrected: ``p`` after :func:`holm`'s correction; None before it, and where there is no p.
    """

    interval: Interval
    trainings: int
    p: float | None = None
    corrected: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is at most :data:`LEVEL`."""
        return self.corrected is not None and self.corrected <= LEVEL


def compare(
    a_SD: ArrayLike,
    b_SD: ArrayLike,
    *,
    seeds: tuple[Sequence[Hashable], Sequence[Hashable]],
    directions: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
) -> Difference:
    """:func:`paired_difference` with a test of it over the training seeds that both models have.

    The test flips the signs of the trainings' differences (:func:`sign_flip`), which asks for no normal distribution.
    It takes the directions as given. Where there are several, they are a sample, too: p is then the larger one of the
    flips' and of the crossed interval's, the level at which that interval just reaches zero.

    Args:
        a_SD: [S, D].
        b_SD: [S', D'].
        seeds: the training seeds of a (S of them) and of b (S').
        directions: likewise the direction seeds; None: the same ones in the same order.

    Raises:
        ValueError: as :func:`paired_difference` has it.
    """
    interval = paired_difference(a_SD, b_SD, seeds=seeds, directions=directions)
    a, b = np.asarray(a_SD, dtype=np.float64), np.asarray(b_SD, dtype=np.float64)
    rows = _common("training", seeds, (len(a), len(b)))
    trainings = len(rows[0])
    if trainings < 2:
        return Difference(interval, trainings)
    columns = _common("direction", directions, (a.shape[1], b.shape[1]))
    differences = a[rows[0]][:, columns[0]] - b[rows[1]][:, columns[1]]
    if not np.isfinite(differences).all():
        return Difference(interval, trainings)
    p = float(sign_flip(differences.mean(1)))
    if differences.shape[1] > 1:
        p = max(p, _Parts.of(differences[..., None]).p_value(interval.estimate))
    return Difference(interval, trainings, p)


def sign_flip(differences: ArrayLike) -> np.ndarray:
    """The p-values of paired differences [S] or [S, X] by their signs (Fisher 1935, "The Design of Experiments", 21).

    Where nothing tells two models apart, each training's difference is as likely as its negative: p is the share of the
    2^S choices of signs whose mean lies as far from zero as the one found. It is exact up to 13 trainings, and from
    9,999 draws beyond. Nothing below :func:`least_p` can come out.

    Returns:
        A number [], or [X].

    Raises:
        ValueError: fewer than two differences, or one that is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.ndim or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"differences {values.tolist()}: expected at least two finite numbers")
    # The same numbers as scipy.stats.permutation_test gives, which takes a thousand times as long for many columns.
    S = len(values)
    if S <= 13:
        signs = 1 - 2 * (np.arange(2**S)[:, None] >> np.arange(S) & 1)
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (9999, S))
        signs = np.concatenate(
            [np.ones((1, S), dtype=int), 1 - 2 * drawn]
        )  # the choice that was found is one of them
    sums = np.abs(signs @ values)
    return (sums >= sums[0] * (1 - 1e-12)).mean(0)


def least_p(trainings: int) -> float:
    """The least p-value that :func:`sign_flip` can give: 5 paired trainings reach 0.0625, 6 reach 0.031."""
    return 2.0 ** (1 - trainings)


def trainings_needed(tests: int = 1) -> int:
    """The fewest paired trainings with which one of so many tests can be significant after :func:`holm`."""
    return 1 + math.ceil(math.log2(max(1, tests) / LEVEL))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with their p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6).

    Where no two models differ, the chance that any of them is called significant is then at most :data:`LEVEL`.
    """
    tested = [place for place, difference in enumerate(differences) if difference.p is not None]
    result = list(differences)
    if tested:
        from statsmodels.stats.multitest import multipletests

        corrected = multipletests([differences[place].p for place in tested], method="holm")[1]
        for place, value in zip(tested, corrected, strict=True):
            result[place] = replace(result[place], corrected=float(value))
    return result


@dataclass(frozen=True)
class _Parts:
    """What the variance of a mean is made of: mean squares over S D.

    Attributes:
        seeds, directions: variances [X] with their degrees of freedom; none of a factor that did not vary.
        interaction: [X] what the sum of them counts twice.
    """

    seeds: list[tuple[np.ndarray, int]]
    directions: list[tuple[np.ndarray, int]]
    interaction: np.ndarray

    @classmethod
    def of(cls, values_SDX: np.ndarray) -> _Parts:
        S, D = values_SDX.shape[:2]
        by_seed, by_direction = values_SDX.mean(1), values_SDX.mean(0)
        rest = values_SDX - by_seed[:, None] - by_direction + by_seed.mean(0)
        return cls(
            [(by_seed.var(0, ddof=1) / S, S - 1)] if S > 1 else [],
            [(by_direction.var(0, ddof=1) / D, D - 1)] if D > 1 else [],
            (rest**2).sum((0, 1)) / max(1, (S - 1) * (D - 1)) / (S * D),
        )

    def against(self, other: _Parts, between: _Parts) -> _Parts:
        """Of the difference of two means: independent trainings, and ``between`` them the same directions."""
        seeds = [*self.seeds, *other.seeds] if self.seeds and other.seeds else []
        twice = self.interaction + other.interaction if seeds else np.zeros_like(self.interaction)
        return _Parts(seeds, between.directions, twice)

    def p_value(self, estimate: float) -> float:
        """Of one point: the level at which its interval just reaches zero."""
        from scipy.optimize import brentq

        def reach(exponent: float) -> float:
            return float(self.half_width(1 - 10**exponent)[0]) - abs(estimate)

        if reach(-1e-9) >= 0:  # the narrowest interval holds zero
            return 1.0
        return 10 ** float(brentq(reach, -15, -1e-9)) if reach(-15) > 0 else 0.0

    def half_width(self, confidence: float) -> np.ndarray:
        """[X]; infinite where nothing varied."""
        parts = [*self.seeds, *self.directions]
        if not parts:
            return np.full(self.interaction.shape, math.inf)
        variances = np.stack([variance for variance, _ in parts])
        quantiles = np.array([_t_quantile(confidence, freedom) for _, freedom in parts])
        total = variances.sum(0)
        quantile = quantiles @ variances / np.where(total > 0, total, 1.0)
        return quantile * np.sqrt(np.maximum(total - self.interaction, variances.max(0)))


def _band(estimate_X: np.ndarray, parts: _Parts, confidence: float) -> Band:
    half = parts.half_width(confidence)
    known = np.isfinite(half) & np.isfinite(estimate_X)
    low = np.where(known, estimate_X - half, -math.inf)
    high = np.where(known, estimate_X + half, math.inf)
    factors = ((SEEDS, parts.seeds), (DIRECTIONS, parts.directions))
    return Band(estimate_X, low, high, tuple(name for name, varied in factors if varied))


def _t_quantile(confidence: float, freedom: int) -> float:
    from scipy.special import stdtrit  # the quantiles of Student's t; scipy.stats takes a second to import

    return float(stdtrit(freedom, (1 + confidence) / 2))


def _common(
    what: str, labels: tuple[Sequence[Hashable], Sequence[Hashable]] | None, sizes: tuple[int, int]
) -> tuple[list[int], list[int]]:
    """The places in a and in b of the labels that both have, in a's order."""
    if labels is None:
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{sizes[0]} and {sizes[1]} {what} seeds: expected as many of both, or the names of them"
            )
        return list(range(sizes[0])), list(range(sizes[0]))
    for given, size in zip(labels, sizes, strict=True):
        if len(given) != size or len(set(given)) != size:
            raise ValueError(f"{what} seeds {list(given)}: expected {size} different ones")
    places = {label: place for place, label in enumerate(labels[1])}
    common = [(here, places[label]) for here, label in enumerate(labels[0]) if label in places]
    return [here for here, _ in common], [there for _, there in common]


def _with_a_point(values_SD: ArrayLike) -> np.ndarray:
    values = np.asarray(values_SD, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"values of shape {list(values.shape)}: expected [training seeds, directions]")
    return values[..., None]


def _checked(values_SDX: ArrayLike) -> np.ndarray:
    values = np.asarray(values_SDX, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"values of shape {list(values.shape)}: expected [training seeds, directions, points]"
        )
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1")
