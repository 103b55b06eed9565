"""The loss surface of a LightningModule of your own, during its training and after it.

python docs/examples/surface_of_any_module.py FOLDER

A small LSTM learns made-up sequences for four epochs; FOLDER/landscape gets its surface after the second, after the
fourth, and at the end of the test.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from gruland.callbacks import LossSurface
from gruland.surfaces import Surface


class Sign(pl.LightningModule):
    """Says whether the first numbers of a sequence's steps add up to more than 0."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x_BTI, labels = batch
        loss = F.cross_entropy(self.head(self.lstm(x_BTI)[0][:, -1]), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val/loss", self.training_step(batch, index))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def loader(count: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    """Noise and its labels, 32 sequences a batch."""
    x_BTI = torch.randn(count, 20, 3)
    labels = (x_BTI[:, :, 0].sum(1) > 0).long()
    return DataLoader(TensorDataset(x_BTI, labels), batch_size=32, shuffle=shuffle)


def main(folder: Path, *callbacks: pl.Callback) -> Sign:
    """Train and test; the surfaces come from the callback."""
    pl.seed_everything(0)
    module, train, held_out = Sign(), loader(256, shuffle=True), loader(128)
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, train, held_out)
    trainer.test(module, held_out, verbose=False)
    return module


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/examples/surface_of_any_module.py FOLDER")
    main(Path(sys.argv[1]), LossSurface(Surface(size=7), every_n_epochs=2))
