"""Hooks between Lightning's loop and the rest: progress, metrics.csv, scores, loss surface, adversarial evaluation.

They run within ``trainer.fit`` and, on the checkpoint of least validation loss, at the end of ``trainer.test``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from gruland.evaluation import Scores, evaluate
from gruland.files import atomic_path
from gruland.progress import Progress, part
from gruland.runs import Run

if TYPE_CHECKING:
    from gruland.attack import Attack, Outcome


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's, which on resuming in a folder that was moved would forget the best epoch and overwrite it."""

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


def checkpoints(run: Run) -> list[ModelCheckpoint]:
    """Keep the epoch of least validation loss (section 5.1 of the paper) and the last one."""
    common: dict[str, Any] = {
        "dirpath": run.path / "checkpoints",
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    best = MovableCheckpoint(filename="best", monitor="val/loss", mode="min", save_top_k=1, **common)
    last = MovableCheckpoint(filename="last", save_top_k=1, every_n_epochs=1, **common)
    return [best, last]


class EpochWeights(pl.Callback):
    """Keep the weights before training (``epoch-0``) and after each epoch: the path that the training took."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._save(0, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer.current_epoch + 1, pl_module)

    def _save(self, epoch: int, pl_module: pl.LightningModule) -> None:
        with atomic_path(self._run.checkpoint(f"epoch-{epoch}")) as temporary:
            torch.save({"state_dict": pl_module.state_dict()}, temporary)


class TrainingProgress(pl.Callback):
    """One progress line for the whole training, with the time left."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches = int(trainer.num_training_batches)
        total, done = batches * (trainer.max_epochs or 0), batches * trainer.current_epoch
        self._progress = Progress(total, f"{self._label}: training", done=done)
        self._progress.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        assert self._progress is not None
        loss = trainer.callback_metrics.get("val/loss")
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.advance(1, epoch if loss is None else f"{epoch}, validation loss {loss:.3f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(type(exception), exception, None)


class MetricsFile(pl.Callback):
    """metrics.csv, a row an epoch. The rows travel in the checkpoint, so that a resumed run's file is whole."""

    COLUMNS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_f1")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seen = trainer.callback_metrics
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        for column in self.COLUMNS:
            row[column] = float(seen[column.replace("validation", "val").replace("_", "/", 1)])
        self.rows.append(row | {"seconds": round(time.monotonic() - self._start, 3)})
        self._write()

    def _write(self) -> None:
        import pandas as pd

        with atomic_path(self._run.path / "metrics.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)

    @property
    def training(self) -> dict[str, Any]:
        """The ``training`` entry of results.json."""
        best = min(self.rows, key=lambda row: row["validation_loss"])
        return {
            "epochs": len(self.rows),
            "best_epoch": int(best["epoch"]),
            "seconds": round(sum(row["seconds"] for row in self.rows), 3),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]


class SplitScores(pl.Callback):
    """Loss, accuracy and F1 on train, validation and test, of the best and of the last epoch's weights."""

    def __init__(self, run: Run, label: str) -> None:
        self._run, self._label = run, label

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if "metrics" in self._run.results:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it undeclared
        with part(0.75, 0.8), Progress(2 * len(data.splits), f"{self._label}: scores") as progress:
            metrics: dict[str, Any] = {}
            for which in ("best", "last"):
                if which == "last" and self._best_is_last():
                    metrics[which] = metrics["best"]
                    continue
                model = self._run.load_model(which).to(pl_module.device)
                metrics[which] = {}
                for split, reviews in data.splits.items():
                    metrics[which][split] = self._score(model, reviews).to_dict()
                    progress.advance()
        self._run.update_results(metrics=metrics)

    def _best_is_last(self) -> bool:
        training = self._run.results["training"]
        return training["best_epoch"] == training["epochs"]

    @staticmethod
    def _score(model: Any, reviews: Any) -> Scores:
        return evaluate(model, reviews.encoded, reviews.labels)


class LossSurface(pl.Callback):
    """The filter-normalized loss surface of the best checkpoint, see :mod:`gruland.landscape`."""

    def __init__(self, run: Run, settings: DictConfig) -> None:
        from gruland.surfaces import Surface

        self._run, self._surface = run, Surface.of(settings)  # refused now, not after the training

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.surfaces import compute_run

        with part(0.8, 0.95):
            compute_run(self._run, self._surface, device=pl_module.device)


class AdversarialEvaluation(pl.Callback):
    """Attacks on the model at the end of ``trainer.test`` and, where asked for, during training.

    It works in any Lightning project on a module that an attack can question (:class:`gruland.attack.Victim`)
    and that has, or whose data module has, the texts::

        class Sentiment(pl.LightningModule):
            task = Task("multiclass", ("negative", "positive"))

            def logits(self, texts: Sequence[str]) -> Tensor:            # [N, C], evaluation mode, on the CPU
                ...

            def labelled_texts(self, split: str) -> Texts:                # "validation" or "test"
                return Texts(ids, texts, labels)

        trainer = pl.Trainer(callbacks=[AdversarialEvaluation({"typing_errors": TypingErrors(rate=0.1)})])
        trainer.test(Sentiment())

    A module with a method ``draws`` (:class:`gruland.attack.RandomVictim`) is scored with dropout at test time, too.
    docs/examples/attack_any_module.py is a whole script.

    Args:
        attacks: by name.
        folder: where ``attack/<name>/`` gets its texts.csv and outcome.json; None: the trainer's
            ``default_root_dir``. A run's folder gets its texts.csv and an entry in results.json, see
            :func:`gruland.attack.evaluate_run`.
        every_n_epochs: attack the validation texts after every so many epochs as well and log
            ``attack/<name>/<form>/loss`` and ``.../accuracy``; None: not during training.

    Attributes:
        outcomes: by name, the latest :class:`gruland.attack.Outcome` of each attack outside a run's folder.

    Raises:
        ValueError: ``every_n_epochs`` below 1; a module that no attack can question.
    """

    def __init__(
        self,
        attacks: Mapping[str, Attack],
        folder: str | Path | None = None,
        every_n_epochs: int | None = None,
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}: expected a whole number of at least 1, or None"
            )
        self.attacks, self.folder, self.every_n_epochs = dict(attacks), folder, every_n_epochs
        self.outcomes: dict[str, Outcome] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = self.every_n_epochs
        if every is None or trainer.sanity_checking or (trainer.current_epoch + 1) % every:
            return
        for name, outcome in self._attack(trainer, pl_module, "validation"):
            for form, scores in outcome.results["scores"].items():
                for metric in ("loss", "accuracy"):
                    pl_module.log(f"attack/{name}/{form}/{metric}", scores["plain"][metric])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.attack import evaluate_run
        from gruland.attack.run import write_outcome
        from gruland.classifier import Classifier

        folder, data = Path(self.folder or trainer.default_root_dir), getattr(trainer, "datamodule", None)
        if isinstance(pl_module, Classifier) and (folder / "config.yaml").exists():
            with part(0.95, 1.0):  # the weights are those of the best checkpoint, which was tested
                evaluate_run(Run(folder), self.attacks, model=pl_module, data=data)
            return
        for name, outcome in self._attack(trainer, pl_module, "test"):
            write_outcome(outcome, self.attacks[name], folder / "attack" / name)

    def _attack(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str
    ) -> Iterator[tuple[str, Outcome]]:
        from gruland.attack.victims import of_module

        victim, texts = of_module(pl_module, getattr(trainer, "datamodule", None), split)
        for name, attack in self.attacks.items():
            self.outcomes[name] = attack(victim, texts)
            yield name, self.outcomes[name]
