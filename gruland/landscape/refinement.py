"""Cells of a grid by bicubic splines through others, and how far off they may be.

The grid's rows and columns form nested grids: first the ends and the centre, then each interval halved until every
cell is there. All cells of the coarse grid are evaluated. A cell that a finer grid adds is predicted by the spline
through the grid before it; where it is evaluated, the distance to the prediction is its *surplus*, the hierarchical
indicator of sparse grids (Bungartz & Griebel 2004, section 3). The error of a cell that is not evaluated is estimated
as the largest of

- 3/16 of the surpluses that the coarser grid's new cells around it had (a spline's error falls sixteenfold from
  grid to grid on a smooth surface, twofold at a kink), halved for each interval further away, since a spline rings,
  and doubled in the outermost intervals, where it has neighbours on one side alone;
- the estimates of predicted cells from which it was predicted;
- 1.4 times the surpluses of the cells next to it, whatever the grid.

(The factors are the ones that kept the true error of loss surfaces of trained GRUs below the estimate.) Which cells are
evaluated for it, and how the estimate is checked, says :mod:`gruland.landscape.survey`.

R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

#: Points a side of the coarse grid, but no more than half of the grid's (5 at least).
COARSE = 9
_DECAY, _RINGING, _RIM, _MARGIN = 3 / 16, 1 / 2, 2.0, 1.4


@dataclass(frozen=True)
class Prediction:
    """A grid on which the cells that are not known are interpolated.

    Attributes:
        values: [R, C]; known ones as they are.
        error: the estimated error [R, C], 0 where known.
    """

    values: np.ndarray
    error: np.ndarray


class NestedGrids:
    """The nested grids of R x C cells.

    Attributes:
        grids: row numbers and column numbers of each, from the coarsest (3 x 3, or what there is) to all.
        level: [R, C] the number of the first grid that has a cell.
        coarse: [R, C] whether a cell belongs to the coarse grid.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        axes = [halvings(size) for size in shape]
        depth = max(map(len, axes))
        rows, columns = ([*axis, *[axis[-1]] * (depth - len(axis))] for axis in axes)
        self.grids = list(zip(rows, columns, strict=True))
        self.level = np.full(shape, depth)
        for number, grid in reversed(list(enumerate(self.grids))):
            self.level[np.ix_(*grid)] = number
        most = [min(COARSE, max(5, size // 2)) for size in shape]
        fitting = [n for n, (r, c) in enumerate(self.grids) if len(r) <= most[0] and len(c) <= most[1]]
        self.coarse = self.level <= fitting[-1]

    def predict(self, values: np.ndarray, known: np.ndarray) -> Prediction:
        """Interpolate what is not known of ``values`` [R, C].

        Until all of the coarsest grid is known, the error of the other cells is infinite.

        A value that is not finite counts as the greatest finite one with a surplus of the whole range, so that the
        cells around it are evaluated. Where no known value is finite, nothing is predicted: NaN.
        """
        finite = known & np.isfinite(values)
        high = values[finite].max() if finite.any() else np.nan
        unbounded = max(spread_of(values[known]), np.finfo(float).tiny)
        filled, error = np.where(finite, values, high), np.zeros(values.shape)
        before = np.zeros(values.shape)  # the surpluses of the cells that the coarser grid added
        for number, (coarse, fine) in enumerate(pairwise(self.grids), 1):
            parents, cells = np.ix_(*coarse), np.ix_(*fine)
            new, here = self.level[cells] == number, known[cells]
            predicted = _spline(filled[parents], coarse, fine)
            predicted[~np.isfinite(predicted)] = high
            distance = np.where(finite[cells], np.abs(filled[cells] - predicted), unbounded)
            surplus = np.where(new & here, distance, 0.0)
            inherited = np.maximum(
                _DECAY * _rim(coarse, fine) * _corners(_spread(before[parents]), coarse, fine),
                _corners(error[parents], coarse, fine),
            )
            estimate = np.maximum(_MARGIN * _around(surplus), np.where(new, inherited, error[cells]))
            error[cells] = np.where(here, 0.0, estimate)
            filled[cells] = np.where(new & ~here, predicted, filled[cells])
            before[:] = 0.0
            before[cells] = surplus
        if not known[self.level == 0].all():  # nothing says how far off what is beside no value may be
            error = np.where(known, 0.0, np.inf)
        return Prediction(np.where(known, values, filled), error)

    def weights(self, known: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
        """With which weights [known, wanted] the values of some cells (row * C + column) give those of others.

        Zeros where the coarsest grid is not among the known ones.
        """
        shape, cells = self.level.shape, np.asarray(known, dtype=np.int64)
        mask = np.zeros(self.level.size, dtype=bool)
        mask[cells] = True
        if not mask[self.level.ravel() == 0].all():
            return np.zeros((len(cells), len(wanted)))
        units = np.zeros((len(cells), mask.size))
        units[np.arange(len(cells)), cells] = 1.0
        spread = interpolated(self, units.reshape(-1, *shape), mask.reshape(shape))
        return spread.reshape(len(cells), -1)[:, wanted]


def interpolated(grids: NestedGrids, fields: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fields [K, R, C] with what is not known interpolated as :meth:`NestedGrids.predict` does it."""
    filled = np.where(known, fields, 0.0)
    for number, (coarse, fine) in enumerate(pairwise(grids.grids), 1):
        cells = np.ix_(*fine)
        new = (grids.level[cells] == number) & ~known[cells]
        (above, left), (row, column) = np.ix_(*coarse), cells
        predicted = _spline(filled[..., above, left], coarse, fine)
        filled[..., row, column] = np.where(new, predicted, filled[..., row, column])
    return filled


def spread_of(values: np.ndarray) -> float:
    """The range of the finite values, 0 without any."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if finite.size else 0.0


def halvings(size: int) -> list[np.ndarray]:
    """The nested grids of one axis, rising numbers in [0, size), symmetric about the centre where there is one."""
    odd = size % 2 == 1
    grids = [np.unique([0, size // 2] if odd else [0, size // 2, size - 1])]
    while (np.diff(grids[-1]) > 1).any():
        grids.append(np.unique([*grids[-1], *((grids[-1][:-1] + grids[-1][1:]) // 2)]))
    return [np.unique([*grid, *(size - 1 - grid)]) if odd else grid for grid in grids]


def _spline(values: np.ndarray, coarse: tuple[np.ndarray, ...], fine: tuple[np.ndarray, ...]) -> np.ndarray:
    """The tensor product of cubic not-a-knot splines (of a lower degree through fewer points) on the finer grid.

    Args:
        values: [..., rows, columns] on the coarse grid.
    """
    rows, columns = (
        _spline_weights(tuple(old.tolist()), tuple(new.tolist()))
        for old, new in zip(coarse, fine, strict=True)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return rows @ values @ columns.T


@cache
def _spline_weights(old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """With which weights [new, old] a spline takes the values at some points to others."""
    from scipy.interpolate import make_interp_spline

    if old == new:
        return np.eye(len(old))
    return np.asarray(make_interp_spline(old, np.eye(len(old)), k=min(3, len(old) - 1))(new))


def _spread(indicator: np.ndarray) -> np.ndarray:
    """Each cell's influence on all others: halved for each step along an axis."""
    spread = indicator.copy()
    for _ in range(2):
        for lines in (spread, spread[::-1]):
            for before, line in pairwise(lines):
                np.maximum(line, _RINGING * before, out=line)
        spread = spread.T
    return spread


def _corners(values: np.ndarray, coarse: tuple[np.ndarray, ...], fine: tuple[np.ndarray, ...]) -> np.ndarray:
    """The greatest value at the corners of the coarse rectangles in which a fine cell lies."""
    for old, new in zip(coarse, fine, strict=True):
        below, above = np.searchsorted(old, new, "right") - 1, np.searchsorted(old, new, "left")
        values = np.maximum(values[below], values[above]).T
    return values


def _rim(coarse: tuple[np.ndarray, ...], fine: tuple[np.ndarray, ...]) -> np.ndarray:
    """The factor of the fine cells that lie in an outermost coarse interval, else 1."""
    # An axis of one point has no intervals.
    rows, columns = (
        (new < old[1:2]) | (new > old[-2:-1]) if len(old) > 1 else np.zeros(len(new), dtype=bool)
        for old, new in zip(coarse, fine, strict=True)
    )
    return np.where(rows[:, None] | columns, _RIM, 1.0)


def _around(values: np.ndarray) -> np.ndarray:
    """The greatest value among a cell and its eight neighbours."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(values, 3, mode="nearest")
