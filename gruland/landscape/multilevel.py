"""Means of many cells over N examples from few of them: control variates over levels.

The losses of an example at two cells of a surface are nearly a function of each other. So a few cells are evaluated on
many examples and the others on few: a cell's mean is predicted from cells with more examples, and only what the
prediction leaves has to be averaged. That is multilevel Monte Carlo (Giles 2008, "Multilevel Monte Carlo path
simulation", Operations Research 56) with the regression estimator of two-phase sampling at each level (Cochran 1977,
"Sampling Techniques", chapter 12).

**Samples.** The examples have one random order, stratified in each of its beginnings. A cell c is evaluated on the
first n_c of it, so that samples are nested and differences of cells stay paired. Cells with the same n_c make a level.

**Estimates.** At level l each variable y (loss and correctness of a cell) is regressed on x: strata, the losses of all
cells with more examples and, where the sample has enough for it, the probabilities exp(-loss). With X for the estimated
means of x over all N, the estimate is

    Y = X B + mean over n_l of (y_i - x_i B_i),

B_i fitted by ridge regression on the four fifths of the sample that do not hold example i (cross-fitting; Owen 2013,
"Monte Carlo theory, methods and examples", section 8.9), B their mean. The penalty of each variable is the one of least
error on the examples that were left out.

**Bias.** A coefficient meets only examples that it was not fitted on. What is left comes from X, which the examples of
the fit enter too, and from the finite population: it is of the order of 1 / n where the standard error is of the order
of 1 / sqrt(n).

**Errors.** The error of Y is the sum of the levels' own: at each level the residual mean over n_l examples instead of
all N. Residuals of different levels are uncorrelated, since each level's are those of a regression on all coarser ones.
So the covariance of all cells is F F', F [cells, modes] with a block of columns for each level: its residuals'
covariance times 1/n_l - 1/N, carried on to finer levels by their coefficients. A census has no error. Where there are
many regressors (P) for few examples, the coefficients' own errors add to a mean what no residual shows: the variance
counts 1 + P / n times, as it would for least squares (Cochran 1977, section 12.7), and at most twice.

N examples, n of a sample, P regressors, V variables, C cells, K modes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

#: Parts of a sample that take turns in being left out of the fit.
FOLDS = 5
#: The penalties that a regression chooses from, as shares of the regressors' variance.
PENALTIES = 10.0 ** np.arange(-4.0, 2.1, 0.75)
#: Strata that are parts of their own, at most.
PARTS = 4
#: Probabilities enter a regression that has at least so many examples for each regressor.
ENOUGH = 4
_TINY = 1e-12


@dataclass(frozen=True)
class Part:
    """Examples that are sampled and predicted by themselves.

    Attributes:
        rows: [N] their positions among all examples, in the order in which they are evaluated.
        known: [N, S] columns that tell the strata within the part apart, in that order.
        groups: [N] the group of each, in that order: a fit that leaves an example out leaves out its group. None: each
            is one of its own.
    """

    rows: np.ndarray
    known: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


def parts_of(strata: np.ndarray, seed: int, least: int, groups: np.ndarray | None = None) -> list[Part]:
    """A part for each of up to :data:`PARTS` strata, or one for all where there are more or a smaller one.

    Args:
        strata: [N] of each example.
        seed: of the order.
        least: examples that a part has.
        groups: [N] of each example, as :class:`Part` has them.
    """
    order = nested_order(strata, seed)
    values, counts = np.unique(strata, return_counts=True)
    if len(values) > PARTS or counts.min() < least:
        return [whole(strata, order, groups)]
    rows = [order[strata[order] == value] for value in values]
    return [Part(part, np.zeros((len(part), 0)), groups if groups is None else groups[part]) for part in rows]


def whole(strata: np.ndarray, order: np.ndarray, groups: np.ndarray | None = None) -> Part:
    """All examples as one part, in an order [N]."""
    known = (strata[order, None] == np.unique(strata)[1:]).astype(np.float64)
    return Part(order, known, groups if groups is None else groups[order])


def nested_order(strata: np.ndarray, seed: int) -> np.ndarray:
    """A random order [N] of examples whose every beginning has the strata [N] in proportion, to within one."""
    random, place = np.random.default_rng(np.random.SeedSequence([seed, 0x6E657374])), np.empty(len(strata))
    for stratum in np.unique(strata):
        rows = random.permutation(np.flatnonzero(strata == stratum))
        place[rows] = (np.arange(len(rows)) + random.uniform()) / len(rows)
    return np.argsort(place, kind="stable")


@dataclass(frozen=True)
class Level:
    """Cells that were evaluated on the same examples, the first n of the order.

    Attributes:
        losses, correct: [n, C], in the order of the examples; all finite. ``correct`` has no columns where only the
            losses are asked for.
        name: tells it from all other levels of the same examples; None: it has no name.
    """

    losses: np.ndarray
    correct: np.ndarray
    name: Hashable = None

    def __len__(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class Means:
    """Estimated means over all N examples of some variables, with the covariance of their errors.

    Attributes:
        values: [V].
        modes: [V, K]; ``modes @ modes.T`` is the covariance, a row's norm the standard error.
        own: [V] the part of the standard errors that the variables' own level adds.
    """

    values: np.ndarray
    modes: np.ndarray
    own: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Standard errors [V]."""
        return np.sqrt((self.modes**2).sum(1))


class Estimator:
    """The mean loss and the share of right predictions of every cell.

    Levels change little by little: named ones are not computed again where those before them are the same.

    Args:
        known: [N, S] columns that tell the strata apart, of all examples in their order.
        groups: [N] of each example, in that order; None: each is one of its own.
    """

    def __init__(self, known: np.ndarray, groups: np.ndarray | None = None) -> None:
        self._total, self._first, self._groups = len(known), _Regressors(known), groups
        # Of the last call, each level's name, its means, and what the next level is predicted from.
        self._kept: list[tuple[Hashable, tuple[Means, Means], _Regressors]] = []

    def __call__(
        self, levels: Sequence[Level], guess: Callable[[int], np.ndarray] | None = None
    ) -> list[tuple[Means, Means]]:
        """For each level its cells' losses and correctness. All modes have the K of the last level.

        Args:
            levels: by falling n.
            guess: from the number of a level to weights [cells of the levels before it, its own cells] with which the
                former's losses about give the latter's; asked for levels of few examples.

        Raises:
            ValueError: levels that do not fall, or hold values that are not finite.
        """
        same = 0
        while same < min(len(self._kept), len(levels)) and levels[same].name is not None:
            if self._kept[same][0] != levels[same].name:
                break
            same += 1
        del self._kept[same:]
        sizes = [self._total, *map(len, levels)]
        for number, level in list(enumerate(levels))[same:]:
            if not 2 <= len(level) <= sizes[number]:
                raise ValueError(
                    f"a level of {len(level)} examples after one of {sizes[number]}: expected from 2 to that"
                )
            if not (np.isfinite(level.losses).all() and np.isfinite(level.correct).all()):
                raise ValueError("a level has losses that are not finite: expected its finite cells alone")
            regressors = self._kept[-1][2] if number else self._first
            count, useful = level.losses.shape[1], _useful(level.losses)
            y = np.concatenate([useful, level.correct], axis=1)
            weights = guess(number) if guess and number and regressors.too_many(len(level)) else None
            means = _regressed(regressors, y, self._total, weights, self._groups)
            found = _part(means, slice(0, count)), _part(means, slice(useful.shape[1], None))
            self._kept.append((level.name, found, regressors.with_level(useful, means)))
        width = self._kept[-1][2].modes.shape[1] if levels else 0
        return [(_widened(losses, width), _widened(correct, width)) for _, (losses, correct), _ in self._kept]


def _useful(losses: np.ndarray) -> np.ndarray:
    """What a cell's losses tell of others: themselves and the probabilities that they are the logarithms of."""
    return np.concatenate([losses, np.exp(-np.maximum(losses, 0.0))], axis=1)


class _Regressors:
    """What finer levels are predicted from: columns over a beginning of the examples, their means and errors."""

    def __init__(self, known: np.ndarray) -> None:
        self._columns = [known - known.mean(0)]
        self._plain = [np.ones(known.shape[1], dtype=bool)]  # which columns are no probabilities
        self.freedom = int(np.linalg.matrix_rank(self._columns[0])) + 1 if known.size else 1
        self.means, self.modes = np.zeros(known.shape[1]), np.zeros((known.shape[1], 0))

    def too_many(self, count: int) -> bool:
        """Whether a regression of so many examples goes without the probabilities."""
        return count < ENOUGH * len(self.means)

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The columns [count, P] that a regression of the first examples uses, and their numbers [P]."""
        columns = np.concatenate([part[:count] for part in self._columns], axis=1)
        used = np.concatenate(self._plain) | (not self.too_many(count))
        return columns[:, used], np.flatnonzero(used)

    def with_level(self, columns: np.ndarray, means: Means) -> _Regressors:
        """These and the losses and probabilities of a level, the first of the variables whose means are given."""
        wider, count = copy(self), columns.shape[1]
        wider._columns = [*self._columns, columns]
        wider._plain = [*self._plain, np.arange(count) < count // 2]
        wider.means = np.concatenate([self.means, means.values[:count]])
        wider.modes = np.concatenate([_wide(self.modes, means.modes.shape[1]), means.modes[:count]])
        return wider


def _regressed(
    regressors: _Regressors,
    y: np.ndarray,
    total: int,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
) -> Means:
    """The means over all examples of the variables y [n, V] of a level, whose first are guessed to have ``weights``."""
    n = len(y)
    if n == total:
        return Means(y.mean(0), np.zeros((y.shape[1], regressors.modes.shape[1])), np.zeros(y.shape[1]))
    x, used = regressors.first(n)
    scale = x.std(0)
    scale[scale < _TINY * (1 + np.abs(x).max(0, initial=0.0))] = np.inf  # a constant tells nothing
    guessed = np.zeros((x.shape[1], y.shape[1]))
    if weights is not None:
        guessed[x.shape[1] - len(weights) :, : weights.shape[1]] = weights
    residuals, rest, slopes = _cross_fitted(x / scale, y - x @ guessed, groups)
    slopes = slopes / scale[:, None] + guessed
    values = regressors.means[used] @ slopes + rest
    own = residuals - residuals.mean(0)
    freedom = max(n - regressors.freedom, 1)
    factor = np.asarray(np.linalg.qr(own, mode="r")) if n > y.shape[1] else own
    new = factor.T * np.sqrt((1 / n - 1 / total) / freedom * (1 + min(len(used), n) / n))
    modes = np.concatenate([slopes.T @ regressors.modes[used], new], axis=1)
    return Means(values, modes, np.sqrt((new**2).sum(1)))


def _cross_fitted(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits to the other folds, each variable with its best penalty.

    Returns:
        Residuals [n, V]; the mean [V] of y_i - x_i B_i, without the fits' constants; the mean B of the fits [P, V].
    """
    # The examples come stratum by stratum in turn: every fifth of them may be of one stratum.
    one_by_one = np.arange(len(y)) if groups is None else np.unique(groups[: len(y)], return_inverse=True)[1]
    number_of = (np.random.default_rng(0).permutation(one_by_one.max() + 1) % FOLDS)[one_by_one]
    folds = [_Fold(x, y, number_of == number) for number in range(min(FOLDS, one_by_one.max() + 1))]
    squares = np.zeros((len(PENALTIES), y.shape[1]))
    for row, penalty in zip(squares, PENALTIES, strict=True):
        for fold in folds:
            row += fold.squares(np.full(y.shape[1], penalty))
    best = PENALTIES[squares.argmin(0)]
    residuals, rest, slopes = np.empty_like(y), np.zeros(y.shape[1]), np.zeros((x.shape[1], y.shape[1]))
    for fold in folds:
        own, left_out = fold.slopes(best), fold.left_out
        residuals[left_out] = fold.residuals(best)
        rest += (y[left_out] - x[left_out] @ own).sum(0) / len(y)
        slopes += own * left_out.mean()
    return residuals, rest, slopes


class _Fold:
    """Ridge regressions on all examples but those ``left_out`` [n]."""

    def __init__(self, x: np.ndarray, y: np.ndarray, left_out: np.ndarray) -> None:
        fit = ~left_out
        self.left_out = left_out
        x_mean, y_mean = x[fit].mean(0), y[fit].mean(0)
        centred = x[fit] - x_mean
        values, self._vectors = np.linalg.eigh(centred.T @ centred / fit.sum())
        self._values = np.maximum(values, 0.0)
        self._targets = self._vectors.T @ (centred.T @ (y[fit] - y_mean)) / fit.sum()
        self._turned, self._y = (x[left_out] - x_mean) @ self._vectors, y[left_out] - y_mean

    def _shrunk(self, penalties: np.ndarray) -> np.ndarray:
        return self._targets / (self._values[:, None] + penalties)

    def residuals(self, penalties: np.ndarray) -> np.ndarray:
        """Of the examples that were left out, one penalty for each variable."""
        return self._y - self._turned @ self._shrunk(penalties)

    def squares(self, penalties: np.ndarray) -> np.ndarray:
        return (self.residuals(penalties) ** 2).sum(0)

    def slopes(self, penalties: np.ndarray) -> np.ndarray:
        return self._vectors @ self._shrunk(penalties)


def _part(means: Means, which: slice) -> Means:
    return Means(means.values[which], means.modes[which], means.own[which])


def _wide(modes: np.ndarray, width: int) -> np.ndarray:
    return np.pad(modes, ((0, 0), (0, width - modes.shape[1])))


def _widened(means: Means, width: int) -> Means:
    return Means(means.values, _wide(means.modes, width), means.own)
