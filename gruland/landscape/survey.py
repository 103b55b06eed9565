"""Which cells of a grid to evaluate on which examples, so that every cell's mean loss is known to a tolerance.

There is one budget: half the width of a cell's 95% interval is at most the tolerance, a share of the range of the mean
loss. The interval is that of a normal error by sampling, of standard error s, beside one by interpolation of unknown
sign and at most b: +- h with Phi((h - b) / s) - Phi((-h - b) / s) = 0.95 (Imbens & Manski 2004, "Confidence intervals
for partially identified parameters", Econometrica 72, equation 7). h is 1.96 s where nothing is interpolated, and less
than 1.96 s + b where it is, since the errors by sampling beyond one end alone matter. What it takes is found out from
the values themselves:

1. *Sizes.* The coarse grid is evaluated on a few examples, the pilot. Their covariance says how many examples of each
   part its cells need (:mod:`gruland.landscape.allocation`) for the share of the budget that sampling gets, and the
   spline through it how many cells the next grid needs for the rest. The split that costs least is taken, and planned
   again from the examples that all coarse cells have by then.
2. *Cells.* A cell is evaluated, on the pilot's examples, where its interval and the estimated error of a spline
   through the others (:mod:`gruland.landscape.refinement`) exceed the budget. One that is too uncertain gets more
   examples, or those beside it do, which cost little; the coarse cells get more where that is not the reason.
3. *Checks.* Random cells that would be interpolated are evaluated. Where one is off by more than its bound and its
   noise, all bounds rise by as much, and the refinement goes on.

Means and errors are those of :mod:`gruland.landscape.multilevel`. Where less does not do, all cells are evaluated on
all examples. A cell with a loss that is not finite has the mean of those that were evaluated, NaN or infinite, and is
asked for no more; as in any sample, one that no evaluated example shows is not seen.

N examples, R rows, C columns, K modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from gruland.landscape.allocation import factorized, sizes
from gruland.landscape.multilevel import Estimator, Level, Means, Part
from gruland.landscape.refinement import NestedGrids, Prediction, interpolated, spread_of

#: Examples of the pilot, of all parts together.
PILOT = 192
#: Those that a cell begins with that is not in the coarse grid: most of what it is comes from cells with more. Fewer
#: do not show what is rare and large, and intervals get too narrow.
FINER = 96
#: Random cells of a check. When all of them hold, fewer than 12% of the interpolated cells fail (95% confidence).
CHECKED = 24
#: The shares of the budget that sampling may get.
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
#: Everything is evaluated where the plan takes more than this share of it.
MOST = 0.6
_NORMAL, _ONE_END = 1.96, 1.645  # the 97.5% and 95% quantiles of the normal distribution
# The pilot's plan may be too large, since it knows of no probabilities: it begins with this multiple of the half width.
_LOOSE = 1.2
# A cell gets more examples of its own where these are so much of its standard error: they are the cheaper ones.
_HEAVY = 0.3
_TIGHTEST = 0.2  # of what is planned
_LEAST_MODE = 1e-3  # of the largest: what less adds to a standard error is not seen in three digits


class Block(NamedTuple):
    """Cells (row * columns + column) and the examples wanted of them: of a part, ``start`` to ``stop`` of its order."""

    cells: np.ndarray
    part: int
    start: int
    stop: int


@dataclass(frozen=True)
class Estimates:
    """What is known of a surface.

    Attributes:
        loss, accuracy: [R, C]. The accuracies are NaN where an objective does not say what is right.
        modes, accuracy_modes: [K, R, C] of the errors by sampling: ``(modes**2).sum(0)`` is their variance, and the
            covariance of two cells is the sum of the products. Zero where a loss is not finite.
        bound, accuracy_bound: [R, C] of the interpolation's error, 0 where evaluated.
        examples: [R, C] on how many examples a cell was evaluated; 0 = interpolated.
        allowed: the budget, in the unit of the loss.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    modes: np.ndarray
    accuracy_modes: np.ndarray
    bound: np.ndarray
    accuracy_bound: np.ndarray
    examples: np.ndarray
    allowed: float

    @property
    def errors(self) -> np.ndarray:
        """Standard errors by sampling [R, C]."""
        return np.sqrt((self.modes**2).sum(0))

    @property
    def half_width(self) -> np.ndarray:
        """Half the width of each cell's 95% interval, interpolation included [R, C]."""
        return half_width(self.errors, self.bound)


class _Losses(NamedTuple):
    """What is asked for follows from these, [R, C] as in :class:`Estimates`."""

    loss: np.ndarray
    errors: np.ndarray
    bound: np.ndarray
    allowed: float

    @property
    def half_width(self) -> np.ndarray:
        return half_width(self.errors, self.bound)


class Survey:
    """The cells of a grid on their way: :meth:`rounds` says what is wanted next, :meth:`add` takes it.

    What is asked for is a function of the arguments and the answers alone, so that an interrupted survey whose answers
    were kept can be repeated.

    Args:
        shape: R and C.
        parts: of the examples, N together.
        tolerance: the share of the range of the mean loss.
        seed: of the checks.
        pilot: examples of the pilot; N for a surface without sampling.
        centre: the cell (row * columns + column) that differences are taken to; it is treated as one of the coarse
            grid. -1 where there is none.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        parts: Sequence[Part],
        tolerance: float,
        seed: int = 0,
        *,
        pilot: int = PILOT,
        centre: int = -1,
    ) -> None:
        self._shape, self._parts, self._tolerance = shape, parts, tolerance
        self._totals = np.array([len(part) for part in parts])
        self._total, size = int(self._totals.sum()), shape[0] * shape[1]
        self._weights = self._totals / self._total
        # Of twice the pilot more than half would be evaluated: sampling saves nothing.
        census = self._total < 2 * pilot or self._totals.min() < 2 * pilot // len(parts)
        self._pilot = self._totals if census else np.full(len(parts), pilot // len(parts))
        self._finer = self._pilot if census else np.minimum(self._pilot, FINER // len(parts))
        self._grids = NestedGrids(shape)
        self._is_coarse = self._grids.coarse.ravel().copy()
        if centre >= 0:
            self._is_coarse[centre] = True
        self._coarse = np.flatnonzero(self._is_coarse)
        self._order = np.random.default_rng([seed, 0x636865636B]).permutation(size)
        self._examples = np.zeros((len(parts), size), dtype=np.int64)
        self._broken = np.zeros(size, dtype=bool)
        # Until an example's correctness is no number: nothing is said of the accuracy then.
        self._is_graded = True
        self._values: list[dict[int, list[np.ndarray]]] = [{} for _ in parts]
        self._whole = np.full((len(parts), size, 2), np.nan)  # the means of cells whose values are not kept
        self._spreads = np.full((len(parts), size, 3), np.nan)  # and the deviations, see deviations()
        self._centre = centre
        # Of each part, the standard error of what a cell adds to those with more examples.
        self._own = np.zeros((len(parts), size))
        self._factor, self._tighter = 1.0, _LOOSE
        self._current: _Losses | None = None  # until something changes
        self._estimators = [Estimator(part.known, part.groups) for part in parts]
        self._expected = int(self._pilot.sum()) * len(self._coarse)  # losses

    def add(self, block: Block, values: np.ndarray) -> None:
        """Take the losses and correctness of a block, [cells, 2, examples]."""
        kept, whole = self._values[block.part], block.stop == self._totals[block.part]
        for cell, pair in zip(block.cells.tolist(), values, strict=True):
            kept.setdefault(cell, []).append(np.asarray(pair, dtype=np.float64))
            self._broken[cell] |= not np.isfinite(kept[cell][-1][0]).all()
            self._is_graded &= bool(np.isfinite(kept[cell][-1][1]).all())
            if self._broken[cell]:
                for part in range(len(self._parts)):
                    self._forget(part, cell)
            elif whole and not self._is_coarse[cell]:
                self._forget(block.part, cell)
        self._examples[block.part, block.cells] = block.stop
        self._current = None

    def _forget(self, part: int, cell: int) -> None:
        """Keep a cell's means alone: it adds no error any more."""
        self._own[part, cell] = 0.0
        if cell in self._values[part]:
            with np.errstate(invalid="ignore", over="ignore"):
                self._whole[part, cell] = np.concatenate(self._values[part][cell], axis=1).mean(1)
                self._spreads[part, cell] = self._deviation(part, cell)
            del self._values[part][cell]

    def rounds(self) -> Iterator[list[Block]]:
        """Ask until every cell is known to the tolerance; all blocks of a round have to be added before the next."""
        yield self._wanted(self._stops(self._coarse, self._pilot))
        share, held = self._split(), False
        while self._examples.sum() < MOST * self._broken.size * self._total:
            now = self._now()
            left = self._order[~self._known[self._order]]
            # The coarse cells first have to reach their share; then any cell may take all of the budget.
            limit = now.allowed * (share if self._known.sum() <= len(self._coarse) else 1.0)
            if self._uncertain(now, limit).any():
                if blocks := self._more_examples(now, share * now.allowed, limit):
                    yield blocks
            elif (over := self._over(now)).any():
                # A coarser grid's values come first: they change what the finer ones are predicted to be.
                level = self._grids.level.ravel()
                yield self._wanted(self._stops(over & (level == level[over].min()), self._finer))
            elif held or not len(left):
                return
            else:
                checked = np.sort(left[:CHECKED])
                yield self._wanted(self._stops(checked, self._finer))
                held = self._holds(now, checked)
        if blocks := self._everything():
            yield blocks

    def estimates(self) -> Estimates:
        """What the values so far say of all cells."""
        found = self._measures(2 if self._is_graded else 1)
        unknown = Prediction(np.full(self._shape, np.nan), np.zeros(self._shape)), np.zeros((0, *self._shape))
        (loss, loss_modes), (accuracy, accuracy_modes) = [*found, unknown][:2]
        return Estimates(
            loss=loss.values,
            accuracy=np.clip(accuracy.values, 0.0, 1.0),
            modes=loss_modes,
            accuracy_modes=accuracy_modes,
            bound=loss.error * self._factor,
            accuracy_bound=accuracy.error * self._factor,
            examples=np.where(self._known, self._examples.sum(0), 0).reshape(self._shape),
            allowed=self._allowed(loss.values),
        )

    def _now(self) -> _Losses:
        """What they say of the losses."""
        if self._current is None:
            loss, modes = self._measures(1)[0]
            errors, bound = np.sqrt((modes**2).sum(0)), loss.error * self._factor
            self._current = _Losses(loss.values, errors, bound, self._allowed(loss.values))
        return self._current

    def _allowed(self, loss: np.ndarray) -> float:
        return self._tolerance * spread_of(loss.ravel()[self._known])

    def _measures(self, number: int) -> list[tuple[Prediction, np.ndarray]]:
        """The losses of all cells and the modes [K, R, C] of their errors; with 2 the accuracies and theirs, too."""
        known, size = self._known.reshape(self._shape), self._broken.size
        means, modes = self._whole.copy(), []
        for part, weight in enumerate(self._weights):
            width, levels = self._levels(part, number)
            modes.append(np.zeros((number, size, width)))
            for cells, found in levels:
                for measure in range(number):
                    means[part, cells, measure] = found[measure].values
                    modes[-1][measure, cells] = weight * found[measure].modes
                self._own[part, cells] = weight * found[0].own
        mean = self._over_parts(means)
        return [
            (
                self._grids.predict(mean[:, measure].reshape(self._shape), known),
                interpolated(self._grids, _main(of_cells).T.reshape(-1, *self._shape), known),
            )
            for measure, of_cells in enumerate(np.concatenate(modes, axis=2))
        ]

    @property
    def _known(self) -> np.ndarray:
        """The cells [R * C] that are not interpolated."""
        return (self._examples > 0).all(0) | self._broken

    @property
    def evaluated(self) -> int:
        """How many cells have values."""
        return int(self._known.sum())

    @property
    def losses(self) -> int:
        """How many values there are, examples of cells."""
        return int(self._examples.sum())

    @property
    def expected(self) -> int:
        """How many there will be about, as far as it is planned."""
        return max(self._expected, self.losses)

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """The standard deviations over the examples of a cell's loss and of its difference to the centre [R, C].

        The latter within the strata, as far as the centre is evaluated. NaN where a cell is interpolated.
        """
        spreads = self._spreads.copy()
        for part, kept in enumerate(self._values):
            for cell in kept:
                spreads[part, cell] = self._deviation(part, cell)
        weights = self._weights[:, None]
        with np.errstate(invalid="ignore", over="ignore"):
            between = spreads[..., 0] - (weights * spreads[..., 0]).sum(0)
            loss = np.sqrt((weights * (spreads[..., 1] ** 2 + between**2)).sum(0))
            paired = np.sqrt((weights * spreads[..., 2] ** 2).sum(0))
        return loss.reshape(self._shape), paired.reshape(self._shape)

    def _deviation(self, part: int, cell: int) -> tuple[float, float, float]:
        """The mean loss of a cell over a part's examples, its deviation and that of the difference to the centre."""
        losses = np.concatenate(self._values[part][cell], axis=1)[0]
        if len(losses) < 2 or self._broken[cell]:
            return math.nan, math.nan, math.nan
        centre, paired = self._values[part].get(self._centre), math.nan
        if self._centre >= 0 and centre is not None and not self._broken[self._centre]:
            origin = np.concatenate(centre, axis=1)[0]
            count = min(len(losses), len(origin))
            rest, freedom = self._within(part, losses[:count] - origin[:count])
            paired = math.sqrt(float((rest**2).sum()) / freedom)
        return float(losses.mean()), float(losses.std(ddof=1)), paired

    def _within(self, part: int, losses: np.ndarray) -> tuple[np.ndarray, int]:
        """What a part's first losses [n, ...] are beyond a linear function of what is known; its freedom."""
        known = self._parts[part].known[: len(losses)]
        x = np.concatenate([np.ones((len(losses), 1)), known], axis=1)
        rest = losses - x @ np.linalg.lstsq(x, losses, rcond=None)[0]
        return rest, max(1, len(x) - int(np.linalg.matrix_rank(x)))

    def _over_parts(self, values: np.ndarray) -> np.ndarray:
        """Means over all examples [R * C, 2] from those over the parts; NaN where a cell is not known."""
        weights = np.where(self._examples > 0, self._weights[:, None], 0.0)[..., None]
        with np.errstate(invalid="ignore", over="ignore"):
            means = np.where(weights > 0, weights * values, 0.0).sum(0) / weights.sum(0)
        return np.where(self._known[:, None], means, np.nan)

    def _levels(self, part: int, measures: int) -> tuple[int, list[tuple[list[int], tuple[Means, Means]]]]:
        """The number of modes, and the cells of each of a part's levels with their means."""
        groups: dict[int, list[int]] = {}
        for cell in sorted(self._values[part]):
            groups.setdefault(int(self._examples[part, cell]), []).append(cell)
        cells = [groups[count] for count in sorted(groups, reverse=True)]
        if not cells:
            return 0, []

        def guess(number: int) -> np.ndarray:
            return self._grids.weights([cell for group in cells[:number] for cell in group], cells[number])

        levels = []
        for group in cells:
            losses, correct = np.stack(
                [np.concatenate(self._values[part][cell], axis=1) for cell in group], axis=-1
            )
            name = measures, len(losses), tuple(group)
            levels.append(Level(losses, correct if measures > 1 else correct[:, :0], name))
        found = self._estimators[part](levels, guess)
        return found[-1][0].modes.shape[1], list(zip(cells, found, strict=True))

    # -- what is wanted

    def _stops(self, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Of each part and cell [parts, R * C], up to which example: ``counts`` [parts] at some cells, else 0."""
        stops = np.zeros_like(self._examples)
        stops[:, cells] = counts[:, None]
        return stops

    def _wanted(self, stops: np.ndarray) -> list[Block]:
        """What the cells lack of the first ``stops`` [parts, R * C] examples of the parts."""
        blocks = []
        for part, (starts, ends) in enumerate(zip(self._examples, stops, strict=True)):
            lacking = (starts < ends) & ~self._broken
            for start, stop in np.unique(np.stack([starts, ends], 1)[lacking], axis=0).tolist():
                cells = np.flatnonzero(lacking & (starts == start) & (ends == stop))
                blocks.append(Block(cells, part, start, stop))
        return blocks

    def _everything(self) -> list[Block]:
        self._expected = self._broken.size * self._total
        return self._wanted(self._stops(np.arange(self._broken.size), self._totals))

    def _uncertain(self, now: _Losses, limit: float) -> np.ndarray:
        """The cells [R * C] whose intervals by sampling alone exceed a half width, and could be narrower."""
        sampled = (self._examples < self._totals[:, None]).any(0) & self._known & ~self._broken
        if not sampled.any():
            return sampled
        return (_NORMAL * now.errors.ravel() > limit) & self._known

    def _over(self, now: _Losses) -> np.ndarray:
        """The interpolated cells [R * C] that exceed the budget."""
        return (now.half_width > now.allowed).ravel() & ~self._known

    def _more_examples(self, now: _Losses, planned: float, limit: float) -> list[Block]:
        """The coarse cells' sizes for a planned half width; where they have them, what else is too uncertain."""
        plan = self._plan(self._tighter * planned)
        if plan.sum() > MOST * self._broken.size * self._total:
            return self._everything()
        self._expected = max(self._expected, int(np.maximum(plan, self._examples).sum()))
        if blocks := self._wanted(plan):
            return blocks
        errors, own = now.errors.ravel(), self._own
        uncertain = self._uncertain(now, limit)
        heavy = uncertain & ((own**2).sum(0) > (_HEAVY * errors) ** 2)
        # What a finer cell takes over from others is mostly from the few examples of those beside it.
        fine = self._known & ~self._is_coarse & self._beside(uncertain & ~heavy)
        cells = np.flatnonzero((heavy | fine) & ~self._broken)
        most, raised = own[:, cells].argmax(0), np.zeros_like(self._examples)  # the part that adds most
        raised[most, cells] = [
            self._rung(part, 1.4 * self._examples[part, cell])
            for part, cell in zip(most.tolist(), cells.tolist(), strict=True)
        ]
        if blocks := self._wanted(raised):
            return blocks
        worst = _NORMAL * float(errors[uncertain].max())
        self._tighter *= min(max(limit / worst, 0.8), 0.98)
        if self._tighter < _TIGHTEST:  # no plan helps: there has to be an end
            return self._wanted(self._stops(uncertain, self._totals))
        return []

    def _beside(self, cells: np.ndarray) -> np.ndarray:
        """The cells [R * C] that are no further from some than half of the coarse grid's steps."""
        from scipy.ndimage import maximum_filter

        rows, columns = (np.flatnonzero(self._grids.coarse.any(axis)) for axis in (1, 0))
        steps = [int(np.diff(ticks).max(initial=1)) for ticks in (rows, columns)]
        found: np.ndarray = maximum_filter(
            cells.reshape(self._shape), [2 * (step // 2) + 1 for step in steps]
        )
        return found.ravel()

    def _plan(self, half_width: float) -> np.ndarray:
        """The examples of each part and coarse cell [parts, R * C] with which half widths stay below a number."""
        plan, shares, orders = np.zeros_like(self._examples), [], []
        cells = self._coarse[~self._broken[self._coarse]]
        if not len(cells) or (self._pilot == self._totals).all():
            return plan
        for part, weight in enumerate(self._weights):
            count = int(self._examples[part, cells].min())
            values = (np.concatenate(self._values[part][cell], axis=1)[0, :count] for cell in cells.tolist())
            rest, freedom = self._within(part, np.stack(list(values), axis=1))
            order, lower, left = factorized(rest.T @ rest / freedom, count)
            shares.append(weight**2 * lower**2 * left)
            orders.append(cells[order])
        least = int(self._pilot.min())
        found = sizes(shares, self._totals.tolist(), (half_width / _NORMAL) ** 2, least)
        for part, (order, counts) in enumerate(zip(orders, found, strict=True)):
            plan[part, order] = [self._rung(part, count) for count in counts]
        return plan

    def _rung(self, part: int, count: float) -> int:
        """The next one of pilot * 2^(k/4), so that cells share levels; the part's total where that is near."""
        least, total = int(self._pilot[part]), int(self._totals[part])
        steps = math.ceil(4 * math.log2(max(count / least, 1.0)) - 1e-9)
        rung = round(least * 2 ** (steps / 4))
        return total if rung > 0.85 * total else rung

    def _split(self) -> float:
        """The share of the budget with which sampling and the next grid's cells cost least."""
        now = self._now()
        if (self._pilot == self._totals).all() or not now.allowed > 0:
            return SHARES[-1]
        level = self._grids.level
        following = level == level[self._grids.coarse].max() + 1
        costs = [
            int(self._plan(share * now.allowed).sum())
            + int(self._finer.sum() * (following & (now.bound > (1 - share) * now.allowed)).sum())
            for share in SHARES
        ]
        self._expected = int(min(costs))
        return SHARES[int(np.argmin(costs))]

    def _holds(self, before: _Losses, cells: np.ndarray) -> bool:
        """Whether the cells, which were interpolated before, lie within their bounds; the bounds rise if not."""
        now = self._now()
        with np.errstate(invalid="ignore"):
            own = np.sqrt((self._own[:, cells] ** 2).sum(0))
            off = np.abs(now.loss - before.loss).flat[cells] - _NORMAL * own
        bound = np.maximum(before.bound.flat[cells], 0.01 * before.allowed)
        worst = float((off / bound).max()) if before.allowed > 0 else 0.0
        if worst > 1:
            self._factor *= min(2.0, worst)
            self._current = None
        return worst <= 1  # False where one is NaN, too


def half_width(errors: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Half the width of 95% intervals, from standard errors by sampling and bounds of what is interpolated."""
    known, half_widths = _intervals()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(errors > 0, bound / errors, np.inf)
        # Beyond the table one end alone matters.
        wide = np.where(
            ratio < known[-1], np.interp(ratio, known, half_widths) * errors, _ONE_END * errors + bound
        )
    return np.asarray(wide)


@cache
def _intervals() -> tuple[np.ndarray, np.ndarray]:
    """Half widths of 95% intervals of a normal error beside one of a bound, and these bounds, in standard errors."""
    from scipy.special import ndtr

    bounds = np.linspace(0.0, 5.0, 501)
    low, high = bounds + 1.6, bounds + 2.0
    for _ in range(50):
        middle = (low + high) / 2
        enough = ndtr(middle - bounds) - ndtr(-middle - bounds) >= 0.95
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return bounds, high


def _main(modes: np.ndarray) -> np.ndarray:
    """The errors' modes [cells, K] turned so that few of them hold all that is seen of the covariance."""
    rows = np.flatnonzero((modes != 0).any(1))
    if not len(rows):
        return modes[:, :0]
    # The eigenvectors of the covariance; its rounding is far below what is kept of it.
    strengths, left = np.linalg.eigh(modes[rows] @ modes[rows].T)
    kept = strengths > _LEAST_MODE**2 * strengths[-1]
    turned = np.zeros((len(modes), int(kept.sum())))
    turned[rows] = left[:, kept] * np.sqrt(strengths[kept])
    return turned
