"""What attacks do to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from gruland import runs

if TYPE_CHECKING:
    from gruland.attack import Attack, Outcome


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

    @torch.inference_mode(False)  # Lightning's mode has no gradients, which white-box attacks take
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = self.every_n_epochs
        if (
            every is None
            or trainer.sanity_checking
            or not trainer.is_global_zero
            or (trainer.current_epoch + 1) % every
        ):
            return
        for name, outcome in self._attack(trainer, pl_module, "validation"):
            for form, scores in outcome.results["scores"].items():
                for metric in ("loss", "accuracy"):
                    key, value = f"attack/{name}/{form}/{metric}", scores["plain"][metric]
                    pl_module.log(key, value, rank_zero_only=True)

    @torch.inference_mode(False)
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from gruland.attack import evaluate_run
        from gruland.attack.run import write_outcome
        from gruland.classifier import Classifier

        folder, data = Path(self.folder or trainer.default_root_dir), getattr(trainer, "datamodule", None)
        if isinstance(pl_module, Classifier) and (folder / "config.yaml").exists():
            # The weights are those of the best checkpoint, which was tested.
            evaluate_run(runs.at(folder), self.attacks, model=pl_module, data=data)
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
