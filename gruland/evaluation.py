"""Loss, accuracy and F1 of a classifier on encoded reviews, without and with dropout at test time.

N reviews, K outputs, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.regularizers import Draw, draws_of
from gruland.task import Task

#: Padded words in one batch: bounds memory (65,536 words of 100 numbers are 26 MB) and fills the matmuls.
BATCH_TOKENS = 65_536


@dataclass(frozen=True)
class Scores:
    """Means over ``count`` reviews; ``loss_se`` is the standard error of the mean loss."""

    loss: float
    accuracy: float
    f1: float
    count: int
    loss_se: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as results.json holds it."""
        return asdict(self)


def scores(task: Task, losses: Tensor, probabilities: Tensor, labels: Tensor) -> Scores:
    """Scores of per-review losses [N] and class probabilities [N, C]."""
    losses = losses.double()
    count = len(losses)
    return Scores(
        loss=float(losses.mean()),
        accuracy=float(task.correct(probabilities, labels).mean()),
        f1=task.f1(probabilities, labels),
        count=count,
        loss_se=float(losses.std() / math.sqrt(count)) if count > 1 else math.nan,
    )


def length_sorted_batches(lengths: np.ndarray, batch_tokens: int = BATCH_TOKENS) -> Iterator[np.ndarray]:
    """Indices of reviews in batches, longest first, each of at most ``batch_tokens`` padded words (or one review)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


@torch.no_grad()
def logits(
    model: Classifier,
    encoded: Encoded,
    *,
    draw: Draw | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Tensor:
    """Logits [N, K] in the reviews' order, in evaluation mode (the model's own mode is restored).

    Args:
        draw: which masks the reviews meet (dropout at test time), e.g. ``Draw(seed=3, keys=ids)``; None = their
            expectation, the usual evaluation. Keys stand for the reviews [N], and are their positions where there
            are none: the masks do not depend on the batches.
    """
    was_training = model.training
    model.eval()
    result = torch.empty(encoded.size, model.task.num_outputs, device=model.device)
    whole = None if draw is None else draw.of_batch(encoded.size, torch.device("cpu"))
    try:
        for rows in length_sorted_batches(encoded.lengths, batch_tokens):
            tokens, lengths = encoded.take(rows).padded()
            part = None if whole is None else whole.take(rows)
            index = torch.as_tensor(rows, device=result.device)
            result[index] = model(tokens.to(model.device), lengths, part).to(result.dtype)
    finally:
        model.train(was_training)
    return result.cpu()


def evaluate(model: Classifier, encoded: Encoded, labels: np.ndarray, **options: Any) -> Scores:
    """Scores of the model on ``encoded`` reviews; ``options`` go to :func:`logits`."""
    output, target = logits(model, encoded, **options).float(), torch.as_tensor(labels)
    return scores(
        model.task, model.task.loss(output, target, "none"), model.task.probabilities(output), target
    )


def logits_of_draws(
    model: Classifier,
    encoded: Encoded,
    *,
    draws: int = 1,
    seed: int = 0,
    keys: np.ndarray | None = None,
) -> Tensor:
    """Logits [S, N, K] in float64 with dropout on, under S = ``draws`` draws of the masks.

    The draws are those of :func:`gruland.regularizers.draws_of`: two sets of reviews with the same keys meet the same
    masks (common random numbers), two seeds none in common.

    Raises:
        ValueError: fewer than one draw.
    """
    return torch.stack([logits(model, encoded, draw=draw).double() for draw in draws_of(seed, draws, keys)])


def scores_of_draws(task: Task, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Scores of logits [S, N, K] under several draws of the masks.

    Returns:
        ``loss``, ``accuracy``, ``f1``, ``loss_se``: means over the draws (``loss_se``: standard error over the
        reviews of the loss averaged over draws); ``loss_of_mean_probability`` and
        ``accuracy_of_mean_probability``: of the probability averaged over draws; ``draws``, ``count``.
    """
    losses = torch.stack([task.loss(output, labels, "none") for output in outputs])
    probabilities = torch.stack([task.probabilities(output) for output in outputs])
    mean = probabilities.mean(0)
    each = [scores(task, *draw, labels) for draw in zip(losses, probabilities, strict=True)]
    pooled = scores(task, losses.mean(0), mean, labels)
    return {
        "loss": pooled.loss,
        "accuracy": float(np.mean([s.accuracy for s in each])),
        "f1": float(np.mean([s.f1 for s in each])),
        "count": pooled.count,
        "loss_se": pooled.loss_se,
        "draws": len(outputs),
        "loss_of_mean_probability": float(task.loss_of_probabilities(mean, labels)),
        "accuracy_of_mean_probability": pooled.accuracy,
    }


def evaluate_with_dropout(
    model: Classifier, encoded: Encoded, labels: np.ndarray, **options: Any
) -> dict[str, Any]:
    """Dropout at test time: the masks stay on (Wang et al. 2018, section 4.4 of the paper).

    ``options`` go to :func:`logits_of_draws`; the result is that of :func:`scores_of_draws`.
    """
    outputs = logits_of_draws(model, encoded, **options)
    return scores_of_draws(model.task, outputs, torch.as_tensor(labels))
