"""The loss axis that pictures share (heights, colours, contour levels, ticks), and the models' colours.

Heights, colours and contour levels are linear in the loss, so that a flat valley looks flat. Where a few
cells at the rim are far above all others (more than ten times the median's height above the least loss), they
are compressed: linear up to that median, logarithmic beyond. Axes are labelled with the loss itself either
way, and no value is clipped or smoothed.

The colours survive grey print and colour blindness. Losses: viridis, whose lightness rises with the loss. Models: the
palette of Okabe and Ito ("Color Universal Design", 2008) without its yellow, which is lost on white paper, ordered so
that neighbours and the first three differ in lightness. A colour never stands alone: each model also has a line style
and a marker of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Of losses.
COLORS = "viridis"

#: Of models: blue, orange, black, bluish green, reddish purple, vermilion, sky blue.
CATEGORIES = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
LINE_STYLES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (7, 1.5)), (0, (5, 1, 1, 1, 1, 1)), (0, (1.5, 3)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: Cells without a loss, and panels without a model.
ABSENT = "#d9d9d9"


def category(index: int) -> dict[str, Any]:
    """Colour, line style and marker of the model with this index, as matplotlib's ``plot`` takes them.

    The first 49 are all different; from the eighth on colours come back with another line style and marker.
    """
    turn, place = divmod(index, len(CATEGORIES))
    shifted = (place + turn) % len(CATEGORIES)
    return {"color": CATEGORIES[place], "linestyle": LINE_STYLES[shifted], "marker": MARKERS[shifted]}


_LINES = 15  # at most so many contour lines
_TAIL = 10.0  # heights above the median's, in units of it, from which the axis is compressed


@dataclass(frozen=True)
class Scale:
    """One loss axis for all pictures that are to be compared.

    Attributes:
        low, high: the range of the finite losses.
        knee: None where the axis is linear, else the loss up to which it is.
        levels: contour levels, rising, round numbers within the range.
    """

    low: float
    high: float
    knee: float | None
    levels: tuple[float, ...]

    @classmethod
    def of(cls, *surfaces: Any) -> Scale:
        """The scale that holds every finite loss of the surfaces (or tables with a column ``loss``).

        Raises:
            ValueError: no loss is finite.
        """
        losses = np.concatenate([np.asarray(surface["loss"], float).ravel() for surface in surfaces])
        finite = losses[np.isfinite(losses)]
        if not finite.size:
            raise ValueError("no cell of the loss surface is finite: there is nothing to draw")
        low, high = float(finite.min()), float(finite.max())
        median = float(np.median(finite[finite > low])) if low < high else high
        knee = median if high - low > _TAIL * (median - low) else None
        return cls(low, high, knee, _levels(low, high, knee))

    def height(self, loss: np.ndarray | float) -> np.ndarray:
        """Losses as heights on this axis; NaN where a loss is not finite."""
        above = np.where(np.isfinite(loss), loss, np.nan) - self.low
        if self.knee is None:
            return above
        return np.arcsinh(above / (self.knee - self.low))

    @property
    def limits(self) -> tuple[float, float]:
        """The axis's ends as heights, apart even where every loss is the same."""
        top = float(self.height(self.high))
        return (0.0, top) if top > 0 else (-0.5, 0.5)

    @property
    def ticks(self) -> dict[float, str]:
        """Height -> loss of every other level, for axes and colour bars."""
        return self.texts(self.levels[:: max(1, round(len(self.levels) / 7))])

    def texts(self, levels: tuple[float, ...]) -> dict[float, str]:
        """Height -> loss of the given levels."""
        return {float(self.height(level)): f"{level:.12g}" for level in levels}

    @property
    def label(self) -> str:
        """What to write beside the axis."""
        return "loss" if self.knee is None else f"loss (logarithmic above {self.knee:.2g})"


def _levels(low: float, high: float, knee: float | None) -> tuple[float, ...]:
    """Round numbers within (low, high), evenly spaced on the axis (nearly, where it is compressed)."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        return (low,)
    spaced: Iterable[float]
    if knee is None:
        spaced = MaxNLocator(_LINES, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    else:
        width = knee - low
        above = width * np.sinh(np.linspace(0, np.arcsinh((high - low) / width), _LINES)[1:])
        spaced = [round(low + a, 1 - int(np.floor(np.log10(a)))) for a in above.tolist()]
    return tuple(sorted({float(level) for level in spaced if low < level < high})) or (low,)
