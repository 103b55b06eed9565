"""How far the training is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from gruland.progress import Progress


class TrainingProgress(pl.Callback):
    """One progress line for the whole training, with the time left."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        batches = int(trainer.num_training_batches)
        total, done = batches * (trainer.max_epochs or 0), batches * trainer.current_epoch
        self._progress = Progress(total, f"{Path(trainer.default_root_dir).name}: training", done=done)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._progress is None:
            return
        loss = trainer.callback_metrics.get("val/loss")
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.advance(1, epoch if loss is None else f"{epoch}, validation loss {loss:.3f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress:
            self._progress.total = self._progress.done  # another callback may have stopped it early
            self._progress.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._progress:
            self._progress.close()
