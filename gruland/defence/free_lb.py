"""FreeLB: adversarial training over all steps of an ascent (Zhu et al. 2020, "FreeLB: Enhanced adversarial training for
natural language understanding", algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from gruland.arguments import check_whole
from gruland.defence.base import SHIFT, Defended
from gruland.defence.vectors import VectorDefence, norms, real_words, unit
from gruland.regularizers import Draw
from gruland.regularizers.base import check_strength


class FreeLB(VectorDefence):
    """The mean of L(s + r_0), ..., L(s + r_{K-1}): r_0 is random, r_{t+1} = r_t + a g / ||g||, shortened to the norm
    epsilon where it is longer; g is the gradient of L at s + r_t, s the normalised word vectors of a review.

    The shifts count as constants, and all of them meet the same masks. r_0 is uniform in +-epsilon / sqrt(T D).

    Args:
        epsilon: the greatest L2 norm of a shift, at least 0.
        step: a, at least 0.
        steps: K, at least 1: so many forward passes a batch.

    Raises:
        ValueError: a value that is negative or not finite, less than one step.
    """

    name, title = "free_lb", "FreeLB"

    def __init__(self, epsilon: float = 5.0, step: float = 2.5, steps: int = 3) -> None:
        super().__init__(epsilon)
        self.step = check_strength(step, "step")
        check_whole("steps", steps, 1)
        self.steps = steps

    def losses(
        self, model: Defended, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The mean loss over the ascent's points, and the logits at the first."""
        shift = self._first(tokens_BT, lengths_B, model.vectors, draw)
        found = []
        for number in range(self.steps):
            shift = shift.detach().requires_grad_()
            found.append(model.losses(tokens_BT, lengths_B, labels, draw, self.in_units(shift)))
            if number + 1 < self.steps:
                (gradient,) = torch.autograd.grad(found[-1][0].sum(), shift, retain_graph=True)
                shift = self.projected(shift + self.step * unit(gradient))
        return torch.stack([losses for losses, _ in found]).mean(0), found[0][1]

    def projected(self, shift_BTD: Tensor) -> Tensor:
        """The shift, shortened to the greatest norm where it is longer."""
        lengths = norms(shift_BTD).clamp_min(torch.finfo(shift_BTD.dtype).tiny)
        return shift_BTD * (self.epsilon / lengths).clamp_max(1)

    def _first(self, tokens_BT: Tensor, lengths_B: Tensor, vectors: Tensor, draw: Draw) -> Tensor:
        """A random shift of a norm of at most epsilon, zero beyond a review's end."""
        sequences, steps = tokens_BT.shape
        units = vectors.shape[1]
        here = draw.of_batch(sequences, tokens_BT.device).at(SHIFT)
        uniform = (2 * here.uniform(steps, units) - 1).to(vectors)
        sizes = (lengths_B * units).to(vectors).view(-1, 1, 1)
        return self.epsilon * uniform * real_words(lengths_B, steps) / sizes.sqrt()
