"""Lightning's average of the weights beside this package's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

import gruland
from gruland import config, runs
from gruland.callbacks import BestWeights, LastCheckpoint


class Tiny(pl.LightningModule):
    """A weight on its way from 0 to 1, whose validation loss is least at 0.4."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.validated: list[float] = []
        self.losses: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.w - 1).pow(2).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(float(self.w.detach()))
        self.losses.append((self.validated[-1] - 0.4) ** 2)
        self.log("val/loss", self.losses[-1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(folder: Path, epochs: int, checkpoint: Path | None = None) -> Tiny:
    module, batches = Tiny(), DataLoader(torch.zeros(4, 1), batch_size=1)
    averaging = config.instantiate(
        gruland.compose(
            "callbacks=[default,weight_averaging]", "callbacks.weight_averaging.decay=0.5"
        ).callbacks.weight_averaging
    )
    averaging.update_every_n_steps = 1
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[BestWeights(), LastCheckpoint(), averaging], default_root_dir=folder,
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, batches, DataLoader(torch.zeros(1, 1)), ckpt_path=checkpoint, weights_only=True)
    return module


def test_the_best_weights_are_the_average_that_was_validated(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 6)
    best = whole.validated[min(range(6), key=lambda epoch: whole.losses[epoch])]
    kept = load_file(tmp_path / "whole" / "checkpoints" / "best.safetensors")["w"]
    assert float(kept) == best
    trained = [1 - 0.9 ** (4 * (epoch + 1)) for epoch in range(6)]
    assert all(average < plain - 0.01 for average, plain in zip(whole.validated[:3], trained, strict=False))
    # The last weights are the average, too, and a training that was cut goes on as if it had not been.
    assert float(whole.w.detach()) == whole.validated[-1]
    fit(tmp_path / "cut", 3)
    resumed = fit(tmp_path / "cut", 6, tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert resumed.validated == whole.validated[3:]


def test_an_averaged_run_is_another_one() -> None:
    plain, averaged = gruland.compose(), gruland.compose("callbacks=[default,weight_averaging]")
    assert runs.name(plain) != runs.name(averaged)
    assert "weight_averaging" in OmegaConf.to_yaml(averaged.callbacks)
