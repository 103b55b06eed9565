"""What an attack by gradients raises, and its slope in the words' vectors, in expectation over draws of the masks.

B texts, T words, D numbers in a vector, K outputs, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.attack.base import OpenVictim, Victim
from gruland.regularizers import Draw
from gruland.task import Task

#: Words side by side in a batch, padding included: the backward pass keeps the states of all of them.
BATCH_TOKENS = 32_768


class Slope(NamedTuple):
    """Means over the draws."""

    margins_B: Tensor
    gradient_BTD: Tensor  # of the margins by the vectors
    probabilities_BC: Tensor


def margins(task: Task, logits_BK: Tensor, labels: Tensor) -> Tensor:
    """How far the best wrong answer lies above the right one [B], in logits: above zero the prediction is wrong.

    Unlike the cross-entropy's, its gradient does not vanish where a model is sure (Carlini & Wagner 2017, "Towards
    evaluating the robustness of neural networks", f_6). Multilabel: of the label that is nearest to wrong.
    """
    if task.kind == "multiclass":
        own = F.one_hot(labels, logits_BK.shape[1]).bool()
        return logits_BK.masked_fill(own, -torch.inf).amax(1) - logits_BK[own]
    signs_BK = (1 - 2 * labels).reshape(len(logits_BK), -1).to(logits_BK)
    return (signs_BK * logits_BK).amax(1)


def slope(
    victim: OpenVictim,
    embedded_BTD: Tensor,
    tokens_BT: Tensor,
    lengths_B: Tensor,
    labels: Tensor,
    draws: Sequence[Draw | None],
) -> Slope:
    """The mean margin over the draws with its gradient: a pass forward and back through the model for each draw.

    Args:
        draws: the masks of each; [None]: the model without dropout.
    """
    vectors = embedded_BTD.detach().requires_grad_()
    total = torch.zeros_like(vectors)
    found, probabilities = [], []
    for draw in draws:
        logits_BK = victim.logits_of_vectors(vectors, tokens_BT, lengths_B, draw)
        margins_B = margins(victim.task, logits_BK, labels)
        total += torch.autograd.grad(margins_B.sum(), vectors)[0]
        found.append(margins_B.detach())
        probabilities.append(victim.task.probabilities(logits_BK.detach().double()))
    return Slope(torch.stack(found).mean(0), total / len(draws), torch.stack(probabilities).mean(0))


def opened(victim: Victim, attack: str) -> OpenVictim:
    """The victim itself, which shows its vectors.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(victim, OpenVictim):
        raise ValueError(
            f"{attack} needs the words' vectors and gradients of {type(victim).__name__}: give it vectors, vocabulary, "
            "words and logits_of_vectors (gruland.attack.OpenVictim), or take an attack that only asks"
        )
    return victim
