"""R-Drop: two passes under different masks shall predict the same (Liang et al. 2021, "R-Drop: Regularized dropout for
neural networks", equations 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from gruland.regularizers.base import SIZES, check_strength
from gruland.regularizers.locked import Locked

if TYPE_CHECKING:
    from gruland.task import Task


class RDrop(Locked):
    """(L_1 + L_2) / 2 + alpha / 2 * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2: half of the paper's loss.

    The masks are those of locked dropout. ``rate=0`` draws none: then the masks of the other parts of a combination
    (:class:`gruland.regularizers.Composed`) make the passes differ.

    Args:
        rate: of locked dropout, in [0, 1).
        alpha: of the divergence, at least 0; 1 in the paper where texts are classified.

    Raises:
        ValueError: a value that cannot work.
    """

    name, title = "r_drop", "R-Drop"
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {**SIZES, "regularizer.alpha": (0.5, 1.0, 5.0)}

    def __init__(self, rate: float = 0.1, alpha: float = 1.0) -> None:
        super().__init__(rate)
        self.alpha = check_strength(alpha, "alpha")

    def agreement(self, task: Task, logits_BK: Tensor, others_BK: Tensor) -> Tensor:
        """The mean of the two divergences."""
        both = task.divergence(logits_BK, others_BK) + task.divergence(others_BK, logits_BK)
        return self.alpha / 4 * both
