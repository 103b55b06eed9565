"""DropConnect: hidden-to-hidden weights are left out (Wan et al. 2013, "Regularization of Neural Networks using
DropConnect")."""

from __future__ import annotations

from gruland.regularizers.base import RATES, Regularizer, check_rate


class DropConnect(Regularizer):
    """Each hidden-to-hidden weight is left out with probability ``rate``, one mask for each layer and forward pass.

    Args:
        rate: in [0, 1); the paper's best is 0.05 (section 7.1).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    name, title, grid = "dropconnect", "DropConnect", RATES

    def __init__(self, rate: float = 0.05) -> None:
        self.rate = self.dropconnect = check_rate(rate)
