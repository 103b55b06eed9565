"""The weights that a training leaves: the best epoch's, the last one's, and each one's where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from gruland.files import atomic_path


class Checkpoint(ModelCheckpoint):
    """Lightning's, in the folder ``checkpoints`` of the trainer's root.

    On resuming in a folder that was moved, Lightning's own would forget the best epoch and overwrite it.

    Args:
        filename: of the checkpoint, without ``.ckpt``.
        monitor: the value whose least epoch is kept; None keeps the last epoch.
    """

    def __init__(self, filename: str, monitor: str | None = None) -> None:
        super().__init__(
            filename=filename,
            monitor=monitor,
            save_top_k=1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Set before Lightning looks for a place itself: with a logger it would take the logger's folder.
        self.dirpath = str(Path(trainer.default_root_dir).absolute() / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state up, the paths in it where the run's folder is now."""
        state: dict[str, Any] = {
            key: self._here(value) if key.endswith("_path") else value for key, value in state_dict.items()
        }
        best: dict[str, Any] = state["best_k_models"]
        scores = {self._here(path): score for path, score in best.items()}
        super().load_state_dict({**state, "best_k_models": scores, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath), Path(path).name)) if path else path


class EpochWeights(pl.Callback):
    """Keep the weights before training (``epoch-0``) and after each epoch: the path that the training took."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._save(0, trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer.current_epoch + 1, trainer, pl_module)

    @staticmethod
    def _save(epoch: int, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints" / f"epoch-{epoch}.ckpt"
        with atomic_path(path) as temporary:
            torch.save({"state_dict": pl_module.state_dict()}, temporary)
