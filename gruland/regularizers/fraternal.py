"""Fraternal dropout: two passes under different masks shall have the same logits (Zolna et al. 2018, "Fraternal
dropout", equations 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from gruland.regularizers.base import SIZES, check_strength
from gruland.regularizers.locked import Locked

if TYPE_CHECKING:
    from gruland.task import Task


class Fraternal(Locked):
    """(L_1 + L_2) / 2 + kappa * the mean over the outputs of (logit_1 - logit_2)^2.

    The masks are those of locked dropout; ``rate=0`` leaves them to the other parts of a combination.

    Args:
        rate: of locked dropout, in [0, 1).
        kappa: at least 0; 0.15 in the paper.

    Raises:
        ValueError: a value that cannot work.
    """

    name, title = "fraternal", "Fraternal dropout"
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {**SIZES, "regularizer.kappa": (0.05, 0.15, 0.5)}

    def __init__(self, rate: float = 0.1, kappa: float = 0.15) -> None:
        super().__init__(rate)
        self.kappa = check_strength(kappa, "kappa")

    def agreement(self, task: Task, logits_BK: Tensor, others_BK: Tensor) -> Tensor:
        """The squared difference of the logits."""
        return self.kappa * (logits_BK - others_BK).pow(2).mean(1)
