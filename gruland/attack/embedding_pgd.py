"""Projected gradient ascent in the space of the words' vectors: a lower estimate of the harm that a ball allows.

Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks"; in the vectors of words: Miyato et
al. 2017, "Adversarial training methods for semi-supervised text classification". No text has the vectors it finds.

B reviews, T words, D numbers in a vector, K outputs, C classes, R radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gruland.arguments import check_whole
from gruland.attack import flags, verdict
from gruland.attack.base import OpenVictim, Outcome, Outputs, Texts, Victim
from gruland.attack.gradients import BATCH_TOKENS, Slope, opened, slope
from gruland.attack.threat import Effort, Threat
from gruland.data.encoded import encode
from gruland.evaluation import length_sorted_batches
from gruland.progress import Progress
from gruland.regularizers import Draw, draws_of, mix

#: The balls: of a whole review, of each word, of each number, by the norm that they bound.
NORMS = ("l2_review", "l2_word", "linf")
#: A step is so many times radius / steps, so that it can reach any point of the ball (Madry et al. 2018).
REACH = 2.5


@dataclass(frozen=True)
class EmbeddingPGD(Threat):
    """The words' vectors moved within a ball, against the gradient of the right answer.

    The best of all iterates and restarts is kept for each review, by the mean margin over the attack's draws. A larger
    radius begins at what a smaller one found, so that what is found never falls with the radius.

    Args:
        norm: what is bounded: ``l2_review`` (all of a review's numbers together), ``l2_word`` (each word's vector by
            itself) or ``linf`` (each number).
        radii: of the ball, rising, in units of the vectors (GloVe's have lengths of about 6). The last is judged.
        steps: of an ascent.
        restarts: ascents from different places; the first from the smaller radius's best, the others from random ones.
    """

    norm: str = "l2_word"
    radii: Sequence[float] = (0.05, 0.1, 0.25)
    steps: int = 10
    restarts: int = 2
    knowledge: ClassVar[str] = "gradients"
    revision: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm}: expected {', '.join(NORMS[:-1])} or {NORMS[-1]}")
        radii = list(self.radii) if isinstance(self.radii, Sequence) else []
        whole = all(isinstance(r, int | float) and not isinstance(r, bool) and r >= 0 for r in radii)
        if not radii or not whole or sorted(set(radii)) != radii:
            raise ValueError(f"radii={self.radii}: expected rising numbers of at least 0")
        check_whole("steps", self.steps, 1)
        check_whole("restarts", self.restarts, 1)

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Scores on reviews as they are (``raw``) and with moved vectors (``attacked``), which are no texts.

        Raises:
            ValueError: the model does not show its vectors.
        """
        model, sample = opened(victim, "embedding_pgd"), self.sample(texts)
        encoded = encode(model.words(sample.texts), model.vocabulary)
        N, R, fresh = len(sample.ids), len(self.radii), self.fresh if self.random(victim) else 0
        plain_RNK = torch.empty(1 + R, N, model.task.num_outputs)
        fresh_RSNK = torch.empty(1 + R, max(1, fresh), N, model.task.num_outputs, dtype=torch.float64)
        own_NC = torch.empty(2, N, _classes(model), dtype=torch.float64)
        norms = np.empty(N)
        with Progress(N, "embedding pgd") as progress:
            for rows in length_sorted_batches(encoded.lengths, BATCH_TOKENS):
                tokens_BT, lengths_B = encoded.take(rows).padded()
                batch = Batch(
                    model, tokens_BT, lengths_B, torch.as_tensor(sample.labels[rows]), sample.ids[rows]
                )
                # What was found for each radius, the first of which is 0, and the model's answers to that.
                found = self._ascend_all(batch)
                for place, delta_BTD in enumerate(found.deltas):
                    plain_RNK[place, rows] = batch.logits(delta_BTD, None).float()
                    for number, draw in enumerate(
                        draws_of(self.dropout_seed, fresh, batch.ids) if fresh else []
                    ):
                        fresh_RSNK[place, number, rows] = batch.logits(delta_BTD, draw).double()
                own_NC[:, rows], norms[rows] = found.probabilities, found.norms
                progress.advance(len(rows))
        outputs = [Outputs(plain_RNK[place], fresh_RSNK[place] if fresh else None) for place in range(1 + R)]
        labels = torch.as_tensor(sample.labels)
        rights = [self._answers(victim, answer, labels).rights for answer in outputs]
        return self.judge_outputs(
            victim,
            sample,
            {"raw": outputs[0], "attacked": outputs[-1]},
            (own_NC[0], own_NC[1]) if fresh else None,
            Effort(queries=[1 + R * self.restarts * (1 + self.steps)] * N),
            forms={"raw": sample.texts},
            curves={"radius": verdict.curve([0.0, *map(float, self.radii)], rights)},
            flags=flags.outputs_vary(victim, sample, self.draws) | flags.gradients_vanish(norms),
        )

    def _ascend_all(self, batch: Batch) -> Found:
        """The best move of each review for radius 0 and all others."""
        draws: Sequence[Draw | None] = [None]
        if self.random(batch.victim):
            draws = draws_of(self.attack_seed, self.draws, batch.ids)
        start = torch.zeros_like(batch.embedded_BTD)
        first = batch.slope(start, draws)
        best = Best(start, first.margins_B, first.probabilities_BC)
        deltas = [start]
        for place, radius in enumerate(self.radii):
            for restart in range(self.restarts):
                begin = best.delta_BTD if restart == 0 else self._random(batch, radius, place, restart)
                best = self._ascend(batch, begin, float(radius), draws, best)
            deltas.append(best.delta_BTD)
        probabilities = torch.stack([first.probabilities_BC, best.probabilities_BC])
        norms = first.gradient_BTD.flatten(1).norm(dim=1)
        return Found(deltas, probabilities.cpu(), norms.cpu().numpy())

    def _ascend(
        self, batch: Batch, delta_BTD: Tensor, radius: float, draws: Sequence[Draw | None], best: Best
    ) -> Best:
        for step in range(1 + self.steps):
            here = batch.slope(delta_BTD, draws)
            better = here.margins_B > best.margins_B
            best = Best(
                torch.where(better[:, None, None], delta_BTD, best.delta_BTD),
                torch.where(better, here.margins_B, best.margins_B),
                torch.where(better[:, None], here.probabilities_BC, best.probabilities_BC),
            )
            if step < self.steps:
                move = REACH * radius / self.steps * steepest(here.gradient_BTD, self.norm)
                delta_BTD = project(delta_BTD + move, radius, self.norm)
        return best

    def _random(self, batch: Batch, radius: float, place: int, restart: int) -> Tensor:
        """A place on the ball, which follows from the review's id."""
        T, D = batch.embedded_BTD.shape[1:]
        drawn = []
        for key, length in zip(batch.ids.tolist(), batch.lengths_B.tolist(), strict=True):
            random = torch.Generator().manual_seed(mix(self.seed, place, restart, int(key)) >> 1)
            drawn.append(F.pad(torch.randn(length, D, generator=random), (0, 0, 0, T - length)))
        start_BTD = torch.stack(drawn).to(batch.embedded_BTD)
        return project(radius * steepest(start_BTD, self.norm), radius, self.norm)


class Best(NamedTuple):
    """The best move of each review so far."""

    delta_BTD: Tensor
    margins_B: Tensor
    probabilities_BC: Tensor


class Found(NamedTuple):
    """What an ascent through all radii found."""

    deltas: list[Tensor]  # [B, T, D] each, of radius 0 and of all others
    probabilities: Tensor  # [2, B, C] on the attack's draws, before and after
    norms: np.ndarray  # [B] of the gradient at the review itself


class Batch:
    """Reviews side by side, whose vectors can be moved."""

    def __init__(
        self, victim: OpenVictim, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, ids: np.ndarray
    ) -> None:
        device = victim.vectors.device
        self.victim, self.tokens_BT, self.lengths_B = victim, tokens_BT.to(device), lengths_B
        self.labels, self.ids = labels.to(device), ids
        self.embedded_BTD = F.embedding(self.tokens_BT, victim.vectors)

    def slope(self, delta_BTD: Tensor, draws: Sequence[Draw | None]) -> Slope:
        """:func:`gruland.attack.gradients.slope` of the moved vectors."""
        moved = self.embedded_BTD + delta_BTD
        return slope(self.victim, moved, self.tokens_BT, self.lengths_B, self.labels, draws)

    @torch.no_grad()
    def logits(self, delta_BTD: Tensor, draw: Draw | None) -> Tensor:
        """[B, K]"""
        moved = self.embedded_BTD + delta_BTD
        return self.victim.logits_of_vectors(moved, self.tokens_BT, self.lengths_B, draw).cpu()


def steepest(gradient_BTD: Tensor, norm: str) -> Tensor:
    """The move of length 1 in the norm that rises most; zero where there is no gradient."""
    if norm == "linf":
        return gradient_BTD.sign()
    axes = (1, 2) if norm == "l2_review" else (2,)
    return gradient_BTD / gradient_BTD.norm(dim=axes, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def project(delta_BTD: Tensor, radius: float, norm: str) -> Tensor:
    """The nearest move within the ball."""
    if norm == "linf":
        return delta_BTD.clamp(-radius, radius)
    axes = (1, 2) if norm == "l2_review" else (2,)
    lengths = delta_BTD.norm(dim=axes, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return delta_BTD * (radius / lengths).clamp_max(1)


def _classes(victim: Victim) -> int:
    return len(victim.task.classes)
