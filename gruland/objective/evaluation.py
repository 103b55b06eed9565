"""What a cell of a classifier's surface measures: the evaluation-mode loss of each review.

:mod:`gruland.objective.training` has the training-mode loss.

N reviews, K outputs, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.evaluation import BATCH_TOKENS, length_sorted_batches
from gruland.landscape.directions import displace
from gruland.landscape.objective import OnPlane
from gruland.objective.projection import ProjectedReviews, kernel_of, precisions, unavailable

PRECISIONS = ("auto", "float32", "bfloat16")


class EvaluationLoss:
    """A classifier's loss as :func:`gruland.landscape.compute_surface` wants it.

    The model's own weights are never written to. Where the fused kernel runs and the word vectors are fixed, the
    reviews are projected (:mod:`gruland.objective.projection`); else they are sorted by length, padded and moved to
    the model's device once, and each cell is a forward pass of the model.

    Args:
        model: where the word vectors, the task and everything that is no parameter come from.
        encoded: the reviews, N of them.
        labels: [N], or [N, C] for a multilabel task.
        precision: of the matrix products: ``"auto"`` (the kernel's fastest), ``"float32"`` or ``"bfloat16"``.
        batch_tokens: padded words of a batch of forward passes; bounds the memory and does not change the result.

    Attributes:
        reason: None where the reviews are projected, else one line that says why not.
        precision: what ``precision`` came to; without the kernel the model's own.
        strata: int64 [N], a number for each review's label: the reviews are a stratified sample.
        about: what else determines the values, as plain data: a surface's attributes.
        label: what the reviews are called in pictures.
        kernel: the backend that runs, or that it is the model's own forward pass, and why.

    Raises:
        ValueError: a precision that is unknown or that this machine does not have.
    """

    def __init__(
        self,
        model: Classifier,
        encoded: Encoded,
        labels: np.ndarray,
        *,
        precision: str = "auto",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._model, self._labels = model, torch.as_tensor(labels)
        self._encoded, self._batch_tokens, self._is_open = encoded, batch_tokens, precision == "auto"
        self.precision = _resolved(precision, model)
        self.strata = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        self.reason = self._why_padded()
        self._reviews = self._padded(encoded, batch_tokens) if self.reason else self._projected(encoded)
        self.label = f"{encoded.size:,} reviews"
        self.about: dict[str, Any] = {
            "objective": "evaluation loss",
            "reviews": encoded.size,
            "precision": self.precision,
        }
        self.kernel = (
            f"the model's own forward pass ({self.reason})"
            if self.reason
            else kernel_of(model).__name__.rpartition(".")[2]
        )

    def _why_padded(self) -> str | None:
        return unavailable(self._model)

    def _projected(self, encoded: Encoded) -> ProjectedReviews | PaddedReviews:
        return ProjectedReviews(self._model, encoded, self.precision)

    def _padded(self, encoded: Encoded, batch_tokens: int) -> ProjectedReviews | PaddedReviews:
        return PaddedReviews(self._model, encoded, batch_tokens)

    def __call__(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss [N] (nats, float64) and correctness [N], in the reviews' order, for these parameters."""
        return self._measured(self._reviews.logits(parameters))

    def on_plane(
        self, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> OnPlane:
        """The same as a function of the steps along ``directions``, and of the reviews' rows [n] (None = all).

        At the origin it is ``self(parameters)`` bit for bit; elsewhere it is that of the displaced parameters to
        rounding.
        """
        logits_at = self._reviews.plane(parameters, directions)

        def at(steps: Sequence[float], rows: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
            losses, correct = self._measured(logits_at(steps))
            return (losses, correct) if rows is None else (losses[rows], correct[rows])

        return at

    def take(self, rows: np.ndarray) -> Self:
        """The loss of some of the reviews, at these positions, in the precision that this one came to."""
        return self._again(rows, self.precision)

    def unrounded(self) -> Self | None:
        """The same loss in float32 where ``precision="auto"`` came to coarser products; else None."""
        coarser = self._is_open and self.precision != "float32" and "float32" in precisions(self._model)
        if not coarser:
            return None
        whole = self._again(np.arange(self._encoded.size), "float32")
        whole.label, whole.about = self.label, {**self.about, "precision": "float32"}
        return whole

    def _again(self, rows: np.ndarray, precision: str) -> Self:
        labels = self._labels[torch.as_tensor(rows)].numpy()
        options = self._options(rows)
        return type(self)(self._model, self._encoded.take(rows), labels, precision=precision, **options)

    def _options(self, rows: np.ndarray) -> dict[str, Any]:
        """What else the loss of some of the reviews is made with."""
        return {"batch_tokens": self._batch_tokens}

    def _measured(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        task = self._model.task
        losses = task.loss(logits, self._labels, "none").double()
        return losses, task.correct(task.probabilities(logits), self._labels)


def _resolved(precision: str, model: Classifier) -> str:
    """The precision of the products: of the fused kernel, or the model's own where that cannot run."""
    possible = precisions(model) or (_own_precision(model),)
    if precision == "auto":
        return possible[-1]
    if precision in possible:
        return precision
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision}: expected {', '.join(PRECISIONS)}")
    why = f" ({reason})" if (reason := unavailable(model)) else ""
    raise ValueError(
        f"precision={precision} cannot be had here{why}: expected auto or {' or '.join(possible)}"
    )


def _own_precision(model: Classifier) -> str:
    dtype = str(model.head.weight.dtype).removeprefix("torch.")
    return dtype if model.gru.precision == "float32" else model.gru.precision


class PaddedReviews:
    """Reviews as padded batches, longest first, for the model's own forward pass."""

    def __init__(self, model: Classifier, encoded: Encoded, batch_tokens: int) -> None:
        self._model = model
        self._rows = list(length_sorted_batches(encoded.lengths, batch_tokens))
        self._original_order = torch.as_tensor(np.concatenate(self._rows)).argsort()
        self._inputs: list[tuple[Tensor, Tensor]] = []
        for rows in self._rows:
            tokens, lengths = encoded.take(rows).padded()
            self._inputs.append((tokens.to(model.device), lengths))

    @torch.no_grad()
    def logits(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Logits [N, K] of evaluation mode, on the CPU and at least in float32; the model's mode is kept."""
        was_training = self._model.training
        self._model.eval()
        try:
            parts = [self._forward(index, dict(parameters)).cpu() for index in range(len(self._inputs))]
        finally:
            self._model.train(was_training)
        by_length = torch.cat(parts, -2)
        by_length = by_length.to(torch.promote_types(by_length.dtype, torch.float32))
        return by_length.index_select(-2, self._original_order)

    def _forward(self, index: int, parameters: dict[str, Tensor]) -> Tensor:
        """Logits [n, K] of one batch."""
        return functional_call(self._model, parameters, self._inputs[index])

    def plane(
        self, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[Sequence[float]], Tensor]:
        """From steps along the directions to logits [N, K]."""
        return lambda steps: self.logits(displace(parameters, directions, steps))
