"""The weights that a training leaves: the best epoch's, what it goes on from, each epoch's where they are asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from gruland.errors import one_line
from gruland.files import atomic_path
from gruland.weights import save_weights

log = logging.getLogger("gruland")


def _folder(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir).absolute() / "checkpoints"


@contextmanager
def _as_validated(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """The module with the weights that the validation saw: their average, where a callback of Lightning's makes one."""
    averaging = [item for item in trainer.callbacks if isinstance(item, WeightAveraging)]  # type: ignore[attr-defined]  # a connector sets it
    for callback in averaging:
        callback.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, pl_module)


class BestWeights(pl.Callback):
    """Keep the weights of the epoch of least ``val/loss`` in ``checkpoints/best.safetensors`` below the trainer's root.

    They travel in the checkpoint that a training goes on from, too: whatever became of the file meanwhile, and
    wherever the folder lies now, a resumed training has it as it was.
    """

    def __init__(self) -> None:
        self._least = math.inf
        self._weights: dict[str, Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._path = _folder(trainer) / "best.safetensors"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = float(trainer.callback_metrics["val/loss"])
        if value < self._least:
            with _as_validated(trainer, pl_module):
                weights = {key: part.cpu().clone() for key, part in pl_module.state_dict().items()}
            self._least, self._weights = value, weights
            self._save()

    def state_dict(self) -> dict[str, Any]:
        return {"least": self._least, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._least, self._weights = state_dict["least"], state_dict["weights"]
        self._save()

    @rank_zero_only
    def _save(self) -> None:
        save_weights(self._weights, self._path)


class LastCheckpoint(Checkpoint):
    """Keep Lightning's whole state after each epoch in ``checkpoints/last.ckpt``: a training goes on from there.

    It is written beside its place and renamed. Lightning's own ModelCheckpoint writes to the folder for temporary
    files and moves the file from there, which from another file system is a copy that a kill or a full disk cuts.

    A training that was stopped before its last epoch, by Lightning's EarlyStopping, say, is noted in it as ended.
    """

    def __init__(self) -> None:
        self._ended = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self._ended

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.should_stop and not self._ended:
            self._ended = True
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"ended": self._ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._ended = state_dict["ended"]

    @staticmethod
    def _save(trainer: pl.Trainer) -> None:
        path = _folder(trainer) / "last.ckpt"
        # Every process takes part; the first one writes.
        with atomic_path(path) if trainer.is_global_zero else nullcontext(path) as temporary:
            trainer.save_checkpoint(temporary)


def resumable(path: Path, model: nn.Module) -> Path | None:
    """The checkpoint that a training goes on from; one that is broken is removed, with a line that says so.

    Args:
        path: where :class:`LastCheckpoint` wrote it; it need not be there.
        model: with the weights' names and shapes.
    """
    if not path.exists():
        return None
    try:
        with ZipFile(path) as parts:  # torch does not look at the checksums that it writes
            if broken := parts.testzip():
                raise ValueError(f"{broken} is damaged")
        found = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in model.state_dict().items()}:
            raise ValueError("it is of another model")
    except Exception as error:  # torch raises many types for a broken file, each naming its own internals
        log.warning("%s cannot be read (%s): the training starts anew", path, one_line(error)[:200])
        path.unlink()
        return None
    return path


class EpochWeights(pl.Callback):
    """Keep the weights before training (``epoch-0``) and after each epoch: the path that the training took."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._save(0, trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer.current_epoch + 1, trainer, pl_module)

    @staticmethod
    @rank_zero_only
    def _save(epoch: int, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        save_weights(pl_module.state_dict(), _folder(trainer) / f"epoch-{epoch}.safetensors")
