"""What every regularizer is: a name, a title, a rate, a grid, and what it does to a recurrent classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

#: The paper's numbers of hidden units (section 5.1), the longest jobs first, and its rates.
SIZES: Mapping[str, Sequence[Any]] = {"model.hidden_size": (256, 128, 64)}
RATES: Mapping[str, Sequence[Any]] = {**SIZES, "regularizer.rate": (0.05, 0.1, 0.5)}


class Regularizer:
    """What keeps a classifier from learning its training reviews by heart.

    An option of ``conf/regularizer`` names a subclass and holds the constructor's arguments; the constructor
    checks them.

    Attributes:
        name: in results, in the names of runs and on the command line, for instance ``zoneout``.
        title: in tables and figures, for instance ``Zoneout``.
        grid: what a sweep tries, as keys of the configuration and their values.
        rate: how strong it is; 0 for one that has no rate.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    grid: Mapping[str, Sequence[Any]] = SIZES
    rate: float = 0.0
    #: The rates of the two masks that the GRU draws.
    zoneout: float = 0.0
    dropconnect: float = 0.0

    @property
    def random(self) -> bool:
        """Whether it draws anything: dropout at test time differs from evaluation."""
        return bool(self.zoneout or self.dropconnect)


def check_rate(rate: Any, name: str = "rate") -> float:
    """The rate as a float. Raises ValueError where it is no number in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name}={rate}: expected a number in [0, 1)")
    return float(rate)
