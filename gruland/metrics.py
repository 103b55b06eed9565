"""Loss, accuracy and F1 over a whole split while Lightning validates or tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gruland.task import Task


class SplitMetrics(Metric):
    """What :class:`gruland.task.Task` makes of all logits [N, K] and labels at once.

    Means over batches would round differently with another batch size. Logits are gathered from all processes.

    Args:
        task: the loss and the metrics.
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch."""
        self.logits.append(logits.detach().float())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """``loss``, ``accuracy`` and ``f1``, computed on the CPU."""
        logits, labels = dim_zero_cat(self.logits).cpu(), dim_zero_cat(self.labels).cpu()
        probabilities = self.task.probabilities(logits)
        return {
            "loss": self.task.loss(logits, labels),
            "accuracy": self.task.correct(probabilities, labels).mean().float(),
            "f1": torch.tensor(self.task.f1(probabilities, labels)),
        }
