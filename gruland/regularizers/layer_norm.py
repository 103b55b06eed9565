"""Layer normalization in the cell (Ba et al. 2016, "Layer normalization", supplement: the equations of the GRU), but
without gains (Xu et al. 2019, "Understanding and improving layer normalization", section 3: "LayerNorm-simple")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.regularizers.base import Regularizer


class LayerNorm(Regularizer):
    """LN(W x_t) + b and LN(U h_{t-1}) + b in place of W x_t + b and U h_{t-1} + b: over the reset and update gates of a
    step together, and over the candidate's units.

    LN(a) = (a - mean) / sqrt(variance + 1e-5). The layer's own biases stand for those of the paper; it has no gains, so
    that a normalized layer has the parameters of any other. It acts in evaluation, too, and draws nothing. No fused
    kernel has this cell: it runs in PyTorch's own operations, several times slower.
    """

    name, title = "layer_norm", "Layer norm"

    def gates(self, products_R3H: Tensor) -> Tensor:
        """The normalized products."""
        hidden = products_R3H.shape[1] // 3
        parts = products_R3H.split([2 * hidden, hidden], 1)
        return torch.cat([F.layer_norm(part, part.shape[1:]) for part in parts], 1)
