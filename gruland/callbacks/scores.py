"""What the trained weights are worth on each split."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from gruland import runs
from gruland.evaluation import evaluate
from gruland.progress import Progress


class SplitScores(pl.Callback):
    """Loss, accuracy and F1 on train, validation and test, of the best and of the last epoch's weights.

    For runs of this package: it writes the entry ``metrics`` of results.json in the trainer's root.
    """

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = runs.at(trainer.default_root_dir)
        if "metrics" in run.results:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it undeclared
        training = run.results["training"]
        metrics: dict[str, Any] = {}
        with Progress(2 * len(data.splits), f"{run.path.name}: scores") as progress:
            for which in ("best", "last"):
                if which == "last" and training["best_epoch"] == training["epochs"]:
                    metrics[which] = metrics["best"]
                    continue
                model = run.load_model(which).to(pl_module.device)
                metrics[which] = {}
                for split, reviews in data.splits.items():
                    metrics[which][split] = evaluate(model, reviews.encoded, reviews.labels).to_dict()
                    progress.advance()
        run.update_results(metrics=metrics)
