"""Word dropout: words are left out one by one (Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods
for text classification", section 4.1)."""

from __future__ import annotations

from torch import Tensor

from gruland.regularizers.base import RATES, Regularizer, check_rate
from gruland.regularizers.draws import Draw, factors


class WordDropout(Regularizer):
    """x_t * m_t / (1 - p), m_t = 0 with probability p for each place t of a sequence.

    Embedding dropout leaves a word out wherever it stands; here each place is drawn by itself.

    Args:
        rate: p, in [0, 1); 0.3 in the paper.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "word_dropout", "Word dropout", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    def words(self, embedded_BTD: Tensor, tokens_BT: Tensor, draw: Draw) -> Tensor:
        """The vectors at some places are zero."""
        dropped_TB1 = draw.each_step(self.rate, tokens_BT.shape[1], 1).tensor()
        return embedded_BTD * factors(dropped_TB1.transpose(0, 1), self.rate, embedded_BTD)
