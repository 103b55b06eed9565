"""A batch of reviews without padding, and the loss on it composed of differentiable steps.

B reviews of a batch, T time steps, D numbers in a word vector, I inputs of a layer, H hidden units; S rows of a packed
batch: the running reviews of step 0, then those of step 1, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.kernels import BETWEEN, Layer

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Packed:
    """Reviews without padding, the longest first."""

    tokens_S: Tensor  # int64, the words of step 0, then those of step 1, ...
    running: list[int]  # [T] reviews that have a word at each step
    last_B: Tensor  # the row of each review's last word


def packed_reviews(encoded: Encoded, device: torch.device | str = "cpu") -> Packed:
    """Reviews that are sorted by falling length, packed, on a device."""
    tokens_BT, lengths_B = encoded.padded()
    runs_TB = lengths_B > torch.arange(tokens_BT.shape[1]).unsqueeze(1)
    running = runs_TB.sum(1)
    starts = running.cumsum(0) - running
    last_B = starts[lengths_B - 1] + torch.arange(len(lengths_B))
    return Packed(tokens_BT.t()[runs_TB].to(device), running.tolist(), last_B.to(device))


class PackedBatch:
    """A batch's share of the mean evaluation loss, as a function of all of a model's parameters (and of no others).

    Args:
        model: where the sizes, the task and untrained word vectors come from.
        packed: the reviews.
        labels_B: their labels ([B, C] for a multilabel task).
        share: the weight of a review in the mean.
    """

    def __init__(self, model: Classifier, packed: Packed, labels_B: Tensor, share: float) -> None:
        if "gates" in model.regularizer.hooks:
            raise ValueError(
                f"{model.regularizer.title} has a cell of its own, whose Hessian is not offered: give another plane"
            )
        self.packed, self.gru = packed, model.gru
        self._model, self._labels_B, self._share = model, labels_B, share

    def __call__(self, weights: Parameters) -> Tensor:
        """The loss; ``weights`` by the model's names, all of one dtype."""
        x_SI = F.embedding(self.packed.tokens_S, self.vectors(weights))
        for index in range(self.gru.num_layers):
            x_SI = self.between(x_SI) if index else x_SI
            x_SI, _ = run_layer(
                x_SI, layer_of(weights, index), self.packed.running, self.gru.regularizer.kept
            )
        return self.head_loss(x_SI[self.packed.last_B], weights["head.weight"], weights["head.bias"])

    def vectors(self, weights: Parameters) -> Tensor:
        """[V, D], trained or not."""
        return weights.get("vectors", self._model.vectors).to(weights["head.weight"].dtype)

    def between(self, x_SH: Tensor) -> Tensor:
        """The activation between two layers."""
        activation = BETWEEN[self.gru.between]
        return x_SH if activation is None else activation(x_SH)

    def head_loss(self, h_BH: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The batch's share of the mean loss from the last layer's final states."""
        losses_B = self._model.task.loss(F.linear(h_BH, weight, bias), self._labels_B, "none")
        return losses_B.sum() * self._share


def layer_of(weights: Parameters, index: int) -> Layer:
    """The weights of one of the model's layers."""
    return Layer(*(weights[f"gru.{name}_l{index}"] for name in Layer._fields))


def run_layer(
    x_SI: Tensor, layer: Layer, running: Sequence[int], kept: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A layer step by step (equations: :mod:`gruland.kernels.eager`; initial state zero).

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
        h = torch.lerp(n, h, kept + (1 - kept) * z)
        states.append(h)
        recurrent.append(b)
    return torch.cat(states), (inputs_S3H, torch.cat(recurrent))
