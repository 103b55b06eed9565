"""A classifier's mean evaluation loss as a function that can be differentiated twice.

The fused kernels and :mod:`gruland.kernels.eager` have explicit backward passes, without a second derivative. Here the
recurrence is composed of differentiable steps (:mod:`gruland.objective.packed_batch`). The Hessian-vector products are
those of :mod:`gruland.objective.hessian_product`, several times faster than a double backward pass through the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.evaluation import BATCH_TOKENS, length_sorted_batches
from gruland.objective.packed_batch import PackedBatch, Parameters, packed_reviews

#: Words of a batch: what autograd keeps of a word is some 60 numbers for each hidden unit and layer.
COMPOSED_TOKENS = 16_384


class MeanLoss:
    """The mean evaluation loss of some reviews (nats): ``loss(parameters) -> scalar``, twice differentiable.

    It equals the mean of :class:`gruland.objective.EvaluationLoss` to rounding. Zoneout acts by its expectation, as in
    evaluation; matrix products are in ``dtype``, also for a model that was trained with bfloat16 products.

    Args:
        model: where the word vectors, the task and everything that is no parameter come from; never written to.
        encoded: the N reviews.
        labels: [N], or [N, C] for a multilabel task.
        batch_tokens: words of a batch (or one review); bounds the memory and does not change the result.
        dtype: what the loss is computed in; None = the model's.

    Attributes:
        batches: functions of all parameters (see :meth:`complete`) whose sum is the loss.

    Raises:
        ValueError: no reviews, or another number of labels.
    """

    def __init__(
        self,
        model: Classifier,
        encoded: Encoded,
        labels: np.ndarray,
        *,
        batch_tokens: int = COMPOSED_TOKENS,
        dtype: torch.dtype | None = None,
    ) -> None:
        if encoded.size < 1 or encoded.size != len(labels):
            raise ValueError(f"got {encoded.size} reviews and {len(labels)} labels: expected one for each")
        self.model, self.dtype = model, dtype or model.head.weight.dtype
        self._encoded, self._labels = encoded, torch.as_tensor(labels).to(model.device)
        self.batches = [
            PackedBatch(
                model, packed_reviews(encoded.take(rows), model.device), self._labels[rows], 1 / encoded.size
            )
            for rows in length_sorted_batches(encoded.lengths, batch_tokens)
        ]

    def __call__(self, parameters: Parameters) -> Tensor:
        """The loss; a parameter that is not given is the model's own."""
        weights = self.complete(parameters)
        return torch.stack([batch(weights) for batch in self.batches]).sum()

    def complete(self, parameters: Parameters) -> dict[str, Tensor]:
        """All of the model's parameters in ``dtype``, those of ``parameters`` in the place of its own."""
        own = {name: p.detach() for name, p in self.model.named_parameters()}
        return {name: p.to(self.dtype) for name, p in {**own, **parameters}.items()}

    def gradient(self, parameters: Parameters) -> dict[str, Tensor]:
        """The gradient by the given parameters, by the fused kernel's explicit backward pass where it runs.

        It is that of ``self(parameters)`` to rounding, three times as fast.
        """
        leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        weights = self.complete(leaves)
        weights["vectors"] = weights.get("vectors", self.model.vectors.to(self.dtype))
        batches = length_sorted_batches(self._encoded.lengths, BATCH_TOKENS)
        with _evaluated(self.model), torch.enable_grad():
            parts = [self._gradient(leaves, weights, rows) for rows in batches]
        sums = (torch.stack([g.double() for g in grads]).sum(0) for grads in zip(*parts, strict=True))
        return {name: total.to(leaves[name]) for (name, total) in zip(leaves, sums, strict=True)}

    def _gradient(self, leaves: Parameters, weights: Parameters, rows: np.ndarray) -> Sequence[Tensor]:
        tokens, lengths = self._encoded.take(rows).padded()
        logits = functional_call(self.model, dict(weights), (tokens.to(self.model.device), lengths))
        loss = self.model.task.loss(logits, self._labels[rows], "none").sum() / len(self._labels)
        # The leaves' casts to dtype are shared by the batches.
        return torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)

    def hessian_product(self, parameters: Parameters) -> Callable[[Parameters], dict[str, Tensor]] | None:
        """From a vector v, by name like ``parameters``, to the Hessian times v; None where word vectors are trained.

        What does not depend on v is computed once, see :mod:`gruland.objective.hessian_product`.
        """
        from gruland.objective.hessian_product import linearized

        if "vectors" in parameters:
            return None
        weights = {name: p.detach() for name, p in self.complete(parameters).items()}
        product = linearized(self.batches, weights)

        def cast(vector: Parameters) -> dict[str, Tensor]:
            moved = product({name: vector[name].to(self.dtype) for name in parameters})
            return {name: part.to(parameters[name].dtype) for name, part in moved.items()}

        return cast


@contextmanager
def _evaluated(model: Classifier) -> Iterator[None]:
    """The model in evaluation mode, its matrix products unrounded."""
    was_training, precision = model.training, model.gru.precision
    model.eval()
    model.gru.precision = "float32"
    try:
        yield
    finally:
        model.gru.precision = precision
        model.train(was_training)
