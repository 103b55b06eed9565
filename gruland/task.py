"""What a data set asks of a classifier: how many outputs, which loss, which metrics.

N reviews, K outputs, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("binary", "multiclass", "multilabel")


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        kind: ``binary`` (one output, the positive class's logit; the paper's), ``multiclass`` (one output a
            class, softmax) or ``multilabel`` (one output a class, each with a sigmoid of its own).
        classes: the classes' names; for ``binary`` the negative one first.

    Labels are int64 [N] for ``binary`` and ``multiclass``, float32 [N, C] of zeros and ones for ``multilabel``.
    """

    kind: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task kind {self.kind!r} is unknown: expected one of {', '.join(KINDS)}")
        if len(self.classes) < 2 or (self.kind == "binary" and len(self.classes) != 2):
            expected = "exactly 2" if self.kind == "binary" else "at least 2"
            raise ValueError(f"a {self.kind} task needs {expected} classes, got {list(self.classes)}")

    @property
    def num_outputs(self) -> int:
        """K: 1 for a binary task, else the number of classes."""
        return 1 if self.kind == "binary" else len(self.classes)

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats: scalar, or [N] with ``reduction="none"`` (mean over the labels of a review).

        Binary: ``BCEWithLogitsLoss`` on logits [N, 1], as in section 5 of the paper.
        """
        if self.kind == "multiclass":
            return F.cross_entropy(logits, labels, reduction=reduction)
        targets = labels.unsqueeze(1) if self.kind == "binary" else labels
        loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(1)
        return loss if reduction == "none" else loss.mean()

    def divergence(self, logits: Tensor, others: Tensor) -> Tensor:
        """Kullback-Leibler divergence [N] in nats of the others' predictions from those of ``logits``: KL(p || q).

        Each label of a multilabel task is one of two classes; theirs is the mean over the labels.
        """
        if self.kind == "multiclass":
            log_p, log_q = logits.log_softmax(1), others.log_softmax(1)
            return (log_p.exp() * (log_p - log_q)).sum(1)
        p = logits.sigmoid()
        positive = p * (F.logsigmoid(logits) - F.logsigmoid(others))
        negative = (1 - p) * (F.logsigmoid(-logits) - F.logsigmoid(-others))
        return (positive + negative).mean(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities [N, C]; the rows of a multilabel task do not sum to one."""
        if self.kind == "multiclass":
            return logits.softmax(1)
        positive = logits.sigmoid()
        return torch.cat([1 - positive, positive], 1) if self.kind == "binary" else positive

    def loss_of_probabilities(self, probabilities: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of given probabilities [N, C], as of an average over several draws of masks."""
        floor = torch.finfo(probabilities.dtype).tiny
        log_p = probabilities.clamp_min(floor).log()
        if self.kind == "multilabel":
            log_q = (1 - probabilities).clamp_min(floor).log()
            loss = -(labels * log_p + (1 - labels) * log_q).mean(1)
        else:
            loss = -log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        return loss if reduction == "none" else loss.mean()

    def predictions(self, probabilities: Tensor) -> Tensor:
        """The predicted labels, in the labels' own form: the likeliest class, or every class of at least 0.5.

        A binary tie counts as positive ("rounding off the prediction ... taking midpoint at 0.5", section 5.1).
        """
        if self.kind == "multilabel":
            return (probabilities >= 0.5).to(torch.float32)
        if self.kind == "binary":
            return (probabilities[:, 1] >= 0.5).to(torch.int64)
        return probabilities.argmax(1)

    def correct(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Per review [N], 1.0 where the prediction is right (multilabel: the share of right labels)."""
        right = (self.predictions(probabilities) == labels).to(torch.float64)
        return right.mean(1) if self.kind == "multilabel" else right

    def f1(self, probabilities: Tensor, labels: Tensor) -> float:
        """F1 of the positive class (binary), else the mean over the classes (macro); 0 where nothing is positive."""
        from torchmetrics.functional.classification import (
            binary_f1_score,
            multiclass_f1_score,
            multilabel_f1_score,
        )

        predicted = self.predictions(probabilities)
        if self.kind == "binary":
            return float(binary_f1_score(predicted, labels))
        if self.kind == "multiclass":
            return float(multiclass_f1_score(predicted, labels, len(self.classes), average="macro"))
        return float(multilabel_f1_score(predicted, labels.long(), len(self.classes), average="macro"))

    def name_of(self, label: Any) -> str:
        """The name of a label's class; of a multilabel task the names of all its classes, ``"grain, ship"``."""
        if self.kind == "multilabel":
            return ", ".join(name for name, there in zip(self.classes, label, strict=True) if there)
        return self.classes[int(label)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as checkpoints and results hold it."""
        return {"kind": self.kind, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Task:
        """The inverse of :meth:`to_dict`."""
        return cls(value["kind"], tuple(value["classes"]))
