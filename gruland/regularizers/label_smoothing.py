"""Label smoothing (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gruland.regularizers.base import RATES, Regularizer, check_rate

if TYPE_CHECKING:
    from gruland.task import Task


class LabelSmoothing(Regularizer):
    """(1 - e) * loss(y) + e * mean over the classes k of loss(k): cross-entropy with (1 - e) y + e / K for y.

    With a sigmoid, each label is one of the two classes.

    Args:
        rate: e, in [0, 1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "label_smoothing", "Label smoothing", RATES

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = check_rate(rate)

    def loss(self, task: Task, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Every class is right to some degree."""
        classes = len(task.classes) if task.kind == "multiclass" else 2
        each = [task.loss(logits_BK, torch.full_like(labels, k), "none") for k in range(classes)]
        return (1 - self.rate) * task.loss(logits_BK, labels, "none") + self.rate * torch.stack(each).mean(0)
