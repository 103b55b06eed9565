"""The loss surface of a trained run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl

from gruland import runs
from gruland.progress import part

if TYPE_CHECKING:
    from gruland.surfaces import Surface


class LossSurface(pl.Callback):
    """The loss surface of the best checkpoint at the end of ``trainer.test``, see :mod:`gruland.surfaces`.

    Args:
        surface: what it shows; nothing is computed where it is not ``enabled``.
    """

    def __init__(self, surface: Surface) -> None:
        self.surface = surface

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.surfaces import compute_run

        if self.surface.enabled:
            with part(0.8, 0.95):
                compute_run(runs.at(trainer.default_root_dir), self.surface, device=pl_module.device)
