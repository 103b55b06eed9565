"""What perturbations of word vectors have in common: their unit, their size and their direction.

B reviews, T words, D numbers in a word vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gruland.defence.base import Defence
from gruland.regularizers.base import check_strength

if TYPE_CHECKING:
    from gruland.data import TextDataModule


class VectorDefence(Defence):
    """A defence that shifts word vectors.

    A shift is measured in normalised vectors, whose numbers have variance 1 over the words of the training reviews
    (Miyato et al. 2017, "Adversarial training methods for semi-supervised text classification", equation 1). The model
    reads its vectors as they are: it gets the shift times their standard deviations [D].

    Args:
        epsilon: L2 norm of the shift of a whole review, at least 0. A review of T words has the norm sqrt(T D) or so:
            141 where it has 200 words of 100 numbers.

    Raises:
        ValueError: an epsilon that is negative or not finite.
    """

    def __init__(self, epsilon: float) -> None:
        self.epsilon = check_strength(epsilon, "epsilon")
        self._deviations: Tensor | None = None

    def prepare(self, data: TextDataModule) -> None:
        """Measure the vectors of the training reviews' words."""
        vectors = data.vocabulary.vectors
        counts = np.bincount(data.splits["train"].encoded.tokens, minlength=len(vectors))
        self._deviations = deviations(vectors, counts)

    def in_units(self, shift_BTD: Tensor) -> Tensor:
        """A shift of normalised vectors as one of the model's.

        Raises:
            ValueError: the reviews were not looked at.
        """
        if self._deviations is None:
            raise ValueError(f"defence={self.name} has not seen the reviews: call prepare(data) first")
        return shift_BTD * self._deviations.to(shift_BTD)


def deviations(vectors_VD: np.ndarray, counts_V: np.ndarray) -> Tensor:
    """Standard deviations [D] of word vectors over words that occur so often, float32."""
    share = counts_V / counts_V.sum()
    mean = share @ vectors_VD
    return torch.from_numpy(np.sqrt(share @ (vectors_VD - mean) ** 2).astype(np.float32))


def norms(x_BTD: Tensor) -> Tensor:
    """L2 norms of whole reviews, [B, 1, 1]."""
    return x_BTD.flatten(1).norm(dim=1).view(-1, 1, 1)


def unit(x_BTD: Tensor) -> Tensor:
    """The direction of each review: norm 1; zeros stay zeros."""
    # The largest number first, so that squares of tiny gradients do not vanish.
    largest = x_BTD.abs().flatten(1).amax(1).view(-1, 1, 1)
    scaled = x_BTD / largest.clamp_min(torch.finfo(x_BTD.dtype).tiny)
    return scaled / norms(scaled).clamp_min(torch.finfo(x_BTD.dtype).tiny)


def real_words(lengths_B: Tensor, steps: int) -> Tensor:
    """[B, T, 1] of bool: no padding."""
    return (torch.arange(steps, device=lengths_B.device) < lengths_B.unsqueeze(1)).unsqueeze(2)
