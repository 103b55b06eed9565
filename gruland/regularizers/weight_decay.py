"""Weight decay (Krogh & Hertz 1992, "A simple weight decay can improve generalization", equation 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gruland.regularizers.base import SIZES, Regularizer, check_strength


class WeightDecay(Regularizer):
    """strength / 2 * the sum of the squared weights of all matrices; biases and word vectors are free.

    It is a part of the loss. Adam divides its gradient as any other; where it shall not, ``optimizer=adamw`` has
    decoupled decay (Loshchilov & Hutter 2019), which no loss surface shows.

    Args:
        strength: at least 0; 1.2e-6 in AWD-LSTM.

    Raises:
        ValueError: a strength that is negative or not finite.
    """

    name, title = "weight_decay", "Weight decay"
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {**SIZES, "regularizer.strength": (1e-6, 1e-5, 1e-4)}

    def __init__(self, strength: float = 1e-5) -> None:
        self.strength = check_strength(strength, "strength")

    def decay(self, matrices: Sequence[Tensor]) -> Tensor:
        """Large weights cost."""
        return self.strength / 2 * torch.stack([matrix.pow(2).sum() for matrix in matrices]).sum()
