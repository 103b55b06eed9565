"""A place in the grid of models, and what to call it."""

from __future__ import annotations

from typing import NamedTuple

#: The order in which regularizers are shown; others follow by name.
REGULARIZERS = ("none", "zoneout", "dropconnect")


class Cell(NamedTuple):
    """What the runs of one model have in common, whatever their seeds."""

    regularizer: str
    rate: float
    hidden_size: int

    @property
    def method(self) -> str:
        """For instance ``Zoneout 0.1``."""
        return f"{title(self.regularizer)}{f' {self.rate:g}' if self.rate else ''}"

    @property
    def label(self) -> str:
        """For instance ``Zoneout 0.1, H=128``."""
        return f"{self.method}, H={self.hidden_size}"


def title(regularizer: str) -> str:
    """A regularizer's name as the tables print it."""
    return {"none": "No dropout", "dropconnect": "DropConnect"}.get(regularizer, regularizer.title())


def by_cell(cell: Cell) -> tuple[int, str, int, float]:
    """The sort key of a cell: regularizer, hidden units, rate."""
    known = cell.regularizer in REGULARIZERS
    rank = REGULARIZERS.index(cell.regularizer) if known else len(REGULARIZERS)
    return rank, cell.regularizer, cell.hidden_size, cell.rate
