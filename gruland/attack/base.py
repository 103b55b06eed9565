"""What an attack is, what it may ask of a model, and what it gives back.

N texts, K outputs, C classes, S draws of the masks; B texts in a batch, T words, D numbers in a vector, V words of
the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gruland.data import subset
from gruland.evaluation import scores, scores_of_draws
from gruland.progress import Progress
from gruland.regularizers import Draw
from gruland.task import Task


@dataclass(frozen=True)
class Texts:
    """Labelled texts, which an attack starts from.

    Args:
        ids: int64 [N], a text's identity: what is drawn for a text follows from it, not from its neighbours.
        texts: N strings.
        labels: int64 [N], or float32 [N, C] of a multilabel task.
    """

    ids: np.ndarray
    texts: Sequence[str]
    labels: np.ndarray

    def sample(self, size: int, seed: int) -> Texts:
        """A stratified part of ``size`` texts, all where there are fewer; a larger one contains a smaller one."""
        rows = subset(self.labels, min(size, len(self.ids)), seed)
        return Texts(self.ids[rows], [self.texts[i] for i in rows], self.labels[rows])


@runtime_checkable
class Victim(Protocol):
    """A model under attack. A LightningModule of yours is one when it has these two."""

    task: Task  #: classes, loss and metrics, e.g. ``Task("multiclass", ("negative", "positive"))``

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits [N, K] of raw texts, without dropout and without a gradient, on the CPU."""
        ...


@runtime_checkable
class RandomVictim(Victim, Protocol):
    """A model that can also answer with its dropout on (dropout at test time)."""

    def draws(self, texts: Sequence[str], keys: np.ndarray, *, count: int, seed: int) -> Tensor:
        """Logits [S, N, K] under ``count`` draws of the masks.

        The masks of a draw are a function of ``seed``, the draw and a text's key [N], so that two lists of texts
        with the same keys meet the same masks.
        """
        ...


@runtime_checkable
class OpenVictim(Victim, Protocol):
    """A model that shows its word vectors and how its logits follow from them (white box)."""

    vectors: Tensor  #: [V, D], a row for each word of the vocabulary
    vocabulary: (
        Any  #: ``words``: from row 2 on; ``ids(words)``: their rows, as gruland.embedding.Vocabulary has them
    )

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text as the model reads them; joined by spaces it reads the same ones again."""
        ...

    def logits_of_vectors(
        self, embedded_BTD: Tensor, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw | None = None
    ) -> Tensor:
        """Logits [B, K] of word vectors, in evaluation mode, with a graph back to them.

        ``draw`` says which masks are met; None = none.
        """
        ...


class Outputs(NamedTuple):
    """What a model answers to N inputs."""

    plain: Tensor  # [N, K] logits in evaluation mode
    dropout: Tensor | None  # [S, N, K] logits under several draws of the masks; None: it has none


class Outcome(NamedTuple):
    """What an attack found.

    ``results`` is plain data for results.json. It holds ``reviews`` (how many texts) and ``scores``: for each form
    of the texts, the original first and the attacked one last, ``plain`` and ``dropout`` (None for a model without).
    ``columns`` are those of texts.csv, a value for each text: ``id``, ``label``, each form, what the attack adds, and
    ``probability_<form>``, which the model without dropout gives the text's own label (exp of minus its loss); under
    draws of masks also ``dropout_loss_<form>``, the text's mean loss over them, so that the two compare by review.
    """

    results: dict[str, Any]
    columns: dict[str, list[Any]]


class Attack(Protocol):
    """A threat model: what is done to texts, and how well a model stands it.

    A frozen dataclass; its fields are its settings, and ``__post_init__`` refuses those that cannot work. The outcome
    is a function of the settings, the texts and the model alone.
    """

    def __call__(self, victim: Victim, texts: Texts) -> Outcome:
        """Attack the model on (a part of) the labelled texts."""
        ...


def score_forms(
    victim: Victim,
    sample: Texts,
    forms: Mapping[str, Sequence[str]],
    *,
    draws: int = 5,
    dropout_seed: int = 0,
    columns: Mapping[str, Sequence[Any]] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Scores of the model on several forms of the same texts, e.g. ``{"raw": ..., "perturbed": ...}``.

    All forms meet the same masks where dropout is on (common random numbers).

    Args:
        forms: N texts each, the original ones first, the attacked ones last.
        draws, dropout_seed: of the masks, for a model with dropout at test time.
        columns: what else texts.csv is to hold of each text.
        progress: advanced by ``1 + draws`` a form.
    """
    # A caller's line is the caller's to close.
    with (
        nullcontext(progress)
        if progress is not None
        else Progress(len(forms) * (1 + draws), "attack") as line
    ):
        outputs = {
            form: question(victim, texts, sample.ids, draws=draws, seed=dropout_seed, progress=line)
            for form, texts in forms.items()
        }
    return score_outputs(victim.task, sample, outputs, forms, columns)


def question(
    victim: Victim,
    texts: Sequence[str],
    keys: np.ndarray,
    *,
    draws: int,
    seed: int,
    progress: Progress | None = None,
) -> Outputs:
    """A model's outputs for texts, and those under several draws of the masks where it has some."""
    plain = victim.logits(texts).float()
    if progress:
        progress.advance()
    dropout = None
    if isinstance(victim, RandomVictim):
        dropout = victim.draws(texts, keys, count=draws, seed=seed)
    if progress:
        progress.advance(draws)
    return Outputs(plain, dropout)


def score_outputs(
    task: Task,
    sample: Texts,
    outputs: Mapping[str, Outputs],
    forms: Mapping[str, Sequence[str]],
    columns: Mapping[str, Sequence[Any]] | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
) -> Outcome:
    """Scores of outputs for several forms of the same reviews, of which ``forms`` has those that are texts.

    Args:
        labels: of the forms that have others than the sample's.
    """
    measured: dict[str, Any] = {}
    probabilities: dict[str, list[float]] = {}
    dropout_losses: dict[str, list[float]] = {}
    for form, (plain, dropout) in outputs.items():
        target = torch.as_tensor((labels or {}).get(form, sample.labels))
        losses = task.loss(plain, target, "none")
        measured[form] = {
            "plain": scores(task, losses, task.probabilities(plain), target).to_dict(),
            "dropout": None if dropout is None else scores_of_draws(task, dropout, target),
        }
        probabilities[form] = [round(p, 6) for p in (-losses).exp().tolist()]
        if dropout is not None:
            drawn = torch.stack([task.loss(output, target, "none") for output in dropout]).mean(0)
            dropout_losses[form] = [round(loss, 6) for loss in drawn.tolist()]
    every: dict[str, Any] = {
        "id": sample.ids.tolist(),
        "label": [task.name_of(label) for label in sample.labels],
        **forms,
        **(columns or {}),
        **{f"probability_{form}": values for form, values in probabilities.items()},
        **{f"dropout_loss_{form}": values for form, values in dropout_losses.items()},
    }
    return Outcome(
        {"reviews": len(sample.ids), "scores": measured},
        {name: list(values) for name, values in every.items()},
    )
