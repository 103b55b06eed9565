"""Embedding dropout: whole words are left out (Gal & Ghahramani 2016, section 4.2: "dropping word types at random")."""

from __future__ import annotations

from torch import Tensor

from gruland.regularizers.base import RATES, Regularizer, check_rate
from gruland.regularizers.draws import Draw, factors


class Embedding(Regularizer):
    """e_w * m_w / (1 - p), m_w = 0 with probability p for each word w of a sequence, wherever the word stands in it.

    Args:
        rate: p, in [0, 1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "embedding", "Embedding dropout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    def words(self, embedded_BTD: Tensor, tokens_BT: Tensor, draw: Draw) -> Tensor:
        """The vectors of some words are zero."""
        dropped_BT = draw.each_word(self.rate, tokens_BT)
        return embedded_BTD * factors(dropped_BT, self.rate, embedded_BTD).unsqueeze(2)
