"""The loss surface of a trained run."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from gruland import runs
from gruland.progress import part


class LossSurface(pl.Callback):
    """The filter-normalized loss surface of the best checkpoint, see :mod:`gruland.landscape`.

    Args:
        surface: the settings in ``conf/landscape``; nothing is computed where they are not ``enabled``.
    """

    def __init__(self, surface: Any) -> None:
        from gruland.surfaces import check_settings, completed

        check_settings(completed(surface))  # now, not after the training
        self._surface = surface

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.surfaces import compute_run

        if self._surface["enabled"]:
            with part(0.8, 0.95):
                compute_run(runs.at(trainer.default_root_dir), self._surface, device=pl_module.device)
