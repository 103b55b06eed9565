"""What a cell of a classifier's surface measures: the evaluation-mode loss of each review.

N reviews, K outputs, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.evaluation import BATCH_TOKENS, length_sorted_batches


class ReviewLoss:
    """A classifier's loss as :func:`gruland.landscape.compute_surface` wants it.

    Reviews are sorted by length, padded and moved to the model's device once, for all cells. The model's own
    weights are never written to.

    Args:
        model: where the word vectors, the task and everything that is no parameter come from.
        encoded: the reviews, N of them.
        labels: [N], or [N, C] for a multilabel task.
        batch_tokens: padded words of a batch; bounds the memory and does not change the result.
    """

    def __init__(
        self, model: Classifier, encoded: Encoded, labels: np.ndarray, *, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self._model, self._labels = model, torch.as_tensor(labels)
        batches = list(length_sorted_batches(encoded.lengths, batch_tokens))
        self._original_order = torch.as_tensor(np.concatenate(batches)).argsort()
        self._inputs: list[tuple[Tensor, Tensor]] = []
        for rows in batches:
            tokens, lengths = encoded.take(rows).padded()
            self._inputs.append((tokens.to(model.device), lengths))

    def __call__(self, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss [N] (nats, float64) and correctness [N], in the reviews' order, for these parameters."""
        logits, task = self.logits(parameters), self._model.task
        losses = task.loss(logits, self._labels, "none").double()
        return losses, task.correct(task.probabilities(logits), self._labels)

    @torch.no_grad()
    def logits(self, parameters: dict[str, Tensor]) -> Tensor:
        """Logits [N, K] of evaluation mode, on the CPU and at least in float32; the model's mode is kept."""
        was_training = self._model.training
        self._model.eval()
        try:
            parts = [functional_call(self._model, parameters, inputs) for inputs in self._inputs]
        finally:
            self._model.train(was_training)
        by_length = torch.cat(parts).cpu()
        return by_length.to(torch.promote_types(by_length.dtype, torch.float32))[self._original_order]
