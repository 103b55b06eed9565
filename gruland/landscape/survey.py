"""Which cells of a grid to evaluate on which examples, so that every cell's mean loss is known to a tolerance.

There is one budget: half the width of a cell's 95% interval (sampling) plus the bound of its interpolation's error is
at most the tolerance, a share of the range of the mean loss. What it takes is found out from the values themselves:

1. *Sizes.* The coarse grid is evaluated on a few examples, the pilot. Their covariance says how many examples each of
   its cells needs (:mod:`gruland.landscape.allocation`) for the share of the budget that sampling gets, and the spline
   through it how many cells the next grid needs for the rest. The split that costs least is taken.
2. *Cells.* A cell is evaluated, on the pilot's examples, where its interval and the estimated error of a spline through
   the others (:mod:`gruland.landscape.refinement`) exceed the budget. One whose own residual is too large gets more.
3. *Checks.* Random cells that would be interpolated are evaluated. Where one is off by more than its bound and its
   noise, all bounds rise by as much, and the refinement goes on.

Means and errors are those of :mod:`gruland.landscape.multilevel`. Where less does not do, all cells are evaluated on
all examples. A cell with a loss that is not finite has the mean of those that were evaluated, NaN or infinite, and is
asked for no more; as in any sample, one that no evaluated example shows is not seen.

N examples, R rows, C columns, K modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gruland.landscape.allocation import factorized, sizes
from gruland.landscape.multilevel import Level, Means, estimate
from gruland.landscape.refinement import NestedGrids, interpolated, spread_of

#: Examples of the pilot, and of every cell that is not in the coarse grid.
PILOT = 192
#: Random cells of a check. When all of them hold, fewer than 12% of the interpolated cells fail (95% confidence).
CHECKED = 24
#: The shares of the budget that sampling may get.
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
#: Everything is evaluated where the plan takes more than this share of it.
MOST = 0.6
_NORMAL = 1.96  # the 97.5% quantile of the normal distribution
# The pilot's plan may be too large, since it knows of no probabilities: it begins with this multiple of the half width.
_LOOSE = 1.2
_LEAST_MODE = 1e-3  # of the largest: what less adds to a standard error is not seen in three digits


class Block(NamedTuple):
    """Cells (row * columns + column) and the examples that are wanted of them, ``start`` to ``stop`` of their order."""

    cells: np.ndarray
    start: int
    stop: int


@dataclass(frozen=True)
class Estimates:
    """What is known of a surface.

    Attributes:
        loss, accuracy: [R, C].
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
        return _NORMAL * self.errors + self.bound


class Survey:
    """The cells of a grid on their way: :meth:`blocks` says what is wanted next, :meth:`add` takes it.

    What is asked for is a function of the arguments and the answers alone, so that an interrupted survey whose answers
    were kept can be repeated.

    Args:
        shape: R and C.
        known: [N, S] columns that tell the strata apart, of all examples in their order.
        tolerance: the share of the range of the mean loss.
        seed: of the checks.
        pilot: examples of the pilot; N for a surface without sampling.
        centre: the cell (row * columns + column) that differences are taken to; -1 where there is none.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        known: np.ndarray,
        tolerance: float,
        seed: int = 0,
        *,
        pilot: int = PILOT,
        centre: int = -1,
    ) -> None:
        self._shape, self._known, self._tolerance = shape, known, tolerance
        self._total, size = len(known), shape[0] * shape[1]
        # Of twice the pilot more than half would be evaluated: sampling saves nothing.
        self._pilot = self._total if self._total < 2 * pilot else pilot
        self._grids = NestedGrids(shape)
        self._coarse = np.flatnonzero(self._grids.coarse)
        self._order = np.random.default_rng([seed, 0x636865636B]).permutation(size)
        self._examples, self._broken = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=bool)
        self._values: dict[int, list[np.ndarray]] = {}
        self._whole = np.full((size, 2), np.nan)  # the means of cells whose values are not kept
        self._spreads = np.full((size, 2), np.nan)  # and the standard deviations, see deviations()
        self._centre = centre
        self._own = np.zeros(size)  # the standard error of what a cell adds to those with more examples
        self._factor, self._tighter = 1.0, _LOOSE

    def add(self, block: Block, values: np.ndarray) -> None:
        """Take the losses and correctness of a block, [cells, 2, examples]."""
        for cell, pair in zip(block.cells.tolist(), values, strict=True):
            parts = self._values.setdefault(cell, [])
            parts.append(np.asarray(pair, dtype=np.float64))
            self._broken[cell] |= not np.isfinite(parts[-1][0]).all()
            if self._broken[cell] or (block.stop == self._total and not self._grids.coarse.flat[cell]):
                with np.errstate(invalid="ignore", over="ignore"):
                    self._whole[cell] = np.concatenate(parts, axis=1).mean(1)
                    self._spreads[cell] = self._deviation(cell)
                del self._values[cell]
        self._examples[block.cells] = block.stop

    def blocks(self) -> Iterator[Block]:
        """Ask until every cell is known to the tolerance; each block has to be added before the next one."""
        yield from self._wanted(self._coarse, self._pilot)
        share, held = self._split(), False
        while self._examples.sum() < MOST * self._examples.size * self._total:
            now = self.estimates()
            left = self._order[self._examples[self._order] == 0]
            if self._uncertain(now).any():
                yield from self._more_examples(now, share)
            elif (over := self._over(now)).any():
                # A coarser grid's values come first: they change what the finer ones are predicted to be.
                level = self._grids.level.ravel()
                yield from self._wanted(np.flatnonzero(over & (level == level[over].min())), self._pilot)
            elif held or not len(left):
                return
            else:
                checked = np.sort(left[:CHECKED])
                yield from self._wanted(checked, self._pilot)
                held = self._holds(now, checked)
        yield from self._everything()

    def estimates(self) -> Estimates:
        """What the values so far say of all cells."""
        size, known = self._examples.size, (self._examples > 0).reshape(self._shape)
        mean, (width, levels) = self._whole.copy(), self._levels()
        modes = np.zeros((2, size, width))
        for cells, found in levels:
            for number, means in enumerate(found):
                mean[cells, number], modes[number, cells] = means.values, means.modes
            self._own[cells] = found[0].own
        loss, accuracy = (self._grids.predict(mean[:, n].reshape(self._shape), known) for n in (0, 1))
        loss_modes, accuracy_modes = (
            interpolated(self._grids, _main(part).T.reshape(-1, *self._shape), known) for part in modes
        )
        return Estimates(
            loss=loss.values,
            accuracy=np.clip(accuracy.values, 0.0, 1.0),
            modes=loss_modes,
            accuracy_modes=accuracy_modes,
            bound=loss.error * self._factor,
            accuracy_bound=accuracy.error * self._factor,
            examples=self._examples.reshape(self._shape).copy(),
            allowed=self._tolerance * spread_of(mean[known.ravel(), 0]),
        )

    @property
    def evaluated(self) -> int:
        """How many cells have values."""
        return int((self._examples > 0).sum())

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """The standard deviations over the examples of a cell's loss and of its difference to the centre [R, C].

        The latter within the strata, as far as the centre is evaluated. NaN where a cell is interpolated.
        """
        spreads = self._spreads.copy()
        for cell in self._values:
            spreads[cell] = self._deviation(cell)
        return spreads[:, 0].reshape(self._shape), spreads[:, 1].reshape(self._shape)

    def _deviation(self, cell: int) -> tuple[float, float]:
        losses = np.concatenate(self._values[cell], axis=1)[0]
        if len(losses) < 2 or self._broken[cell]:
            return math.nan, math.nan
        centre = self._values.get(self._centre)
        if self._centre < 0 or centre is None or self._broken[self._centre]:
            return float(losses.std(ddof=1)), math.nan
        origin = np.concatenate(centre, axis=1)[0]
        count = min(len(losses), len(origin))
        rest, freedom = self._within(losses[:count] - origin[:count])
        return float(losses.std(ddof=1)), math.sqrt(float((rest**2).sum()) / freedom)

    def _within(self, losses: np.ndarray) -> tuple[np.ndarray, int]:
        """What the first examples' losses [n, ...] are beyond a linear function of what is known; its freedom."""
        x = np.concatenate([np.ones((len(losses), 1)), self._known[: len(losses)]], axis=1)
        rest = losses - x @ np.linalg.lstsq(x, losses, rcond=None)[0]
        return rest, max(1, len(x) - int(np.linalg.matrix_rank(x)))

    def _levels(self) -> tuple[int, list[tuple[list[int], tuple[Means, Means]]]]:
        """The number of modes, and the cells of each level with their means."""
        groups: dict[int, list[int]] = {}
        for cell in sorted(self._values):
            groups.setdefault(int(self._examples[cell]), []).append(cell)
        cells = [groups[count] for count in sorted(groups, reverse=True)]
        if not cells:
            return 0, []
        values = [[np.concatenate(self._values[cell], axis=1) for cell in group] for group in cells]
        levels = [Level(*np.stack(group, axis=-1)) for group in values]
        found = estimate(levels, self._known)
        return found[-1][0].modes.shape[1], list(zip(cells, found, strict=True))

    # -- what is wanted

    def _wanted(self, cells: np.ndarray, stop: int) -> Iterator[Block]:
        """What the cells lack of the first ``stop`` examples."""
        cells = cells[~self._broken[cells]]
        for start in np.unique(self._examples[cells]).tolist():
            if start < stop:
                yield Block(cells[self._examples[cells] == start], start, stop)

    def _everything(self) -> Iterator[Block]:
        yield from self._wanted(np.arange(self._examples.size), self._total)

    def _uncertain(self, now: Estimates) -> np.ndarray:
        """The cells [R * C] whose sampling alone takes the budget, and could take less."""
        if not ((self._examples > 0) & (self._examples < self._total) & ~self._broken).any():
            return np.zeros(self._examples.size, dtype=bool)
        return (_NORMAL * now.errors > 0.95 * now.allowed).ravel()

    def _over(self, now: Estimates) -> np.ndarray:
        """The interpolated cells [R * C] that exceed the budget."""
        return (now.half_width > now.allowed).ravel() & (self._examples == 0)

    def _more_examples(self, now: Estimates, share: float) -> Iterator[Block]:
        """The coarse cells' sizes for their share of the budget; where they have them, what else is too uncertain."""
        plan = self._plan(self._tighter * share * now.allowed)
        if sum(plan.values()) > MOST * self._examples.size * self._total:
            yield from self._everything()
            return
        before = self._examples.sum()
        for count in sorted(set(plan.values())):
            cells = [cell for cell, wanted in plan.items() if wanted >= count]
            yield from self._wanted(np.array(cells), count)
        if self._examples.sum() > before:
            return
        errors = now.errors.ravel()
        heavy = np.flatnonzero(
            self._uncertain(now) & (self._own > 0.8 * errors) & (self._examples < self._total)
        )
        heavy = heavy[self._examples[heavy] > 0]
        for cell in heavy:
            yield from self._wanted(heavy[heavy == cell], self._rung(1.4 * self._examples[cell]))
        if not len(heavy):
            self._tighter *= 0.95

    def _plan(self, half_width: float) -> dict[int, int]:
        """The examples of each coarse cell with which their half widths stay below a number."""
        cells = self._coarse[~self._broken[self._coarse]]
        if not len(cells) or self._pilot == self._total:
            return {}
        losses = np.stack([self._values[cell][0][0] for cell in cells.tolist()], axis=1)
        rest, freedom = self._within(losses)
        order, lower, left = factorized(rest.T @ rest / freedom, len(losses))
        counts = sizes(lower, left, self._total, (half_width / _NORMAL) ** 2, self._pilot)
        return {int(cells[j]): self._rung(count) for j, count in zip(order, counts, strict=True)}

    def _rung(self, count: float) -> int:
        """The next one of pilot * 2^(k/4), so that cells share levels; N where that is near."""
        steps = math.ceil(4 * math.log2(max(count / self._pilot, 1.0)) - 1e-9)
        rung = round(self._pilot * 2 ** (steps / 4))
        return self._total if rung > 0.85 * self._total else rung

    def _split(self) -> float:
        """The share of the budget with which sampling and the next grid's cells cost least."""
        now = self.estimates()
        if self._pilot == self._total or not now.allowed > 0:
            return SHARES[-1]
        level = self._grids.level
        following = level == level[self._grids.coarse].max() + 1
        costs = [
            sum(self._plan(share * now.allowed).values())
            + self._pilot * int((following & (now.bound > (1 - share) * now.allowed)).sum())
            for share in SHARES
        ]
        return SHARES[int(np.argmin(costs))]

    def _holds(self, before: Estimates, cells: np.ndarray) -> bool:
        """Whether the cells, which were interpolated before, lie within their bounds; the bounds rise if not."""
        now = self.estimates()
        with np.errstate(invalid="ignore"):
            off = np.abs(now.loss - before.loss).flat[cells] - _NORMAL * self._own[cells]
        bound = np.maximum(before.bound.flat[cells], 0.01 * before.allowed)
        worst = float((off / bound).max()) if before.allowed > 0 else 0.0
        if worst > 1:
            self._factor *= min(2.0, worst)
        return worst <= 1  # False where one is NaN, too


def _main(modes: np.ndarray) -> np.ndarray:
    """The errors' modes [cells, K] turned so that few of them hold all that is seen of the covariance."""
    rows = np.flatnonzero((modes != 0).any(1))
    if not len(rows):
        return modes[:, :0]
    left, strengths, _ = np.linalg.svd(modes[rows], full_matrices=False)
    kept = strengths > _LEAST_MODE * strengths[0]
    turned = np.zeros((len(modes), int(kept.sum())))
    turned[rows] = left[:, kept] * strengths[kept]
    return turned
