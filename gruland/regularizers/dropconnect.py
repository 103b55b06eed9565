"""DropConnect: hidden-to-hidden weights are left out (Wan et al. 2013, "Regularization of Neural Networks using
DropConnect")."""

from __future__ import annotations

from gruland.kernels import Layer
from gruland.regularizers.base import RATES, Regularizer, check_rate
from gruland.regularizers.draws import Draw, factors


class DropConnect(Regularizer):
    """weight_hh * m / (1 - p), m = 0 with probability p: one mask for each layer and forward pass, as AWD-LSTM has it.

    The mask is shared by the batch and by all steps; the biases are kept.

    Args:
        rate: p, in [0, 1); the paper's best is 0.05 (section 7.1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "dropconnect", "DropConnect", RATES

    def __init__(self, rate: float = 0.05) -> None:
        self.rate = check_rate(rate)

    def weights(self, layer: Layer, draw: Draw) -> Layer:
        """Hidden-to-hidden weights are left out."""
        matrix = layer.weight_hh
        return layer._replace(
            weight_hh=matrix * factors(draw.shared(self.rate, *matrix.shape), self.rate, matrix)
        )
