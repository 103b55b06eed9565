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

from gruland.gru import GRU
from gruland.regularizers import NoDropout, Regularizer
from gruland.regularizers.draws import Masks, mix
from gruland.task import Task

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Classifier(pl.LightningModule):
    """Word vectors, GRU, tanh, GRU, and a linear layer on the last real step.

    Args:
        task: what the data set asks for; it decides the number of outputs and the loss.
        vectors: word vectors [V, D], row 0 for padding. Frozen, they are a buffer outside the checkpoint.
        hidden_size: H, units of each GRU layer.
        num_layers: GRU layers; the paper has two.
        between: activation between GRU layers, ``"tanh"`` in the paper.
        regularizer: an object of :mod:`gruland.regularizers`; None = nothing is regularized.
        initialization: ``"haste"`` or ``"torch"``, see :class:`gruland.GRU`.
        backend: ``"auto"`` or a backend's name, see :mod:`gruland.kernels`.
        precision: of the GRU's matrix products, ``"float32"`` or ``"bfloat16"``, see :class:`gruland.GRU`.
        freeze: keep the word vectors as they are (the default); else they are trained.
        optimizer: from parameters to an optimizer; Adam with default parameters in the paper.
        seed: training draws its masks from a generator that is seeded anew from ``seed`` and the step at each
            step, so that a resumed training repeats an undisturbed one.
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
        initialization: str = "haste",
        backend: str = "auto",
        precision: str = "float32",
        freeze: bool = True,
        optimizer: OptimizerFactory = torch.optim.Adam,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.task, self.seed, self._optimizer = task, seed, optimizer
        self.regularizer = NoDropout() if regularizer is None else regularizer
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
            zoneout=self.regularizer.zoneout,
            dropconnect=self.regularizer.dropconnect,
            init=initialization,
            backend=backend,
            precision=precision,
        )
        self.head = nn.Linear(hidden_size, task.num_outputs)
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {"val": [], "test": []}

    def forward(self, tokens: Tensor, lengths: Tensor, masks: list[Masks] | None = None) -> Tensor:
        """Logits [B, K] of word ids ``tokens`` [B, T] with ``lengths`` [B] real words each."""
        _, h_n = self.gru(F.embedding(tokens, self.vectors), lengths=lengths, masks=masks)
        return self.head(h_n[-1])

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: what a loss surface moves."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer(self.trainable().values())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A pure function of seed and step: the masks after a resumption are those of an undisturbed run.
        torch.manual_seed(mix(self.seed, self.global_step))

    def _remember(self, stage: str, logits: Tensor, labels: Tensor) -> None:
        self._seen[stage].append((logits.detach().float().cpu(), labels.cpu()))

    def _log_scores(self, stage: str) -> None:
        logits, labels = (torch.cat(parts) for parts in zip(*self._seen[stage], strict=True))
        self._seen[stage].clear()
        loss, probabilities = self.task.loss(logits, labels), self.task.probabilities(logits)
        if not torch.isfinite(loss):
            raise ValueError(
                f"{stage}/loss is {float(loss)} in epoch {self.current_epoch + 1}: try a lower optimizer.lr"
            )
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/accuracy", self.task.correct(probabilities, labels).mean().float())
        self.log(f"{stage}/f1", self.task.f1(probabilities, labels))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch.tokens, batch.lengths)
        loss = self.task.loss(logits, batch.labels)
        right = self.task.correct(self.task.probabilities(logits.detach()), batch.labels).mean().float()
        seen = {"train/loss": loss.detach(), "train/accuracy": right}
        self.log_dict(seen, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._remember("val", self(batch.tokens, batch.lengths), batch.labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._remember("test", self(batch.tokens, batch.lengths), batch.labels)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")
