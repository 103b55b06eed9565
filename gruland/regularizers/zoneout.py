"""Zoneout: a hidden unit keeps its previous value (Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly
preserving hidden activations", section 3)."""

from __future__ import annotations

from gruland.regularizers.base import RATES, Regularizer, check_rate


class Zoneout(Regularizer):
    """Each unit keeps its previous value with probability ``rate``, drawn for every sequence, time and unit.

    Args:
        rate: in [0, 1); the paper's best is 0.1 (section 7.1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "zoneout", "Zoneout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = self.zoneout = check_rate(rate)
