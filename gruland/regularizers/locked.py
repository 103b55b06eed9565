"""Locked dropout: one mask for all time steps (Gal & Ghahramani 2016, "A theoretically grounded application of dropout
in recurrent neural networks", section 4; the name is Merity et al.'s, 2017)."""

from __future__ import annotations

from torch import Tensor

from gruland.regularizers.base import RATES, Regularizer, check_rate
from gruland.regularizers.draws import Draw, factors


class Locked(Regularizer):
    """x_t * m / (1 - p) with one m for each sequence, the same at every t: on the words' vectors, on what lies between
    the layers, and on the last state before the head.

    Args:
        rate: p, in [0, 1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "locked", "Locked dropout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    def words(self, embedded_BTD: Tensor, tokens_BT: Tensor, draw: Draw) -> Tensor:
        """The same numbers of all word vectors of a sequence are dropped."""
        return embedded_BTD * self._factors(embedded_BTD, draw).unsqueeze(1)

    def between(self, h: Tensor, draw: Draw) -> Tensor:
        """The same units of a sequence are dropped at all times."""
        return h * self._factors(h, draw)

    def _factors(self, x: Tensor, draw: Draw) -> Tensor:
        return factors(draw.each_sequence(self.rate, x.shape[-1]), self.rate, x)
