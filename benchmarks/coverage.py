"""Whether surfaces to a tolerance keep it: estimated again and again where the loss of every review is known.

A plane's losses of some reviews at every cell are computed once, into a table that an interrupted command goes on with;
estimates that look their losses up in it cost nothing, and the exact mean of every cell is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.subject import Context
from benchmarks.table import Row
from gruland.landscape import compute_surface
from gruland.landscape.directions import fingerprint
from gruland.landscape.objective import OnPlane
from gruland.landscape.surface import axis
from gruland.objective import EvaluationLoss

TITLE = "The coverage of sampled surfaces"
#: Cells on a side and reviews: the population whose means are wanted.
SIZE, REVIEWS = 13, 500
EXTENTS = (1.0, 2.0, 0.5)
TOLERANCES = (0.005, 0.01, 0.02)
#: Estimates of each surface, with orders of their own.
SEEDS = 10
#: Of all cells of all estimates, and the worst cell's error in tolerances.
WITHIN, WORST = 95.0, 2.0
TABLES = Path(__file__).parents[1] / "outputs" / "benchmarks-coverage"


def measure(context: Context) -> Iterator[Row]:
    """Two rows for each extent and tolerance."""
    for extent in EXTENTS if context.settings.full else EXTENTS[:1]:
        table = table_of(context, extent)
        for tolerance in TOLERANCES if context.settings.full else TOLERANCES[-1:]:
            yield from _rows(table, extent, tolerance, SEEDS if context.settings.full else 1)


def _rows(table: Table, extent: float, tolerance: float, seeds: int) -> Iterator[Row]:
    exact = table.losses.mean(2)
    allowed, size, reviews = tolerance * np.ptp(exact), len(exact), table.losses.shape[2]
    errors, shares = [], []
    for seed in range(seeds):
        surface = compute_surface(
            table, table.origin, table.directions, size=size, extent=extent, tolerance=tolerance, seed=seed
        )
        errors.append(np.abs(surface["loss"].values - exact) / allowed)
        shares.append(surface.attrs["evaluations"] / table.losses.size)
    setting = (
        f"{size}x{size} over {reviews:,} reviews, extent {extent:g}, +-{tolerance:.1%}, {seeds} estimates"
    )
    note = f"of {np.mean(shares):.0%} of the losses"
    within = 100 * float(np.mean(np.array(errors) <= 1))
    yield Row("cells within the tolerance", "the exact surface", setting, within, "%", WITHIN, note=note)
    yield Row(
        "the worst cell's error, in tolerances", "the exact surface", setting, float(np.max(errors)), "", WORST,
        at_least=False, note=note,
    )  # fmt: skip


def table_of(context: Context, extent: float) -> Table:
    """The losses of some training reviews on a plane of the context's model, computed or found."""
    size, reviews = (SIZE, REVIEWS) if context.settings.full else (5, context.settings.reviews)
    encoded, labels = context.reviews(reviews)
    origin = context.model.trainable()
    evaluate = EvaluationLoss(context.model, encoded, labels, precision="float32")
    at, steps = evaluate.on_plane(origin, context.directions), axis(size, extent)
    asked = f"{fingerprint(origin)} {encoded.size} {size} {extent}"
    file = TABLES / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npy"
    if context.settings.full:
        file.parent.mkdir(parents=True, exist_ok=True)
    values = _opened(file if context.settings.full else None, (size, size, 2, encoded.size))
    for row, column in product(range(size), repeat=2):
        if np.isnan(values[row, column]).any():
            values[row, column] = torch.stack(list(at((steps[column], steps[row])))).double().numpy()
    return Table(np.array(values), labels, steps, origin, context.directions)


def _opened(file: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    """NaN where there is nothing yet."""
    if file is None:
        return np.full(shape, np.nan)
    if file.exists():
        return np.lib.format.open_memmap(file, mode="r+")
    values = np.lib.format.open_memmap(file, mode="w+", dtype=np.float64, shape=shape)
    values[:] = np.nan
    return values


class Table:
    """Known losses as an objective that can be divided.

    Args:
        values: losses and correctness [R, C, 2, N].
        labels: [N].
        steps: of both axes.
        origin, directions: the plane's.
    """

    def __init__(
        self,
        values: np.ndarray,
        labels: np.ndarray,
        steps: np.ndarray,
        origin: Mapping[str, Tensor],
        directions: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self._values, self._steps, self.strata = values, steps, labels
        self.origin, self.directions = origin, directions
        self.about = {"objective": "known losses"}

    @property
    def losses(self) -> np.ndarray:
        """[R, C, N]."""
        return self._values[:, :, 0]

    def take(self, rows: np.ndarray) -> Table:
        """Those of some examples."""
        return Table(self._values[..., rows], self.strata[rows], self._steps, self.origin, self.directions)

    def __call__(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        raise LookupError("the losses are known on the plane alone")

    def on_plane(
        self, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> OnPlane:
        """Those of the cell at some steps."""

        def at(steps: Sequence[float], rows: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
            column, row = (int(np.abs(self._steps - step).argmin()) for step in steps)
            found = self._values[row, column] if rows is None else self._values[row, column][:, rows]
            return torch.from_numpy(found[0].copy()), torch.from_numpy(found[1].copy())

        return at
