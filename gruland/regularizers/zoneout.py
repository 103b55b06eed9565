"""Zoneout: a hidden unit keeps its previous value (Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly
preserving hidden activations", section 3)."""

from __future__ import annotations

from gruland.regularizers.base import RATES, Regularizer, Steps, check_rate
from gruland.regularizers.draws import Draw


class Zoneout(Regularizer):
    """h_t = k h_{t-1} + (1 - k) GRU(x_t, h_{t-1}), k = 1 with probability p for every sequence, time and unit.

    In evaluation p stands for k: the expectation.

    Args:
        rate: p, in [0, 1); the paper's best is 0.1 (section 7.1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "zoneout", "Zoneout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    @property
    def kept(self) -> float:  # type: ignore[override]  # computed here, a constant of the class elsewhere
        """The rate."""
        return self.rate

    def step(self, steps: int, units: int, draw: Draw) -> Steps:
        """A unit is kept at a step."""
        return Steps(keep=draw.each_step(self.rate, steps, units))
