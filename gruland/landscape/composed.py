"""A classifier's mean evaluation loss as a function that can be differentiated twice.

The fused kernels and :mod:`gruland.kernels.torch` have explicit backward passes, without a second derivative. Here the
recurrence is composed of differentiable steps; its Hessian-vector products are those of
:mod:`gruland.landscape.tangent`, several times faster than a double backward pass through the steps.

N reviews, B of a batch, T time steps, D numbers in a word vector, H hidden units; S rows of a packed batch: the running
reviews of step 0, then those of step 1, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.evaluation import BATCH_TOKENS, length_sorted_batches
from gruland.kernels import BETWEEN, Layer

#: Words of a batch: what autograd keeps of a word is some 60 numbers for each hidden unit and layer.
COMPOSED_TOKENS = 16_384

Parameters = Mapping[str, Tensor]


class ComposedLoss:
    """The mean evaluation loss of some reviews (nats): ``loss(parameters) -> scalar``, twice differentiable.

    It equals the mean of :class:`gruland.landscape.ReviewLoss` to rounding. Zoneout acts by its expectation, as in
    evaluation; matrix products are in ``dtype``, also for a model that was trained with bfloat16 products.

    Args:
        model: where the word vectors, the task and everything that is no parameter come from; never written to.
        encoded: the reviews, N of them.
        labels: [N], or [N, C] for a multilabel task.
        batch_tokens: words of a batch (or one review); bounds the memory and does not change the result.
        dtype: what the loss is computed in; None = the model's.

    Attributes:
        batches: functions of the parameters whose sum is the loss: derivatives can be summed over them one by one.

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
        self._encoded, self._labels = encoded, torch.as_tensor(labels)
        self.batches = [
            _Batch(self, packed_reviews(encoded.take(rows)), self._labels[rows])
            for rows in length_sorted_batches(encoded.lengths, batch_tokens)
        ]

    def __call__(self, parameters: Parameters) -> Tensor:
        """The loss; a parameter that is not given is the model's own."""
        return torch.stack([batch(parameters) for batch in self.batches]).sum()

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
        logits = functional_call(self.model, dict(weights), self._encoded.take(rows).padded())
        loss = self.model.task.loss(logits, self._labels[rows], "none").sum() / len(self._labels)
        # The leaves' casts to dtype are shared by the batches.
        return torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)

    def hessian_product(self, parameters: Parameters) -> Callable[[Parameters], dict[str, Tensor]] | None:
        """From a vector v, by name like ``parameters``, to the Hessian times v; None where word vectors are trained.

        What does not depend on v is computed once, see :mod:`gruland.landscape.tangent`.
        """
        from gruland.landscape.tangent import linearized

        return None if "vectors" in parameters else linearized(self, parameters)


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


@dataclass(frozen=True)
class Packed:
    """Reviews without padding, the longest first."""

    tokens_S: Tensor  # int64, the words of step 0, then those of step 1, ...
    running: list[int]  # [T] reviews that have a word at each step
    last_B: Tensor  # the row of each review's last word


def packed_reviews(encoded: Encoded) -> Packed:
    """Reviews that are sorted by falling length, packed."""
    tokens_BT, lengths_B = encoded.padded()
    runs_TB = lengths_B > torch.arange(tokens_BT.shape[1]).unsqueeze(1)
    running = runs_TB.sum(1)
    starts = running.cumsum(0) - running
    last_B = starts[lengths_B - 1] + torch.arange(len(lengths_B))
    return Packed(tokens_BT.t()[runs_TB], running.tolist(), last_B)


class _Batch:
    """One batch's share of the loss."""

    def __init__(self, loss: ComposedLoss, packed: Packed, labels_B: Tensor) -> None:
        self.packed, self._loss, self._labels_B = packed, loss, labels_B
        self._share = 1 / loss._encoded.size

    def __call__(self, parameters: Parameters) -> Tensor:
        weights, gru = self._loss.complete(parameters), self._loss.model.gru
        x_SI = F.embedding(self.packed.tokens_S, self.vectors(weights))
        for index in range(gru.num_layers):
            x_SI = self.between(x_SI) if index else x_SI
            x_SI, _ = run_layer(x_SI, layer_of(weights, index), self.packed.running, gru.zoneout)
        return self.head_loss(x_SI[self.packed.last_B], weights["head.weight"], weights["head.bias"])

    def vectors(self, weights: Parameters) -> Tensor:
        """[V, D], trained or not."""
        return weights.get("vectors", self._loss.model.vectors).to(self._loss.dtype)

    def between(self, x_SH: Tensor) -> Tensor:
        """The activation between two layers."""
        activation = BETWEEN[self._loss.model.gru.between]
        return x_SH if activation is None else activation(x_SH)

    def head_loss(self, h_BH: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The batch's share of the mean loss from the last layer's final states."""
        task = self._loss.model.task
        return task.loss(F.linear(h_BH, weight, bias), self._labels_B, "none").sum() * self._share


def layer_of(weights: Parameters, index: int) -> Layer:
    """The weights of one of the model's layers."""
    return Layer(*(weights[f"gru.{name}_l{index}"] for name in Layer._fields))


def run_layer(
    x_SI: Tensor, layer: Layer, running: Sequence[int], zoneout: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A layer step by step (equations: :mod:`gruland.kernels.torch`; initial state zero).

    Returns:
        The states [S, H], and the gates' arguments from the input and from the previous state, [S, 3H] each (r, z, n;
        both with their bias).
    """
    hidden = layer.weight_hh.shape[1]
    inputs_S3H = F.linear(x_SI, layer.weight_ih, layer.bias_ih)
    h, states, recurrent = x_SI.new_zeros(running[0], hidden), [], []
    for a in inputs_S3H.split(list(running)):
        h = h[: len(a)]
        b = F.linear(h, layer.weight_hh, layer.bias_hh)
        r, z = torch.sigmoid(a[:, : 2 * hidden] + b[:, : 2 * hidden]).chunk(2, 1)
        n = torch.tanh(torch.addcmul(a[:, 2 * hidden :], r, b[:, 2 * hidden :]))
        h = torch.lerp(n, h, zoneout + (1 - zoneout) * z)
        states.append(h)
        recurrent.append(b)
    return torch.cat(states), (inputs_S3H, torch.cat(recurrent))
