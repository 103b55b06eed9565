"""The paper's classifier (figure 1) as a LightningModule.

B reviews, T words, D numbers in a word vector, H hidden units, K outputs, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gruland.defence import Defence, NoDefence
from gruland.defence.base import DELETION, Rewriting
from gruland.gru import BETWEEN_LAYERS, GRU, WORDS
from gruland.metrics import SplitMetrics
from gruland.regularizers import Draw, Regularizer, mix
from gruland.task import Task

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
#: What a draw is for, besides what :mod:`gruland.gru` and :mod:`gruland.defence` have: one of two passes.
PASS = 6


class Classifier(pl.LightningModule):
    """Word vectors, GRU, tanh, GRU, and a linear layer on the last real step.

    Args:
        task: what the data set asks for; it decides the number of outputs and the loss.
        vectors: word vectors [V, D], row 0 for padding. Frozen, they are a buffer outside the checkpoint.
        hidden_size: H, units of each GRU layer.
        num_layers: GRU layers; the paper has two.
        between: activation between GRU layers, ``"tanh"`` in the paper.
        regularizer: an object of :mod:`gruland.regularizers`; None = nothing is regularized.
        defence: an object of :mod:`gruland.defence`; None = the usual training.
        initialization: ``"haste"`` or ``"torch"``, see :class:`gruland.GRU`.
        backend: ``"auto"`` or a backend's name, see :mod:`gruland.kernels`.
        precision: of the GRU's matrix products, ``"float32"`` or ``"bfloat16"``, see :class:`gruland.GRU`.
        freeze: keep the word vectors as they are (the default); else they are trained.
        optimizer: from parameters to an optimizer; Adam with default parameters in the paper.
        seed: of training's masks, which are a function of it, the epoch, the batch and the place in the batch: a
            resumed training repeats an undisturbed one, and several processes one.
    """

    def __init__(
        self,
        task: Task,
        vectors: Tensor,
        *,
        hidden_size: int,
        num_layers: int = 2,
        between: str | None = "tanh",
        regularizer: Regularizer | None = None,
        defence: Defence | None = None,
        initialization: str = "haste",
        backend: str = "auto",
        precision: str = "float32",
        freeze: bool = True,
        optimizer: OptimizerFactory = torch.optim.Adam,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.task, self.seed, self._optimizer = task, seed, optimizer
        self.defence = NoDefence() if defence is None else defence
        self.vectors: Tensor
        if freeze:
            self.register_buffer("vectors", vectors, persistent=False)
        else:
            self.vectors = nn.Parameter(vectors.clone())
        self.gru = GRU(
            vectors.shape[1],
            hidden_size,
            num_layers,
            between=between,
            regularizer=regularizer,
            init=initialization,
            backend=backend,
            precision=precision,
        )
        self.head = nn.Linear(hidden_size, task.num_outputs)
        self.metrics = SplitMetrics(task)

    @property
    def regularizer(self) -> Regularizer:
        """What regularizes it; the GRU has it, too."""
        return self.gru.regularizer

    def forward(self, tokens: Tensor, lengths: Tensor, draw: Draw | None = None) -> Tensor:
        """Logits [B, K] of word ids ``tokens`` [B, T] with ``lengths`` [B] real words each.

        ``draw`` says which masks are met, in evaluation, too (dropout at test time). None = in training those of a
        seed from torch's default generator, in evaluation their expectation.
        """
        return self.logits_and_states(tokens, lengths, draw)[0]

    def losses(
        self,
        tokens: Tensor,
        lengths: Tensor,
        labels: Tensor,
        draw: Draw | None = None,
        shift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What training minimizes, for each review [B], and the logits [B, K]; ``shift``: see :meth:`embed`."""
        if draw is None and self.training and self.regularizer.random:
            draw = Draw.fresh()
        if draw is None or "agreement" not in self.regularizer.hooks:
            losses, logits = self._losses_of_pass(tokens, lengths, labels, draw, shift)
        else:
            (losses, logits), (others, other_logits) = (
                self._losses_of_pass(tokens, lengths, labels, draw.at(PASS, number), shift)
                for number in range(2)
            )
            losses = (losses + others) / 2 + self.regularizer.agreement(self.task, logits, other_logits)
        if "decay" in self.regularizer.hooks:
            losses = losses + self.regularizer.decay(self.matrices())
        return losses, logits

    def _losses_of_pass(
        self, tokens: Tensor, lengths: Tensor, labels: Tensor, draw: Draw | None, shift: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        logits, states_BTH = self.logits_and_states(tokens, lengths, draw, shift)
        losses = self.regularizer.loss(self.task, logits, labels)
        if "penalty" in self.regularizer.hooks:
            losses = losses + self.regularizer.penalty(states_BTH, lengths)
        return losses, logits

    def logits_and_states(
        self, tokens: Tensor, lengths: Tensor, draw: Draw | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and the last layer's states [B, T, H], zero beyond the lengths."""
        if draw is None and self.training and self.regularizer.random:
            draw = Draw.fresh()
        return self.classify(self.embed(tokens, draw, shift), lengths, draw)

    def embed(self, tokens: Tensor, draw: Draw | None = None, shift: Tensor | None = None) -> Tensor:
        """The words' vectors [B, T, D]; ``shift`` [B, T, D] is added to them, after the regularizer's masks."""
        embedded_BTD = self.mask_words(F.embedding(tokens, self.vectors), tokens, draw)
        return embedded_BTD if shift is None else embedded_BTD + shift

    def mask_words(self, embedded: Tensor, tokens: Tensor, draw: Draw | None) -> Tensor:
        """What the regularizer leaves of word vectors [B, T, D]: all of them without a draw."""
        if draw is None:
            return embedded
        return self.regularizer.words(embedded, tokens, draw.of_batch(len(tokens), tokens.device).at(WORDS))

    def classify(self, embedded: Tensor, lengths: Tensor, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`logits_and_states` of word vectors [B, T, D]."""
        states_BTH, h_LBH = self.gru(embedded, lengths=lengths, draw=draw)
        last_BH = h_LBH[-1]
        if draw is not None:
            here = draw.of_batch(len(last_BH), last_BH.device).at(BETWEEN_LAYERS, self.gru.num_layers - 1)
            last_BH = self.regularizer.between(last_BH, here)
        return self.head(last_BH), states_BTH

    def matrices(self) -> list[Tensor]:
        """The weight matrices of the layers and the head."""
        found = [matrix for layer in self.gru.layers() for matrix in (layer.weight_ih, layer.weight_hh)]
        return [*found, self.head.weight]

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: what a loss surface moves."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer(self.trainable().values())

    def setup(self, stage: str) -> None:
        """Before a training the defence gets to see the reviews and may change what is read of them.

        Raises:
            ValueError: the trainer was given no data module, and the defence needs one.
        """
        if stage != "fit" or self.defence.hooks.isdisjoint(("prepare", "texts")):
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError(f"defence={self.defence.name} needs the reviews: give trainer.fit a data module")
        self.defence.prepare(data)
        if "texts" in self.defence.hooks:
            data.rewrite = Rewriting(self.defence, self.seed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # The process is no part of it: a review's masks follow its place in the batch that all processes share.
        draw = Draw(mix(self.seed, self.current_epoch, batch_idx, 0), batch.places)
        here = draw.of_batch(len(batch.labels), batch.tokens.device).at(DELETION)
        tokens, lengths = self.defence.words(batch.tokens, batch.lengths, here)
        losses, logits = self.defence.losses(self, tokens, lengths, batch.labels, draw)
        loss = losses.mean() * batch.weight  # the processes' mean is then that over the batch that they share
        right = self.task.correct(self.task.probabilities(logits.detach()), batch.labels).mean().float()
        seen = {"train/loss": loss.detach(), "train/accuracy": right * batch.weight}
        size = batch.shared or len(batch.labels)
        self.log_dict(seen, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._score(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _score(self, batch: Any) -> None:
        count = len(batch.labels) if batch.weight else 0  # every process takes part when they are gathered
        self.metrics.update(self(batch.tokens, batch.lengths)[:count], batch.labels[:count])

    def _log_scores(self, stage: str) -> None:
        scores = self.metrics.compute()
        self.metrics.reset()
        if not torch.isfinite(scores["loss"]):
            loss, epoch = float(scores["loss"]), self.current_epoch + 1
            raise ValueError(f"{stage}/loss is {loss} in epoch {epoch}: try a lower optimizer.lr")
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()}, sync_dist=True)
