"""Adversarial training by the fast gradient method (Miyato et al. 2017, "Adversarial training methods for
semi-supervised text classification", equations 5 and 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from gruland.defence.base import Defended
from gruland.defence.vectors import VectorDefence, unit
from gruland.regularizers import Draw
from gruland.regularizers.base import check_strength


class FGM(VectorDefence):
    """L(s) + w * L(s + r), r = epsilon * g / ||g||, g the gradient of L at the normalised word vectors s of a review.

    r counts as a constant: no gradient goes through it. Both losses meet the same masks, and both hold
    what a regularizer adds to a loss, which therefore counts 1 + w times: a weight decay of 0.1 is one of 0.2 here.

    Args:
        epsilon: L2 norm of r, at least 0; the paper's search for IMDB ended at 5.
        weight: w, of the adversarial loss, at least 0; 1 in the paper.

    Raises:
        ValueError: a value that is negative or not finite.
    """

    name, title = "fgm", "FGM"

    def __init__(self, epsilon: float = 5.0, weight: float = 1.0) -> None:
        super().__init__(epsilon)
        self.weight = check_strength(weight, "weight")

    def losses(
        self, model: Defended, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The loss of the reviews as they are, and of the worst shift to first order."""
        shift = model.vectors.new_zeros(*tokens_BT.shape, model.vectors.shape[1], requires_grad=True)
        clean, logits = model.losses(tokens_BT, lengths_B, labels, draw, self.in_units(shift))
        (gradient,) = torch.autograd.grad(clean.sum(), shift, retain_graph=True)
        worst = self.in_units(self.epsilon * unit(gradient))
        adversarial, _ = model.losses(tokens_BT, lengths_B, labels, draw, worst)
        return clean + self.weight * adversarial, logits
