"""A training whose loss is no number stops, and keeps what led to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gruland.weights import save_weights


class FiniteLoss(pl.Callback):
    """Stop at the first training loss that is not finite, before it reaches the weights.

    The batch and the weights as they were lie in ``not_finite.safetensors`` below the trainer's root: ``tokens``
    [B, T], ``lengths`` [B], ``labels``, ``ids`` [B] of the reviews in their source, and ``weights.<name>``.

    For runs of this package.

    Raises:
        ValueError: with the epoch, the batch and the file.
    """

    def __init__(self) -> None:
        self._batch: Any = None
        self._number = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _path(trainer).unlink(missing_ok=True)  # of an earlier try

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._number = batch, batch_idx

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if torch.isfinite(loss):
            return
        path = _path(trainer)
        weights = {f"weights.{name}": value for name, value in pl_module.state_dict().items()}
        save_weights({**self._tensors(trainer), **weights}, path)
        raise ValueError(
            f"train/loss is {loss.item()} in epoch {trainer.current_epoch + 1}, batch {self._number + 1}: try a lower "
            f"optimizer.lr; the batch and the weights are kept in {path}"
        )

    def _tensors(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        batch = self._batch
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it undeclared
        ids = torch.from_numpy(data.splits["train"].ids)[batch.rows.cpu()]
        return {"tokens": batch.tokens, "lengths": batch.lengths, "labels": batch.labels, "ids": ids}


def _path(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "not_finite.safetensors"
