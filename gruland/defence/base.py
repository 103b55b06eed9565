"""What a defence may do to a training, a hook each.

B reviews, T words, D numbers in a word vector, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from torch import Tensor

from gruland.regularizers import Draw, Regularizer, mix
from gruland.task import Task

if TYPE_CHECKING:
    from gruland.data import TextDataModule

HOOKS = ("prepare", "texts", "words", "losses")
#: What a draw is for, besides what :mod:`gruland.gru` has: words, and shifts of their vectors.
DELETION, SHIFT = 4, 5


class Defended(Protocol):
    """What a defence asks of the classifier that it trains; V words in the vocabulary."""

    task: Task

    @property
    def regularizer(self) -> Regularizer:
        """What drops its units, or adds to its loss."""

    @property
    def vectors(self) -> Tensor:
        """The words' vectors [V, D]."""

    def __call__(self, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw, /) -> Tensor:
        """The logits [B, K]."""

    def logits_and_states(
        self, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw | None, shift: Tensor | None, /
    ) -> tuple[Tensor, Tensor]:
        """The logits [B, K], where ``shift`` [B, T, D] is added to the words' vectors, and the states."""

    def losses(
        self, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, draw: Draw, shift: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor]:
        """What training without a defence minimizes, for each review [B], and the logits [B, K]."""


class Defence:
    """A way to train a classifier that stands attacks better.

    An option of ``conf/defence`` names a subclass and holds the constructor's arguments; the constructor checks them.
    A subclass overrides the hooks that it needs; each of them does nothing here. They are called in training alone: a
    defended classifier is evaluated, attacked and looked at as any other. Random numbers come from the draw alone, so
    that a training repeats itself, whatever number of processes makes its batches.

    Attributes:
        name: in results, in the names of runs and on the command line, for instance ``fgm``.
        title: in tables and figures, for instance ``FGM``.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def inputs(self, data: TextDataModule) -> dict[str, str]:
        """The checksums of the files that it reads, by the keys that name them: results.json holds them.

        A training goes on with the same ones alone.
        """
        return {}

    def prepare(self, data: TextDataModule) -> None:
        """Look at the reviews before the first epoch."""

    def texts(self, texts: Sequence[str], draw: Draw) -> list[str]:
        """What is read in place of the raw texts [B] of a batch; it runs in a process beside the training.

        ``draw.seed`` is another one in every epoch, ``draw.keys`` [B] are the reviews' numbers in the source: what
        becomes of a text follows from its own key, not from its neighbours.
        """
        return list(texts)

    def words(self, tokens_BT: Tensor, lengths_B: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """What is read in place of a batch's word ids, 0 beyond a review's end, and its lengths, at least 1."""
        return tokens_BT, lengths_B

    def losses(
        self, model: Defended, tokens_BT: Tensor, lengths_B: Tensor, labels: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """What training minimizes, for each review [B], and the logits [B, K] of the reviews as they are."""
        return model.losses(tokens_BT, lengths_B, labels, draw)

    @property
    def hooks(self) -> frozenset[str]:
        """The names of the hooks that do something."""
        return frozenset(name for name in HOOKS if getattr(type(self), name) is not getattr(Defence, name))

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in vars(self).items() if not key.startswith("_"))
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True)
class Rewriting:
    """A defence's ``texts`` as the data module calls it, see :attr:`gruland.data.TextDataModule.rewrite`."""

    defence: Defence
    seed: int

    def __call__(self, texts: Sequence[str], ids: np.ndarray, epoch: int) -> list[str]:
        """The texts of an epoch (from 0)."""
        return self.defence.texts(texts, Draw(mix(self.seed, epoch), ids))
