"""Recurrent dropout: the candidate of a step is dropped (Semeniuta et al. 2016, "Recurrent dropout without memory
loss", equation 14)."""

from __future__ import annotations

import torch

from gruland.regularizers.base import RATES, Regularizer, Steps, check_rate
from gruland.regularizers.draws import Draw, factors


class Recurrent(Regularizer):
    """h_t = z_t h_{t-1} + (1 - z_t) n_t m_t / (1 - p), m_t = 0 with probability p for every sequence, time and unit.

    What is dropped is what is added to the memory, never the memory itself.

    Args:
        rate: p, in [0, 1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "recurrent", "Recurrent dropout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    def step(self, steps: int, units: int, draw: Draw) -> Steps:
        """Units of the candidate are dropped."""
        dropped = draw.each_step(self.rate, steps, units).tensor()
        return Steps(candidate=factors(dropped, self.rate, torch.empty(0, device=dropped.device)))
