"""What training minimizes, as a surface: the regularized loss, averaged over the draws of its masks.

The training objective of a network with dropout is the expectation of its loss over masks; in evaluation the weights
or states stand for their own expectation, which is another function with another surface. Here the expectation is
estimated from D draws that are the same at every point (common random numbers: Glasserman & Yao 1992, "Some guidelines
and guarantees for common random numbers"): the surface is as smooth as the model, and what is uncertain about the
difference of two points is how differently the two react to a mask, not which masks they met. What a regularizer adds
to the loss (a penalty, smoothed labels) is in it.

D draws, N reviews, T words, K outputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gruland.classifier import Classifier
from gruland.data import Encoded
from gruland.gru import WEIGHTS
from gruland.kernels import Layer
from gruland.landscape.objective import OnPlane
from gruland.objective.evaluation import EvaluationLoss, PaddedReviews
from gruland.objective.projection import ProjectedReviews, unavailable
from gruland.regularizers import Draw, draws_of

#: Padded words of a batch. Fewer than in evaluation: a mask has its padding, too.
BATCH_TOKENS = 16_384


class TrainingLoss(EvaluationLoss):
    """A classifier's training-mode loss as :func:`gruland.landscape.compute_surface` wants it.

    The masks of a review are a function of (seed, draw, layer, review), those of weights of (seed, draw, layer), which
    is one a forward pass as in training: neither depends on the batches, the other reviews, the point or the plane.
    Draw d is that of ``gruland.evaluation.logits(draw=draws_of(seed, draws, keys)[d])``.

    Where masks leave the first layer's inputs alone, these are projected (:mod:`gruland.objective.projection`), once
    for all draws; else each draw is a forward pass of the model through its own kernel. A regularizer without masks has
    nothing to draw: one pass is all.

    Args:
        model, encoded, labels, precision, batch_tokens: as of :class:`EvaluationLoss`.
        draws: D, how many masks the loss of a review is averaged over.
        seed: of the masks.
        keys: [N] an integer that identifies each review; its position where None.
        only: the number of the one draw that is taken; None = all D.

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
        only: int | None = None,
        precision: str = "auto",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._keys = np.arange(encoded.size) if keys is None else np.asarray(keys)
        self._draws = draws_of(seed, draws, self._keys)
        if "agreement" in model.regularizer.hooks and draws < 2:
            raise ValueError(
                f"draws={draws}: {model.regularizer.title} compares two draws, expected at least 2"
            )
        if not model.regularizer.random:
            self._draws = self._draws[:1]
        if only is not None:
            self._draws = [self._draws[only]]
        super().__init__(model, encoded, labels, precision=precision, batch_tokens=batch_tokens)
        self._masks = {"draws": draws, "seed": seed}
        self.about |= {"objective": "training loss", "draws": draws, "mask_seed": seed}

    def _options(self, rows: np.ndarray) -> dict[str, Any]:
        """Some of the reviews meet the masks that they meet here."""
        return {**super()._options(rows), **self._masks, "keys": self._keys[rows]}

    def _why_padded(self) -> str | None:
        return unavailable(self._model) or _why_not_projected(self._model)

    def _projected(self, encoded: Encoded) -> ProjectedReviews:
        return _ProjectedDraws(self._model, encoded, self.precision, self._draws)

    def _padded(self, encoded: Encoded, batch_tokens: int) -> PaddedReviews:
        return _PaddedDraws(self._model, encoded, batch_tokens, self.precision, self._draws)

    def _measured(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [N] and correctness [N], means over the draws, of logits [D, N, K] (and a column of penalties)."""
        losses, correct = self._of_draws(logits)
        return losses.mean(0), correct.mean(0)

    def _of_draws(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and correctness [D, N] of each draw."""
        task, regularizer, labels = self._model.task, self._model.regularizer, self._labels
        penalties: Tensor | float = 0.0
        if _has_more(self._model):
            logits, penalties = logits[..., :-1], logits[..., -1].double()
        losses = torch.stack([regularizer.loss(task, logits_NK, labels) for logits_NK in logits]).double()
        if "agreement" in regularizer.hooks:  # of each draw with the one before it
            pairs = zip(logits, logits.roll(1, 0), strict=True)
            losses = losses + torch.stack([regularizer.agreement(task, *pair) for pair in pairs])
        correct = torch.stack([task.correct(task.probabilities(logits_NK), labels) for logits_NK in logits])
        return losses + penalties, correct.double()


class MaskedLoss(TrainingLoss):
    """The training loss with each review under each draw as an example: D * N of them, draw by draw.

    Their mean is the mean of :class:`TrainingLoss`. What estimates it from some of the examples
    (:mod:`gruland.landscape.survey`) samples the masks along with the reviews: D times as many reviews are seen for the
    same number of passes, and reviews differ more than masks do.

    Raises:
        ValueError: as :class:`TrainingLoss`; a loss that compares the draws of a review, which no draw has alone.
    """

    def __init__(self, model: Classifier, encoded: Encoded, labels: np.ndarray, **options: Any) -> None:
        super().__init__(model, encoded, labels, **options)
        if not separable(model):
            raise ValueError(
                f"{model.regularizer.title}: expected masks whose draws have losses of their own"
            )
        #: The review of each example.
        self.groups = np.tile(np.arange(encoded.size), len(self._draws))
        self.strata = self.strata[self.groups]
        self.about["masks"] = "sampled"

    def _measured(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        losses, correct = self._of_draws(logits)
        return losses.reshape(-1), correct.reshape(-1)

    def take(self, rows: np.ndarray) -> _Masked:  # type: ignore[override]  # a surface asks no more of it
        """The losses of some examples."""
        draws, reviews = np.divmod(rows, self._encoded.size)
        groups = []
        for draw in np.unique(draws).tolist():
            places = np.flatnonzero(draws == draw)
            of = reviews[places]
            labels, options = self._labels[torch.as_tensor(of)].numpy(), TrainingLoss._options(self, of)
            loss = TrainingLoss(
                self._model, self._encoded.take(of), labels, **options, only=draw, precision=self.precision
            )
            groups.append((places, loss))
        return _Masked(groups, self.strata[rows])


class _Masked:
    """Losses of groups of examples, each under a draw of its own, put into their places."""

    def __init__(self, groups: Sequence[tuple[np.ndarray, TrainingLoss]], strata: np.ndarray) -> None:
        self._groups, self.strata = groups, strata

    def __call__(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self._placed([loss(parameters) for _, loss in self._groups])

    def on_plane(
        self, parameters: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> OnPlane:
        planes = [loss.on_plane(parameters, directions) for _, loss in self._groups]

        def at(steps: Sequence[float], rows: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
            losses, correct = self._placed([plane(steps, None) for plane in planes])
            return (losses, correct) if rows is None else (losses[rows], correct[rows])

        return at

    def _placed(self, found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        places = torch.from_numpy(np.concatenate([places for places, _ in self._groups]))
        losses, correct = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = places.argsort()
        return losses[order], correct[order]


def separable(model: Classifier) -> bool:
    """Whether a model's training loss is random, and the mean of losses that each need one draw of masks alone."""
    return model.regularizer.random and "agreement" not in model.regularizer.hooks


def _why_not_projected(model: Classifier) -> str | None:
    """None if the masks leave what is projected once for all draws alone, else one line."""
    regularizer, layer = model.regularizer, model.gru.layer(0)
    if regularizer.hooks - {"weights", "loss", "agreement"}:
        return f"{regularizer.title} acts within the forward pass"
    drawn = regularizer.weights(layer, Draw(0).of_batch(1, model.device))
    if drawn.weight_ih is not layer.weight_ih or drawn.bias_ih is not layer.bias_ih:
        return f"{regularizer.title} changes the first layer's input weights"
    return None


class _ProjectedDraws(ProjectedReviews):
    """Draws of hidden-to-hidden weights over projected reviews: logits are [D, N, K]."""

    def __init__(self, model: Classifier, encoded: Encoded, precision: str, draws: Sequence[Draw]) -> None:
        super().__init__(model, encoded, precision)
        self._draws = [draw.of_batch(encoded.size, model.device) for draw in draws]

    def _run(self, table_V3H: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        run = super()._run
        return torch.stack([run(table_V3H, self._drawn(weights, draw)) for draw in self._draws])

    def _drawn(self, weights: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The weights that the layers run with under a draw."""
        gru, result = self._model.gru, dict(weights)
        for index in range(gru.num_layers):
            layer = Layer(*(weights[f"gru.{name}_l{index}"] for name in Layer._fields))
            drawn = gru.regularizer.weights(layer, draw.at(WEIGHTS, index))
            result |= {f"gru.{name}_l{index}": weight for name, weight in drawn._asdict().items()}
        return result


class _PaddedDraws(PaddedReviews):
    """Draws of masks over padded batches: logits are [D, N, K], where there are penalties [D, N, K + 1]."""

    def __init__(
        self, model: Classifier, encoded: Encoded, batch_tokens: int, precision: str, draws: Sequence[Draw]
    ) -> None:
        super().__init__(model, encoded, batch_tokens)
        self._precision, self._module = precision, _LogitsAndPenalty(model)
        whole = [draw.of_batch(encoded.size, torch.device("cpu")) for draw in draws]
        self._draws: list[list[Draw | None]] = [
            [draw.take(rows) if model.regularizer.random else None for draw in whole] for rows in self._rows
        ]

    def _forward(self, index: int, parameters: dict[str, Tensor]) -> Tensor:
        named = {f"model.{name}": parameter for name, parameter in parameters.items()}
        with _multiplying_in(self._model, self._precision):
            return torch.stack(
                [
                    functional_call(self._module, named, (*self._inputs[index], draw))
                    for draw in self._draws[index]
                ]
            )


class _LogitsAndPenalty(nn.Module):
    """A model's logits [B, K] and, where its regularizer has some, the penalties as a further column."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor, draw: Draw | None) -> Tensor:
        logits, states_BTH = self.model.logits_and_states(tokens, lengths, draw)
        if not _has_more(self.model):
            return logits
        regularizer = self.model.regularizer
        more_B = regularizer.penalty(states_BTH, lengths) + regularizer.decay(self.model.matrices())
        return torch.cat([logits, more_B.unsqueeze(1)], 1)


def _has_more(model: Classifier) -> bool:
    """Whether the loss has a part that is no function of the logits."""
    return not model.regularizer.hooks.isdisjoint(("penalty", "decay"))


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
