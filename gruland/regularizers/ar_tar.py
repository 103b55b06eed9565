"""Activation regularization, AR and TAR (Merity et al. 2017, "Revisiting activation regularization for language RNNs",
section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gruland.regularizers.base import SIZES, Regularizer, check_strength


class ArTar(Regularizer):
    """alpha * mean of h_t^2 + beta * mean of (h_{t+1} - h_t)^2, over a sequence's steps and the last layer's units.

    The means of squares are those of the authors' code; the paper writes L2 norms.

    Args:
        alpha: of large activations (AR), at least 0; 2 in AWD-LSTM.
        beta: of large changes from one step to the next (TAR), at least 0; 1 in AWD-LSTM.

    Raises:
        ValueError: a strength that is negative or not finite.
    """

    name, title = "ar_tar", "AR and TAR"
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {**SIZES, "regularizer.alpha": (0.5, 1.0, 2.0)}

    def __init__(self, alpha: float = 2.0, beta: float = 1.0) -> None:
        self.alpha, self.beta = check_strength(alpha, "alpha"), check_strength(beta, "beta")

    def penalty(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        """Large states and large steps cost."""
        lengths_B1 = lengths_B.to(states_BTH.device).unsqueeze(1)
        time = torch.arange(states_BTH.shape[1], device=states_BTH.device)
        squares_BT = states_BTH.pow(2).mean(2)
        steps_BT = (states_BTH[:, 1:] - states_BTH[:, :-1]).pow(2).mean(2) * (time[1:] < lengths_B1)
        activation = (squares_BT * (time < lengths_B1)).sum(1) / lengths_B1.squeeze(1)
        change = steps_BT.sum(1) / (lengths_B1.squeeze(1) - 1).clamp_min(1)
        return self.alpha * activation + self.beta * change
