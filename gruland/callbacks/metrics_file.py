"""metrics.csv: a row an epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from gruland.files import atomic_path


class MetricsFile(pl.Callback):
    """metrics.csv, a row an epoch. The rows travel in the checkpoint, so that a resumed run's file is whole."""

    COLUMNS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_f1")

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._path = Path(trainer.default_root_dir) / "metrics.csv"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seen = trainer.callback_metrics
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        for column in self.COLUMNS:
            row[column] = float(seen[column.replace("validation", "val").replace("_", "/", 1)])
        self.rows.append(row | {"seconds": round(time.monotonic() - self._start, 3)})
        self._write()

    @rank_zero_only
    def _write(self) -> None:
        import pandas as pd

        with atomic_path(self._path) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._write()  # whatever became of the file meanwhile
