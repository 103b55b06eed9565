"""Randomised deletion: words are left out at random (Huang et al. 2023, "RS-Del: Edit distance robustness certificates
for sequence classifiers via randomized deletion", section 3.1; Huang et al. 2024, CERT-ED, section 3)."""

from __future__ import annotations

from torch import Tensor

from gruland.defence.base import Defence
from gruland.embedding import UNKNOWN
from gruland.regularizers import Draw, check_rate


class WordDeletion(Defence):
    """Each word of a training review is deleted with probability p; the words that are left move together.

    A model that is trained so reads what is left of a review, as its certificate asks it to
    (:class:`gruland.attack.Certificate`). A review of which nothing is left is one unknown word.

    Args:
        rate: p, in [0, 1); with 0.9 certificates of six words are possible, with 0.8 of three.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title = "word_deletion", "Word deletion"

    def __init__(self, rate: float = 0.9) -> None:
        self.rate = check_rate(rate)

    def words(self, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """What is left of the reviews."""
        dropped_TB1 = draw.each_step(self.rate, tokens_BT.shape[1], 1).tensor()
        return delete(tokens_BT, lengths_B, dropped_TB1.squeeze(2).T)


def delete(tokens_BT: Tensor, lengths_B: Tensor, dropped_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Word ids and lengths of reviews without their dropped words; of an empty one, the unknown word."""
    within_BT = (tokens_BT.new_ones(tokens_BT.shape).cumsum(1) - 1) < lengths_B.unsqueeze(1)
    kept_BT = within_BT & ~dropped_BT
    left_B = kept_BT.sum(1)
    longest = max(1, int(left_B.max()))
    # The kept words first, in their order.
    order_BT = (~kept_BT).to(tokens_BT.dtype).argsort(dim=1, stable=True)[:, :longest]
    left_BT = tokens_BT.gather(1, order_BT) * kept_BT.gather(1, order_BT)
    left_BT[:, 0] = left_BT[:, 0].where(left_B > 0, UNKNOWN)
    return left_BT, left_B.clamp_min(1)
