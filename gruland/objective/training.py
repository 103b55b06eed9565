"""What training minimizes, as a surface: the loss with zoneout's and DropConnect's masks, averaged over their draws.

The training objective of a network with dropout is the expectation of its loss over masks; in evaluation the weights
(DropConnect) or states (zoneout) stand for their own expectation, which is another function with another surface. Here
the expectation is estimated from D draws that are the same at every point (common random numbers: Glasserman & Yao
1992, "Some guidelines and guarantees for common random numbers"): the surface is as smooth as the model, and what is
uncertain about the difference of two points is how differently the two react to a mask, not which masks they met.

D draws, N reviews, T words, K outputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.objective.evaluation import EvaluationLoss, PaddedReviews
from gruland.objective.projection import ProjectedReviews, unavailable
from gruland.regularizers.draws import Masks, mix

#: Bytes of masks that are kept (zoneout has one byte a draw, layer, padded word and unit); those beyond are drawn anew
#: at each cell.
MEMORY = 2 * 2**30
#: Padded words of a batch. Fewer than in evaluation: a mask has its padding, too.
BATCH_TOKENS = 16_384


class TrainingLoss(EvaluationLoss):
    """A classifier's training-mode loss as :func:`gruland.landscape.compute_surface` wants it.

    Zoneout's mask of a review is a function of (seed, draw, layer, review), DropConnect's of (seed, draw, layer), which
    is one a forward pass as in training: neither depends on the batches, the other reviews, the point or the plane.
    Draw d has the masks of ``gruland.evaluation.logits(mask_seed=mask_seeds(draws, seed)[d])``.

    With DropConnect alone the first layer's inputs are projected (:mod:`gruland.objective.projection`), once for all
    draws; with zoneout each draw is a forward pass of the model through its own kernel. A model without either has
    nothing to draw, and its loss is that of evaluation.

    Args:
        model, encoded, labels, precision, batch_tokens: as of :class:`EvaluationLoss`.
        draws: D, how many masks the loss of a review is averaged over.
        seed: of the masks.
        keys: [N] an integer that identifies each review; its position where None.

    Raises:
        ValueError: fewer than one draw; a precision that is unknown or that this machine does not have.
    """

    def __init__(
        self,
        model: Classifier,
        encoded: Encoded,
        labels: np.ndarray,
        *,
        draws: int = 8,
        seed: int = 0,
        keys: np.ndarray | None = None,
        precision: str = "auto",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        seeds = mask_seeds(draws, seed)
        self._seeds = seeds if model.regularizer.random else seeds[:1]
        self._keys = np.arange(encoded.size) if keys is None else np.asarray(keys)
        super().__init__(model, encoded, labels, precision=precision, batch_tokens=batch_tokens)
        self.about |= {"objective": "training loss", "draws": draws, "mask_seed": seed}

    def _why_padded(self) -> str | None:
        return unavailable(self._model) or (
            "each review has zoneout masks of its own" if self._model.gru.zoneout else None
        )

    def _projected(self, encoded: Encoded) -> ProjectedReviews:
        return _ProjectedDraws(self._model, encoded, self.precision, self._seeds)

    def _padded(self, encoded: Encoded, batch_tokens: int) -> PaddedReviews:
        return _PaddedDraws(self._model, encoded, batch_tokens, self.precision, self._seeds, self._keys)

    def _measured(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [N] and correctness [N], means over the draws, of logits [D, N, K]."""
        each = [super(TrainingLoss, self)._measured(logits_NK) for logits_NK in logits]
        losses, correct = (torch.stack(values).double() for values in zip(*each, strict=True))
        return losses.mean(0), correct.mean(0)


def mask_seeds(draws: int, seed: int) -> list[int]:
    """The mask seed of each draw; two seeds have no draw in common.

    Raises:
        ValueError: fewer than one draw.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws={draws}: expected a whole number of at least 1")
    return [mix(seed, draw) for draw in range(draws)]


class _ProjectedDraws(ProjectedReviews):
    """DropConnect's draws over projected reviews: logits are [D, N, K]."""

    def __init__(self, model: Classifier, encoded: Encoded, precision: str, seeds: Sequence[int]) -> None:
        super().__init__(model, encoded, precision)
        self._masks = [model.gru.draw_masks((1, 1), keys=[0], seed=seed) for seed in seeds]

    def _run(self, table_V3H: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        run = super()._run
        return torch.stack([run(table_V3H, _masked(weights, masks)) for masks in self._masks])


def _masked(weights: Mapping[str, Tensor], masks: Sequence[Masks]) -> dict[str, Tensor]:
    """The weights with DropConnect's masks on the hidden-to-hidden matrices."""
    factors = {f"gru.weight_hh_l{index}": mask.recurrent for index, mask in enumerate(masks)}
    dropped = {name: weights[name] * factor for name, factor in factors.items() if factor is not None}
    return {**weights, **dropped}


class _PaddedDraws(PaddedReviews):
    """Draws of masks over padded batches: logits are [D, N, K]."""

    def __init__(
        self,
        model: Classifier,
        encoded: Encoded,
        batch_tokens: int,
        precision: str,
        seeds: Sequence[int],
        keys: np.ndarray,
    ) -> None:
        super().__init__(model, encoded, batch_tokens)
        self._precision, self._seeds, self._keys = precision, seeds, keys
        self._kept: dict[tuple[int, int], list[Masks]] = {}
        self._room = MEMORY

    def _forward(self, index: int, parameters: dict[str, Tensor]) -> Tensor:
        tokens, lengths = self._inputs[index]
        with _multiplying_in(self._model, self._precision):
            return torch.stack(
                [
                    functional_call(self._model, parameters, (tokens, lengths, self._masks(index, seed)))
                    for seed in self._seeds
                ]
            )

    def _masks(self, index: int, seed: int) -> list[Masks]:
        """The masks of one batch and draw: kept from an earlier cell, or drawn."""
        if (index, seed) in self._kept:
            return self._kept[index, seed]
        lengths, keys = self._inputs[index][1], self._keys[self._rows[index]]
        masks = [_as_bool(mask) for mask in self._model.gru.draw_masks(lengths, keys=keys, seed=seed)]
        size = sum(_bytes(mask) for mask in masks)
        if size <= self._room:
            self._kept[index, seed], self._room = masks, self._room - size
        return masks


def _as_bool(masks: Masks) -> Masks:
    return masks if masks.zoneout is None else masks._replace(zoneout=masks.zoneout.bool())


def _bytes(masks: Masks) -> int:
    return sum(part.nbytes for part in masks if part is not None)


@contextmanager
def _multiplying_in(model: Classifier, precision: str) -> Iterator[None]:
    """The products of the model's GRU in another precision, where there is a kernel that has the choice."""
    before = model.gru.precision
    if unavailable(model) is None:
        model.gru.precision = precision
    try:
        yield
    finally:
        model.gru.precision = before
